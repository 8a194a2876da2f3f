#pragma once
/// @file
/// Adam with decoupled weight decay.

#include <cmath>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One chunk of AdamW; the gradient is left zero for the next step.
template <class T, class M>
struct AdamWStep {
  static constexpr bool long_rows = true;
  M* weights;
  T* copy;  // the weights in the layers' type; null where layers read `weights`
  M* gradients;
  M *mean, *square;
  const Chunk* chunks;
  const M* clip;  // the gradients' norm and the factor that clips it
  M rate, decay, beta1, beta2, epsilon, mean_correction, square_correction;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    kernels::for_each_changed(group, chunks[part], gradients, [&](const Chunk& chunk) { change(group, chunk); });
  }

 private:
  template <class Group>
  TINYMOE_EVERYWHERE void change(Group group, const Chunk& chunk) const {
    M *w = weights + chunk.offset, *g = gradients + chunk.offset, *m = mean + chunk.moment, *v = square + chunk.moment;
    const M scale = clip[1], b1 = beta1, b2 = beta2, eps = epsilon;
    const M of_part = rate * M(chunk.rate);
    const M step = of_part / mean_correction, root = M(1) / std::sqrt(square_correction);
    const M keep = M(1) - of_part * (decay * M(chunk.decay));
    const auto move = [=](M& weight, M& gradient, M& first, M& second) {
      // All reads come before all writes, so that the kernel waits for memory once.
      const M slope = gradient * scale, old_mean = first, old_square = second, old = weight;
      const M new_mean = b1 * old_mean + (M(1) - b1) * slope;
      const M new_square = b2 * old_square + (M(1) - b2) * slope * slope;
      const M moved = keep * old - step * new_mean / (square_root(new_square) * root + eps);
      first = new_mean, second = new_square, gradient = M(0), weight = moved;
    };
    if (copy == nullptr) {
      group.each(chunk.size, move, w, g, m, v);
    } else {
      const auto move_and_copy = [=](M& weight, M& gradient, M& first, M& second, T& to) {
        move(weight, gradient, first, second);
        to = T(weight);
      };
      group.each(chunk.size, move_and_copy, w, g, m, v, write_only(copy + chunk.offset));
    }
  }
};

}  // namespace kernels

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019); norms' gains and biases do not decay, and rows of a
/// table that no token of a step met stay as they are, with their moments. The corrections of m̂ and v̂ count all steps,
/// so such a row moves less when it is met, about half of lr the first time: give tables a higher rate.
///
///     m = β₁ m + (1−β₁) g;  v = β₂ v + (1−β₂) g²;  w = w (1 − lr·decay) − lr · m̂ / (sqrt(v̂) + ε)
struct AdamW {
  static constexpr const char* name = "adamw";
  static constexpr Index moments = 2;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  PartFactors rates = {}, decays = {};  // of lr and of weight_decay, for each part of a model

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("AdamW", {{"lr", lr, from_0},
                                    {"beta1", beta1, from_0_below_1},
                                    {"beta2", beta2, from_0_below_1},
                                    {"epsilon", epsilon, above_0},
                                    {"weight_decay", weight_decay, from_0}});
    detail::check_factors("AdamW", lr, weight_decay, rates, decays);
  }

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    backend.launch(at.chunks.cols, kernel(at));
  }

  /// The kernel of one step: a row for each chunk.
  template <Backend B>
  kernels::AdamWStep<typename B::Scalar, typename B::Master> kernel(const OptimizerStep<B>& at) const {
    using M = typename B::Master;
    const double count = static_cast<double>(at.step + 1);
    return {at.weights.data,
            at.copy.data,
            at.gradients.data,
            at.moments[0].data,
            at.moments[1].data,
            at.chunks.data,
            at.clip.data,
            M(at.rate),
            M(weight_decay),
            M(beta1),
            M(beta2),
            M(epsilon),
            M(1 - std::pow(beta1, count)),
            M(1 - std::pow(beta2, count))};
  }
};
static_assert(Optimizer<AdamW> && PartOptimizer<AdamW> && CheckedOptions<AdamW>);

}  // namespace tinymoe::inline v0_1
