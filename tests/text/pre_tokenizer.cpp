#include "tinymoe/text/byte_level/pre_tokenizer.hpp"

#include <random>
#include <regex>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "text/samples.hpp"

namespace tinymoe_test::pre_tokenizer {

using namespace tinymoe;
using namespace tinymoe::detail;
using Pieces = std::vector<std::string>;

namespace {

Pieces pieces(std::string_view text) {
  Pieces found;
  for_each_piece(text, [&](std::string_view piece) { found.emplace_back(piece); });
  return found;
}

}  // namespace

TEST_CASE("Code points have the classes that Unicode gives them", "[unicode]") {
  for (const char32_t letter : {U'a', U'Z', U'é', U'ß', U'Ж', U'中', U'の', U'ª', U'ʰ', U'𝔸'}) CHECK(is_letter(letter));
  for (const char32_t number : {U'0', U'9', U'½', U'²', U'Ⅷ', U'٣', U'①'}) CHECK(is_number(number));
  for (const char32_t space : {U' ', U'\n', U'\v', U'\u0085', U'\u00a0', U'\u2003', U'\u3000'}) CHECK(is_space(space));
  for (const char32_t other : {U'!', U'_', U'€', U'。', U'👋', U'\u0301', U'\u200d', U'\0', U'\u200b', U'\ue000'}) {
    CHECK(character_class(other) == CharacterClass::other);
  }
  CHECK(character_class(invalid_code_point) == CharacterClass::other);
}

TEST_CASE("Pieces are GPT-2's", "[pre_tokenizer]") {
  CHECK(pieces("") == Pieces{});
  CHECK(pieces("Hello world") == Pieces{"Hello", " world"});
  CHECK(pieces("It's 42x!") == Pieces{"It", "'s", " 42", "x", "!"});
  CHECK(pieces("we'll they're I've I'm he'd don't") ==
        Pieces{"we", "'ll", " they", "'re", " I", "'ve", " I", "'m", " he", "'d", " don", "'t"});
  CHECK(pieces("'S 'tis 'lo ''s 's") == Pieces{"'", "S", " '", "tis", " '", "lo", " ''", "s", " '", "s"});
  CHECK(pieces("a   b") == Pieces{"a", "  ", " b"});
  CHECK(pieces("a \n b\n") == Pieces{"a", " \n", " b", "\n"});
  CHECK(pieces("a\tb\t\tc") == Pieces{"a", "\t", "b", "\t", "\t", "c"});
  CHECK(pieces("  ") == Pieces{"  "});
  CHECK(pieces(" \u00a0x") == Pieces{" ", "\u00a0", "x"});
  CHECK(pieces("你好，世界") == Pieces{"你好", "，", "世界"});
  CHECK(pieces("naïve 👋!") == Pieces{"naïve", " 👋!"});
  CHECK(pieces("e\u0301") == Pieces{"e", "\u0301"});
  CHECK(pieces("a\xff\xfe!b") == Pieces{"a", "\xff\xfe!", "b"});
  CHECK(pieces("中\xe4\xb8") == Pieces{"中", "\xe4\xb8"});
}

TEST_CASE("On ASCII the scanner equals the regular expression", "[pre_tokenizer]") {
  const std::regex pattern("'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\\sA-Za-z0-9]+|\\s+(?!\\S)|\\s+");
  const std::string alphabet = "   '''stremvldaZ09!_\n\t\r\v-";
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 24, ' ');
    for (char& character : text) character = alphabet[random() % alphabet.size()];
    const Pieces expected(std::sregex_token_iterator(text.begin(), text.end(), pattern), {});
    CAPTURE(text);
    REQUIRE(pieces(text) == expected);
  }
}

TEST_CASE("Pieces of any bytes are the text again", "[pre_tokenizer]") {
  std::mt19937_64 random(2);
  for (int round = 0; round < 500; ++round) {
    const std::string text = random_bytes(random, random() % 200);
    std::string again;
    for_each_piece(text, [&](std::string_view piece) {
      CHECK(!piece.empty());
      again += piece;
    });
    REQUIRE(again == text);
  }
}

}  // namespace tinymoe_test::pre_tokenizer
