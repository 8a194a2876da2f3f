#pragma once
/// @file
/// Observers: who is told of a run as it goes. A CSV and a progress line are two of them.

#include <exception>
#include <utility>
#include <vector>

#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// Told of a run by `Trainer::fit`; each function does nothing unless it is overridden. References are good for the
/// call; what is to be kept is copied.
///
/// The clock of training stands still meanwhile, and the trainer may be used: to evaluate, or to save. What an observer
/// throws ends the run and reaches the caller of `fit`, after the other observers have been told the same, the
/// checkpoint that was due has been written and the steps done have been saved. In a run of several ranks each tells
/// its own observers.
///
/// The order is that of the run: step, evaluation, best checkpoints, latest checkpoint. So an observer of a step finds
/// the trainer as the step left it, and one that throws ends the run before the evaluation. The checkpoint that is due
/// waits for a slow observer and is not lost; long work belongs in a thread of the observer's own.
class Observer {
 public:
  virtual ~Observer() = default;

  /// After each step, and after one that float16 skipped (`report.skipped`).
  virtual void on_step(const StepReport& /*report*/, const ExpertLoads& /*loads*/) {}
  /// After each evaluation of `fit`; `last` is the step before it.
  virtual void on_evaluation(const StepReport& /*last*/, const EvaluationReport& /*evaluation*/) {}
  /// After each checkpoint, the best ones too.
  virtual void on_checkpoint(const StepReport& /*last*/, const CheckpointReport& /*checkpoint*/) {}
  /// Once, when all is done and saved, however the run ended.
  virtual void on_end(const StepReport& /*last*/, const EndReport& /*end*/) {}
};

namespace detail {

/// The observers of a run. What one of them throws is kept, so that the others are told none the less.
class Observers {
 public:
  explicit Observers(std::vector<Observer*> observers) : observers_(std::move(observers)) {}

  /// One more, who is told before the others.
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

  /// The first that was thrown, or null.
  const std::exception_ptr& error() const { return error_; }
  /// Throws it, if there is one.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::vector<Observer*> observers_;
  std::exception_ptr error_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
