#pragma once
/// @file
/// Optimizers: one pass over the one buffer of weights.

#include <cmath>
#include <vector>

#include "tinymoe/layers/model.hpp"

namespace tinymoe {

/// A piece of the weights' buffer, none of which crosses a tensor's end: one kernel row of an optimizer.
struct Chunk {
  static constexpr Index largest = 16384;
  Index offset = 0;
  std::int32_t size = 0;
  std::int32_t decay = 0;  // whether weight decay applies
};

namespace kernels {

/// partial[chunk] = Σ g².
template <class M>
struct SquaredSum {
  const M* gradients;
  const Chunk* chunks;
  M* partial;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const M* g = gradients + chunks[part].offset;
    const M total = group.sum(chunks[part].size, [=](Index i) { return g[i] * g[i]; });
    group.once([&] { partial[part] = total; });
  }
};

/// result[0] = the norm of all gradients; result[1] = what to multiply them by so that it is at most `limit`.
template <class M>
struct ClipScale {
  const M* partial;
  Index count;
  double limit;  // 0: no limit
  M* result;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const M* squares = partial;
    const M norm = std::sqrt(group.sum(count, [=](Index i) { return squares[i]; }));
    group.once([&] {
      result[0] = norm;
      result[1] = limit > 0 && real_part(norm) > limit ? M(limit) / norm : M(1);
    });
  }
};

/// One chunk of AdamW; the gradient is left zero for the next step.
template <class T, class M>
struct AdamWStep {
  M* weights;
  T* copy;  // what layers read, or null where that is `weights`
  M* gradients;
  M *mean, *square;
  const Chunk* chunks;
  const M* clip;  // the gradients' norm and the factor that clips it
  M rate, decay, beta1, beta2, epsilon, mean_correction, square_correction;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Chunk chunk = chunks[part];
    M *w = weights + chunk.offset, *g = gradients + chunk.offset, *m = mean + chunk.offset, *v = square + chunk.offset;
    const M scale = clip[1], b1 = beta1, b2 = beta2, eps = epsilon;
    const M step = rate / mean_correction, root = M(1) / std::sqrt(square_correction);
    const M keep = chunk.decay != 0 ? M(1) - rate * decay : M(1);
    group.each(chunk.size, [=](Index i) {
      const M gradient = g[i] * scale;
      m[i] = b1 * m[i] + (M(1) - b1) * gradient;
      v[i] = b2 * v[i] + (M(1) - b2) * gradient * gradient;
      w[i] = keep * w[i] - step * m[i] / (std::sqrt(v[i]) * root + eps);
      g[i] = M(0);
    });
    if (copy != nullptr) {
      T* to = copy + chunk.offset;
      group.each(chunk.size, [=](Index i) { to[i] = T(w[i]); });
    }
  }
};

}  // namespace kernels

/// What an optimizer's step works on: rows of `Model::size` elements.
template <Backend B>
struct OptimizerStep {
  MasterOutput<B> weights;
  Output<B> copy;  // empty where the layers read `weights`
  MasterOutput<B> gradients;
  std::vector<MasterOutput<B>> moments;
  View<const Chunk> chunks;  // (1, n)
  MasterInput<B> clip;       // (1, 2): the gradients' norm and the factor to multiply them by
  double rate = 0;           // the learning rate of this step
  Index step = 0;            // from 0
};

/// An optimizer: its real-valued settings, how many arrays of the weights' size it keeps, and a step, which also leaves
/// the gradients zero.
template <class O>
concept Optimizer = std::copyable<O> &&
    requires(const O optimizer, detail::DeclaredBackend& backend, const OptimizerStep<detail::DeclaredBackend>& step) {
  { O::moments } -> std::convertible_to<Index>;
  { optimizer.lr } -> std::convertible_to<double>;
  optimizer.step(backend, step);
};

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019); norms' gains and biases do not decay.
///
///     m = β₁ m + (1−β₁) g;  v = β₂ v + (1−β₂) g²;  w = w (1 − lr·decay) − lr · m̂ / (sqrt(v̂) + ε)
struct AdamW {
  static constexpr Index moments = 2;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    const double count = static_cast<double>(at.step + 1);
    backend.launch(at.chunks.cols,
                   kernels::AdamWStep<T, M>{at.weights.data, at.copy.data, at.gradients.data, at.moments[0].data,
                                            at.moments[1].data, at.chunks.data, at.clip.data, M(at.rate),
                                            M(weight_decay), M(beta1), M(beta2), M(epsilon),
                                            M(1 - std::pow(beta1, count)), M(1 - std::pow(beta2, count))});
  }
};

/// The chunks of a model's tensors.
template <class Parameters>
std::vector<Chunk> chunks_of() {
  std::vector<Chunk> chunks;
  for (const Segment& segment : segments<Parameters>()) {
    if (!segment.trained) continue;
    for (Index first = 0; first < segment.size(); first += Chunk::largest) {
      chunks.push_back({segment.offset + first,
                        static_cast<std::int32_t>(std::min(Chunk::largest, segment.size() - first)),
                        segment.decay ? 1 : 0});
    }
  }
  return chunks;
}

}  // namespace tinymoe
