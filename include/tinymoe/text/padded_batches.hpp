#pragma once
/// @file
/// Padded batches: one story in each row, from its start, and pads after its end. Like packed ones they are a pure
/// function of the seed and the step.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/random_permutation.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/token_data.hpp"

namespace tinymoe::inline v0_1 {

/// Padded training batches: one story in each row. A row starts with the end of a story, as a generator does, goes on
/// with the story, and predicts it and its end:
///
///     inputs   end  s_0  s_1 … s_n-1   pad …
///     targets  s_0  s_1  …     end     pad …
///
/// A story that is longer than a row is cut. An epoch visits each story once in a random order; steps flow from one
/// epoch into the next.
class PaddedBatches {
 public:
  /// Finds the stories, once: each ends with `end_of_story`, the last one perhaps with the data. Throws ShapeError for
  /// an empty batch, TrainingError if the data has no story, FileError if it is corrupt.
  PaddedBatches(TokenData data, Token end_of_story, Index batch, Index time, Seed seed)
      : data_(std::move(data)), end_(end_of_story), batch_(batch), time_(time), seed_(seed) {
    detail::expect_positive(batch, time);
    find_stories();
    if (stories() == 0) fail<TrainingError>("expected a story to train on, found none in ", data_.size(), " tokens");
  }

  Index batch() const { return batch_; }
  Index time() const { return time_; }
  /// Number of stories in an epoch: those of at least one token besides their end.
  Index stories() const { return std::ssize(stories_); }
  /// Number of steps that visit each story of an epoch. The last one may hold stories of the next epoch.
  Index batches_per_epoch() const { return (stories() + batch_ - 1) / batch_; }

  /// Which story row `row` of step `step` holds.
  Index story(Index step, Index row) const {
    assert(step >= 0 && row >= 0 && row < batch_);
    const Index sample = step * batch_ + row, epoch = sample / stories();
    const RandomStream stream(seed_, static_cast<std::uint32_t>(epoch), random_site::batches);
    const detail::RandomPermutation order(stream, static_cast<std::uint64_t>(stories()));
    return static_cast<Index>(order(static_cast<std::uint64_t>(sample % stories())));
  }

  /// Overwrites `inputs` and `targets` (B, T), row-major, with the batch of a step >= 0.
  /// Throws ShapeError if the spans are not B·T long or the step is negative, FileError if the data is corrupt.
  void fill(Index step, std::span<Token> inputs, std::span<Token> targets) const {
    detail::expect_batch(batch_, time_, inputs, targets);
    if (step < 0) fail<ShapeError>("expected a step from 0 on, found ", step);
    for (Index row = 0; row < batch_; ++row) {
      const auto [start, tokens] = stories_[static_cast<std::size_t>(story(step, row))];
      const auto length = static_cast<std::size_t>(std::min<Index>(tokens, time_));
      const auto in = detail::row_of(inputs, row, time_), out = detail::row_of(targets, row, time_);
      in[0] = end_;
      data_.copy(start, in.subspan(1, length - 1));
      data_.copy(start, out.first(length));
      std::ranges::fill(in.subspan(length), pad_token);
      std::ranges::fill(out.subspan(length), pad_token);
    }
  }

 private:
  struct Story {
    Index start, tokens;  // its end included
  };

  void find_stories() {
    std::vector<Token> block(static_cast<std::size_t>(std::min<Index>(data_.size(), Index{1} << 16)));
    Index start = 0;
    const auto add = [&](Index after, bool ended) {
      if (after - start > (ended ? 1 : 0)) stories_.push_back({start, after - start});
      start = after;
    };
    for (Index first = 0; first < data_.size(); first += std::ssize(block)) {
      const Index count = std::min(std::ssize(block), data_.size() - first);
      const auto tokens = std::span(block).first(static_cast<std::size_t>(count));
      data_.copy(first, tokens);
      for (Index i = 0; i < count; ++i) {
        if (tokens[static_cast<std::size_t>(i)] == end_) add(first + i + 1, true);
      }
    }
    add(data_.size(), false);
  }

  TokenData data_;
  Token end_ = 0;
  Index batch_ = 0, time_ = 0;
  Seed seed_;
  std::vector<Story> stories_;
};

}  // namespace tinymoe::inline v0_1
