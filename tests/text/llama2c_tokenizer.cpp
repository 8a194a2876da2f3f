// llama2.c's tokenizer: against a slow copy of its algorithm, its files in both forms, and corrupt files.

#include "tinymoe/text/llama2c/tokenizer.hpp"

#include <nlohmann/json.hpp>
#include <random>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_test::llama2c_tokenizer {

using namespace tinymoe;

namespace {

struct Entry {
  std::string name;
  float score = 0;
};
using Entries = std::vector<Entry>;

std::string bin_of(const Entries& entries, std::int32_t longest = 16) {
  std::string bytes = bytes_of(longest);
  for (const auto& [name, score] : entries) {
    bytes += bytes_of(score) + bytes_of(static_cast<std::int32_t>(name.size())) + name;
  }
  return bytes;
}

Tokenizer load_entries(const Entries& entries) {
  const TemporaryFolder folder;
  return Tokenizer::load_llama2c(write_bytes(folder / "tokenizer.bin", bin_of(entries)));
}

const Entries specials = {{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};

/// "<unk>", "<s>", "</s>", the 256 bytes, and pieces of which "ab" is better than "bc".
Entries with_bytes() {
  Entries entries = specials;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    entries.push_back({name});
  }
  float score = 0;
  for (const char* piece : {"ab", "bc", " a", "abc", " ab", "aa", "aaa", "\xc3\xa9",
                            "\xc3\xa9"
                            "a",
                            " ", "a", "b", "c"}) {
    entries.push_back({piece, --score});
  }
  return entries;
}

/// Characters only, as in a vocabulary without bytes.
Entries characters() {
  Entries entries = specials;
  float score = 0;
  for (const char* piece : {" ", "a", "b", "\xe2\x80\x9c"}) entries.push_back({piece, --score});
  return entries;
}

/// What llama2.c's `encode` does, literally: quadratic, by the text of neighbours.
std::vector<Token> encode_slowly(const Entries& entries, const std::string& text) {
  const auto find = [&](const std::string& name) {
    for (std::size_t id = 0; id < entries.size(); ++id) {
      if (entries[id].name == name) return static_cast<Token>(id);
    }
    return Token{-1};
  };
  std::vector<Token> tokens;
  if (!text.empty()) tokens.push_back(find(" "));
  std::string character;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80) character.clear();
    character += text[i];
    if (i + 1 < text.size() && (text[i + 1] & 0xC0) == 0x80 && character.size() < 4) continue;
    if (const Token id = find(character); id != -1) {
      tokens.push_back(id);
    } else {
      for (const char byte : character) tokens.push_back(static_cast<unsigned char>(byte) + 3);
    }
    character.clear();
  }
  while (true) {
    float best_score = -1e10f;
    Token best = -1;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto name = [&](std::size_t n) { return entries[static_cast<std::size_t>(tokens[n])].name; };
      const Token id = find(name(i) + name(i + 1));
      if (id == -1 || entries[static_cast<std::size_t>(id)].score <= best_score) continue;
      best_score = entries[static_cast<std::size_t>(id)].score;
      best = id;
      at = i;
    }
    if (best == -1) return tokens;
    tokens[at] = best;
    tokens.erase(tokens.begin() + static_cast<Index>(at) + 1);
  }
}

std::vector<Token> ids(const Entries& entries, const std::vector<std::string>& names) {
  std::vector<Token> tokens;
  for (const auto& name : names) {
    const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.name == name; });
    REQUIRE(found != entries.end());
    tokens.push_back(static_cast<Token>(found - entries.begin()));
  }
  return tokens;
}

}  // namespace

