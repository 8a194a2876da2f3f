#pragma once
/// @file
/// What all kinds of batches share: how stories become rows, padding, and the checks of a batch's memory.

#include <cstddef>
#include <iterator>
#include <span>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1 {

/// How stories become the rows of a batch.
enum class Batching { packed, padded };

namespace random_site {
/// The order of the data.
inline constexpr RandomSite batches{1};
}  // namespace random_site

/// The padding token: an input that no layer sees, a target that is not scored.
inline constexpr Token pad_token = -1;

namespace detail {

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

/// The tokens of one row of a batch.
template <class T>
std::span<T> row_of(std::span<T> tokens, Index row, Index time) {
  return tokens.subspan(static_cast<std::size_t>(row * time), static_cast<std::size_t>(time));
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
