#include "tinymoe/text/tokenizer.hpp"

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/known_stories.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/token_pieces.hpp"

namespace tinymoe_test::tokenizer {

using namespace tinymoe;
using Tokens = std::vector<Token>;

namespace {

/// Merging by its definition: the whole list is searched for the smallest rank each time.
Tokens merge_by_definition(const Tokenizer& tokenizer, Tokens tokens) {
  const auto& merges = parts_of(tokenizer).merges;
  for (;;) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (merges[rank] == detail::Merge{tokens[i], tokens[i + 1]}) best = rank, at = i;
      }
    }
    if (best == merges.size()) return tokens;
    const std::string bytes = std::string(tokenizer.bytes(tokens[at])) + std::string(tokenizer.bytes(tokens[at + 1]));
    for (Token id = 0; id < tokenizer.vocabulary_size(); ++id) {
      if (tokenizer.bytes(id) == bytes) tokens[at] = id;
    }
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::string spelled_out(const Tokenizer& tokenizer, std::string_view text) {
  std::string words;
  for (const Token token : tokenizer.encode(text)) words += std::string(tokenizer.bytes(token)) + '|';
  return words;
}

/// A user's kind: each letter is a token, and nothing else can be encoded.
class Letters final : public TokenizerKind {
 public:
  Letters() {
    for (char letter = 'a'; letter <= 'z'; ++letter) vocabulary_.push_back({std::string(1, letter), false});
    vocabulary_.push_back({std::string(end_of_story_text), true});
  }
  std::span<const VocabularyEntry> vocabulary() const override { return vocabulary_; }
  Token end_of_story() const override { return 26; }
  std::uint64_t fingerprint() const override { return 26; }
  std::unique_ptr<TextEncoder> encoder() const override {
    class Encoder final : public TextEncoder {
      void encode(std::string_view text, std::vector<Token>& tokens) override {
        for (const char letter : text) tokens.push_back(letter - 'a');
      }
    };
    return std::make_unique<Encoder>();
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token token : tokens) text += token == 26 ? "" : vocabulary_[static_cast<std::size_t>(token)].bytes;
    return text;
  }
  bool has_bytes() const override { return false; }
  bool knows(std::string_view text) const override {
    return text.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string_view::npos;
  }
  void save(const std::filesystem::path& path) const override { write_bytes(path, "letters"); }
  bool equals(const TokenizerKind& other) const override { return dynamic_cast<const Letters*>(&other) != nullptr; }

 private:
  std::vector<VocabularyEntry> vocabulary_;
};

}  // namespace

TEST_CASE("A user's kind of tokenizer works in Tokenizer and TokenData", "[tokenizer]") {
  const Tokenizer tokenizer{Letters()};
  CHECK(tokenizer.vocabulary_size() == 27);
  CHECK(tokenizer.encode("cab") == Tokens{2, 0, 1});
  CHECK(tokenizer.decode(Tokens{2, 0, 1, 26}) == "cab");
  CHECK(tokenizer.bytes(25) == "z");
  CHECK(tokenizer.is_special(26));
  CHECK_THROWS_AS(tokenizer.decode(Tokens{27}), TextError);
  CHECK(tokenizer.knows("abc"));
  CHECK_FALSE(tokenizer.knows("a b"));
  CHECK(tokenizer == Tokenizer(Letters()));
  CHECK_FALSE(tokenizer == small_tokenizer());
  CHECK_FALSE(small_tokenizer() == tokenizer);
  CHECK(tokenizer.as<Letters>() != nullptr);
  CHECK(tokenizer.as<ByteLevelBpe>() == nullptr);
  const auto data = TokenData::encode(KnownStories(StoryList{"cab", "a b", "no"}, tokenizer), tokenizer);
  CHECK(data.stories() == 2);
  CHECK(data.size() == 7);
  const TemporaryFolder folder;
  tokenizer.save(folder / "letters");
  CHECK(read_bytes(folder / "letters") == "letters");
}

