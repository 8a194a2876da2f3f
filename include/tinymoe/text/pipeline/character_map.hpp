#pragma once
/// @file
/// The character map of sentencepiece: which strings a text's normal form has in the place of others. Its bytes are
///
///     u32 bytes of the units | units: a double array (darts-clone) of the keys | strings, each with a zero after it
///
/// The value of a key is where its string begins. The bytes are untrusted, so all of it is checked.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1::detail {

/// A key that a text begins with, and what takes its place.
struct MappedCharacters {
  std::size_t length = 0;  // 0: none
  std::string_view text;
};

class CharacterMap {
 public:
  CharacterMap() = default;
  /// Throws FileError that names `file` and `key`.
  [[gnu::cold]] CharacterMap(std::string_view bytes, const std::string& key, const std::string& file) {
    const auto refuse = [&](auto... what) { fail<FileError>(file, ": \"", key, "\": ", what...); };
    const auto word = [&](std::size_t at) {
      std::uint32_t value = 0;
      for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
      return value;
    };
    if (bytes.size() < 4) refuse("expected a character map, found ", bytes.size(), " bytes");
    const std::size_t size = word(0);
    if (size == 0 || size % 4 != 0 || size > bytes.size() - 4) {
      refuse("expected a double array of at most ", bytes.size() - 4, " bytes, found one of ", size);
    }
    units_.resize(size / 4);
    for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = word(4 + 4 * i);
    strings_ = bytes.substr(4 + size);
    if (strings_.empty() || strings_.back() != '\0') refuse("expected strings that end with a zero");
    if (const auto at = find_invalid_utf8(strings_); at != std::string_view::npos) {
      refuse("expected strings in UTF-8, found another byte at ", at, " of them");
    }
    for (std::size_t at = 0; at < units_.size(); ++at) {
      if (is_leaf(units_[at]) && value(units_[at]) >= strings_.size()) {
        refuse("expected strings of more than ", value(units_[at]), " bytes, found ", strings_.size());
      }
    }
  }

  bool empty() const { return units_.empty(); }
  /// The shortest key that the text begins with, before its first zero byte.
  MappedCharacters shortest(std::string_view text) const {
    MappedCharacters found;
    for_each_key(text.substr(0, text.find('\0')), [&](std::size_t length, std::uint32_t at) {
      found = {length, string_at(at)};
      return false;
    });
    return found;
  }
  /// The longest of the 32 shortest ones.
  MappedCharacters longest(std::string_view text) const {
    MappedCharacters found;
    int keys = 0;
    for_each_key(text, [&](std::size_t length, std::uint32_t at) {
      found = {length, string_at(at)};
      return ++keys < 32;
    });
    return found;
  }

 private:
  static std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
  static std::uint32_t label(std::uint32_t unit) { return unit & 0x800000ffu; }
  static bool is_leaf(std::uint32_t unit) { return (unit >> 31) != 0; }
  static std::uint32_t value(std::uint32_t unit) { return unit & 0x7fffffffu; }

  std::string_view string_at(std::uint32_t at) const { return strings_.data() + at; }

  /// Calls f(length, value) for each key that the text begins with until it gives false. A unit outside of the array or
  /// a key without a value ends the search: each step takes a byte of the text, so loops of units do, too.
  template <class F>
  void for_each_key(std::string_view text, F&& f) const {
    if (units_.empty()) return;
    std::size_t at = offset(units_[0]);
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      at ^= byte;
      if (at >= units_.size() || label(units_[at]) != byte) return;
      const std::uint32_t unit = units_[at];
      at ^= offset(unit);
      if ((unit & 0x100u) == 0) continue;
      if (at >= units_.size() || !is_leaf(units_[at])) return;
      if (!f(i + 1, value(units_[at]))) return;
    }
  }

  std::vector<std::uint32_t> units_;
  std::string strings_;
};

}  // namespace tinymoe::inline v0_1::detail
