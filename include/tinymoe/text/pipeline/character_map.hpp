#pragma once
/// @file
/// The character map of sentencepiece: which strings a text's normal form has in the place of others. Its bytes are
///
///     u32 bytes of the units | units: a double array (darts-clone) of the keys | strings, each with a zero after it
///
/// The value of a key is where its string begins. From a state, which is a place of the array, a byte of a text leads
/// to the unit at state xor byte, if that has the byte as its label, and its offset to the next state. Equal ends of
/// keys share their units. The bytes are untrusted, so all of it is checked.

#include <algorithm>
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

/// Bytes of a key and of what takes its place, at most; sentencepiece's own maps have up to 33. They bound what each
/// character of a text costs.
inline constexpr std::size_t longest_mapped = 1024;

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
      if (is_leaf(units_[at]) && value(units_[at]) > 0 && strings_[value(units_[at]) - 1] != '\0') {
        refuse("expected values where strings begin, found ", value(units_[at]), ", which is inside one");
      }
    }
    for (std::size_t begin = 0, end = 0; begin < strings_.size(); begin = end + 1) {
      end = strings_.find('\0', begin);
      if (end - begin <= longest_mapped) continue;
      refuse("expected strings of at most ", longest_mapped, " bytes, found one of ", end - begin);
    }
    States states(*this);
    longest_key(states, offset(units_[0]), 0, refuse);
  }

  bool empty() const { return units_.empty(); }
  /// The shortest key that the text begins with.
  MappedCharacters shortest(std::string_view text) const {
    MappedCharacters found;
    for_each_key(text, [&](std::size_t length, std::uint32_t at) {
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
  static bool has_value(std::uint32_t unit) { return (unit & 0x100u) != 0; }

  /// The units of each state, as lists, and the bytes of the longest key from there.
  struct States {
    static constexpr std::uint32_t none = 0xffffffff;
    std::vector<std::uint32_t> first, next, longest;

    explicit States(const CharacterMap& map)
        : first(map.units_.size(), none), next(map.units_.size(), none), longest(map.units_.size(), none) {
      for (std::size_t at = 0; at < map.units_.size(); ++at) {
        const std::size_t byte = label(map.units_[at]), state = at ^ byte;
        if (byte == 0 || byte > 255 || state >= first.size()) continue;
        next[at] = first[state];
        first[state] = static_cast<std::uint32_t>(at);
      }
    }
  };

  /// The bytes of the longest key from a state that `depth` bytes lead to. Without this check, units that lead back to
  /// themselves make each search as long as the rest of the text.
  template <class Refuse>
  [[gnu::cold]] std::size_t longest_key(States& states, std::size_t state, std::size_t depth,
                                        const Refuse& refuse) const {
    if (state >= units_.size()) refuse("a key leads to unit ", state, ", outside the array of ", units_.size());
    std::size_t longest = 0;
    if (states.longest[state] != States::none) {
      longest = states.longest[state];
    } else if (depth <= longest_mapped) {
      for (std::uint32_t at = states.first[state]; at != States::none; at = states.next[at]) {
        const std::size_t below = at ^ offset(units_[at]);
        longest = std::max(longest, 1 + longest_key(states, below, depth + 1, refuse));
        if (has_value(units_[at]) && !is_leaf(units_[below])) refuse("unit ", at, " ends a key that has no string");
      }
      states.longest[state] = static_cast<std::uint32_t>(longest);
    }
    if (depth + longest > longest_mapped) {
      refuse("a key has more than ", longest_mapped, " bytes, or its units lead back to themselves");
    }
    return longest;
  }

  std::string_view string_at(std::uint32_t at) const { return strings_.data() + at; }

  /// Calls f(length, value) for each key that the text begins with until it gives false. No key has a zero byte.
  template <class F>
  void for_each_key(std::string_view text, F&& f) const {
    if (units_.empty()) return;
    std::size_t at = offset(units_[0]);
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      at ^= byte;
      if (byte == 0 || at >= units_.size() || label(units_[at]) != byte) return;
      const std::uint32_t unit = units_[at];
      at ^= offset(unit);
      if (has_value(unit) && !f(i + 1, value(units_[at]))) return;
    }
  }

  std::vector<std::uint32_t> units_;
  std::string strings_;
};

}  // namespace tinymoe::inline v0_1::detail
