// expected sentence: tinymoe: a router's `after_step` must be after_step(backend, pass, p, masters, saved)
#include <tinymoe/layers/moe.hpp>

using namespace tinymoe;

struct Mine {
  static constexpr Index experts = 4, choices = 2;
  template <Index D>
  struct Layer : Router<4, 2>::Layer<D> {
    template <Backend B, class P, class S>
#ifdef FIXED
    static void after_step(B&, const Pass&, const P&, const P&, S&) {}
#else
    static void after_step(B&, const P&, S&) {}
#endif
  };
};
static_assert(RouterKind<Mine>);