TEST_CASE("A llama2.c tokenizer puts a space before a text and merges the best pair first", "[llama2c]") {
  const auto entries = with_bytes();
  const auto tokenizer = load_entries(entries);
  CHECK(tokenizer.vocabulary_size() == std::ssize(entries));
  CHECK(tokenizer.end_of_story() == 1);
  CHECK(tokenizer.has_bytes());
  CHECK(tokenizer.encode("").empty());
  // " abc" is " ", "a", "b", "c"; "ab" is the best, then "abc" is there; " abc" is no token.
  CHECK(tokenizer.encode("abc") == ids(entries, {" ", "abc"}));
  CHECK(tokenizer.encode("ab") == ids(entries, {" ab"}));
  CHECK(tokenizer.encode("bcc") == ids(entries, {" ", "bc", "c"}));
  CHECK(tokenizer.encode("b\xc3\xa9") == ids(entries, {" ", "b", "\xc3\xa9"}));
  // The two bytes of a character that is no token, and a line feed.
  CHECK(tokenizer.encode("b\xc3\xa8\n") == ids(entries, {" ", "b", "<0xC3>", "<0xA8>", "<0x0A>"}));
  // The text of a token is not the token.
  CHECK(tokenizer.decode(tokenizer.encode("<s></s>")) == "<s></s>");
  CHECK(tokenizer.encode("<s>").size() == 4);
}

TEST_CASE("A llama2.c tokenizer encodes as llama2.c's own algorithm does", "[llama2c]") {
  // Pieces of few letters match often. Some scores are equal, and one is below the least that llama2.c merges.
  std::mt19937 random(7);
  Entries entries = with_bytes();
  entries.resize(3 + 256);
  for (const char* piece : {" ", "a", "b", "\xc3\xa9"}) entries.push_back({piece, -100});
  while (entries.size() < 400) {
    std::string piece;
    for (unsigned length = 2 + random() % 5; length > 0; --length) {
      piece += std::array{" ", "a", "b", "\xc3\xa9"}[random() % 4];
    }
    if (std::none_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.name == piece; })) {
      entries.push_back({piece, -static_cast<float>(random() % 60)});
    }
  }
  entries[300].score = -2e10f;
  const auto tokenizer = load_entries(entries);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (unsigned length = random() % 120; length > 0; --length) {
      text += random() % 20 == 0 ? static_cast<char>(random() % 255 + 1) : "ab \xc3\xa9"[random() % 5];
    }
    const auto tokens = tokenizer.encode(text);
    REQUIRE(tokens == encode_slowly(entries, text));
    REQUIRE(tokenizer.decode(tokens) == text);
  }
}

TEST_CASE("Decoding leaves out special tokens and the space before each text", "[llama2c]") {
  const auto entries = with_bytes();
  const auto tokenizer = load_entries(entries);
  const auto begin = tokenizer.end_of_story();
  auto tokens = tokenizer.encode(" a b");  // a space of its own stays
  CHECK(tokenizer.decode(tokens) == " a b");
  const auto more = tokenizer.encode("c");
  tokens.insert(tokens.begin(), begin);
  tokens.push_back(begin);
  tokens.insert(tokens.end(), more.begin(), more.end());
  tokens.push_back(2);
  tokens.push_back(0);
  CHECK(tokenizer.decode(tokens) == " a bc");
  CHECK(tokenizer.bytes(3 + 0xe9) == "\xe9");
  CHECK(tokenizer.bytes(1) == "<s>");
  CHECK(tokenizer.is_special(2));
  CHECK_FALSE(tokenizer.is_special(3));
  check_message<TextError>([&] { static_cast<void>(tokenizer.bytes(-1)); }, "found -1");
  const auto beyond = static_cast<Token>(entries.size());
  check_message<TextError>([&] { static_cast<void>(tokenizer.decode(std::array{beyond})); },
                           "from 0 to " + std::to_string(beyond - 1), "found " + std::to_string(beyond));
}

