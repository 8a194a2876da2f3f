#pragma once
/// @file
/// Loss scaling: float16 has no gradients below 6e-8, so the loss is multiplied before backward and the gradients are
/// divided after it (Micikevicius et al. 2018, Mixed Precision Training, section 3.2).

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Whether gradients of activations in `Scalar` lose small values unless the loss is scaled. bfloat16 has float's
/// exponent and does not.
template <class Scalar>
inline constexpr bool needs_loss_scale = std::is_same_v<Scalar, float16>;

}  // namespace detail

/// The loss scale: the factor by which the loss is multiplied. It is a power of two, so that dividing by it is exact.
/// When a gradient overflows, the step is skipped and the factor halves. After `patience` steps without an overflow it
/// doubles. The start, the patience and the factors are those of PyTorch's GradScaler.
struct LossScale {
  static constexpr double start = 65536, max_value = 16777216;  // 2^16, 2^24
  static constexpr Index patience = 2000;

  double value = start;
  Index good_steps = 0;  // steps taken since it changed

  /// Call it after a step that was taken.
  void succeed() {
    if (++good_steps < patience) return;
    good_steps = 0;
    value = std::min(2 * value, max_value);
  }

  /// Call it after step number `step`, whose gradients were not finite. Throws TrainingError if the factor is 1
  /// already: then the factor is not what makes them too large.
  void shrink(Index step) {
    good_steps = 0;
    if (value <= 1) {
      fail<TrainingError>("step ", step, ": the gradients are not finite in float16 even without loss scaling; ",
                          "a lower learning rate may help, or bfloat16 or float32");
    }
    value /= 2;
  }

  /// Whether a run can reach this state.
  bool valid() const {
    int exponent = 0;
    return value >= 1 && value <= max_value && std::frexp(value, &exponent) == 0.5 && good_steps >= 0 &&
           good_steps < patience;
  }
};

}  // namespace tinymoe::inline v0_1
