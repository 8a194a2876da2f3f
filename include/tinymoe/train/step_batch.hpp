#pragma once
/// @file
/// The tokens of one step: their requirements, and their counts.

#include <cstddef>
#include <span>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/train/token_slots.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The batch of one rank in one step: the tokens on the host, and the slots that bring them to the backend.
template <Backend B>
struct StepBatch {
  std::span<const Token> inputs,
      targets;                // micro-batches · B · T; a negative input is a pad, a negative target is not scored
  Index batch = 1, time = 0;  // B, T
  Index step = 0;             // by which the slots find its tokens
  TokenSlots<B>* slots = nullptr;

  Index micro_batches() const { return std::ssize(inputs) / (batch * time); }
  /// Micro-batch i on the backend, valid until the next call.
  MicroBatch micro_batch(Index i) const {
    const Index size = batch * time;
    return slots->take(step, i, detail::row_of(inputs, i, size), detail::row_of(targets, i, size));
  }
};

/// Counts of a step's tokens, of one rank or of all. Both are whole numbers.
struct StepTotals {
  double scored = 0;  // targets
  double tokens = 0;  // inputs that are no pads
};

/// Throws ShapeError unless inputs and targets are one or more micro-batches of (batch, time).
inline void check_sizes(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time) {
  if (batch < 1 || time < 1 || inputs.empty() || inputs.size() != targets.size() ||
      std::ssize(inputs) % (batch * time) != 0) {
    fail<ShapeError>("expected inputs and targets of a multiple of ", batch, " x ", time, " tokens, found ",
                     inputs.size(), " and ", targets.size());
  }
}

/// Counts the tokens. Throws TextError unless all are below the vocabulary and pads are at the ends of sequences.
template <Backend B>
StepTotals count_tokens(const StepBatch<B>& batch, Index vocabulary) {
  const auto &inputs = batch.inputs, &targets = batch.targets;
  Index scored = 0, pads = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (const Token token : {inputs[i], targets[i]}) {
      if (token >= vocabulary) fail<TextError>("token ", token, " is outside the vocabulary of ", vocabulary);
    }
    if (inputs[i] >= 0 && i % static_cast<std::size_t>(batch.time) > 0 && inputs[i - 1] < 0) {
      fail<TextError>("a token follows a pad at ", i, " of the batch; pads must be at a sequence's end");
    }
    if (inputs[i] < 0 && targets[i] >= 0) {
      fail<TextError>("a pad at ", i, " of the batch has the target ", targets[i], "; expected -1");
    }
    scored += targets[i] >= 0 ? 1 : 0;
    pads += inputs[i] < 0 ? 1 : 0;
  }
  return {.scored = static_cast<double>(scored), .tokens = static_cast<double>(std::ssize(inputs) - pads)};
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
