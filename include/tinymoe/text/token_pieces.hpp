#pragma once
/// @file
/// The text of each token of a text, for views that show tokens one by one.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1::detail {

/// The text that tokens[i] adds to that of the tokens before it: all pieces together are `decode` of all. It may be cut
/// within a character. Special tokens add nothing, nor do those outside the vocabulary.
[[gnu::cold]] inline std::string token_piece(const Tokenizer& tokenizer, std::span<const Token> tokens, std::size_t i) {
  const auto known = [&](std::size_t at) { return tokens[at] >= 0 && tokens[at] < tokenizer.vocabulary_size(); };
  if (!known(i)) return {};
  // Four ordinary tokens suffice, since a character has four bytes at most, once they have a text: at the beginning of
  // one a kind may leave out a space, which special tokens and spaces before it do not end.
  std::vector<Token> backwards;
  const auto before = [&] { return std::vector<Token>(backwards.rbegin(), backwards.rend()); };
  std::size_t ordinary = 0, wanted = 4;
  for (std::size_t first = i; first-- > 0;) {
    if (!known(first)) continue;
    backwards.push_back(tokens[first]);
    if (tokenizer.is_special(tokens[first]) || ++ordinary < wanted) continue;
    if (!tokenizer.decode(before()).empty()) break;
    wanted *= 2;
  }
  return tokenizer.decode_after(before(), tokens.subspan(i, 1));
}

}  // namespace tinymoe::inline v0_1::detail
