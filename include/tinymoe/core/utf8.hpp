#pragma once
/// @file
/// UTF-8: code points from bytes and back, for text that may not be UTF-8 or comes in pieces.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace tinymoe::inline v0_1 {

namespace detail {

/// What `decode_utf8` gives for a byte that starts no valid UTF-8 sequence; no code point has this value.
inline constexpr char32_t invalid_code_point = 0x110000;

/// A code point and the number of bytes it was written with.
struct DecodedCodePoint {
  char32_t value = invalid_code_point;
  std::uint32_t length = 1;
};

/// Whether a byte is a continuation byte of UTF-8.
constexpr bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0u) == 0x80u; }

/// Bytes of the character that starts with `lead`, which is neither ASCII nor a continuation byte.
constexpr std::uint32_t character_length(unsigned char lead) { return lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2; }

/// The code point that starts at byte `at < text.size()`. Bytes that are not UTF-8 (cut, overlong, a surrogate, beyond
/// U+10FFFF) give `invalid_code_point` of one byte, so that a loop can walk over any bytes.
constexpr DecodedCodePoint decode_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t offset) -> std::uint32_t {
    return at + offset < text.size() ? static_cast<unsigned char>(text[at + offset]) : 0u;
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const std::uint32_t length = character_length(static_cast<unsigned char>(lead));
  std::uint32_t value = lead & (0x7fu >> length);
  for (std::uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return {};
    value = (value << 6) | (byte(i) & 0x3fu);
  }
  const std::uint32_t least = length == 4 ? 0x10000u : length == 3 ? 0x800u : 0x80u;
  if (value < least || value > 0x10ffffu || (value >= 0xd800u && value <= 0xdfffu)) return {};
  return {value, length};
}

/// Appends a code point as UTF-8.
template <class String>
constexpr void append_utf8(String& text, char32_t code_point) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xc0u | (code_point >> 6));
  } else {
    if (code_point < 0x10000) {
      put(0xe0u | (code_point >> 12));
    } else {
      put(0xf0u | (code_point >> 18));
      put(0x80u | ((code_point >> 12) & 0x3fu));
    }
    put(0x80u | ((code_point >> 6) & 0x3fu));
  }
  put(0x80u | (code_point & 0x3fu));
}

}  // namespace detail

/// The offset of the first byte that is not UTF-8, or `std::string_view::npos` if all of it is.
inline std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t word = 0;
    if (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const detail::DecodedCodePoint code_point = detail::decode_utf8(text, at);
    if (code_point.value == detail::invalid_code_point) return at;
    at += code_point.length;
  }
  return std::string_view::npos;
}

namespace detail {

/// The text with U+FFFD for each byte that is not UTF-8, for formats that must be.
[[gnu::cold]] inline std::string with_replacements(std::string_view text) {
  std::string characters;
  for (std::size_t at = 0; at < text.size();) {
    const auto [code, length] = decode_utf8(text, at);
    characters += code == invalid_code_point ? "\xef\xbf\xbd" : text.substr(at, length);
    at += length;
  }
  return characters;
}

}  // namespace detail

/// The length of `text` without an incomplete character at its end. Text that arrives in pieces can be shown up to
/// there.
constexpr std::size_t complete_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const char byte = text[text.size() - back];
    if (static_cast<unsigned char>(byte) < 0x80) break;
    if (detail::continues_character(byte)) continue;
    const std::size_t length = detail::character_length(static_cast<unsigned char>(byte));
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace tinymoe::inline v0_1
