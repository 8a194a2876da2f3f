#include "tinymoe/core/utf8.hpp"

#include <cstddef>
#include <string>
#include <string_view>

#include "support/catch.hpp"

namespace tinymoe_test::utf8 {

using namespace tinymoe;
using namespace tinymoe::detail;

TEST_CASE("UTF-8 is decoded, and each wrong byte counts as one", "[unicode]") {
  const auto decoded = [](std::string_view text) { return decode_utf8(text, 0); };
  CHECK(decoded("é").value == U'é');
  CHECK(decoded("中").length == 3);
  CHECK(decoded("👋").value == U'👋');
  CHECK(decoded("\xf4\x8f\xbf\xbf").value == 0x10ffff);
  for (const std::string_view wrong :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe4\xb8", "\xf0\x9f\x91", "\xc3(", "\xe4\xb8("}) {
    CHECK(decoded(wrong).value == invalid_code_point);
    CHECK(decoded(wrong).length == 1);
    CHECK(find_invalid_utf8("all of this is fine: 中é👋 " + std::string(wrong)) == 31);
  }
  CHECK(find_invalid_utf8("plain and 中é👋 and a long tail of plain text") == std::string_view::npos);
}

TEST_CASE("Text ends before a character that has not come whole", "[unicode]") {
  for (const std::string_view whole : {"a", "\xc2\x80", "\xe2\x82\x80", "\xf0\x9f\x80\x80"}) {
    INFO(whole.size());
    const std::string text = "b" + std::string(whole);
    CHECK(complete_characters(text) == text.size());
    for (std::size_t cut = 1; cut < whole.size(); ++cut) {
      CHECK(complete_characters(std::string_view(text).substr(0, text.size() - cut)) == 1);
    }
  }
  CHECK(complete_characters("") == 0);
  CHECK(complete_characters("\x80\x80\x80\x80") == 4);  // no beginning: shown as it is
}

TEST_CASE("Every code point survives UTF-8", "[unicode]") {
  std::size_t wrong = 0;
  for (char32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point == 0xd800) code_point = 0xe000;
    std::string text;
    append_utf8(text, code_point);
    const auto decoded = decode_utf8(text, 0);
    wrong += decoded.value != code_point || decoded.length != text.size();
  }
  CHECK(wrong == 0);
}

}  // namespace tinymoe_test::utf8
