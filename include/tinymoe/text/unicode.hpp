#pragma once
/// @file
/// As much of Unicode as pre-tokenizers ask for: which code points are letters, numbers and spaces.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "tinymoe/text/unicode_tables.hpp"

namespace tinymoe::inline v0_1::detail {

template <std::size_t N>
constexpr bool in_ranges(const CodePointRange (&ranges)[N], std::uint32_t code_point) {
  const auto after =
      std::upper_bound(std::begin(ranges), std::end(ranges), code_point,
                       [](std::uint32_t value, const CodePointRange& range) { return value < range.first; });
  return after != std::begin(ranges) && code_point <= std::prev(after)->last;
}

/// Whether a code point has the Unicode property L, as `\p{L}` asks.
constexpr bool is_letter(char32_t code_point) {
  if (code_point < 0x80) return (code_point | 0x20u) >= 'a' && (code_point | 0x20u) <= 'z';
  return in_ranges(letter_ranges, code_point);
}

/// Whether a code point has the Unicode property N, as `\p{N}` asks.
constexpr bool is_number(char32_t code_point) {
  if (code_point < 0x80) return code_point >= '0' && code_point <= '9';
  return in_ranges(number_ranges, code_point);
}

/// Whether a code point has the Unicode property White_Space, as `\s` asks.
constexpr bool is_space(char32_t code_point) {
  if (code_point < 0x80) return code_point == ' ' || (code_point >= '\t' && code_point <= '\r');
  return code_point == 0x85 || code_point == 0xa0 || code_point == 0x1680 ||
         (code_point >= 0x2000 && code_point <= 0x200a) || code_point == 0x2028 || code_point == 0x2029 ||
         code_point == 0x202f || code_point == 0x205f || code_point == 0x3000;
}

/// What a pre-tokenizer distinguishes; `other` is everything else, including bytes that are not UTF-8.
enum class CharacterClass : std::uint8_t { letter, number, space, other };

/// The class of a code point.
constexpr CharacterClass character_class(char32_t code_point) {
  if (is_letter(code_point)) return CharacterClass::letter;
  if (is_number(code_point)) return CharacterClass::number;
  return is_space(code_point) ? CharacterClass::space : CharacterClass::other;
}

}  // namespace tinymoe::inline v0_1::detail
