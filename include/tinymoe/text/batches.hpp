#pragma once
/// @file
/// Batches: what a training step and an evaluation read. A batch is a pure function of the seed and the step, so that a
/// resumed run goes on with the batches it would have had.
///
/// `Batches` are packed: windows of the data as it lies, stories and parts of stories side by side, and no token
/// wasted. `PaddedBatches` have one story in each row, from its start, and pads after its end.

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/text/token_data.hpp"

namespace tinymoe::inline v0_1 {

/// How stories become the rows of a batch.
enum class Batching { packed, padded };

/// What stands in a row where there is no token: an input that no layer sees, a target that is not scored.
inline constexpr Token pad_token = -1;

namespace detail {

/// A pseudo-random permutation of 0 … size - 1 that stores nothing: a Feistel network over the next power of four,
/// walked until it falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
class RandomPermutation {
 public:
  RandomPermutation(RandomStream stream, std::uint64_t size) : stream_(stream), size_(size) {
    assert(size > 0);
    half_bits_ = std::max(1, static_cast<int>(std::bit_width(size - 1) + 1) / 2);
  }

  std::uint64_t operator()(std::uint64_t i) const {
    assert(i < size_);
    do i = encipher(i);
    while (i >= size_);
    return i;
  }

 private:
  std::uint64_t encipher(std::uint64_t value) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const auto words = random_words(stream_, (round << 56) | right);
      left = std::exchange(right, (left ^ words[0] ^ (std::uint64_t{words[1]} << 32)) & mask);
    }
    return (left << half_bits_) | right;
  }

  RandomStream stream_;
  std::uint64_t size_ = 1;
  int half_bits_ = 1;
};

inline void expect_batch(Index batch, Index time, std::span<const Token> inputs, std::span<const Token> targets) {
  if (std::ssize(inputs) != batch * time || std::ssize(targets) != batch * time) {
    fail<ShapeError>("expected inputs and targets of ", batch, " x ", time, " tokens, found ", inputs.size(), " and ",
                     targets.size());
  }
}

inline void expect_positive(Index batch, Index time) {
  constexpr Index limit = Index{1} << 31;
  if (batch < 1 || time < 1 || batch >= limit || time >= limit) {
    fail<ShapeError>("expected a batch of at least 1 x 1 tokens, found ", batch, " x ", time);
  }
}

}  // namespace detail

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
  /// Windows that an epoch visits.
  Index windows_per_epoch() const { return windows_; }
  /// Steps until each window of an epoch has been visited, the last one perhaps with windows of the next epoch.
  Index batches_per_epoch() const { return (windows_ + batch_ - 1) / batch_; }

  /// Where the window for row `row` of step `step` starts in the data.
  Index window_start(Index step, Index row) const {
    assert(step >= 0 && row >= 0 && row < batch_);
    const Index sample = step * batch_ + row, epoch = sample / windows_;
    const RandomStream stream(seed_, static_cast<std::uint32_t>(epoch), RandomSite::batches);
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
      data_.copy(start, inputs.subspan(row * time_, time_));
      data_.copy(start + 1, targets.subspan(row * time_, time_));
    }
  }

 private:
  TokenData data_;
  Index batch_ = 0, time_ = 0;
  Seed seed_;
  Index offsets_ = 1;  // an epoch starts at one of the first so many tokens
  Index windows_ = 0;
};

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
  /// Stories that an epoch visits: those of at least one token besides their end.
  Index stories() const { return std::ssize(stories_); }
  /// Steps until each story of an epoch has been visited, the last one perhaps with stories of the next epoch.
  Index batches_per_epoch() const { return (stories() + batch_ - 1) / batch_; }

  /// Which story row `row` of step `step` holds.
  Index story(Index step, Index row) const {
    assert(step >= 0 && row >= 0 && row < batch_);
    const Index sample = step * batch_ + row, epoch = sample / stories();
    const RandomStream stream(seed_, static_cast<std::uint32_t>(epoch), RandomSite::batches);
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
      const Index length = std::min<Index>(tokens, time_);
      const auto in = inputs.subspan(row * time_, time_), out = targets.subspan(row * time_, time_);
      in[0] = end_;
      data_.copy(start, in.subspan(1, length - 1));
      data_.copy(start, out.first(length));
      std::fill(in.begin() + length, in.end(), pad_token);
      std::fill(out.begin() + length, out.end(), pad_token);
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
      const auto tokens = std::span(block).first(std::min(std::ssize(block), data_.size() - first));
      data_.copy(first, tokens);
      for (Index i = 0; i < std::ssize(tokens); ++i) {
        if (tokens[i] == end_) add(first + i + 1, true);
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

/// Batches for evaluation: windows side by side, in order, such that each token but the first is a target exactly once.
/// What the last windows have too much is pads.
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
    const Index start = index * batch_ * time_, length = std::min(batch_ * time_, scored_tokens() - start);
    data_.copy(start, inputs.first(length));
    data_.copy(start + 1, targets.first(length));
    std::fill(inputs.begin() + length, inputs.end(), pad_token);
    std::fill(targets.begin() + length, targets.end(), pad_token);
  }

 private:
  TokenData data_;
  Index batch_ = 0, time_ = 0;
};

}  // namespace tinymoe::inline v0_1
