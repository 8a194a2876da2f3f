#pragma once
/// @file
/// Scanners for the expressions that most tokenizer.json have: GPT-2's (byte_level/pre_tokenizer.hpp), and
///
///     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
///     ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
///
/// of GPT-4 and Llama 3, and with `\p{N}` of Qwen. Each character of a text is in a match.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string_view>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

struct KnownExpression {
  int digits = 0;  // of a piece, at most; 0 is GPT-2's expression

  /// Where the piece ends that starts at byte `at < text.size()`.
  std::size_t end_of_piece(std::string_view text, std::size_t at) const {
    if (digits == 0) return detail::end_of_piece(text, at);
    if (text[at] == '\'') {
      if (const std::size_t end = end_of_contraction(text, at)) return end;
    }
    const auto kind_at = [&](std::size_t place) { return character_at(text, place).kind; };
    const Character first = character_at(text, at);
    std::size_t next = at + first.length;
    if (first.kind == CharacterClass::letter) return end_of_run(text, next, CharacterClass::letter);
    const bool newline = text[at] == '\r' || text[at] == '\n';
    if (!newline && first.kind != CharacterClass::number && next < text.size() &&
        kind_at(next) == CharacterClass::letter) {
      return end_of_run(text, next, CharacterClass::letter);
    }
    if (first.kind == CharacterClass::number) {
      for (int count = 1; count < digits && next < text.size(); ++count) {
        const Character digit = character_at(text, next);
        if (digit.kind != CharacterClass::number) break;
        next += digit.length;
      }
      return next;
    }
    if (first.kind == CharacterClass::other ||
        (text[at] == ' ' && next < text.size() && kind_at(next) == CharacterClass::other)) {
      next = end_of_run(text, next, CharacterClass::other);
      while (next < text.size() && (text[next] == '\r' || text[next] == '\n')) ++next;
      return next;
    }
    return end_of_space(text, at);
  }

 private:
  /// The end of 's 't 're 've 'm 'll 'd at `at`, in any case; U+017F is an s, too. 0 if there is none.
  static std::size_t end_of_contraction(std::string_view text, std::size_t at) {
    const auto letter = [&](std::size_t place) {
      return place < text.size() ? static_cast<char>(text[place] | 0x20) : '\0';
    };
    const char first = letter(at + 1);
    if (at + 1 < text.size() && (first == 's' || first == 't' || first == 'm' || first == 'd')) return at + 2;
    if (text.substr(at + 1).starts_with("\xc5\xbf")) return at + 3;
    const char second = letter(at + 2);
    return ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l') ? at + 3 : 0;
  }

  /// White space: up to the last newline of it, or without its last character where a word follows, or all of it.
  static std::size_t end_of_space(std::string_view text, std::size_t at) {
    std::size_t end = at, last = at, after_newline = 0;
    while (end < text.size()) {
      const Character next = character_at(text, end);
      if (next.kind != CharacterClass::space) break;
      last = end;
      end += next.length;
      if (text[last] == '\r' || text[last] == '\n') after_newline = end;
    }
    if (after_newline > 0) return after_newline;
    return end == text.size() || last == at ? end : last;
  }
};

/// The scanner of an expression, if it has one.
[[gnu::cold]] inline std::optional<KnownExpression> known_expression(std::string_view expression) {
  if (expression == R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)") {
    return KnownExpression{0};
  }
  constexpr std::string_view begin = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})";
  constexpr std::string_view end = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  if (!expression.starts_with(begin) || !expression.ends_with(end) || expression.size() < begin.size() + end.size()) {
    return std::nullopt;
  }
  const auto between = expression.substr(begin.size(), expression.size() - begin.size() - end.size());
  if (between.empty()) return KnownExpression{1};
  return between == "{1,3}" ? std::optional(KnownExpression{3}) : std::nullopt;
}

}  // namespace tinymoe::inline v0_1::detail