TEST_CASE("U+2581 in a text is the space that it stands for in the hub's files", "[llama2c]") {
  const auto bytes = load_entries(with_bytes()), letters = load_entries(characters());
  struct Case {
    std::string text;
    std::vector<Token> with_bytes, characters;
  };
  // From Hugging Face tokenizers 0.23 with `encode_special_tokens`, reading these vocabularies as they are saved.
  const std::string mark = "\xe2\x96\x81";
  const std::vector<Case> cases = {
      {"a" + mark + "b", {261, 268, 270}, {3, 4, 3, 5}},
      {mark + "a", {268, 261}, {3, 3, 4}},
      {"a" + mark, {261, 268}, {3, 4, 3}},
      {mark, {268, 268}, {3, 3}},
      {mark + mark, {268, 268, 268}, {3, 3, 3}},
      {" " + mark + " b", {268, 268, 268, 268, 270}, {3, 3, 3, 3, 5}},
      {"", {}, {}},
      {" ", {268, 268}, {3, 3}},
      {"  a  ", {268, 268, 261, 268, 268}, {3, 3, 3, 4, 3, 3}},
  };
  for (const auto& [text, expected, of_characters] : cases) {
    CAPTURE(text);
    CHECK(bytes.encode(text) == expected);
    CHECK(letters.encode(text) == of_characters);
    CHECK(letters.knows(text));
    CHECK(bytes.decode(expected) == detail::replaced(text, mark, " "));
  }
  // The names of special tokens and of bytes are text, and so is a NUL.
  CHECK(bytes.encode("<s>a</s>") == std::vector<Token>{268, 63, 118, 65, 269, 63, 50, 118, 65});
  CHECK(bytes.encode("<0x41>") == std::vector<Token>{268, 63, 51, 123, 55, 52, 65});
  CHECK(bytes.encode("<unk>") == std::vector<Token>{268, 63, 120, 113, 110, 65});
  CHECK(bytes.encode(std::string("\n\0a", 3)) == std::vector<Token>{268, 13, 3, 269});
}

TEST_CASE("Special tokens after the first three are no text either", "[llama2c]") {
  const auto tokenizer = llama_tokenizer(true);
  const Token last = static_cast<Token>(tokenizer.vocabulary_size() - 1);
  CHECK(tokenizer.is_special(last));
  CHECK(tokenizer.bytes(last) == "<|im_end|>");
  CHECK(tokenizer.decode(std::vector<Token>{last}) == "");
  CHECK(tokenizer.decode(tokenizer.encode("<|im_end|>")) == "<|im_end|>");
  const TemporaryFolder folder;
  tokenizer.save(folder / "tokenizer.json");
  const auto again = Tokenizer::load(folder / "tokenizer.json");
  CHECK(again == tokenizer);
  CHECK(again.is_special(last));
  CHECK(again.fingerprint() == tokenizer.fingerprint());
  // A text begins behind special tokens, whatever they are; one within a text does not begin another.
  const auto of = [&](const char* text) { return tokenizer.encode(text); };
  const auto the = of("the"), b = of("b");
  const auto decoded = [&](std::vector<std::vector<Token>> parts) {
    std::vector<Token> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return tokenizer.decode(all);
  };
  CHECK(decoded({{2}, the}) == "the");
  CHECK(decoded({{0, 1, last}, the}) == "the");
  CHECK(decoded({{1, 2}, the}) == "the");
  CHECK(decoded({the, {2}, b}) == "the b");
  CHECK(decoded({the, {last}, b}) == "the b");
  CHECK(decoded({the, {1}, b}) == "theb");
}

TEST_CASE("A vocabulary without bytes names the character that it lacks", "[llama2c]") {
  const auto tokenizer = load_entries(characters());
  CHECK_FALSE(tokenizer.has_bytes());
  CHECK(tokenizer.encode("ab\xe2\x80\x9c") == std::vector<Token>{3, 4, 5, 6});
  CHECK(tokenizer.knows("ab\xe2\x80\x9c"));
  CHECK_FALSE(tokenizer.knows("ab\xe2\x80\x9d"));
  check_message<TextError>([&] { static_cast<void>(tokenizer.encode("ab\xe2\x80\x9d")); }, "\"\xe2\x80\x9d\"");
  check_message<TextError>([&] { static_cast<void>(tokenizer.encode("a\x80")); }, "expected UTF-8", "128");
  CHECK(load_entries(with_bytes()).knows("\xff\xff z"));
}

