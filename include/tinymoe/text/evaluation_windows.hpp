#pragma once
/// @file
/// What an evaluation reads: all of a data set, once.

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/token_data.hpp"

namespace tinymoe::inline v0_1 {

/// Batches for evaluation: windows side by side, in order, such that each token but the first is a target exactly once.
/// The last windows are padded.
class EvaluationWindows {
 public:
  /// Throws ShapeError for an empty batch, TrainingError if the data has fewer than two tokens.
  EvaluationWindows(TokenData data, Index batch, Index time) : data_(std::move(data)), batch_(batch), time_(time) {
    detail::expect_positive(batch, time);
    if (data_.size() < 2) fail<TrainingError>("expected at least 2 tokens to evaluate, found ", data_.size());
  }

  Index batch() const { return batch_; }
  Index time() const { return time_; }
  /// Number of targets in all batches together.
  Index scored_tokens() const { return data_.size() - 1; }
  /// Number of batches that cover the data.
  Index batches() const { return (scored_tokens() + batch_ * time_ - 1) / (batch_ * time_); }

  /// Overwrites `inputs` and `targets` (B, T), row-major, with batch `index` in [0, batches()).
  /// Throws ShapeError if the spans are not B·T long or there is no such batch, FileError if the data is corrupt.
  void fill(Index index, std::span<Token> inputs, std::span<Token> targets) const {
    detail::expect_batch(batch_, time_, inputs, targets);
    if (index < 0 || index >= batches()) fail<ShapeError>("expected a batch below ", batches(), ", found ", index);
    const Index start = index * batch_ * time_;
    const auto length = static_cast<std::size_t>(std::min(batch_ * time_, scored_tokens() - start));
    data_.copy(start, inputs.first(length));
    data_.copy(start + 1, targets.first(length));
    std::ranges::fill(inputs.subspan(length), pad_token);
    std::ranges::fill(targets.subspan(length), pad_token);
  }

 private:
  TokenData data_;
  Index batch_ = 0, time_ = 0;
};

}  // namespace tinymoe::inline v0_1
