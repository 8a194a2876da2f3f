#pragma once
/// @file
/// The text of each token of a text, for views that show tokens one by one.

#include <cstddef>
#include <span>
#include <string>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1::detail {

/// The text that tokens[i] adds to that of the tokens before it: all pieces together are `decode` of all. It may be cut
/// within a character. Special tokens add nothing, nor do those outside the vocabulary.
[[gnu::cold]] inline std::string token_piece(const Tokenizer& tokenizer, std::span<const Token> tokens, std::size_t i) {
  const auto known = [&](std::size_t at) { return tokens[at] >= 0 && tokens[at] < tokenizer.vocabulary_size(); };
  if (!known(i)) return {};
  std::size_t first = i;  // the last few suffice: a character has four bytes at most
  while (first > 0 && i - first < 4 && known(first - 1)) --first;
  return tokenizer.decode_after(tokens.subspan(first, i - first), tokens.subspan(i, 1));
}

}  // namespace tinymoe::inline v0_1::detail
