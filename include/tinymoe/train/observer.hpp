#pragma once
/// @file
/// Observers: callbacks of a run. A CSV file and a progress line are two of them.

#include <exception>
#include <utility>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// `Trainer::fit` calls these functions. Each does nothing unless it is overridden. References are valid during the
/// call only: copy what you keep.
///
/// The training clock stands still during a call, and the trainer may be used, to evaluate or to save. An exception of
/// an observer ends the run and reaches the caller of `fit`. Before that, the other observers get the same call, a
/// checkpoint that is due is written, and the steps done are saved. In a run of several ranks each rank calls its own
/// observers, and an exception of one ends the run on all; one that evaluates or saves must be on all ranks.
///
/// The calls come in the order of the run: step, evaluation, best checkpoints, latest checkpoint. In `on_step` the
/// trainer is as the step left it, and an exception there ends the run before the evaluation. A checkpoint that is due
/// waits for a slow observer and is not lost; do long work in a thread of your own.
class Observer {
 public:
  virtual ~Observer() = default;

  /// After each step, including those that float16 skips (`report.skipped`).
  virtual void on_step(const StepReport& /*report*/, const ExpertLoads& /*loads*/) {}
  /// Within an evaluation of `fit`, after each of its `all` batches. The trainer must not be used here.
  virtual void on_evaluation_progress(const StepReport& /*last*/, Index /*done*/, Index /*all*/) {}
  /// After each evaluation of `fit`; `last` is the step before it.
  virtual void on_evaluation(const StepReport& /*last*/, const EvaluationReport& /*evaluation*/) {}
  /// After each checkpoint: the latest, the best, or the best weights.
  virtual void on_checkpoint(const StepReport& /*last*/, const CheckpointReport& /*checkpoint*/) {}
  /// Once, after everything is saved, whether the run succeeded or failed.
  virtual void on_end(const StepReport& /*last*/, const EndReport& /*end*/) {}
};

namespace detail {

/// The observers of a run. An exception of one is stored, so that the others are still called.
class Observers {
 public:
  explicit Observers(std::vector<Observer*> observers) : observers_(std::move(observers)) {}

  /// Adds an observer that is called before the others.
  void add_first(Observer& observer) { observers_.insert(observers_.begin(), &observer); }

  /// f(observer) for each, in order.
  template <class F>
  void tell(F&& f) {
    for (Observer* observer : observers_) {
      try {
        f(*observer);
      } catch (...) {
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  /// The first exception, or null.
  const std::exception_ptr& error() const { return error_; }
  /// Throws the first exception, if there is one.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::vector<Observer*> observers_;
  std::exception_ptr error_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
