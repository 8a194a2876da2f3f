#pragma once
/// @file
/// An optimizer chosen at run time.

#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1 {

/// Any optimizer for backend B: `AnyOptimizer<Cpu> optimizer = Muon{.lr = 2e-3};`. A program that offers several
/// optimizers then compiles one Trainer for each architecture. Checkpoints store the name of the optimizer inside: a
/// run of AnyOptimizer can be resumed with the optimizer itself, and the other way round. The constructor throws
/// OptionError for options that the optimizer's `check` refuses.
template <Backend B>
class AnyOptimizer {
 public:
  template <class O>
  requires(!std::same_as<O, AnyOptimizer> && Optimizer<O, B>)
      AnyOptimizer(O optimizer)  // NOLINT: implicit, as every optimizer is one
      : name(detail::optimizer_name(optimizer)), moments(optimizer.moments), lr(optimizer.lr) {
    detail::check_if_it_can(optimizer);
    if constexpr (PartOptimizer<O>) rates = optimizer.rates, decays = optimizer.decays;
    step_ = [optimizer](B& backend, const OptimizerStep<B>& at) { optimizer.step(backend, at); };
    scratch_ = [optimizer](B& backend, std::span<const Segment> segments) {
      return detail::optimizer_scratch(optimizer, backend, segments);
    };
  }

  void step(B& backend, const OptimizerStep<B>& at) const { step_(backend, at); }
  std::size_t scratch_bytes(B& backend, std::span<const Segment> segments) const { return scratch_(backend, segments); }

  std::string name;
  Index moments;
  double lr;  // the rate before the schedule's factor
  PartFactors rates = {}, decays = {};

 private:
  std::function<void(B&, const OptimizerStep<B>&)> step_;
  std::function<std::size_t(B&, std::span<const Segment>)> scratch_;
};

}  // namespace tinymoe::inline v0_1
