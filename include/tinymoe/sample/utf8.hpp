#pragma once
/// @file
/// Text that comes in pieces of bytes, shown in whole characters.

#include <algorithm>
#include <string_view>

namespace tinymoe::inline v0_1 {

/// The length of `text` without a UTF-8 character at its end that is not all there yet.
constexpr std::size_t complete_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte < 0xC0) continue;  // inside a character
    const std::size_t length = byte >= 0xF0 ? 4 : (byte >= 0xE0 ? 3 : 2);
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace tinymoe::inline v0_1
