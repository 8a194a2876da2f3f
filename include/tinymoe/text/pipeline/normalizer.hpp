#pragma once
/// @file
/// The normalizers of a tokenizer.json: what is changed in a text before it is cut.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/pipeline/character_map.hpp"
#include "tinymoe/text/pipeline/graphemes.hpp"
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
  fail<TextError>("the tokenizer makes a text longer than ", most,
                  " bytes, more than 64 times its length; use one with shorter replacements or fewer of them");
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

/// The bytes of a text in base64 (RFC 4648, section 4); nothing if it is none.
[[gnu::cold]] inline std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t held = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    held = held << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push_back(static_cast<char>(static_cast<unsigned char>(held >> bits & 0xffu)));
  }
  return bytes;
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
                           {"ByteLevel", Kind::bytes}, {"StripAccents", Kind::accents},
                           {"Nmt", Kind::nmt},         {"Precompiled", Kind::mapped}};
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const Known& k) { return type == k.name; });
    if (found == std::end(known)) {
      fail<FileError>(file,
                      ": expected the normalizers NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, "
                      "Prepend, ByteLevel, Nmt, Precompiled or a Sequence of them, found ",
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
    if (kind_ == Kind::mapped) {
      constexpr const char* key = "precompiled_charsmap";
      const auto bytes = from_base64(json_field<std::string>(component, key, file));
      if (!bytes) fail<FileError>(file, ": \"", key, "\": expected base64");
      map_ = CharacterMap(*bytes, key, file);
    }
    if (kind_ == Kind::prepend) content_ = json_field<std::string>(component, "prepend", file);
  }

  /// Throws TextError if the text becomes more than `most` bytes long.
  void operator()(NormalizedText& changed, std::size_t most) const {
    change(changed, most);
    check_form(changed.text.size(), most);
  }

 private:
  enum class Kind : std::uint8_t { nfc, nfd, nfkc, nfkd, lower, strip, accents, replace, prepend, bytes, nmt, mapped };

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
      case Kind::nmt:
        return change_characters(changed, [](std::string& text, char32_t c, std::string_view bytes) {
          if (!is_nmt_control(c)) text += is_nmt_space(c) ? " " : bytes;
        });
      case Kind::mapped:
        return map_characters(changed, most);
    }
  }

  static void normal_form(NormalizedText& changed, NormalForm form) {
    const Normalizing normalizing(form);
    const std::size_t first = normalizing(std::string_view(changed.text).substr(0, changed.from_first)).size();
    changed.text = normalizing(changed.text);
    changed.from_first = std::min(first, changed.text.size());
  }

  static bool is_nmt_control(char32_t c) {
    return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
  }
  static bool is_nmt_space(char32_t c) {
    return c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  }

  /// Puts what the map has for the shortest key in the place of a short cluster that begins with it, or else of a
  /// character. Neither is what sentencepiece does with its map, but the package does so.
  void map_characters(NormalizedText& changed, std::size_t most) const {
    std::string text;
    std::size_t from_first = 0, done = 0;  // characters; the first ones come from `first`
    const std::size_t first = characters(std::string_view(changed.text).substr(0, changed.from_first));
    const auto put = [&](std::string_view old, std::string_view made) {
      const std::size_t before = characters(old);
      std::size_t at = 0;
      for_each_code_point(made, [&](char32_t, std::string_view bytes) {
        // What is more than before belongs to the last character.
        const std::size_t from = done + std::min(at++, before - 1);
        text += bytes;
        if (from < first) from_first = text.size();
      });
      // The package forgets at the beginning of a text what it has removed.
      if (!text.empty()) done += before;
      check_form(text.size(), most);
    };
    const auto mapped = [&](std::string_view old) {
      const MappedCharacters found = map_.shortest(old);
      if (found.length > 0) put(old, found.text);
      return found.length > 0;
    };
    for_each_grapheme(changed.text, [&](std::string_view cluster) {
      if (cluster.size() < 6 && mapped(cluster)) return;
      for_each_code_point(cluster, [&](char32_t, std::string_view character) {
        if (!mapped(character)) put(character, character);
      });
    });
    changed = {std::move(text), from_first};
  }

  static std::size_t characters(std::string_view text) {
    std::size_t count = 0;
    for_each_code_point(text, [&](char32_t, std::string_view) { ++count; });
    return count;
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
  CharacterMap map_;                   // of Precompiled
};

}  // namespace tinymoe::inline v0_1::detail