TEST_CASE("Merges are applied by rank, not from the left", "[tokenizer]") {
  const auto tokenizer = tokenizer_of({{"b", "c"}, {"a", "b"}, {"bc", "d"}, {"a", "bcd"}, {"x", "x"}});
  CHECK(spelled_out(tokenizer, "abc") == "a|bc|");
  CHECK(spelled_out(tokenizer, "ab") == "ab|");
  CHECK(spelled_out(tokenizer, "abd") == "ab|d|");
  CHECK(spelled_out(tokenizer, "abcd") == "abcd|");
  CHECK(spelled_out(tokenizer, "abcdab") == "abcd|ab|");
  CHECK(spelled_out(tokenizer, "xxxxx") == "xx|xx|x|");
  CHECK(tokenizer.encode("abcd") == Tokens{259});
  CHECK(tokenizer.encode("").empty());
}

TEST_CASE("The byte tokens are in GPT-2's order", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  CHECK(tokenizer.encode("!") == Tokens{0});
  CHECK(tokenizer.encode("~") == Tokens{93});
  CHECK(tokenizer.encode(" ") == Tokens{220});
  CHECK(tokenizer.encode("\n") == Tokens{198});
  CHECK(tokenizer.bytes(259) == "lo");
  CHECK(tokenizer.vocabulary_size() == 264);
  CHECK(tokenizer.end_of_story() == 263);
}

TEST_CASE("Any bytes come back as they were", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    std::mt19937_64 random(seed);
    std::string text = random_bytes(random, random() % 300);
    for (int i = 0; i < 3; ++i) text.insert(random() % (text.size() + 1), " the lower aaaa 中\xe4");
    const auto tokens = tokenizer.encode(text);
    REQUIRE(tokenizer.decode(tokens) == text);
  }
}

TEST_CASE("Short and long pieces are merged as the definition says", "[tokenizer]") {
  const auto tokenizer = tokenizer_of({{"a", "b"},
                                       {"b", "a"},
                                       {"ab", "a"},
                                       {"a", "a"},
                                       {"aa", "aa"},
                                       {"ba", "ab"},
                                       {"aba", "b"},
                                       {"b", "b"},
                                       {"bb", "aa"}});
  std::mt19937_64 random(3);
  for (const std::size_t size : {1u, 2u, 3u, 5u, 17u, 47u, 48u, 49u, 64u, 65u, 200u}) {
    for (int round = 0; round < 20; ++round) {
      std::string piece(size, 'a');
      for (char& letter : piece) letter = random() % 3 == 0 ? 'b' : 'a';
      Tokens bytes;
      for (const char letter : piece) bytes.push_back(tokenizer.encode(std::string(1, letter))[0]);
      REQUIRE(tokenizer.encode(piece) == merge_by_definition(tokenizer, bytes));
    }
  }
}

TEST_CASE("A megabyte of one letter is encoded in n log n", "[tokenizer]") {
  const auto tokenizer = tokenizer_of({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}});
  const std::string text(std::size_t{1} << 20, 'a');
  const auto start = std::chrono::steady_clock::now();
  CHECK(tokenizer.encode(text).size() == text.size() / 8);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("Special tokens are not looked for in text, and decode to nothing", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  const auto tokens = tokenizer.encode("a<|endoftext|>b");
  CHECK(tokens.size() == 15);
  CHECK(tokenizer.decode(tokens) == "a<|endoftext|>b");
  const Token end = tokenizer.end_of_story();
  CHECK(tokenizer.decode(Tokens{end, 64, end, 65, end}) == "ab");
  CHECK(tokenizer.bytes(end) == "<|endoftext|>");
  CHECK(tokenizer.is_special(end));
  CHECK_FALSE(tokenizer.is_special(64));
}

