#pragma once
/// @file
/// Extended grapheme clusters of a text (Unicode Standard Annex 29), as the package tokenizers cuts it.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/grapheme_data.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

/// What decides where a cluster ends.
struct GraphemeClass {
  enum class Kind : std::uint8_t { other, cr, lf, control, extends, spacing, prepends, regional, l, v, t, lv, lvt };
  Kind kind = Kind::other;
  bool joiner = false, pictographic = false, consonant = false, linker = false;
  bool separates = false;  // U+200C, which keeps two consonants apart
};

inline GraphemeClass grapheme_class(char32_t c) {
  using Kind = GraphemeClass::Kind;
  if (c == '\r') return {Kind::cr};
  if (c == '\n') return {Kind::lf};
  if (c < 0x80) return {c < 0x20 || c == 0x7f ? Kind::control : Kind::other};
  if (in_ranges(grapheme_extending_ranges, c)) {
    GraphemeClass found{in_ranges(grapheme_spacing_ranges, c) ? Kind::spacing : Kind::extends};
    found.joiner = c == 0x200d;
    found.separates = c == 0x200c;
    found.linker = in_ranges(conjunct_linker_ranges, c);
    return found;
  }
  if (in_ranges(grapheme_control_ranges, c)) return {Kind::control};
  if (in_ranges(grapheme_prepending_ranges, c)) return {Kind::prepends};
  if (c >= 0x1f1e6 && c <= 0x1f1ff) return {Kind::regional};
  if ((c >= 0x1100 && c <= 0x115f) || (c >= 0xa960 && c <= 0xa97c)) return {Kind::l};
  if ((c >= 0x1160 && c <= 0x11a7) || (c >= 0xd7b0 && c <= 0xd7c6)) return {Kind::v};
  if ((c >= 0x11a8 && c <= 0x11ff) || (c >= 0xd7cb && c <= 0xd7fb)) return {Kind::t};
  if (c >= 0xac00 && c <= 0xd7a3) return {(c - 0xac00) % 28 == 0 ? Kind::lv : Kind::lvt};
  GraphemeClass found;
  found.pictographic = in_ranges(pictographic_ranges, c);
  found.consonant = in_ranges(conjunct_consonant_ranges, c);
  return found;
}

/// What has been seen of a cluster.
class GraphemeCluster {
 public:
  explicit GraphemeCluster(GraphemeClass first) { add(first); }

  /// Whether the next character belongs to it. The numbers are those of the annex's rules.
  bool joins(const GraphemeClass& next) const {
    using Kind = GraphemeClass::Kind;
    if (last_ == Kind::cr && next.kind == Kind::lf) return true;  // GB3
    const auto alone = [](Kind kind) { return kind == Kind::cr || kind == Kind::lf || kind == Kind::control; };
    if (alone(last_) || alone(next.kind)) return false;                         // GB4, GB5
    if (next.kind == Kind::extends || next.kind == Kind::spacing) return true;  // GB9, GB9a
    if (last_ == Kind::prepends) return true;                                   // GB9b
    const bool v_or_lv = next.kind == Kind::v || next.kind == Kind::lv;
    if (last_ == Kind::l && (next.kind == Kind::l || v_or_lv || next.kind == Kind::lvt)) return true;            // GB6
    if ((last_ == Kind::lv || last_ == Kind::v) && (next.kind == Kind::v || next.kind == Kind::t)) return true;  // GB7
    if ((last_ == Kind::lvt || last_ == Kind::t) && next.kind == Kind::t) return true;                           // GB8
    if (conjunct_ == Conjunct::linked && next.consonant) return true;                                            // GB9c
    if (emoji_ == Emoji::joined && next.pictographic) return true;                                               // GB11
    return odd_regional_ && next.kind == Kind::regional;                                                         // GB12
  }

  void add(const GraphemeClass& next) {
    using Kind = GraphemeClass::Kind;
    const bool extends = next.kind == Kind::extends;
    if (next.consonant) {
      conjunct_ = Conjunct::consonant;
    } else if (!extends || next.separates) {
      conjunct_ = Conjunct::none;
    } else if (conjunct_ != Conjunct::none && next.linker) {
      conjunct_ = Conjunct::linked;
    }
    if (next.pictographic) {
      emoji_ = Emoji::seen;
    } else if (emoji_ != Emoji::seen || !extends) {
      emoji_ = Emoji::none;
    } else if (next.joiner) {
      emoji_ = Emoji::joined;
    }
    odd_regional_ = next.kind == Kind::regional && !odd_regional_;
    last_ = next.kind;
  }

 private:
  enum class Conjunct : std::uint8_t { none, consonant, linked };
  enum class Emoji : std::uint8_t { none, seen, joined };

  GraphemeClass::Kind last_ = GraphemeClass::Kind::other;
  Conjunct conjunct_ = Conjunct::none;
  Emoji emoji_ = Emoji::none;
  bool odd_regional_ = false;
};

/// Calls f(cluster) for each one. A byte that is not UTF-8 is a cluster.
template <class F>
void for_each_grapheme(std::string_view text, F&& f) {
  for (std::size_t at = 0; at < text.size();) {
    DecodedCodePoint next = decode_utf8(text, at);
    std::size_t end = at + next.length;
    // Two characters of ASCII are a cluster only where they end a line.
    const bool ascii =
        next.value < 0x80 && next.value != '\r' && (end == text.size() || static_cast<unsigned char>(text[end]) < 0x80);
    if (next.value != invalid_code_point && !ascii) {
      GraphemeCluster cluster(grapheme_class(next.value));
      while (end < text.size()) {
        next = decode_utf8(text, end);
        const GraphemeClass found = grapheme_class(next.value);
        if (next.value == invalid_code_point || !cluster.joins(found)) break;
        cluster.add(found);
        end += next.length;
      }
    }
    f(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace tinymoe::inline v0_1::detail
