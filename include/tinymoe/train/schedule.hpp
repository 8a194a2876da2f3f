#pragma once
/// @file
/// Learning-rate schedules: a factor in [0, 1] of the optimizer's rate.

#include <algorithm>
#include <cmath>
#include <concepts>

#include "tinymoe/core/platform.hpp"

namespace tinymoe {

/// How far a run is: its step, from 0, and the fraction of its budget that is spent (of steps, or of minutes).
struct Progress {
  Index step = 0;
  double fraction = 0;
};

/// A schedule gives the factor for a step: a pure function, so that a resumed run continues it.
template <class S>
concept Schedule = std::copyable<S> && requires(const S schedule, Progress progress) {
  { schedule(progress) } -> std::convertible_to<double>;
};

/// 1 after a linear warm-up.
struct Constant {
  Index warmup = 0;  // steps

  double operator()(Progress progress) const {
    return progress.step < warmup ? static_cast<double>(progress.step + 1) / static_cast<double>(warmup) : 1.0;
  }
};

/// A linear warm-up to 1, then half a cosine down to `floor` (Loshchilov and Hutter 2017).
/// With `steps` = 0 the cosine spans the run's budget, be it steps or minutes.
struct WarmupCosine {
  Index warmup = 100;  // steps
  Index steps = 0;     // of the whole schedule, warm-up included
  double floor = 0.1;

  double operator()(Progress progress) const {
    if (progress.step < warmup) return static_cast<double>(progress.step + 1) / static_cast<double>(warmup);
    double done = progress.fraction;
    if (steps > 0) {
      done = static_cast<double>(progress.step - warmup) / static_cast<double>(std::max<Index>(1, steps - warmup));
    }
    return floor + (1 - floor) * 0.5 * (1 + std::cos(3.141592653589793 * std::clamp(done, 0.0, 1.0)));
  }
};

}  // namespace tinymoe
