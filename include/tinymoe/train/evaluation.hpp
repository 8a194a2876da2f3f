#pragma once
/// @file
/// The loss of a model over a data set, without gradients, noise or dropout; for weights of any format.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/passes.hpp"
#include "tinymoe/train/reports.hpp"
#include "tinymoe/train/token_slots.hpp"

namespace tinymoe::inline v0_1 {

/// Called after each of the `all` batches of an evaluation.
using EvaluationProgress = std::function<void(Index done, Index all)>;

namespace detail {

/// Throws MismatchError for data of a tokenizer with more tokens than the model's vocabulary.
template <class Architecture>
void check_vocabulary(const TokenData& data) {
  if (data.vocabulary_size() > Architecture::vocab) {
    fail<MismatchError>("the data's tokenizer has ", data.vocabulary_size(),
                        " tokens, more than the model's vocabulary of ", Architecture::vocab);
  }
}

/// The mean loss over all windows, of which each rank reads its share. The passes and slots are of the windows' shape.
/// The loss may be infinite or NaN.
template <class Passes, class Slots, class C>
EvaluationReport evaluate(Passes& passes, Slots& slots, const EvaluationWindows& windows, const TokenData& data,
                          C& communicator, const EvaluationProgress& on_progress = {}) {
  std::vector<Token> inputs(static_cast<std::size_t>(slots.size())), targets(inputs.size());
  EvaluationReport report;
  auto& tally = passes.tally();
  tally.clear();
  for (Index i = communicator.rank(); i < windows.batches(); i += communicator.size()) {
    windows.fill(i, inputs, targets);
    passes.evaluate(slots.take(0, i, inputs, targets));
    if (on_progress) on_progress(i + 1, windows.batches());
  }
  tally.read();
  tally.sum_over_ranks(communicator);
  tally.count_loads();
  report.loads = tally.loads();
  const double total = tally.cross_entropy();
  report.tokens = windows.scored_tokens();
  report.loss = total / static_cast<double>(report.tokens);
  if (data.text_bytes() > 0) report.bits_per_byte = total / 0.6931471805599453 / static_cast<double>(data.text_bytes());
  return report;
}

/// Where the numbers of an evaluation stop being finite: ", first in …", by making it again. Empty if all of this
/// rank's windows are finite.
template <class Passes, class Slots, class C>
[[gnu::cold]] std::string fault_of_evaluation(Passes& passes, Slots& slots, const EvaluationWindows& windows,
                                              const C& communicator) {
  std::vector<Token> inputs(static_cast<std::size_t>(slots.size())), targets(inputs.size());
  slots.forget();
  for (Index i = communicator.rank(); i < windows.batches(); i += communicator.size()) {
    windows.fill(i, inputs, targets);
    Pass pass = passes.evaluation();
    const std::string place = passes.look(pass, slots.take(0, i, inputs, targets));
    if (!place.empty()) return ", first in " + place;
  }
  return {};
}

}  // namespace detail

/// The mean loss of a model over all of `data`, in windows of (batch, time) without overlap; `time` = 0: the context.
/// Throws ShapeError, MismatchError and TrainingError for sizes or data that do not fit, and TrainingError for a loss
/// that is not finite; the message names the first operation in which a number was not.
template <class ModelType>
EvaluationReport evaluate(ModelType& model, const TokenData& data, Index batch = 16, Index time = 0,
                          const EvaluationProgress& on_progress = {}) {
  using Architecture = typename ModelType::Architecture;
  if (time == 0) time = Architecture::context;
  detail::check_vocabulary<Architecture>(data);
  const EvaluationWindows windows(data, batch, time);
  detail::Passes<ModelType> passes(model);
  passes.plan(batch, time, false);
  detail::TokenSlots<typename ModelType::BackendType> slots(model.backend(), batch * time);
  Alone alone;
  const EvaluationReport report = detail::evaluate(passes, slots, windows, data, alone, on_progress);
  if (!std::isfinite(report.loss)) {
    fail<TrainingError>("the validation loss is ", report.loss,
                        detail::fault_of_evaluation(passes, slots, windows, alone));
  }
  return report;
}

}  // namespace tinymoe::inline v0_1
