// Harness of UTF-8, against a decoder that goes by the table of well-formed sequences (Unicode, table 3-7).

#include <algorithm>
#include <string>
#include <string_view>

#include "fuzz/harness.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe_fuzz {

namespace characters {

std::size_t well_formed(std::string_view text) {
  const char* const bytes = text.data();
  const std::size_t size = text.size();
  const auto byte = [&](std::size_t i) { return i < size ? static_cast<unsigned char>(bytes[i]) : 0u; };
  const auto in = [&](std::size_t i, unsigned least, unsigned most) { return byte(i) >= least && byte(i) <= most; };
  const auto tail = [&](std::size_t i) { return in(i, 0x80, 0xbf); };
  if (text.empty()) return 0;
  if (in(0, 0, 0x7f)) return 1;
  if (in(0, 0xc2, 0xdf)) return tail(1) ? 2 : 0;
  if (byte(0) == 0xe0) return in(1, 0xa0, 0xbf) && tail(2) ? 3 : 0;
  if (byte(0) == 0xed) return in(1, 0x80, 0x9f) && tail(2) ? 3 : 0;
  if (in(0, 0xe1, 0xef)) return tail(1) && tail(2) ? 3 : 0;
  if (byte(0) == 0xf0) return in(1, 0x90, 0xbf) && tail(2) && tail(3) ? 4 : 0;
  if (in(0, 0xf1, 0xf3)) return tail(1) && tail(2) && tail(3) ? 4 : 0;
  if (byte(0) == 0xf4) return in(1, 0x80, 0x8f) && tail(2) && tail(3) ? 4 : 0;
  return 0;
}

void utf8(std::string_view input) {
  std::size_t first = std::string_view::npos;
  std::string replaced, written;
  for (std::size_t at = 0; at < input.size();) {
    const std::size_t length = well_formed(input.substr(at));
    const auto found = tinymoe::detail::decode_utf8(input, at);
    expect((found.value == tinymoe::detail::invalid_code_point) == (length == 0), "another byte is well formed");
    expect(found.length == std::max<std::size_t>(length, 1), "a character has another length");
    if (length == 0) first = std::min(first, at);
    written.clear();
    if (length > 0) tinymoe::detail::append_utf8(written, found.value);
    expect(written == input.substr(at, length), "a character is written as another");
    replaced += length > 0 ? std::string_view(written) : "\xef\xbf\xbd";
    at += std::max<std::size_t>(length, 1);
  }
  expect(find_invalid_utf8(input) == first, "the first byte that is no UTF-8 is another");
  expect(tinymoe::detail::with_replacements(input) == replaced, "other replacements");
  const std::size_t complete = complete_characters(input);
  expect(complete <= input.size() && input.size() - complete < 4, "too much is no complete character");
  if (first == std::string_view::npos) expect(complete == input.size(), "a whole text is not complete");
}

void utf8_seeds(const TakeSeed& take) {
  for (const char* text : {"plain text of more than eight bytes", "\xc3\xa9\xe2\x96\x81\xf0\x9f\x91\x8b",
                           "\xed\xa0\x80", "\xf4\x90\x80\x80", "aaaaaaa\xe2\x82", "\xc0\x80", "\xf0\x80\x80\x80"}) {
    take(text);
  }
}

constexpr Harness harnesses[] = {{"utf8", utf8, utf8_seeds, 40}};

}  // namespace characters

std::span<const Harness> utf8_harnesses() { return characters::harnesses; }

}  // namespace tinymoe_fuzz
