#pragma once
/// @file
/// The added tokens of a tokenizer.json: strings that are found in a text before a model sees it.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/pieces.hpp"
#include "tinymoe/text/pipeline/prefix_finder.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

struct AddedToken {
  std::string content;
  Token token = -1;
  bool single_word = false, strips_left = false, strips_right = false;
  bool normalized = false;  // found after the normalizers, as they change `content`
  bool special = false;
};

/// Finds the longest of some strings wherever one begins, from left to right.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// Looks for the `content` of each as it is; an empty one is never found. Of two that are equal, the first counts.
  [[gnu::cold]] explicit AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
    const auto same = [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; };
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
    std::vector<std::string> contents;
    for (const AddedToken& token : tokens_) contents.push_back(token.content);
    contents_ = PrefixFinder(std::move(contents));
  }

  /// Cuts a piece at the tokens in it. Special ones are text where `special` is false.
  void cut(Pieces& pieces, const Piece& piece, bool special) const {
    const std::string_view text = piece.text;
    if (tokens_.empty()) return pieces.add(piece);
    std::size_t before = 0;  // up to here all is done
    for (std::size_t at = 0; at < text.size();) {
      const AddedToken* found = find(text, at);
      if (found == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + found->content.size();
      at = end;
      if ((found->special && !special) || (found->single_word && !is_single(text, begin, end))) continue;
      if (found->strips_left) begin = begin_of_space(text, begin, before);
      if (found->strips_right) end = end_of_space(text, std::max(end, before));
      if (before < begin) pieces.add(piece.part(before, begin));
      Piece token = piece.part(begin, end);
      token.token = found->token;
      pieces.add(token);
      before = end;
    }
    if (before < text.size()) pieces.add(piece.part(before, text.size()));
  }

 private:
  const AddedToken* find(std::string_view text, std::size_t at) const {
    const AddedToken* longest = nullptr;
    contents_.for_each(text.substr(at), [&](std::size_t number) {
      longest = &tokens_[number];
      return false;
    });
    return longest;
  }

  static char32_t character_before(std::string_view text, std::size_t end) {
    std::size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && continues_character(text[begin])) --begin;
    const DecodedCodePoint found = decode_utf8(text, begin);
    return begin + found.length == end ? found.value : invalid_code_point;
  }
  static bool is_single(std::string_view text, std::size_t begin, std::size_t end) {
    return (begin == 0 || !is_word(character_before(text, begin))) &&
           (end == text.size() || !is_word(decode_utf8(text, end).value));
  }
  static std::size_t begin_of_space(std::string_view text, std::size_t end, std::size_t before) {
    while (end > before) {
      const char32_t c = character_before(text, end);
      if (!is_space(c)) break;
      end -= c < 0x80 ? 1u : character_length(c < 0x800 ? 0xc0 : 0xe0);
    }
    return std::max(end, before);
  }
  static std::size_t end_of_space(std::string_view text, std::size_t at) {
    while (at < text.size()) {
      const DecodedCodePoint next = decode_utf8(text, at);
      if (!is_space(next.value)) break;
      at += next.length;
    }
    return at;
  }

  std::vector<AddedToken> tokens_;  // in the order of their contents
  PrefixFinder contents_;
};

}  // namespace tinymoe::inline v0_1::detail
