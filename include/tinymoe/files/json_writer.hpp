#pragma once
/// @file
/// Strings and real numbers as JSON.

#include <charconv>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1::detail {

/// Appends a string in quotes. Throws TextError if it is not UTF-8.
inline void append_json(std::string& text, std::string_view string) {
  if (find_invalid_utf8(string) != std::string_view::npos) fail<TextError>("JSON: expected a string of UTF-8");
  text += '"';
  for (const char character : string) {
    const auto byte = static_cast<unsigned char>(character);
    constexpr std::string_view escaped = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    if (const auto at = escaped.find(character); at != std::string_view::npos) {
      text += '\\';
      text += letters[at];
    } else if (byte < 0x20) {
      constexpr char digits[] = "0123456789abcdef";
      text += "\\u00";
      text += digits[byte / 16];
      text += digits[byte % 16];
    } else {
      text += character;
    }
  }
  text += '"';
}

/// Appends a real number: with a point and without an exponent from 1e-4 to 1e15.
inline void append_json(std::string& text, double value) {
  const double size = std::abs(value);
  if (!std::isfinite(value)) {
    text += "null";
    return;
  }
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e15);
  char digits[32];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view written(digits, static_cast<std::size_t>(end.ptr - digits));
  text += written;
  if (fixed && written.find('.') == std::string_view::npos) text += ".0";
}

}  // namespace tinymoe::inline v0_1::detail
