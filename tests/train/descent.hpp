#pragma once
// A user's own optimizer: plain gradient descent. After one step at rate 1 the weights' change is the gradient.

#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test {

template <class M>
struct DescentStep {
  M *weights, *gradients;
  const Chunk* chunks;
  const M* clip;
  M rate;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    M *w = weights + chunks[part].offset, *g = gradients + chunks[part].offset;
    const M factor = rate * clip[1];
    group.each(chunks[part].size, [=](Index i) {
      w[i] -= factor * g[i];
      g[i] = M(0);
    });
  }
};

struct Descent {
  static constexpr Index moments = 0;
  double lr = 1;

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    using M = typename B::Master;
    backend.launch(at.chunks.cols,
                   DescentStep<M>{at.weights.data, at.gradients.data, at.chunks.data, at.clip.data, M(at.rate)});
  }
};
static_assert(Optimizer<Descent>);

/// The router losses are off: then the loss is a mean over tokens alone.
inline constexpr Settings no_router_losses{setting::balance_weight = 0, setting::z_weight = 0};

}  // namespace tinymoe_test
