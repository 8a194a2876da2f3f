#pragma once
// An observer made of functions, for tests that want to look at a run or to disturb it.

#include <functional>
#include <utility>

#include "tinymoe/train/observer.hpp"

namespace tinymoe_test {

using namespace tinymoe;

struct Callbacks : Observer {
  std::function<void(const StepReport&)> step = {};
  std::function<void(const StepReport&, const EvaluationReport&)> evaluation = {};
  std::function<void(const StepReport&, const CheckpointReport&)> checkpoint = {};
  std::function<void(const StepReport&, const EndReport&)> end = {};

  void on_step(const StepReport& report, const ExpertLoads&) override {
    if (step) step(report);
  }
  void on_evaluation(const StepReport& last, const EvaluationReport& report) override {
    if (evaluation) evaluation(last, report);
  }
  void on_checkpoint(const StepReport& last, const CheckpointReport& report) override {
    if (checkpoint) checkpoint(last, report);
  }
  void on_end(const StepReport& last, const EndReport& report) override {
    if (end) end(last, report);
  }
};

/// One that is told of steps alone.
inline Callbacks on_each_step(std::function<void(const StepReport&)> f) {
  Callbacks callbacks;
  callbacks.step = std::move(f);
  return callbacks;
}

}  // namespace tinymoe_test