TEST_CASE("A text decoded token by token is the text decoded at once, for every kind", "[tokenizer]") {
  std::mt19937_64 random(12);
  for (const auto& tokenizer :
       {small_tokenizer(), padding_tokenizer(), llama_tokenizer(true), llama_tokenizer(false), Tokenizer(Letters())}) {
    const auto vocabulary = static_cast<std::uint64_t>(tokenizer.vocabulary_size());
    for (int round = 0; round < 300; ++round) {
      Tokens tokens;
      for (auto length = random() % 12; length > 0; --length) {
        // The first few and the last few are the special ones of some kind.
        const auto place = random() % 3 == 0 ? random() % 4 : random() % vocabulary;
        tokens.push_back(static_cast<Token>(random() % 4 == 0 ? vocabulary - 1 - place : place));
      }
      const auto at = static_cast<std::ptrdiff_t>(random() % (tokens.size() + 1));
      const Tokens before(tokens.begin(), tokens.begin() + at), after(tokens.begin() + at, tokens.end());
      CAPTURE(tokenizer.vocabulary_size(), tokens, at);
      CHECK(tokenizer.decode(before) + tokenizer.decode_after(before, after) == tokenizer.decode(tokens));
      std::string text;
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto all = std::span<const Token>(tokens);
        text += tokenizer.decode_after(all.first(i), all.subspan(i, 1));
      }
      CHECK(text == tokenizer.decode(tokens));
      std::string pieces;
      const Token outside = tokenizer.vocabulary_size() > 999 ? -1 : 1000;
      Tokens with_outside = tokens;
      with_outside.insert(with_outside.begin() + at, outside);
      for (std::size_t i = 0; i < with_outside.size(); ++i) pieces += detail::token_piece(tokenizer, with_outside, i);
      CHECK(pieces == text);
      for (const char* name : {"<|endoftext|>", "<|pad|>", "<unk>", "<s>", "</s>", "<|im_end|>"}) {
        CHECK_FALSE(contains(text, name));
      }
    }
    // A space is left out where a text begins, however many special tokens stand before.
    Tokens tokens(40, static_cast<Token>(vocabulary - 1));
    tokens[2] = tokens[20] = tokens[39] = tokenizer.encode("a")[0];
    std::string pieces;
    for (std::size_t i = 0; i < tokens.size(); ++i) pieces += detail::token_piece(tokenizer, tokens, i);
    CHECK(pieces == tokenizer.decode(tokens));
    check_message<TextError>([&] { (void)tokenizer.decode_after(Tokens{-1}, {}); }, "found -1");
    check_message<TextError>([&] { (void)tokenizer.decode_after({}, Tokens{-1}); }, "found -1");
  }
}

TEST_CASE("Tokens outside the vocabulary are refused", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  for (const Token wrong : {-1, 264, std::numeric_limits<Token>::max(), std::numeric_limits<Token>::min()}) {
    const auto message = message_if_any<TextError>([&] { (void)tokenizer.decode(Tokens{64, wrong}); });
    CHECK(message == "expected a token from 0 to 263, found " + std::to_string(wrong));
    CHECK_THROWS_AS(tokenizer.bytes(wrong), TextError);
  }
}

TEST_CASE("An encoder whose cache was full gives what a fresh one gives", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  Encoder encoder(tokenizer);
  std::mt19937_64 random(4);
  for (int round = 0; round < 60; ++round) {  // more distinct pieces than its cache holds
    std::string text;
    for (int i = 0; i < 4000; ++i) text += " lower" + std::to_string(random());
    Tokens tokens;
    encoder.encode(text, tokens);
    if (round % 10 == 9) REQUIRE(tokens == tokenizer.encode(text));
    REQUIRE(tokenizer.decode(tokens) == text);
  }
}

TEST_CASE("Threads share a tokenizer", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  const std::string text = "the lower the slower, the lowest aaa";
  const auto expected = tokenizer.encode(text);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (auto& result : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) result += tokenizer.encode(text) == expected;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(equal == std::vector<int>(4, 200));
}