TEST_CASE("A llama2.c tokenizer saved as tokenizer.json is the same one", "[llama2c]") {
  auto tied = with_bytes();
  for (const char* piece : {"cc", "ca", "cac", "cacc"}) tied.push_back({piece, -50});
  for (const auto& entries : {with_bytes(), characters(), tied}) {
    const TemporaryFolder folder;
    const auto path = folder / "tokenizer.json";
    const auto tokenizer = load_entries(entries);
    tokenizer.save(path);
    const auto again = Tokenizer::load(path);
    CHECK(again == tokenizer);
    CHECK(again.fingerprint() == tokenizer.fingerprint());
    CHECK(again.encode("ab") == tokenizer.encode("ab"));
    CHECK(again.vocabulary_size() == tokenizer.vocabulary_size());
    CHECK(again.as<ByteLevelBpe>() == nullptr);
    const auto json = nlohmann::json::parse(read_bytes(path));
    CHECK(json["model"]["vocab"]["\xe2\x96\x81"] == tokenizer.encode("b").at(0));
    CHECK(json["model"]["byte_fallback"] == tokenizer.has_bytes());
    CHECK(json["post_processor"]["special_tokens"]["<s>"]["ids"] == nlohmann::json::array({1}));
    CHECK(json["added_tokens"].size() == 3);
  }
  CHECK(load_entries(with_bytes()).fingerprint() != load_entries(characters()).fingerprint());
}

TEST_CASE("A vocabulary that tokenizer.json cannot express is not written", "[llama2c]") {
  const TemporaryFolder folder;
  const auto refuse = [&](Entry one, Entry other, const char* sentence) {
    auto entries = with_bytes();
    entries.push_back(one);
    entries.push_back(other);
    const auto tokenizer = load_entries(entries);
    check_message<TextError>([&] { tokenizer.save(folder / "tokenizer.json"); }, sentence);
    CHECK_FALSE(std::filesystem::exists(folder / "tokenizer.json"));
  };
  refuse({"x\xe2\x96\x81", -50}, {"y", -51}, "U+2581");
  refuse({"\xff", -50}, {"y", -51}, "not UTF-8");
  refuse({"y", -50}, {"y", -51}, "two tokens are \"y\"");
}

TEST_CASE("A tokenizer.bin that is cut, corrupt or hostile is a file error", "[llama2c]") {
  const TemporaryFolder folder;
  const auto path = folder / "tokenizer.bin";
  const auto refuse = [&](const std::string& bytes, const auto&... parts) {
    write_bytes(path, bytes);
    check_message<FileError>([&] { static_cast<void>(Tokenizer::load_llama2c(path)); }, path.string(), parts...);
  };
  const auto good = bin_of(characters());
  // Cuts within a token, and cuts between tokens that lose a required token.
  std::vector<std::size_t> ends = {4};
  for (const auto& [name, score] : characters()) ends.push_back(ends.back() + 8 + name.size());
  for (std::size_t size = 0; size < good.size(); ++size) {
    if (std::find(ends.begin() + 4, ends.end(), size) == ends.end()) refuse(good.substr(0, size));
  }
  refuse(good.substr(0, ends[3]), "a token for the space");
  refuse(good.substr(0, ends[2]), "three tokens");
  auto entries = characters();
  entries[4].score = std::numeric_limits<float>::quiet_NaN();
  refuse(bin_of(entries), "token 4", "not finite");
  entries = characters();
  entries[1].name = "<begin>";
  refuse(bin_of(entries), "token 1", "<s>", "<begin>");
  entries = characters();
  entries[3].name = "";
  refuse(bin_of(entries), "token 3", "found 0");
  entries[3].name = std::string(17, 'x');
  refuse(bin_of(entries), "token 3", "1 to 16", "found 17");
  for (const std::int32_t longest : {0, -1, 257, 0x7fffffff}) refuse(bin_of(characters(), longest), "longest token");
  for (const std::int32_t length : {-1, 0x7fffffff}) {
    refuse(good + bytes_of(0.0f) + bytes_of(length) + "x", "token 7", std::to_string(length));
  }
  refuse(std::string((4 << 20) + 1, '\0'), "4194304");
  check_message<FileError>([&] { static_cast<void>(Tokenizer::load_llama2c(folder / "none")); }, "none");
  refuse(good.substr(0, good.size() - 1), "cut within token 6");
}

