#pragma once
/// @file
/// What the parts of a tokenizer.json ask of a code point, each as the package tokenizers answers it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/unicode_data.hpp"
#include "tinymoe/text/unicode.hpp"
#include "tinymoe/text/unicode_tables.hpp"

namespace tinymoe::inline v0_1::detail {

/// A byte for each code point, from the tables: the category, and whether \w and Punctuation have it.
class UnicodeProperties {
 public:
  static constexpr std::uint8_t category_bits = 0x1f, word_bit = 0x20, punctuation_bit = 0x40;

  /// The properties of a code point, or of `invalid_code_point`, which is unassigned.
  static std::uint8_t of(char32_t code_point) { return table()[code_point]; }

 private:
  [[gnu::cold]] static std::vector<std::uint8_t> filled() {
    std::vector<std::uint8_t> bytes(invalid_code_point + 1, static_cast<std::uint8_t>(GeneralCategory::cn));
    for (std::size_t i = 0; i < std::size(category_starts); ++i) {
      const std::uint32_t begin = category_starts[i] >> 5;
      const std::uint32_t end = i + 1 < std::size(category_starts) ? category_starts[i + 1] >> 5 : 0x110000;
      std::fill(bytes.begin() + begin, bytes.begin() + end,
                static_cast<std::uint8_t>(category_starts[i] & category_bits));
    }
    for (std::uint8_t& byte : bytes) {
      const auto category = static_cast<GeneralCategory>(byte & category_bits);
      if (category <= GeneralCategory::nd || category == GeneralCategory::pc) byte |= word_bit;
    }
    mark(bytes, further_word_ranges, word_bit);
    mark(bytes, punctuation_ranges, punctuation_bit);
    return bytes;
  }

  template <std::size_t N>
  static void mark(std::vector<std::uint8_t>& bytes, const CodePointRange (&ranges)[N], std::uint8_t bit) {
    for (const auto [first, last] : ranges) {
      for (std::uint32_t c = first; c <= last; ++c) bytes[c] |= bit;
    }
  }

  static const std::uint8_t* table() {
    static const std::vector<std::uint8_t> bytes = filled();
    return bytes.data();
  }
};

inline GeneralCategory general_category(char32_t code_point) {
  return static_cast<GeneralCategory>(UnicodeProperties::of(code_point) & UnicodeProperties::category_bits);
}

/// Whether an expression's \w has it.
inline bool is_expression_word(char32_t code_point) {
  return (UnicodeProperties::of(code_point) & UnicodeProperties::word_bit) != 0;
}

/// Whether a class of an expression, as [\w], has it.
inline bool is_class_word(char32_t code_point) {
  return is_expression_word(code_point) && !in_ranges(only_expression_word_ranges, code_point);
}

/// Whether the pre-tokenizer Whitespace and `single_word` take it for a part of a word.
inline bool is_word(char32_t code_point) {
  return is_class_word(code_point) || in_ranges(only_whitespace_word_ranges, code_point);
}

/// Whether the pre-tokenizer Punctuation takes it for that.
inline bool is_punctuation(char32_t code_point) {
  return (UnicodeProperties::of(code_point) & UnicodeProperties::punctuation_bit) != 0;
}

/// Whether the pre-tokenizer Digits takes it for one.
inline bool is_digit(char32_t code_point) {
  const GeneralCategory category = general_category(code_point);
  return (category >= GeneralCategory::nd && category <= GeneralCategory::no) ||
         in_ranges(further_digit_ranges, code_point);
}

/// Appends a code point in lower case.
inline void append_lower_case(std::string& text, char32_t code_point) {
  if (code_point == 0x130) {
    append_utf8(text, U'i');
    return append_utf8(text, 0x307);
  }
  const auto after = std::upper_bound(std::begin(lower_case_runs), std::end(lower_case_runs), code_point,
                                      [](char32_t value, const LowerCaseRun& run) { return value < run.first; });
  if (after != std::begin(lower_case_runs)) {
    const LowerCaseRun& run = *std::prev(after);
    if (code_point <= run.last && (code_point - run.first) % run.step == 0) {
      return append_utf8(text, static_cast<char32_t>(static_cast<std::int32_t>(code_point) + run.difference));
    }
  }
  append_utf8(text, code_point);
}

/// Calls f(code point, its bytes) for each character of a text, and for each byte that is not UTF-8.
template <class F>
void for_each_code_point(std::string_view text, F&& f) {
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCodePoint next = decode_utf8(text, at);
    f(next.value, text.substr(at, next.length));
    at += next.length;
  }
}

}  // namespace tinymoe::inline v0_1::detail
