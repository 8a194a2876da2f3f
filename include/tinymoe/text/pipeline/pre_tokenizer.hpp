#pragma once
/// @file
/// The pre-tokenizers of a tokenizer.json: where a text is cut, so that merges never cross a cut.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/pipeline/metaspace.hpp"
#include "tinymoe/text/pipeline/normalizer.hpp"
#include "tinymoe/text/pipeline/pattern.hpp"
#include "tinymoe/text/pipeline/pieces.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

/// One of them. ByteLevel is two: where it cuts, and that bytes are then written in the byte alphabet (`spells`).
class PreTokenizer {
 public:
  /// Throws FileError that names `file`. Not for Sequence.
  [[gnu::cold]] PreTokenizer(const Json& component, const std::string& file) {
    const auto type = json_field<std::string>(component, "type", file);
    struct Known {
      const char* name;
      Kind kind;
    };
    const Known known[] = {
        {"ByteLevel", Kind::byte_level},    {"Whitespace", Kind::words},      {"WhitespaceSplit", Kind::spaces},
        {"Metaspace", Kind::metaspace},     {"Split", Kind::split},           {"Digits", Kind::digits},
        {"Punctuation", Kind::punctuation}, {"BertPreTokenizer", Kind::bert}, {"CharDelimiterSplit", Kind::delimiter},
        {"FixedLength", Kind::fixed_length}};
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const Known& k) { return type == k.name; });
    if (found == std::end(known)) {
      fail<FileError>(file,
                      ": expected the pre_tokenizers ByteLevel, Whitespace, WhitespaceSplit, Metaspace, Split, Digits, "
                      "Punctuation, BertPreTokenizer, CharDelimiterSplit, FixedLength or a Sequence of them, found ",
                      in_quotes(type));
    }
    kind_ = found->kind;
    switch (kind_) {
      case Kind::byte_level:
        prefix_space_ = json_field<bool>(component, "add_prefix_space", file);
        on_ = json_field_or<bool>(component, "use_regex", file, true);
        break;
      case Kind::metaspace:
        metaspace_ = MetaspaceFields(component, file);
        break;
      case Kind::split:
        pattern_ = Pattern(json_member(component, "pattern", file), file);
        behavior_ = behavior_of(json_field<std::string>(component, "behavior", file), file);
        on_ = json_field<bool>(component, "invert", file);
        break;
      case Kind::digits:
        behavior_ = json_field<bool>(component, "individual_digits", file) ? SplitBehavior::isolated
                                                                           : SplitBehavior::contiguous;
        break;
      case Kind::punctuation:
        behavior_ = behavior_of(json_field_or<std::string>(component, "behavior", file, "Isolated"), file);
        break;
      case Kind::delimiter:
        mark_ = one_character(json_field<std::string>(component, "delimiter", file), "delimiter", file);
        break;
      case Kind::fixed_length:
        length_ = json_field_or<std::size_t>(component, "length", file, 5);
        if (length_ == 0) fail<FileError>(file, ": \"length\": expected 1 or more, found 0");
        break;
      case Kind::words:
      case Kind::spaces:
      case Kind::bert:
        break;
    }
  }

  /// Whether each byte of the pieces is then written in the byte alphabet.
  bool spells() const { return kind_ == Kind::byte_level; }

  /// Cuts the pieces that are no tokens. `segments` is scratch.
  void operator()(Pieces& pieces, std::vector<PieceRange>& segments) const {
    pieces.for_each([&](const Piece& piece) { cut(pieces, piece, segments); });
    if (kind_ != Kind::bert) return;
    pieces.for_each([&](const Piece& piece) {
      each_character(piece.text, segments, is_punctuation);
      pieces.add_split(piece, segments, SplitBehavior::isolated);
    });
  }

  /// Writes the bytes of all pieces in the byte alphabet.
  static void spell(Pieces& pieces) {
    pieces.for_each([&](Piece piece) {
      const auto first = spelled(piece.text.substr(0, piece.from_first)).size();
      piece.text = pieces.keep(spelled(piece.text));
      piece.from_first = first;
      pieces.add(piece);
    });
  }

 private:
  enum class Kind : std::uint8_t {
    byte_level,
    words,
    spaces,
    metaspace,
    split,
    digits,
    punctuation,
    bert,
    delimiter,
    fixed_length
  };

  [[gnu::cold]] static SplitBehavior behavior_of(std::string_view name, const std::string& file) {
    if (name == "Removed") return SplitBehavior::removed;
    if (name == "Isolated") return SplitBehavior::isolated;
    if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
    if (name == "Contiguous") return SplitBehavior::contiguous;
    fail<FileError>(
        file, ": \"behavior\": expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, found ",
        in_quotes(name));
  }

  /// Each character for which `f(code point)` is true is a match of its own.
  template <class F>
  static void each_character(std::string_view text, std::vector<PieceRange>& segments, F&& f) {
    segments.clear();
    std::size_t at = 0, before = 0;
    for_each_code_point(text, [&](char32_t c, std::string_view bytes) {
      if (f(c)) {
        if (before < at) segments.push_back({before, at, false});
        segments.push_back({at, at + bytes.size(), true});
        before = at + bytes.size();
      }
      at += bytes.size();
    });
    if (before < text.size()) segments.push_back({before, text.size(), false});
  }

  void cut(Pieces& pieces, const Piece& piece, std::vector<PieceRange>& segments) const {
    const std::string_view text = piece.text;
    switch (kind_) {
      case Kind::byte_level:
        return cut_byte_level(pieces, piece);
      case Kind::words:
        return cut_words(pieces, piece);
      case Kind::spaces:
      case Kind::bert:
        each_character(text, segments, is_space);
        return pieces.add_split(piece, segments, SplitBehavior::removed);
      case Kind::metaspace:
        return cut_metaspace(pieces, piece, segments);
      case Kind::split:
        pattern_.find(text, segments);
        if (on_) {
          for (PieceRange& segment : segments) segment.is_match = !segment.is_match;
        }
        return pieces.add_split(piece, segments, behavior_);
      case Kind::digits:
        each_character(text, segments, is_digit);
        return pieces.add_split(piece, segments, behavior_);
      case Kind::punctuation:
        each_character(text, segments, is_punctuation);
        return pieces.add_split(piece, segments, behavior_);
      case Kind::delimiter: {
        const char32_t mark = decode_utf8(mark_, 0).value;
        each_character(text, segments, [mark](char32_t c) { return c == mark; });
        return pieces.add_split(piece, segments, SplitBehavior::removed);
      }
      case Kind::fixed_length: {
        std::size_t at = 0, begin = 0, count = 0;
        for_each_code_point(text, [&](char32_t, std::string_view bytes) {
          at += bytes.size();
          if (++count < length_) return;
          pieces.add(piece.part(begin, at));
          begin = at, count = 0;
        });
        return pieces.add(piece.part(begin, at));
      }
    }
  }

  void cut_byte_level(Pieces& pieces, Piece piece) const {
    if (prefix_space_ && !piece.text.starts_with(' ')) piece = changed(pieces, piece, " ");
    if (!on_) return pieces.add(piece);
    for (std::size_t at = 0; at < piece.text.size();) {
      const std::size_t end = end_of_piece(piece.text, at);
      pieces.add(piece.part(at, end));
      at = end;
    }
  }

  /// Runs of \w, and of what is neither \w nor white space.
  static void cut_words(Pieces& pieces, const Piece& piece) {
    enum class Run : std::uint8_t { space, word, other };
    Run before = Run::space;
    std::size_t begin = 0, at = 0;
    const auto end_run = [&] {
      if (before != Run::space) pieces.add(piece.part(begin, at));
      begin = at;
    };
    for_each_code_point(piece.text, [&](char32_t c, std::string_view bytes) {
      const Run now = is_word(c) ? Run::word : is_space(c) ? Run::space : Run::other;
      if (now != before) end_run();
      before = now;
      at += bytes.size();
    });
    end_run();
  }

  void cut_metaspace(Pieces& pieces, Piece piece, std::vector<PieceRange>& segments) const {
    NormalizedText replaced{std::string(piece.text), piece.from_first};
    change_characters(replaced, [&](std::string& text, char32_t, std::string_view bytes) {
      text += bytes == " " ? std::string_view(metaspace_.mark) : bytes;
    });
    const bool prepends =
        metaspace_.prepends == Prepending::always || (metaspace_.prepends == Prepending::first && piece.at_begin);
    if (prepends && !replaced.text.starts_with(metaspace_.mark)) prepend_text(replaced, metaspace_.mark);
    piece.text = pieces.keep(std::move(replaced.text));
    piece.from_first = replaced.from_first;
    if (!metaspace_.splits) return pieces.add(piece);
    const char32_t mark = decode_utf8(metaspace_.mark, 0).value;
    each_character(piece.text, segments, [mark](char32_t c) { return c == mark; });
    pieces.add_split(piece, segments, SplitBehavior::merged_with_next);
  }

  static Piece changed(Pieces& pieces, Piece piece, std::string_view prefix) {
    NormalizedText text{std::string(piece.text), piece.from_first};
    prepend_text(text, prefix);
    piece.text = pieces.keep(std::move(text.text));
    piece.from_first = text.from_first;
    return piece;
  }

  Kind kind_ = Kind::words;
  bool prefix_space_ = false;  // of ByteLevel
  bool on_ = false;            // ByteLevel's use_regex, Split's invert
  SplitBehavior behavior_ = SplitBehavior::isolated;
  std::size_t length_ = 0;
  std::string mark_;  // the delimiter
  MetaspaceFields metaspace_;
  Pattern pattern_;
};

}  // namespace tinymoe::inline v0_1::detail
