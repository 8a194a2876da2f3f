// expected sentence: tinymoe: an optimizer's `scratch_bytes` must be std::size_t scratch_bytes(backend, segments)
#include <tinymoe/backend/reference.hpp>
#include <tinymoe/train/optimizer_step.hpp>

using namespace tinymoe;

struct Mine {
  static constexpr Index moments = 0;
  double lr = 1;
  template <Backend B>
  void step(B&, const OptimizerStep<B>&) const {}
  template <Backend B>
#ifdef FIXED
  std::size_t scratch_bytes(B&, std::span<const Segment>) const {
    return 8;
  }
#else
  std::size_t scratch_bytes(B&) const {
    return 8;
  }
#endif
};

std::size_t used(Reference<float>& backend) { return detail::optimizer_scratch(Mine{}, backend, {}); }
