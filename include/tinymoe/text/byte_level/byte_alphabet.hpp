#pragma once
/// @file
/// GPT-2's byte alphabet: each byte has a printable character, so that tokens can be written as strings in JSON.
/// Printable Latin-1 bytes stand for themselves; the others take U+0100 onwards ("Ġ" is the space, "Ċ" the newline).

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1::detail {

struct ByteAlphabet {
  std::array<char32_t, 256> character{};      // of a byte
  std::array<std::int16_t, 0x144> byte{};     // of a character, -1 if it has none
  std::array<unsigned char, 256> in_order{};  // the bytes by their characters: GPT-2's tokens 0 to 255
};

inline constexpr ByteAlphabet byte_alphabet = [] {
  ByteAlphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    const char32_t character = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.character[byte] = character;
    alphabet.byte[character] = static_cast<std::int16_t>(byte);
  }
  std::size_t order = 0;
  for (const std::int16_t byte : alphabet.byte) {
    if (byte >= 0) alphabet.in_order[order++] = static_cast<unsigned char>(byte);
  }
  return alphabet;
}();

/// Bytes as the characters that stand for them, in UTF-8.
inline std::string spelled(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(text, byte_alphabet.character[static_cast<unsigned char>(byte)]);
  return text;
}

/// The bytes that a token's characters stand for, or nothing if a character is outside the alphabet.
inline std::optional<std::string> unspelled(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCodePoint code_point = decode_utf8(text, at);
    if (code_point.value >= byte_alphabet.byte.size() || byte_alphabet.byte[code_point.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte_alphabet.byte[code_point.value]));
    at += code_point.length;
  }
  return bytes;
}

}  // namespace tinymoe::inline v0_1::detail
