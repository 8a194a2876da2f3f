#pragma once
/// @file
/// What kind of token each token of a text is: a word's start or continuation, a name, punctuation and so on. English
/// is assumed for function words, and for capitals that begin sentences and names; other scripts have words alone.

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/analysis/expert_findings.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Sorted.
inline constexpr std::string_view function_words[] = {
    "a",     "about", "after", "all",   "am",   "an",   "and",   "any",  "are",   "as",   "at",   "be",    "been",
    "but",   "by",    "can",   "could", "did",  "do",   "does",  "down", "for",   "from", "had",  "has",   "have",
    "he",    "her",   "him",   "his",   "how",  "i",    "if",    "in",   "into",  "is",   "it",   "its",   "may",
    "me",    "might", "must",  "my",    "no",   "nor",  "not",   "of",   "off",   "on",   "or",   "our",   "out",
    "over",  "shall", "she",   "so",    "some", "than", "that",  "the",  "their", "them", "then", "there", "these",
    "they",  "this",  "those", "to",    "up",   "us",   "was",   "we",   "were",  "what", "when", "where", "which",
    "while", "who",   "whose", "why",   "will", "with", "would", "you",  "your"};

/// A text, byte by byte.
class ReadText {
 public:
  explicit ReadText(std::string_view text) : text_(text) {}

  bool is_space(std::size_t i) const { return i < text_.size() && is(text_[i], " \t\r\n\f\v"); }
  /// A quote, plain or typographic: U+2018 to U+201F, « or ».
  bool is_quote(std::size_t i) const {
    if (i >= text_.size()) return false;
    if (text_[i] == '"' || text_[i] == '\'') return true;
    const std::string_view left = text_.substr(i, 3);
    if (left.starts_with("\xC2\xAB") || left.starts_with("\xC2\xBB")) return true;
    return left.size() == 3 && left.starts_with("\xE2\x80") && byte(i + 2) >= 0x98 && byte(i + 2) <= 0x9F;
  }
  /// A letter, or an apostrophe between letters. Bytes beyond ASCII are letters but for general punctuation (U+2000 to
  /// U+206F), quotes, and U+1F000 to U+1FFFF, where emoji are.
  bool is_letter(std::size_t i) const {
    if (i >= text_.size()) return false;
    if (alphabetic(text_[i])) return true;
    if (text_[i] == '\'') return i > 0 && alphabetic(text_[i - 1]) && i + 1 < text_.size() && alphabetic(text_[i + 1]);
    if (byte(i) < 0x80) return false;
    std::size_t first = i;  // of the character
    while (first > 0 && i - first < 3 && byte(first) >= 0x80 && byte(first) < 0xC0) --first;
    const std::string_view character = text_.substr(first, 2);
    if (character == "\xE2\x80" || character == "\xE2\x81") {
      return character == "\xE2\x80" && text_.substr(first, 3) == "\xE2\x80\x99" && first > 0 &&
             alphabetic(text_[first - 1]) && first + 3 < text_.size() && alphabetic(text_[first + 3]);
    }
    return character != "\xC2\xAB" && character != "\xC2\xBB" && character != "\xF0\x9F";
  }
  bool is_digit(std::size_t i) const { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; }

  /// Whether the word at `i` begins a sentence: the text, a line or what stands in quotes, or after . ! or ?
  bool begins_sentence(std::size_t i) const {
    if (i == 0 || text_[i - 1] == '\n' || is_quote(last_character(i))) return true;
    while (i > 0 && is_space(i - 1)) {
      if (text_[--i] == '\n') return true;
    }
    while (i > 0 && is_quote(last_character(i))) i = last_character(i);
    return i == 0 || is(text_[i - 1], ".!?\n");
  }
  /// The kind of the word at `i`.
  TokenKind word(std::size_t i) const {
    std::string word;
    for (std::size_t at = i; is_letter(at) && text_[at] != '\'' && byte(at) != 0xE2; ++at) word += lower(text_[at]);
    if (std::binary_search(std::begin(function_words), std::end(function_words), word)) return TokenKind::function_word;
    const bool capital = text_[i] >= 'A' && text_[i] <= 'Z';
    return capital && !begins_sentence(i) ? TokenKind::name : TokenKind::word_start;
  }

 private:
  static bool is(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }
  static bool alphabetic(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  static char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
  unsigned byte(std::size_t i) const { return static_cast<unsigned char>(text_[i]); }
  /// Where the character before `i` begins.
  std::size_t last_character(std::size_t i) const {
    std::size_t at = i - 1;
    while (at > 0 && i - at < 4 && byte(at) >= 0x80 && byte(at) < 0xC0) --at;
    return at;
  }

  std::string_view text_;
};

}  // namespace detail

/// The kinds of tokens that follow each other, by the text that each adds; `special` tokens have a text that does not
/// count, and end words and sentences. The kind of the first and last word is right if they are whole.
[[gnu::cold]] inline std::vector<TokenKind> token_kinds_of(std::span<const std::string> pieces,
                                                           const std::vector<bool>& special) {
  std::string all;
  std::vector<std::size_t> begin;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    begin.push_back(all.size());
    all += special[i] ? "\n" : pieces[i];
  }
  begin.push_back(all.size());
  const detail::ReadText text(all);
  std::vector<TokenKind> kinds;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    std::size_t at = begin[i];
    const std::size_t end = begin[i + 1];
    while (at < end && text.is_space(at)) ++at;
    if (special[i]) {
      kinds.push_back(TokenKind::special);
    } else if (at == end) {
      kinds.push_back(TokenKind::space);
    } else if (text.is_letter(at)) {
      const bool continues = at == begin[i] && at > 0 && text.is_letter(at - 1);
      kinds.push_back(continues ? TokenKind::word_continuation : text.word(at));
    } else {
      kinds.push_back(text.is_digit(at) ? TokenKind::digits : TokenKind::punctuation);
    }
  }
  return kinds;
}

}  // namespace tinymoe::inline v0_1
