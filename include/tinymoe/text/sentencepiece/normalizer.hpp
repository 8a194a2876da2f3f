#pragma once
/// @file
/// How sentencepiece changes a text before it is cut: characters by its map, spaces by its options. Bytes that are not
/// UTF-8 become U+FFFD.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/pipeline/character_map.hpp"
#include "tinymoe/text/pipeline/normalizer.hpp"
#include "tinymoe/text/pipeline/prefix_finder.hpp"
#include "tinymoe/text/sentencepiece/model_file.hpp"

namespace tinymoe::inline v0_1::detail {

/// The bytes of the longest string that a text begins with, or 0. Of more than 64 the package sees the shortest ones.
inline std::size_t longest_symbol(const PrefixFinder& symbols, std::string_view text) {
  std::size_t count = 0, found = 0;
  const auto visit = [&](auto&& f) {
    if (symbols.size() > 0) symbols.for_each(text, f);
  };
  visit([&](std::size_t number) {
    if (count++ == 0) found = symbols[number].size();
    return true;
  });
  if (count <= 64) return found;
  visit([&](std::size_t number) {
    found = symbols[number].size();
    return --count >= 64;
  });
  return found;
}

class SentencePieceNormalizer {
 public:
  SentencePieceNormalizer() = default;
  explicit SentencePieceNormalizer(SentencePieceSpaces spaces) : spaces_(std::move(spaces)) {}

  /// `symbols` are left as they are. Throws TextError if the text becomes much longer.
  std::string operator()(std::string_view text, const PrefixFinder& symbols) const {
    const std::size_t most = longest_form(text.size());
    std::string made;
    const std::string_view space = spaces_.escapes ? space_mark : " ";
    if (spaces_.removes_extra) {
      while (!text.empty()) {
        const auto [length, piece] = next(text, symbols);
        if (piece != " ") break;
        text.remove_prefix(length);
      }
    }
    if (text.empty()) return made;
    if (spaces_.adds_dummy && !spaces_.as_suffix) made += space;
    bool after_space = spaces_.removes_extra;
    std::size_t taken = 0;  // bytes, with the spaces that are left out again: they cost time, too
    while (!text.empty()) {
      auto [length, piece] = next(text, symbols);
      check_form(taken += piece.size(), most);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      for (const char c : piece) c == ' ' ? void(made += space) : made.push_back(c);
      check_form(made.size(), most);
      if (!piece.empty()) after_space = piece.ends_with(' ');
      if (!spaces_.removes_extra) after_space = false;
      text.remove_prefix(length);
    }
    while (spaces_.removes_extra && made.ends_with(space)) made.resize(made.size() - space.size());
    if (spaces_.adds_dummy && spaces_.as_suffix) made += space;
    return made;
  }

 private:
  /// What a text begins with, and what takes its place.
  MappedCharacters next(std::string_view text, const PrefixFinder& symbols) const {
    if (const std::size_t length = longest_symbol(symbols, text)) return {length, text.substr(0, length)};
    if (const MappedCharacters found = spaces_.map.longest(text); found.length > 0) return found;
    const auto [value, length] = decode_utf8(text, 0);
    if (value == invalid_code_point) return {1, "\xef\xbf\xbd"};
    return {length, text.substr(0, length)};
  }

  SentencePieceSpaces spaces_;
};

}  // namespace tinymoe::inline v0_1::detail
