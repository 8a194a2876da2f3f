#pragma once
/// @file
/// Lion: an optimizer that steps by the sign of its momentum and keeps one moment only.

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One chunk of Lion; the gradient is left zero for the next step.
template <class T, class M>
struct LionStep {
  static constexpr bool long_rows = true;
  M* weights;
  T* copy;  // the weights in the layers' type; null where layers read `weights`
  M* gradients;
  M* mean;
  const Chunk* chunks;
  const M* clip;  // the gradients' norm and the factor that clips it
  M rate, decay, beta1, beta2;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    for_each_changed(group, chunks[part], gradients, [&](const Chunk& chunk) { change(group, chunk); });
  }

 private:
  template <class Group>
  TINYMOE_EVERYWHERE void change(Group group, const Chunk& chunk) const {
    M *w = weights + chunk.offset, *g = gradients + chunk.offset, *m = mean + chunk.moment;
    const M scale = clip[1], step = rate * M(chunk.rate), b1 = beta1, b2 = beta2;
    const M keep = M(1) - step * (decay * M(chunk.decay));
    const auto move = [=](M& weight, M& gradient, M& average) {
      const M slope = gradient * scale;
      const auto direction = real_part(b1 * average + (M(1) - b1) * slope);
      weight = keep * weight - (direction > 0 ? step : (direction < 0 ? -step : M(0)));
      average = b2 * average + (M(1) - b2) * slope;
      gradient = M(0);
    };
    if (copy == nullptr) {
      group.each(chunk.size, move, w, g, m);
    } else {
      const auto move_and_copy = [=](M& weight, M& gradient, M& average, T& to) {
        move(weight, gradient, average);
        to = T(weight);
      };
      group.each(chunk.size, move_and_copy, w, g, m, write_only(copy + chunk.offset));
    }
  }
};

}  // namespace kernels

/// Lion (Chen et al. 2023, algorithm 2); norms' gains and biases do not decay, and rows of a
/// table that no token of a step met stay as they are, with their moment.
///
///     w = w (1 − lr·decay) − lr · sign(β₁ m + (1−β₁) g);  m = β₂ m + (1−β₂) g        sign(0) = 0
///
/// Every weight moves by lr. Choose lr 3 to 10 times smaller than AdamW's and the decay larger by the same factor
/// (section 5 there). The defaults use a factor of 5.
struct Lion {
  static constexpr const char* name = "lion";
  static constexpr Index moments = 1;
  double lr = 2e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0.5;
  PartFactors rates = {}, decays = {};  // of lr and of weight_decay, for each part of a model

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("Lion", {{"lr", lr, from_0},
                                   {"beta1", beta1, from_0_below_1},
                                   {"beta2", beta2, from_0_below_1},
                                   {"weight_decay", weight_decay, from_0}});
    detail::check_factors("Lion", lr, weight_decay, rates, decays);
  }

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    backend.launch(at.chunks.cols, kernels::LionStep<T, M>{at.weights.data, at.copy.data, at.gradients.data,
                                                           at.moments[0].data, at.chunks.data, at.clip.data, M(at.rate),
                                                           M(weight_decay), M(beta1), M(beta2)});
  }
};
static_assert(Optimizer<Lion> && PartOptimizer<Lion> && CheckedOptions<Lion>);

}  // namespace tinymoe::inline v0_1
