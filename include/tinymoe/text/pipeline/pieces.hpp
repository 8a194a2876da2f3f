#pragma once
/// @file
/// A text on its way to tokens: pieces of it, each normalized, cut further, or already a token. What the package calls
/// PreTokenizedString.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1::detail {

/// A part of a text, after the changes so far.
struct Piece {
  std::string_view text;
  Token token = -1;  // an added token, which nothing changes or cuts any more
  /// Whether its part of the original text begins at byte 0, and how many of its bytes come from the first character of
  /// that part. Metaspace asks for it.
  bool at_begin = true;
  std::size_t from_first = 0;

  bool is_token() const { return token >= 0; }
  /// The bytes from `begin` to `end`.
  Piece part(std::size_t begin, std::size_t end) const {
    Piece made{.text = text.substr(begin, end - begin), .at_begin = at_begin && begin < from_first};
    if (made.at_begin) made.from_first = std::min(from_first, end) - begin;
    return made;
  }
};

/// A part of a piece, found by a pattern, or what lies between two matches.
struct PieceRange {
  std::size_t begin = 0, end = 0;
  bool is_match = false;
};

/// What becomes of matches.
enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// The pieces of a text, and the strings that they show where a change has made new ones.
class Pieces {
 public:
  void begin(std::string_view text) {
    pieces_.clear();
    strings_.clear();
    if (text.empty()) return;
    std::size_t first = 1;
    while (first < text.size() && continues_character(text[first]) && first < 4) ++first;
    pieces_.push_back({.text = text, .from_first = first});
  }

  const std::vector<Piece>& all() const { return pieces_; }
  /// Bytes of all pieces together.
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const Piece& piece : pieces_) sum += piece.text.size();
    return sum;
  }

  /// Calls f(piece) for each piece that is no token; `f` calls `add` for what takes its place.
  template <class F>
  void for_each(F&& f) {
    before_.swap(pieces_);
    pieces_.clear();
    for (const Piece& piece : before_) {
      if (piece.is_token()) {
        pieces_.push_back(piece);
      } else {
        f(piece);
      }
    }
  }

  void add(const Piece& piece) {
    if (!piece.text.empty()) pieces_.push_back(piece);
  }
  /// A string that lives as long as the pieces.
  std::string_view keep(std::string text) { return strings_.emplace_back(std::move(text)); }

  /// Adds the parts of a piece; `segments` cover it, one after the other. They are changed.
  void add_split(const Piece& piece, std::vector<PieceRange>& segments, SplitBehavior behavior) {
    std::size_t kept = 0;
    const auto grow = [&](auto&& joins) {
      bool before = false;
      for (const PieceRange next : segments) {
        if (joins(next.is_match, before) && kept > 0) {
          segments[kept - 1].end = next.end;
        } else {
          segments[kept++] = next;
        }
        before = next.is_match;
      }
    };
    switch (behavior) {
      case SplitBehavior::removed:
        for (const PieceRange next : segments) {
          if (!next.is_match) segments[kept++] = next;
        }
        break;
      case SplitBehavior::isolated:
        kept = segments.size();
        break;
      case SplitBehavior::contiguous:
        grow([](bool is_match, bool before) { return is_match == before; });
        break;
      case SplitBehavior::merged_with_previous:
        grow([](bool is_match, bool before) { return is_match && !before; });
        break;
      case SplitBehavior::merged_with_next: {
        // From right to left; a match joins what follows it, unless that is a match, too.
        bool after = false;
        std::size_t first = segments.size();
        for (std::size_t i = segments.size(); i-- > 0;) {
          const PieceRange next = segments[i];
          if (next.is_match && !after && first < segments.size()) {
            segments[first].begin = next.begin;
          } else {
            segments[--first] = next;
          }
          after = next.is_match;
        }
        for (; first < segments.size(); ++first) add(piece.part(segments[first].begin, segments[first].end));
        return;
      }
    }
    for (std::size_t i = 0; i < kept; ++i) add(piece.part(segments[i].begin, segments[i].end));
  }

 private:
  std::vector<Piece> pieces_, before_;
  std::deque<std::string> strings_;
};

}  // namespace tinymoe::inline v0_1::detail