TEST_CASE("A tokenizer.json that would be encoded in another way is a file error", "[llama2c]") {
  const TemporaryFolder folder;
  const auto path = folder / "tokenizer.json";
  load_entries(with_bytes()).save(path);
  const auto good = nlohmann::json::parse(read_bytes(path));
  const auto refuse = [&](auto&& spoil, const auto&... parts) {
    auto json = good;
    spoil(json);
    write_bytes(path, json.dump());
    check_message<FileError>([&] { static_cast<void>(Tokenizer::load(path)); }, path.string(), parts...);
  };
  refuse([](auto& json) { json["normalizer"] = nullptr; }, "decoder");
  refuse([](auto& json) { json["normalizer"]["normalizers"][0]["prepend"] = "x"; }, "normalizer");
  refuse([](auto& json) { json["pre_tokenizer"] = {{"type", "Metaspace"}}; }, "pre_tokenizer");
  refuse([](auto& json) { json.erase("model"); }, "model");
  refuse([](auto& json) { json["model"]["type"] = "Unigram"; }, "BPE", "Unigram");
  refuse([](auto& json) { json["model"]["dropout"] = 0.5; }, "dropout");
  refuse([](auto& json) { json["model"]["byte_fallback"] = false; }, "byte_fallback");
  refuse([](auto& json) { json["model"]["vocab"] = 1; }, "vocab");
  refuse([](auto& json) { json["model"]["vocab"]["aa"] = 1000000; }, "1000000");
  refuse([](auto& json) { json["model"]["vocab"]["aa"] = 4; }, "number 4");
  refuse([](auto& json) { json["model"]["vocab"]["aa"] = -1; }, "aa");
  refuse([](auto& json) { json["model"]["merges"] = 1; }, "merges");
  refuse([](auto& json) { json["model"]["merges"].push_back("c z"); }, "\"z\"");
  refuse([](auto& json) { json["model"]["merges"].push_back("c"); }, "merge");
  refuse([](auto& json) { json["model"]["merges"].push_back(7); }, "merge");
  refuse([](auto& json) { json["model"]["merges"].push_back({"a", "b"}); }, "two merges");
  refuse([](auto& json) { json["model"]["merges"].push_back({"<s>", "b"}); }, "<s>");
  refuse([](auto& json) { json["model"]["tied_merges"] = 1; }, "tied_merges");
  refuse([](auto& json) { json["model"]["tied_merges"] = {1000}; }, "no merge 1000");
  refuse(
      [](auto& json) {
        json["model"]["vocab"].erase("<s>");
        json["model"]["vocab"]["<t>"] = 1;
        json["added_tokens"] = nullptr;
      },
      "token 1", "<t>");
  write_bytes(path, good.dump().substr(0, good.dump().size() / 2));
  check_message<FileError>([&] { static_cast<void>(Tokenizer::load(path)); }, "cut or corrupt");
}

TEST_CASE("The characters of a trained llama2.c model's tokenizer.bin", "[llama2c]") {
  const auto tokenizer = Tokenizer::load_llama2c(shared_data("llama2c/tokenizer.bin"));
  CHECK(tokenizer.vocabulary_size() == 105);
  CHECK_FALSE(tokenizer.has_bytes());
  const std::string text = "Once upon a time, \xe2\x80\x9cLily\xe2\x80\x9d said: it\xe2\x80\x99s 10 caf\xc3\xa9s!";
  const auto tokens = tokenizer.encode(text);
  CHECK(tokens.front() == 3);
  CHECK(tokens.size() == 1 + 45);  // a space, and the characters
  CHECK(tokenizer.decode(tokens) == text);
  check_message<TextError>([&] { static_cast<void>(tokenizer.encode("one\ntwo")); }, "\"<0x0A>\"");
  const TemporaryFolder folder;
  tokenizer.save(folder / "tokenizer.json");
  CHECK(Tokenizer::load(folder / "tokenizer.json") == tokenizer);
}

}  // namespace tinymoe_test::llama2c_tokenizer