TEST_CASE("The fingerprint follows vocabulary and merges", "[tokenizer]") {
  const auto tokenizer = small_tokenizer();
  CHECK(tokenizer.fingerprint() == 2441673376115416824u);
  CHECK(tokenizer == small_tokenizer());
  CHECK(tokenizer.fingerprint() == small_tokenizer().fingerprint());
  auto parts = parts_of(tokenizer);
  std::swap(parts.merges[0], parts.merges[6]);
  CHECK_FALSE(Tokenizer(ByteLevelBpe(parts)) == tokenizer);
  CHECK(Tokenizer(ByteLevelBpe(parts)).fingerprint() != tokenizer.fingerprint());
  parts = parts_of(tokenizer);
  std::swap(parts.vocabulary[256], parts.vocabulary[262]);
  CHECK(message_if_any<TextError>([&] { ByteLevelBpe{parts}; }) != "");  // merge 0 no longer finds its parts
  parts = parts_of(tokenizer);
  parts.vocabulary.push_back({"<|pad|>", true});
  CHECK(Tokenizer(ByteLevelBpe(parts)).fingerprint() != tokenizer.fingerprint());
}

TEST_CASE("Parts that do not make a tokenizer are refused", "[tokenizer]") {
  const auto message = [](auto change) {
    auto parts = parts_of(small_tokenizer());
    change(parts);
    return message_if_any<TextError>([&] { ByteLevelBpe{parts}; });
  };
  CHECK(message([](auto&) {}) == "");
  CHECK(message([](auto& parts) { parts.vocabulary[64].bytes = "zz"; }) ==
        "expected a token for each byte, found none for byte 97");
  CHECK(message([](auto& parts) { parts.vocabulary.pop_back(); }) ==
        "expected the special token <|endoftext|>, found none");
  CHECK(message([](auto& parts) { parts.vocabulary.back().special = false; }) ==
        "expected the special token <|endoftext|>, found none");
  CHECK(contains(message([](auto& parts) { parts.vocabulary.push_back({"lo", false}); }), "\"lo\" is there twice"));
  CHECK(contains(message([](auto& parts) { parts.vocabulary.push_back({"lo", true}); }), "\"lo\" is there twice"));
  CHECK(contains(message([](auto& parts) { parts.vocabulary.push_back({"", false}); }), "token 264 is empty"));
  CHECK(contains(message([](auto& parts) { parts.vocabulary.push_back({"\xff", true}); }), "is not UTF-8"));
  CHECK(contains(message([](auto& parts) {
                   parts.merges.push_back({64, 264});
                 }),
                 "merge 7: expected an ordinary token"));
  CHECK(contains(message([](auto& parts) { parts.merges.push_back({64, -1}); }), "found -1"));
  CHECK(contains(message([](auto& parts) { parts.merges.push_back({263, 64}); }), "found 263"));
  CHECK(contains(message([](auto& parts) { parts.merges.push_back({65, 65}); }), "merge 7 makes \"bb\""));
  CHECK(contains(message([](auto& parts) { parts.merges.push_back(parts.merges[0]); }),
                 "merge 7 of \"th\" is there twice"));
}

