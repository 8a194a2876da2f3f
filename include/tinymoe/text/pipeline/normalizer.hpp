#pragma once
/// @file
/// The normalizers of a tokenizer.json: what is changed in a text before it is cut.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/pipeline/normal_forms.hpp"
#include "tinymoe/text/pipeline/pattern.hpp"
#include "tinymoe/text/pipeline/pieces.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

/// A string in which what came from the first `from_first` bytes ends there.
struct NormalizedText {
  std::string text;
  std::size_t from_first = 0;
};

/// How many bytes a text of `bytes` may become. Without a limit a small tokenizer.json doubles a text again and again.
inline constexpr std::size_t longest_form(std::size_t bytes) { return 64 * bytes + 1024; }

/// Throws TextError if a text has become more than `most` bytes long.
inline void check_form(std::size_t bytes, std::size_t most) {
  if (bytes <= most) return;
  fail<TextError>("tokenizer.json makes a text longer than ", most,
                  " bytes, more than 64 times its length; use one with fewer Replace, Prepend and ByteLevel");
}

/// Appends `f(text, code point, bytes)` for each character to a text.
template <class F>
void change_characters(NormalizedText& changed, F&& f) {
  std::string text;
  std::size_t from_first = 0;
  std::size_t at = 0;
  for_each_code_point(changed.text, [&](char32_t value, std::string_view bytes) {
    f(text, value, bytes);
    at += bytes.size();
    if (at <= changed.from_first) from_first = text.size();
  });
  changed = {std::move(text), from_first};
}

/// Puts `content` in the place of each match. Throws TextError if that makes more than `most` bytes.
inline void replace_matches(NormalizedText& changed, const Pattern& pattern, std::string_view content,
                            std::size_t most) {
  std::string text;
  std::size_t at = 0, from_first = 0;
  const auto copy = [&](std::size_t end) {
    text.append(changed.text, at, end - at);
    if (at < changed.from_first) from_first = text.size() - (end - std::min(end, changed.from_first));
    at = end;
  };
  pattern.for_each_match(changed.text, [&](TextRange match) {
    copy(match.begin);
    text += content;
    check_form(text.size(), most);
    at = match.end;
    if (match.end <= changed.from_first) from_first = text.size();
  });
  copy(changed.text.size());
  changed = {std::move(text), from_first};
}

/// Puts `prefix` before a text that is not empty.
inline void prepend_text(NormalizedText& changed, std::string_view prefix) {
  if (changed.text.empty()) return;
  changed.text.insert(0, prefix);
  if (changed.from_first > 0) changed.from_first += prefix.size();
}

/// One of them.
class Normalizer {
 public:
  /// Throws FileError that names `file`. Not for Sequence.
  [[gnu::cold]] Normalizer(const Json& component, const std::string& file) {
    const auto type = json_field<std::string>(component, "type", file);
    struct Known {
      const char* name;
      Kind kind;
    };
    const Known known[] = {{"NFC", Kind::nfc},         {"NFD", Kind::nfd},
                           {"NFKC", Kind::nfkc},       {"NFKD", Kind::nfkd},
                           {"Lowercase", Kind::lower}, {"Strip", Kind::strip},
                           {"Replace", Kind::replace}, {"Prepend", Kind::prepend},
                           {"ByteLevel", Kind::bytes}, {"StripAccents", Kind::accents}};
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const Known& k) { return type == k.name; });
    if (found == std::end(known)) {
      fail<FileError>(file,
                      ": expected the normalizers NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, "
                      "Prepend, ByteLevel or a Sequence of them, found ",
                      in_quotes(type));
    }
    kind_ = found->kind;
    if (kind_ == Kind::strip) {
      left_ = json_field<bool>(component, "strip_left", file);
      right_ = json_field<bool>(component, "strip_right", file);
    }
    if (kind_ == Kind::replace) {
      pattern_ = Pattern(json_member(component, "pattern", file), file);
      content_ = json_field<std::string>(component, "content", file);
    }
    if (kind_ == Kind::prepend) content_ = json_field<std::string>(component, "prepend", file);
  }

  /// Throws TextError if the text becomes more than `most` bytes long.
  void operator()(NormalizedText& changed, std::size_t most) const {
    change(changed, most);
    check_form(changed.text.size(), most);
  }

 private:
  enum class Kind : std::uint8_t { nfc, nfd, nfkc, nfkd, lower, strip, accents, replace, prepend, bytes };

  void change(NormalizedText& changed, std::size_t most) const {
    switch (kind_) {
      case Kind::nfc:
        return normal_form(changed, NormalForm::nfc);
      case Kind::nfd:
        return normal_form(changed, NormalForm::nfd);
      case Kind::nfkc:
        return normal_form(changed, NormalForm::nfkc);
      case Kind::nfkd:
        return normal_form(changed, NormalForm::nfkd);
      case Kind::lower:
        return change_characters(changed, [](std::string& text, char32_t c, std::string_view bytes) {
          c == invalid_code_point ? void(text += bytes) : append_lower_case(text, c);
        });
      case Kind::accents:
        return change_characters(changed, [](std::string& text, char32_t c, std::string_view bytes) {
          if (!in_ranges(accent_ranges, c)) text += bytes;
        });
      case Kind::bytes:
        return change_characters(changed,
                                 [](std::string& text, char32_t, std::string_view bytes) { text += spelled(bytes); });
      case Kind::replace:
        return replace_matches(changed, pattern_, content_, most);
      case Kind::prepend:
        return prepend_text(changed, content_);
      case Kind::strip:
        return strip(changed);
    }
  }

  static void normal_form(NormalizedText& changed, NormalForm form) {
    const Normalizing normalizing(form);
    const std::size_t first = normalizing(std::string_view(changed.text).substr(0, changed.from_first)).size();
    changed.text = normalizing(changed.text);
    changed.from_first = std::min(first, changed.text.size());
  }

  void strip(NormalizedText& changed) const {
    std::size_t begin = changed.text.size(), end = 0, at = 0;
    for_each_code_point(changed.text, [&](char32_t c, std::string_view bytes) {
      if (!is_space(c)) {
        begin = std::min(begin, at);
        end = at + bytes.size();
      }
      at += bytes.size();
    });
    if (!left_) begin = 0;
    if (!right_) end = changed.text.size();
    changed.text = changed.text.substr(begin, end > begin ? end - begin : 0);
    changed.from_first -= std::min(changed.from_first, begin);
  }

  Kind kind_ = Kind::nfc;
  bool left_ = false, right_ = false;  // of Strip
  Pattern pattern_;                    // of Replace
  std::string content_;                // of Replace and Prepend
};

/// The components of one that may be null, one, or a Sequence, in order: calls f(component) for each.
/// `members` is what a Sequence calls its list. Throws FileError that names `file`.
template <class F>
void for_each_component(const Json& component, const char* members, const std::string& file, F&& f, int depth = 0) {
  if (component.is_null()) return;
  if (depth > 20) fail<FileError>(file, ": \"", members, "\" are nested too deeply");
  if (json_field<std::string>(component, "type", file) != "Sequence") return f(component);
  for (const Json& member : expect_array(component, members, file).items()) {
    for_each_component(member, members, file, f, depth + 1);
  }
}

}  // namespace tinymoe::inline v0_1::detail
