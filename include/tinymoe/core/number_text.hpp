#pragma once
/// @file
/// Real numbers as text for files, the same in every locale: printf and streams write a program's decimal point and
/// group its thousands.

#include <charconv>
#include <iterator>
#include <string>

namespace tinymoe::inline v0_1::detail {

/// printf's "%.*f".
inline std::string fixed_text(double number, int places) {
  char digits[400];  // a double has up to 309 digits before the point
  return {digits, std::to_chars(digits, std::end(digits), number, std::chars_format::fixed, places).ptr};
}

/// printf's "%.*g".
inline std::string general_text(double number, int digits) {
  char text[64];
  return {text, std::to_chars(text, std::end(text), number, std::chars_format::general, digits).ptr};
}

/// The fewest digits that are read back as the same number.
inline std::string shortest_text(double number) {
  char text[32];
  return {text, std::to_chars(text, std::end(text), number).ptr};
}

}  // namespace tinymoe::inline v0_1::detail