TEST_CASE("GPT-2 encodes as the published tokenizer does", "[tokenizer]") {
  const auto gpt2 = Tokenizer::load_gpt2(shared_data("gpt2/vocab.json"), shared_data("gpt2/merges.txt"));
  CHECK(gpt2.vocabulary_size() == 50257);
  CHECK(gpt2.end_of_story() == 50256);
  struct Case {
    std::string text;
    Tokens tokens;
  };
  const auto text = [](std::string_view bytes) { return std::string(bytes); };
  using namespace std::string_view_literals;
  // From Hugging Face tokenizers 0.23.
  const std::vector<Case> cases = {
      {text("Hello world"sv), {15496, 995}},
      {text(""sv), {}},
      {text("Hello, world! It's 2024."sv), {15496, 11, 995, 0, 632, 338, 48609, 13}},
      {text("I'll we've they're don't I'm he'd cat's 'tis 'S"sv),
       {40, 1183, 356, 1053, 484, 821, 836, 470, 314, 1101, 339, 1549, 3797, 338, 705, 48010, 705, 50}},
      {text("  two  spaces   three\tand\ttabs \n\n new\r\nlines  "sv),
       {220, 734, 220, 9029, 220, 220, 1115, 197, 392, 197, 8658, 82, 220, 628, 649, 201, 198, 6615, 220, 220}},
      {text("price: $3,141.59 (50%) x2 3rd 1/2"sv),
       {20888, 25, 720, 18, 11, 23756, 13, 3270, 357, 1120, 4407, 2124, 17, 513, 4372, 352, 14, 17}},
      {text("naïve café Straße Ünïcödé"sv),
       {2616, 38776, 40304, 15195, 39683, 68, 49363, 77, 26884, 66, 9101, 67, 2634}},
      {text("Привет, мир! Как дела?"sv),
       {140, 253,   21169, 18849, 38857, 16843, 20375, 11,    12466, 120,   18849, 21169,
        0,   12466, 248,   16142, 31583, 12466, 112,   16843, 30143, 16142, 30}},
      {text("你好，世界。今天天气很好"sv), {19526, 254,   25001, 121,   171,   120,   234, 10310, 244, 45911, 234,
                                            16764, 20015, 232,   25465, 25465, 36365, 242, 36181, 230, 25001, 121}},
      {text("日本語のテキスト 東京タワー"sv),
       {33768, 98, 17312, 105, 45739, 252, 5641, 24336, 25084, 43302, 10545, 251, 109, 12859, 105, 23376, 25589, 6312}},
      {text("👋🏽 hello 🎉🎉 👨\342\200\215👩\342\200\215👧\342\200\215👦"sv),
       {41840, 233, 8582, 237,   121, 23748, 12520, 236,   231, 8582, 236, 231,   50169,
        101,   447, 235,  41840, 102, 447,   235,   41840, 100, 447,  235, 41840, 99}},
      {text("مرحبا بالعالم"sv), {25405, 26897, 148, 255, 39848, 12919, 17550, 101, 23525, 44690, 23525, 25405}},
      {text("नमस\340\245\215ते दुनिया"sv), {11976, 101, 11976, 106, 11976, 116, 24231, 235, 11976, 97,  24231, 229,
                                          28225, 99,  24231, 223, 11976, 101, 11976, 123, 11976, 107, 48077}},
      {text("① ½ ² Ⅷ ٣"sv), {158, 239, 254, 25208, 1587, 110, 2343, 227, 100, 18923, 96}},
      {text("a\302\240b\342\200\203c\343\200\200 d"sv), {64, 1849, 65, 447, 225, 66, 5099, 222, 288}},
      {text("!!!?\??...---***"sv), {10185, 28358, 986, 6329, 8162}},
      {text("'''s''re ''ve"sv), {7061, 6, 82, 7061, 260, 10148, 303}},
      {text("x = {\"a\": [1, 2]}; // code"sv), {87, 796, 19779, 64, 1298, 685, 16, 11, 362, 60, 19629, 3373, 2438}},
      {text("\000\001\177\302\200"sv), {188, 189, 221, 126, 222}},
      {text("antidisestablishmentarianism floccinaucinihilipilification"sv),
       {415, 29207, 44390, 3699, 1042, 781, 13966, 259, 14272, 259, 20898, 541, 346, 2649}},
      {text("<|endoftext|>"sv), {27, 91, 437, 1659, 5239, 91, 29}},
      {text(" leading and trailing "sv), {3756, 290, 25462, 220}},
      {text("e\314\201\314\247 combining"sv), {68, 136, 223, 136, 100, 19771}},
      {text("\n"sv), {198}},
      {text("   "sv), {220, 220, 220}},
  };
  for (const auto& [given, expected] : cases) {
    CAPTURE(given);
    CHECK(gpt2.encode(given) == expected);
    CHECK(gpt2.decode(expected) == given);
  }
}

}  // namespace tinymoe_test::tokenizer
