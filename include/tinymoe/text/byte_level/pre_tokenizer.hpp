#pragma once
/// @file
/// GPT-2's pre-tokenizer: text is cut into pieces (a word with its leading space, a number, punctuation, white space),
/// and merges never cross a cut. The scanner equals this pattern (Radford et al. 2019, encoder.py):
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

struct Character {
  CharacterClass kind = CharacterClass::other;
  std::uint32_t length = 1;
};

inline constexpr auto ascii_classes = [] {
  std::array<CharacterClass, 128> classes{};
  for (char32_t c = 0; c < 128; ++c) classes[c] = character_class(c);
  return classes;
}();

inline Character character_at(std::string_view text, std::size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) return {ascii_classes[byte], 1};
  const DecodedCodePoint code_point = decode_utf8(text, at);
  return {character_class(code_point.value), code_point.length};
}

/// The end of the run of `kind` that continues at `at`.
inline std::size_t end_of_run(std::string_view text, std::size_t at, CharacterClass kind) {
  while (at < text.size()) {
    const Character next = character_at(text, at);
    if (next.kind != kind) break;
    at += next.length;
  }
  return at;
}

/// The length of 's 't 're 've 'm 'll 'd at `at`, which holds an apostrophe; 0 if there is none.
inline std::size_t contraction_length(std::string_view text, std::size_t at) {
  if (at + 1 >= text.size()) return 0;
  const char first = text[at + 1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (at + 2 >= text.size()) return 0;
  const char second = text[at + 2];
  return ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l') ? 3 : 0;
}

/// Where the piece ends that starts at byte `at < text.size()`, which must itself be where a piece starts.
inline std::size_t end_of_piece(std::string_view text, std::size_t at) {
  if (text[at] == '\'') {
    if (const std::size_t length = contraction_length(text, at)) return at + length;
  }
  Character next = character_at(text, at);
  if (next.kind != CharacterClass::space) return end_of_run(text, at + next.length, next.kind);
  if (text[at] == ' ' && at + 1 < text.size()) {
    const Character word = character_at(text, at + 1);
    if (word.kind != CharacterClass::space) return end_of_run(text, at + 1 + word.length, word.kind);
  }
  // `\s+(?!\S)`: white space leaves its last character to the word that follows, unless it is all there is.
  std::size_t last = at, end = at + next.length;
  while (end < text.size() && (next = character_at(text, end)).kind == CharacterClass::space) {
    last = end;
    end += next.length;
  }
  return end == text.size() || last == at ? end : last;
}

/// Calls `f(std::string_view piece)` for each piece of a text; the pieces one after the other are the text.
/// Bytes that are not UTF-8 count as punctuation, one each.
template <class F>
void for_each_piece(std::string_view text, F&& f) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = end_of_piece(text, at);
    f(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace tinymoe::inline v0_1::detail
