#pragma once
/// @file
/// Learning-rate schedules: a factor in [0, 1] of the optimizer's rate.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <functional>
#include <utility>

#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// The progress of a run: its step, from 0, and the fraction of its budget (steps or minutes) that is spent.
struct Progress {
  Index step = 0;
  double fraction = 0;
};

/// A schedule returns the factor of a step, 0 or more. It is a pure function, so that a resumed run continues it. It
/// may have a `check()` of its options, see CheckedOptions (core/number_range.hpp).
template <class S>
concept Schedule = std::copyable<S> && requires(const S schedule, Progress progress) {
  { schedule(progress) } -> std::convertible_to<double>;
};

/// Any schedule, chosen at run time: `AnySchedule schedule = WarmupCosine{.warmup = 50};`. A program that offers
/// several schedules then compiles one Trainer for each architecture. An empty one must not be called.
class AnySchedule {
 public:
  AnySchedule() = default;
  /// Throws OptionError for options that the schedule's `check` refuses.
  template <class S>
  requires(!std::same_as<S, AnySchedule> && Schedule<S>)
      AnySchedule(S schedule) {  // NOLINT: implicit, as every schedule is one
    detail::check_if_it_can(schedule);
    factor_ = std::move(schedule);
  }

  double operator()(Progress progress) const { return factor_(progress); }

 private:
  std::function<double(Progress)> factor_;
};

namespace detail {

/// Half a cosine from `from` at 0 to `to` at 1; constant outside.
inline double half_cosine(double from, double to, double at) {
  return to + (from - to) * 0.5 * (1 + std::cos(3.141592653589793 * std::clamp(at, 0.0, 1.0)));
}

/// A linear warm-up that reaches 1 at step `warmup` − 1; for steps below `warmup`.
inline double warmup_factor(Index step, Index warmup) {
  return static_cast<double>(step + 1) / static_cast<double>(warmup);
}

}  // namespace detail

/// 1 after a linear warm-up.
struct Constant {
  Index warmup = 0;  // steps

  /// Throws OptionError, naming the option.
  void check() const { detail::check_options("Constant", {{"warmup", warmup, detail::range::whole(0)}}); }

  double operator()(Progress progress) const {
    return progress.step < warmup ? detail::warmup_factor(progress.step, warmup) : 1.0;
  }
};

/// A linear warm-up to 1, then half a cosine down to `floor` (Loshchilov and Hutter 2017).
/// With `steps` = 0 the cosine spans the run's budget of steps or minutes, and the factor is the minimum of warm-up and
/// cosine, so that it does not jump after a long warm-up.
struct WarmupCosine {
  Index warmup = 100;  // steps
  Index steps = 0;     // of the whole schedule, warm-up included
  double floor = 0.1;

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("WarmupCosine",
                          {{"warmup", warmup, whole(0)}, {"steps", steps, whole(0)}, {"floor", floor, from_0_to_1}});
  }

  double operator()(Progress progress) const {
    const double rising = progress.step < warmup ? detail::warmup_factor(progress.step, warmup) : 1.0;
    if (steps == 0) return std::min(rising, detail::half_cosine(1, floor, progress.fraction));
    if (progress.step < warmup) return rising;
    const double done =
        static_cast<double>(progress.step - warmup) / static_cast<double>(std::max<Index>(1, steps - warmup));
    return detail::half_cosine(1, floor, done);
  }
};

/// One cycle (Smith and Topin 2018) as in PyTorch's OneCycleLR with two phases: half a cosine up from 1/`start_divisor`
/// to 1 over the share `warmup` of the schedule, then half a cosine down to 1/(`start_divisor` · `end_divisor`).
///
/// With `steps` = n, each step has exactly PyTorch's factor: the peak is at step warmup·n − 1 and the end at step n
/// − 1. With `steps` = 0 the phases are shares of the run's budget of steps or minutes.
struct OneCycle {
  double warmup = 0.3;  // share of the schedule
  Index steps = 0;      // of the whole schedule
  double start_divisor = 25;
  double end_divisor = 1e4;

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("OneCycle", {{"warmup", warmup, from_0_to_1},
                                       {"steps", steps, whole(0)},
                                       {"start_divisor", start_divisor, from_1},
                                       {"end_divisor", end_divisor, from_1}});
  }

  double operator()(Progress progress) const {
    const double start = 1 / start_divisor, end = start / end_divisor;
    double at = progress.fraction, peak = warmup, last = 1;
    if (steps > 0) {
      at = static_cast<double>(progress.step);
      peak = warmup * static_cast<double>(steps) - 1, last = static_cast<double>(steps - 1);
    }
    if (at < peak) return detail::half_cosine(start, 1, at / peak);
    return detail::half_cosine(1, end, last > peak ? (at - peak) / (last - peak) : 0);
  }
};

/// How a rate falls from 1 to 0 as x goes from 0 to 1.
enum class DecayShape {
  one_minus_root,  // 1 − sqrt(x), the best of those compared by Hägele et al. 2024
  linear           // 1 − x
};

/// Warm-up, stable, decay (Hu et al. 2024): a linear warm-up to 1, then constant, then down to `floor` over the last
/// share `decay` of the schedule. Only the decay depends on the length of the run, so that a run can be prolonged from
/// a checkpoint before the decay. With `steps` = 0 the schedule spans the run's budget of steps or minutes.
struct WarmupStableDecay {
  Index warmup = 100;  // steps
  double decay = 0.2;  // share of the schedule
  DecayShape shape = DecayShape::one_minus_root;
  double floor = 0;
  Index steps = 0;  // of the whole schedule, warm-up included

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("WarmupStableDecay", {{"warmup", warmup, whole(0)},
                                                {"decay", decay, from_0_to_1},
                                                {"floor", floor, from_0_to_1},
                                                {"steps", steps, whole(0)}});
  }

  double operator()(Progress progress) const {
    if (progress.step < warmup) return detail::warmup_factor(progress.step, warmup);
    double done = progress.fraction;
    if (steps > 0) done = static_cast<double>(progress.step) / static_cast<double>(steps);
    if (done <= 1 - decay) return 1;
    const double x = std::clamp((done - (1 - decay)) / decay, 0.0, 1.0);
    return floor + (1 - floor) * (shape == DecayShape::linear ? 1 - x : 1 - std::sqrt(x));
  }
};

static_assert(Schedule<Constant> && Schedule<WarmupCosine> && Schedule<OneCycle> && Schedule<WarmupStableDecay> &&
              Schedule<AnySchedule>);

}  // namespace tinymoe::inline v0_1
