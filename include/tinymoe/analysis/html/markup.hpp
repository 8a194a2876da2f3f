#pragma once
/// @file
/// HTML as it is built: what a program's source says is markup, and everything else is escaped.

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>

#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1::detail {

/// Appends a text so that a browser shows its characters, in an element's text or in a quoted attribute. Bytes that are
/// not UTF-8 are U+FFFD. Controls that would be lost are symbols (␀), and those that turn the direction of the text
/// around them are names (⟨U+202E⟩).
[[gnu::cold]] inline void append_escaped(std::string& html, std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto [code, length] = decode_utf8(text, at);
    const bool control = (code < 0x20 && code != '\n' && code != '\t') || code == 0x7f;
    const bool turns = (code >= 0x200e && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
                       (code >= 0x2066 && code <= 0x2069) || code == 0x061c;
    const bool no_character = (code >= 0x80 && code < 0xa0) || (code >= 0xfdd0 && code <= 0xfdef) ||
                              (code & 0xfffe) == 0xfffe || code == invalid_code_point;
    if (code == '&') {
      html += "&amp;";
    } else if (code == '<') {
      html += "&lt;";
    } else if (code == '>') {
      html += "&gt;";
    } else if (code == '"') {
      html += "&quot;";
    } else if (code == '\'') {
      html += "&#39;";
    } else if (control) {
      append_utf8(html, code == 0x7f ? U'\u2421' : 0x2400 + code);
    } else if (turns) {
      html += "\u27e8U+";
      for (int shift = 12; shift >= 0; shift -= 4) html += "0123456789ABCDEF"[(code >> shift) & 15u];
      html += "\u27e9";
    } else if (no_character) {
      html += "\ufffd";
    } else {
      html += text.substr(at, length);
    }
    at += length;
  }
}

class Markup;

/// A piece of a page. A literal is markup; a string is text, which is escaped.
class MarkupPiece {
 public:
  consteval MarkupPiece(const char* literal) : text_(literal) {}
  MarkupPiece(const std::string& text) : text_(text), escaped_(true) {}
  MarkupPiece(std::string_view text) : text_(text), escaped_(true) {}
  MarkupPiece(const Markup& part);

  void append_to(std::string& html) const { escaped_ ? append_escaped(html, text_) : void(html += text_); }

 private:
  std::string_view text_;
  bool escaped_ = false;
};

/// A part of a page.
class Markup {
 public:
  Markup() = default;
  [[gnu::cold]] Markup(std::initializer_list<MarkupPiece> pieces) { add(pieces); }

  [[gnu::cold]] Markup& add(std::initializer_list<MarkupPiece> pieces) {
    for (const MarkupPiece& piece : pieces) piece.append_to(html_);
    return *this;
  }
  const std::string& html() const { return html_; }
  bool empty() const { return html_.empty(); }

 private:
  std::string html_;
};

inline MarkupPiece::MarkupPiece(const Markup& part) : text_(part.html()) {}

/// A coordinate: at most one place behind the point.
[[gnu::cold]] inline std::string place(double number) {
  std::string text = fixed_text(number, 1);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

/// A number for a reader: 12345678 as "12.3M", 0.00123 as "0.00123".
[[gnu::cold]] inline std::string short_number(double number, int digits = 3) {
  if (!std::isfinite(number)) return "–";
  constexpr std::string_view units = " kMGTPE";
  std::size_t unit = 0;
  while (std::abs(number) >= 999.5 && unit + 1 < units.size()) number /= 1000, ++unit;
  std::string text = general_text(number, digits);
  if (unit > 0) text += units[unit];
  return text;
}

/// 75 seconds as "1:15", 3675 as "1:01:15"; "–" for what is no time.
[[gnu::cold]] inline std::string clock_text(double seconds) {
  if (!(seconds >= 0 && seconds <= 0x1p53)) return "–";
  const auto whole = static_cast<Index>(seconds + 0.5);
  const auto two = [](Index number) { return (number < 10 ? "0" : "") + std::to_string(number); };
  const Index hours = whole / 3600, minutes = whole / 60 % 60;
  return (hours > 0 ? std::to_string(hours) + ":" + two(minutes) : std::to_string(minutes)) + ":" + two(whole % 60);
}

}  // namespace tinymoe::inline v0_1::detail
