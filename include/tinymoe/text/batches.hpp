#pragma once
/// @file
/// Packed batches: windows of the data as it lies, stories and parts of stories side by side, and no token wasted. A
/// batch is a pure function of the seed and the step, so a resumed run gets the same batches.

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/random_permutation.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/token_data.hpp"

namespace tinymoe::inline v0_1 {

/// Packed training batches. An epoch cuts the data into windows, from a random offset on, and visits each once in a
/// random order; the last target of a window is the first input of the next. Steps flow from one epoch into the next.
class Batches {
 public:
  /// Throws ShapeError for an empty batch, TrainingError if the data is shorter than one window of `time` + 1 tokens.
  Batches(TokenData data, Index batch, Index time, Seed seed)
      : data_(std::move(data)), batch_(batch), time_(time), seed_(seed) {
    detail::expect_positive(batch, time);
    if (data_.size() < time + 1) {
      fail<TrainingError>("expected at least ", time + 1, " tokens for a window of ", time, ", found ", data_.size());
    }
    windows_ = std::max<Index>(1, (data_.size() - time) / time);
    offsets_ = data_.size() - windows_ * time;
  }

  Index batch() const { return batch_; }
  Index time() const { return time_; }
  /// Number of windows in an epoch.
  Index windows_per_epoch() const { return windows_; }
  /// Number of steps that visit each window of an epoch. The last one may hold windows of the next epoch.
  Index batches_per_epoch() const { return (windows_ + batch_ - 1) / batch_; }

  /// Where the window for row `row` of step `step` starts in the data.
  Index window_start(Index step, Index row) const {
    assert(step >= 0 && row >= 0 && row < batch_);
    const Index sample = step * batch_ + row, epoch = sample / windows_;
    const RandomStream stream(seed_, static_cast<std::uint32_t>(epoch), random_site::batches);
    const auto offset = static_cast<Index>(
        random_below(stream, std::numeric_limits<std::uint64_t>::max(), static_cast<std::uint64_t>(offsets_)));
    const detail::RandomPermutation order(stream, static_cast<std::uint64_t>(windows_));
    return offset + static_cast<Index>(order(static_cast<std::uint64_t>(sample % windows_))) * time_;
  }

  /// Overwrites `inputs` and `targets` (B, T), row-major, with the batch of a step >= 0; a target is the next input.
  /// Throws ShapeError if the spans are not B·T long or the step is negative, FileError if the data is corrupt.
  void fill(Index step, std::span<Token> inputs, std::span<Token> targets) const {
    detail::expect_batch(batch_, time_, inputs, targets);
    if (step < 0) fail<ShapeError>("expected a step from 0 on, found ", step);
    for (Index row = 0; row < batch_; ++row) {
      const Index start = window_start(step, row);
      data_.copy(start, detail::row_of(inputs, row, time_));
      data_.copy(start + 1, detail::row_of(targets, row, time_));
    }
  }

 private:
  TokenData data_;
  Index batch_ = 0, time_ = 0;
  Seed seed_;
  Index offsets_ = 1;  // an epoch starts at one of so many first tokens
  Index windows_ = 0;
};

}  // namespace tinymoe::inline v0_1
