// expected sentence: tinymoe: a router's `within_capacity` must be View<const std::int32_t> within_capacity(backend, pass, dispatch, saved)
#include <tinymoe/layers/moe.hpp>

using namespace tinymoe;

struct Mine {
  static constexpr Index experts = 4, choices = 2;
  template <Index D>
  struct Layer : Router<4, 2>::Layer<D> {
    template <Backend B, class S>
#ifdef FIXED
    static View<const std::int32_t> within_capacity(B&, const Pass&, const Dispatch&, S&) {
      return {};
    }
#else
    static bool within_capacity(B&, const Pass&, const Dispatch&, S&) {
      return false;
    }
#endif
  };
};
static_assert(RouterKind<Mine>);
