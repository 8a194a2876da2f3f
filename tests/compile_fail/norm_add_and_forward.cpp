// expected sentence: tinymoe: a norm's `add_and_forward` must be add_and_forward(backend, pass, p, residual, sum, y, saved)
#include <tinymoe/layers/contracts.hpp>
#include <tinymoe/layers/norm.hpp>

using namespace tinymoe;

struct Mine {
  template <Index D>
  struct Layer : RmsNorm::Layer<D> {
    template <Backend B, class P, class S>
#ifdef FIXED
    static void add_and_forward(B&, const Pass&, const P&, Input<B>, Output<B>, Output<B>, S&) {}
#else
    static void add_and_forward(B&, const Pass&, const P&, Input<B>, Output<B>, S&) {}
#endif
  };
};
static_assert(AddingNorm<Mine>);
