#include "tinymoe/text/pipeline/pipeline.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/text/pipeline/expression.hpp"
#include "tinymoe/text/pipeline/known_expressions.hpp"
#include "tinymoe/text/pipeline/normal_forms.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_test::pipeline {

using namespace tinymoe;

namespace {

/// The tokenizer.json of a kind in pipeline_cases.json.
Json file_of(const Json& cases, const Json& kind) {
  Json file(kind["parts"]);
  const Json& vocabulary = cases["vocabularies"][kind["vocabulary"].string()];
  for (const auto& [key, value] : vocabulary.members()) file["model"][key] = value;
  Json added = Json::array();
  for (std::size_t i = 0; i < cases["added"].size(); ++i) {
    Json token(cases["added"].items()[i]);
    token["id"] = kind["added"].items()[i];
    added.push_back(std::move(token));
  }
  file["added_tokens"] = std::move(added);
  return file;
}

std::vector<Token> tokens_of(const Json& list) {
  std::vector<Token> tokens;
  for (const Json& id : list.items()) tokens.push_back(*id.whole<Token>());
  return tokens;
}

const Json& all_cases() {
  static const Json cases = read_json(std::string(TINYMOE_SOURCE_DIR) + "/tests/text/pipeline_cases.json");
  return cases;
}

Json file_of(std::string_view name) {
  for (const Json& kind : all_cases()["kinds"].items()) {
    if (kind["name"].string() == name) return file_of(all_cases(), kind);
  }
  FAIL("no kind " << name);
  return {};
}

PipelineTokenizer pipeline_of(const Json& file) { return PipelineTokenizer(file, file.dump(), "tokenizer.json"); }

/// The sentence with which `Tokenizer::load` refuses a changed tokenizer.json, without the file's name.
std::string refusal(std::string_view name, const std::function<void(Json&)>& change) {
  TemporaryFolder folder;
  const auto path = folder / "tokenizer.json";
  Json file = file_of(name);
  change(file);
  write_bytes(path, file.dump());
  const auto message = message_if_any<FileError>([&] { Tokenizer::load(path); });
  if (message.empty()) return message;
  CHECK(message.starts_with(path.string() + ": "));
  CHECK(message.find('\n') == std::string::npos);
  return message.substr(path.string().size() + 2);
}

std::string matches(const std::string& expression, std::string_view text) {
  std::string found;
  detail::Expression(expression, "file").for_each_match(text, [&](detail::TextRange match) {
    found += "[" + std::string(text.substr(match.begin, match.end - match.begin)) + "]";
  });
  return found;
}

}  // namespace

TEST_CASE("Each part of a tokenizer.json encodes and decodes as by the package tokenizers", "[tokenizer]") {
  for (const Json& kind : all_cases()["kinds"].items()) {
    const auto tokenizer = pipeline_of(file_of(all_cases(), kind));
    const auto encoder = tokenizer.encoder();
    for (const Json& text : kind["texts"].items()) {
      INFO(kind["name"].string() << ": " << text.items()[0].dump());
      std::vector<Token> plain;
      encoder->encode(text.items()[0].string(), plain);
      CHECK(plain == tokens_of(text.items()[1]));
      const auto full = tokenizer.encode(text.items()[0].string(), {.special_in_text = true, .post_processor = true});
      CHECK(full == tokens_of(text.items()[2]));
      if (text.size() < 4) continue;  // the package wrote U+FFFD
      CHECK(tokenizer.decode(full) == text.items()[3].string());
      if (kind["name"].string() == "whitespace_split") continue;  // its last token ends without a space
      for (std::size_t cut = 0; cut <= full.size(); ++cut) {
        const auto before = std::span(full).first(cut);
        CHECK(tokenizer.decode(before) + tokenizer.decode_after(before, std::span(full).subspan(cut)) ==
              text.items()[3].string());
      }
    }
  }
}

TEST_CASE("NanoGPT-MoE's tokenizer loads, and is saved as it was", "[tokenizer]") {
  TemporaryFolder folder;
  write_bytes(folder / "a.json", file_of("nanogpt_moe").dump(1));
  const auto tokenizer = Tokenizer::load(folder / "a.json");
  REQUIRE(tokenizer.as<PipelineTokenizer>() != nullptr);
  CHECK(tokenizer.decode(tokenizer.encode("the dog")) == "t he d og");
  CHECK(tokenizer.decode(tokenizer.encode("a<s>b")) == "a <|unknown|> s <|unknown|> b");
  CHECK(tokenizer.is_special(tokenizer.end_of_story()));
  CHECK(tokenizer.bytes(tokenizer.end_of_story()) == "</s>");
  tokenizer.save(folder / "b.json");
  CHECK(read_bytes(folder / "a.json") == read_bytes(folder / "b.json"));
  const auto again = Tokenizer::load(folder / "b.json");
  CHECK(again == tokenizer);
  CHECK(again.fingerprint() == tokenizer.fingerprint());
  Json other = file_of("nanogpt_moe");
  other["pre_tokenizer"]["type"] = "WhitespaceSplit";
  write_bytes(folder / "c.json", other.dump());
  CHECK_FALSE(Tokenizer::load(folder / "c.json") == tokenizer);
}

TEST_CASE("A long text is decoded token by token as a whole, and in time that grows with its length", "[tokenizer]") {
  std::mt19937_64 random(6);
  for (const Json& kind : all_cases()["kinds"].items()) {
    INFO(kind["name"].string());
    const auto tokenizer = pipeline_of(file_of(all_cases(), kind));
    const auto size = static_cast<Token>(tokenizer.vocabulary().size());
    std::vector<Token> tokens;
    for (int i = 0; i < 160; ++i) tokens.push_back(static_cast<Token>(random() % static_cast<std::uint64_t>(size)));
    for (int i = 80; i < 100; ++i) tokens[static_cast<std::size_t>(i)] = size - 1;  // special ones
    for (std::size_t at = 0; at < tokens.size(); ++at) {
      const auto before = std::span(tokens).first(at), next = std::span(tokens).subspan(at, 1);
      if (tokenizer.decode_after(before, next) == tokenizer.TokenizerKind::decode_after(before, next)) continue;
      FAIL_CHECK("token " << at << " of " << Json(tokenizer.decode(tokens)).dump());
      break;
    }
  }
  const auto llama = pipeline_of(file_of("llama2"));
  const auto word = llama.encode("the little girl é \u96ea\n", {});
  std::vector<Token> tokens;
  while (tokens.size() < 30'000) tokens.insert(tokens.end(), word.begin(), word.end());
  std::string text;
  for (std::size_t at = 0; at < tokens.size(); ++at) {  // far too long if each asks for all before it
    text += llama.decode_after(std::span(tokens).first(at), std::span(tokens).subspan(at, 1));
  }
  CHECK(text == llama.decode(tokens));
}

TEST_CASE("A plain byte-level file stays with its own kind", "[tokenizer]") {
  TemporaryFolder folder;
  small_tokenizer().save(folder / "tokenizer.json");
  CHECK(Tokenizer::load(folder / "tokenizer.json").as<ByteLevelBpe>() != nullptr);
}

TEST_CASE("In an empty text nothing is replaced", "[tokenizer]") {
  Json file = file_of("nanogpt_moe");
  file["normalizer"] = {{"type", "Sequence"},
                        {"normalizers",
                         {{{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}},
                          {{"type", "Replace"}, {"pattern", {{"Regex", "x|"}}}, {"content", "a"}}}}};
  const auto tokenizer = pipeline_of(file);
  CHECK(tokenizer.encode(" ", {}).empty());
  CHECK(tokenizer.encode("x", {}).size() == 1);
}

TEST_CASE("A text and its bytes survive a byte-level pipeline", "[tokenizer]") {
  const auto tokenizer = Tokenizer(pipeline_of(file_of("llama3")));
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::string text = random_bytes(random, random() % 40);
    REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  }
  CHECK(tokenizer.bytes(tokenizer.encode(" ")[0]) == " ");
}

TEST_CASE("A tokenizer.json that would be encoded in another way is refused in a sentence", "[tokenizer]") {
  const auto with = [](const char* part, const char* json) {
    return refusal("nanogpt_moe", [&](Json& file) { file[part] = parse_json(json, "test"); });
  };
  for (const char* type : {"WordPiece", "WordLevel"}) {
    CHECK(contains(refusal("llama3", [&](Json& file) { file["model"]["type"] = type; }),
                   std::string("expected a model of the type BPE or Unigram, found \"") + type + "\""));
  }
  CHECK(contains(with("normalizer", R"({"type": "BertNormalizer"})"), "found \"BertNormalizer\""));
  CHECK(contains(with("normalizer", R"({"type": "Strip"})"), "\"strip_left\" is missing"));
  CHECK(contains(with("normalizer", R"([])"), "expected an object with \"type\""));
  CHECK(contains(with("pre_tokenizer", R"({"type": "UnicodeScripts"})"), "found \"UnicodeScripts\""));
  CHECK(contains(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})"), "expected one character"));
  CHECK(contains(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})"),
                 "\"last\""));
  // Older files have a flag, which must not say another thing.
  CHECK(contains(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})"),
                 "\"add_prefix_space\" is false, but \"prepend_scheme\" is not never"));
  CHECK_FALSE(contains(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false,
                            "prepend_scheme": "never"})"),
                       "add_prefix_space"));
  CHECK(contains(with("pre_tokenizer", R"({"type": "Sequence"})"), "\"pretokenizers\" is missing"));
  CHECK(contains(with("pre_tokenizer",
                      R"({"type": "Split", "pattern": {"Regex": "(a)\\1"}, "behavior": "Isolated", "invert": false})"),
                 "the expression \"(a)\\1\" has the escape \\1"));
  CHECK(contains(
      with("pre_tokenizer", R"({"type": "Split", "pattern": {"Glob": "a"}, "behavior": "Isolated", "invert": false})"),
      "\"pattern\""));
  const std::string many = R"({"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex": ")" +
                           std::string(65'537, 'a') + "\"}}";
  CHECK(contains(with("pre_tokenizer", many.c_str()), "has 65537 bytes, expected at most 65536"));
  CHECK(contains(
      with("pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Kept", "invert": false})"),
      "\"Kept\""));
  CHECK(contains(with("decoder", R"({"type": "CTC"})"), "found \"CTC\""));
  for (const char* content : {"", "ab"}) {
    Json strip = parse_json(R"({"type": "Strip", "start": 1, "stop": 0})", "test");
    strip["content"] = content;
    CHECK(contains(with("decoder", strip.dump().c_str()), "\"content\": expected one character"));
  }
  CHECK(contains(with("decoder", R"({"type": "Metaspace", "replacement": ""})"), "expected one character"));
  CHECK(contains(with("decoder", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "zzz"})"), "\"zzz\""));
  CHECK(contains(with("post_processor", R"({"type": "Other"})"), "found \"Other\""));
  CHECK(contains(with("post_processor", R"({"type": "TemplateProcessing", "single": [], "special_tokens": {}})"),
                 "leaves the text out"));
  CHECK(contains(with("post_processor", R"({"type": "BertProcessing", "cls": ["a", 99999], "sep": ["b", 1]})"),
                 "unknown token 99999"));
  CHECK(contains(refusal("nanogpt_moe", [](Json& file) { file["added_tokens"] = 3; }), "expected an array"));
  const auto model = [](const std::function<void(Json&)>& change) {
    return refusal("nanogpt_moe", [&](Json& file) { change(file["model"]); });
  };
  CHECK(contains(model([](Json& m) { m["vocab"]["zzz"] = 1u << 30; }), "found 1073741824"));
  CHECK(contains(model([](Json& m) { m["vocab"]["zzz"] = 3; }), "two tokens have the number 3"));
  CHECK(contains(model([](Json& m) { m["vocab"]["zzz"] = -1; }), "found -1"));
  CHECK(contains(model([](Json& m) { m["merges"].push_back("h q"); }), "expected two tokens that make a third"));
  CHECK(contains(model([](Json& m) { m["merges"].push_back("hq"); }), "expected \"left right\""));
  CHECK(contains(model([](Json& m) { m["merges"].push_back(7); }), "found 7"));
  CHECK(contains(model([](Json& m) { m["unk_token"] = ""; }), "\"unk_token\": expected the name of a token or null"));
  CHECK(contains(model([](Json& m) { m["continuing_subword_prefix"] = "####"; }), "expected two tokens"));
  CHECK(contains(refusal("nanogpt_moe",
                         [](Json& file) {
                           Json token(file["added_tokens"].items()[0]);
                           token["content"] = "new", token["id"] = 5000;
                           file["added_tokens"].push_back(std::move(token));
                         }),
                 "the added token \"new\" has the number 5000, expected"));
}

TEST_CASE("A Unigram model or a character map that is wrong is refused in a sentence", "[tokenizer]") {
  const auto model = [](const std::function<void(Json&)>& change) {
    return refusal("unigram_bytes", [&](Json& file) { change(file["model"]); });
  };
  CHECK(contains(model([](Json& m) { m["vocab"].push_back("the"); }), "expected [\"text\", score], found"));
  CHECK(contains(model([](Json& m) { m["vocab"].push_back(Json::array({"the", "x"})); }), "\"score\""));
  CHECK(contains(model([](Json& m) { m["vocab"].push_back(Json::array({7, 0.5})); }), "expected [\"text\", score]"));
  CHECK(contains(model([](Json& m) { m["vocab"] = Json::object(); }), "expected an array"));
  CHECK(contains(model([](Json& m) { m["unk_id"] = 100'000; }), "\"unk_id\": expected a token below"));
  CHECK(contains(model([](Json& m) { m["unk_id"] = -1; }), "\"unk_id\""));
  CHECK(contains(model([](Json& m) { m["alpha"] = 0.1; }), "encoded at random"));

  const auto map = [](const std::string& base64) {
    return refusal("mapped_first", [&](Json& file) { file["normalizer"]["precompiled_charsmap"] = base64; });
  };
  std::string usual = file_of("mapped_first")["normalizer"]["precompiled_charsmap"].string();
  CHECK(map(usual).empty());
  CHECK(contains(map("A"), "\"precompiled_charsmap\": expected base64"));
  CHECK(contains(map("A*AA"), "expected base64"));
  CHECK(contains(map("AAA="), "expected a character map, found 2 bytes"));
  CHECK(contains(map("AAAAAA=="), "found one of 0"));
  CHECK(contains(map("////fwAA"), "expected a double array of at most 2 bytes, found one of 2147483647"));
  CHECK(contains(map(usual.substr(0, 2400)), "expected a double array of at most"));
  CHECK(contains(map(usual.substr(0, usual.size() - 8)), "expected strings"));
  CHECK(contains(map("BAAAAAAAAABh"), "end with a zero"));
  CHECK(contains(map("BAAAAAAAAAD/AA=="), "expected strings in UTF-8"));
  CHECK(contains(map("BAAAAP//f4BhAA=="), "expected strings of more than 8388607 bytes"));
  std::mt19937_64 random(5);
  for (int round = 0; round < 40; ++round) {
    std::string wrong = usual;
    for (int i = 0; i < 200; ++i) wrong[8 + random() % (usual.size() - 8)] = "AQgw4/"[random() % 6];
    Json file = file_of("mapped_first");
    file["normalizer"]["precompiled_charsmap"] = wrong;
    try {
      const auto tokenizer = pipeline_of(file);
      for (int i = 0; i < 20; ++i) tokenizer.encode(random_bytes(random, 100), {});
    } catch (const Error&) {
    }
  }
}

TEST_CASE("A character map whose units lead astray is refused in a sentence", "[tokenizer]") {
  using Units = std::initializer_list<std::pair<std::size_t, std::uint32_t>>;
  const auto refused = [](Units units, const std::string& strings = std::string("b\0", 2)) {
    const auto message = message_if_any<FileError>(
        [&] { detail::CharacterMap(character_map_bytes(units, strings), "precompiled_charsmap", "a.json"); });
    if (!message.empty()) CHECK(message.starts_with("a.json: \"precompiled_charsmap\": "));
    CHECK(message.find('\n') == std::string::npos);
    return message;
  };
  // "a" leads from the state 128 of the root to unit 225, and an offset from there to its value, or to a state.
  constexpr std::uint32_t root = 128u << 10, letter = 0x61u, has_value = 0x100u, value = 1u << 31;
  const auto to = [](std::uint32_t offset) { return offset << 10; };
  CHECK(refused({{0, root}, {225, letter | has_value | to(1)}, {224, value}}).empty());
  // Equal ends of keys share their units: "ax" and "bx".
  CHECK(refused({{0, root},
                 {225, letter | to(225 ^ 16)},
                 {226, 0x62u | to(226 ^ 16)},
                 {16 ^ 0x78, 0x178u | to(0x78 ^ 1)},
                 {17, value}})
            .empty());
  const char* loop = "more than 1024 bytes, or its units lead back";
  CHECK(contains(refused({{0, root}, {225, letter | to(225 ^ 128)}}), loop));
  CHECK(contains(refused({{0, root}, {225, letter | has_value | to(225 ^ 128)}, {128, value}}), loop));
  CHECK(contains(refused({{0, root}, {225, letter | to(225 ^ 16)}, {16 ^ 0x62, 0x62u | to(16 ^ 0x62 ^ 128)}}), loop));
  CHECK(contains(refused({{0, root}, {225, letter | to(1u << 20)}}), "outside the array of 256"));
  CHECK(contains(refused({{0, to(4000)}}), "outside the array of 256"));
  CHECK(contains(refused({{0, root}, {225, letter | has_value | to(1)}}), "ends a key that has no string"));
  CHECK(contains(refused({{0, root}, {225, letter | has_value | to(1)}, {224, value | 1}}, std::string("bc\0", 3)),
                 "found 1, which is inside one"));
  CHECK(refused({{0, root}, {225, letter | has_value | to(1)}, {224, value | 2}}, std::string("b\0c\0", 4)).empty());
  CHECK(contains(refused({{0, root}}, std::string(1025, 'b') + '\0'), "at most 1024 bytes, found one of 1025"));
}

TEST_CASE("An unknown character of a Unigram model without its token is an error of the text", "[tokenizer]") {
  Json file = file_of("nmt");
  file["model"]["unk_id"] = nullptr;
  const auto tokenizer = pipeline_of(file);
  CHECK_NOTHROW(tokenizer.encode("the", {}));
  CHECK(contains(message_if_any<TextError>([&] { tokenizer.encode("theЖ", {}); }), "\"Ж\" is not in the vocabulary"));
}

TEST_CASE("An unknown character without its token is an error of the text", "[tokenizer]") {
  Json file = file_of("nanogpt_moe");
  file["model"]["unk_token"] = "<none>";
  const auto tokenizer = pipeline_of(file);
  CHECK(contains(message_if_any<TextError>([&] { tokenizer.encode("aЖ", {}); }), "\"Ж\" is not in the vocabulary"));
  CHECK_NOTHROW(tokenizer.encode("a", {}));
  const auto encoder = tokenizer.encoder();
  for (const char* text : {"Ж", "a", "b", "Ж", "b"}) {  // a text that failed leaves nothing behind
    INFO(text);
    std::vector<Token> tokens;
    if (text == std::string_view("Ж")) {
      CHECK_THROWS_AS(encoder->encode(text, tokens), TextError);
    } else {
      encoder->encode(text, tokens);
      CHECK(tokens == tokenizer.encode(text, {}));
    }
  }
}

TEST_CASE("A tokenizer.json that makes texts much longer is refused", "[tokenizer]") {
  const auto sequence = [](const char* members, const char* component, std::size_t count) {
    Json list = Json::array();
    for (std::size_t i = 0; i < count; ++i) list.push_back(parse_json(component, "test"));
    Json made{{"type", "Sequence"}};
    made[members] = std::move(list);
    return made;
  };
  constexpr const char* twice = R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  constexpr const char* spelled = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";
  CHECK(contains(refusal("nanogpt_moe", [&](Json& file) { file["decoder"] = sequence("decoders", twice, 40); }),
                 "makes a text longer than"));
  CHECK(contains(refusal("nanogpt_moe",
                         [&](Json& file) { file["normalizer"] = sequence("normalizers", R"({"type": "NFC"})", 257); }),
                 "\"normalizer\" has more than 256 components"));
  for (const char* part : {"normalizer", "pre_tokenizer"}) {
    INFO(part);
    const bool first = part == std::string_view("normalizer");
    Json file = file_of("nanogpt_moe");
    file["added_tokens"] = Json::array();
    file["normalizer"] = nullptr;
    file["post_processor"] = nullptr;
    file[part] = first ? sequence("normalizers", twice, 40) : sequence("pretokenizers", spelled, 40);
    const auto tokenizer = pipeline_of(file);
    CHECK(contains(message_if_any<TextError>([&] { tokenizer.encode(first ? "a" : "é", {}); }), "makes a text longer"));
    CHECK_NOTHROW(tokenizer.encode("b", {}));
  }
}

TEST_CASE("The longest of many added tokens is found", "[tokenizer]") {
  Json file = file_of("nanogpt_moe");
  Json list = Json::array();
  std::vector<std::string> contents;
  // A list in which each is looked for takes seconds with these.
  for (int i = 0; i < 20'000; ++i) contents.push_back("<" + std::to_string(100'000 + i));
  for (const char* content : {"<", "<<", "<1000", "<100001>", "<10000123"}) contents.push_back(content);
  auto next = static_cast<Token>(file["model"]["vocab"].size());
  const Token first = next;
  for (const auto& content : contents) {
    list.push_back(Json{{"id", next++}, {"content", content}, {"normalized", false}});
  }
  file["added_tokens"] = std::move(list);
  file["post_processor"] = nullptr;
  const auto tokenizer = pipeline_of(file);
  const auto many = first + 20'000;
  CHECK(tokenizer.encode("<<<100001><1000<10000123<1000012<119999", {}) ==
        std::vector<Token>{many + 1, many + 3, many + 2, many + 4, first + 1, tokenizer.encode("2", {})[0],
                           first + 19'999});
  CHECK(tokenizer.encode(std::string(20'000, '<'), {}).size() == 10'000);
}

TEST_CASE("Expressions match as Oniguruma's", "[tokenizer]") {
  CHECK(matches("^a", "ab\nab") == "[a][a]");
  CHECK(matches("a$", "ba\nba\n") == "[a][a]");
  CHECK(matches(R"(a\Z)", "ba\na\n") == "[a]");
  CHECK(matches(R"(a\z)", "a\na") == "[a]");
  CHECK(matches(R"(\d{1,3}+)", "12345678 1") == "[12345678][1]");
  CHECK(matches(R"(\d{1,3}?)", "123") == "[1][2][3]");
  CHECK(matches(R"(\d{2}?)", "12345") == "[12][34][]");
  CHECK(matches("a++a", "aaa") == "");
  CHECK(matches("(?>a+)b", "aab") == "[aab]");
  CHECK(matches("a{,2}", "aaa") == "[aa][a]");
  CHECK(matches("a{", "a{b") == "[a{]");
  CHECK(matches("(?i:'s)", "'s'S'\u017f") == "['s]['S]['\u017f]");
  CHECK(matches("(?<!a)b|(?<=c)d", "ab bb cd d") == "[b][b][d]");
  CHECK(matches("(?:ab|a)(?!b)", "ab aab") == "[ab][a][ab]");
  CHECK(matches("a+?b|a.", "aab a\nac") == "[aab][ac]");
  CHECK(matches("[]a-]+", "]a-b") == "[]a-]");
  CHECK(matches(R"([^\W\d]+)", "ab1_c") == "[ab][_c]");
  CHECK(matches(R"(\w+|[\w]+)", "a²b") == "[a²b]");
  CHECK(matches(R"([\w]+)", "a²b") == "[a][b]");  // Oniguruma has two tables for one thing
  CHECK(matches("[a[bc]d]+", "xabcd[") == "[abcd]");
  CHECK(matches(R"([\w&&[^\d_]&&[^x]]+)", "ab1_cxé") == "[ab][c][é]");
  CHECK(matches(R"( ?[^(\s|[.,!?…])]+)", "a dog, (it") == "[a][ dog][it]");
  CHECK(matches(R"([^\P{Han}]+)", "a漢字") == "[漢字]");
  CHECK(matches(R"(\x{e9}|\u0062|\P{L}|\p{^N})", "éb1") == "[é][b][1]");
  CHECK(matches("", "aé") == "[][][]");
  CHECK(contains(message_if_any<TextError>([&] { matches("(?:a|a)*b|(?:(?:a+)+)+c", std::string(60, 'a')); }),
                 "takes too long"));
  for (const char* refused : {"(", ")", "[a", "a**b{1001}", "(a*)*", "\\1", "\\p{Nope}", "(?<=ab)c", "*a", "(?i:é)",
                              "(?i:st)", "\\", "(?x:a)", "a{3,2}", "[b-a]", "(?:(?:ab){1000}){1000}"}) {
    INFO(refused);
    CHECK(contains(message_if_any<FileError>([&] { matches(refused, "a"); }), "file: the expression "));
  }
  CHECK(contains(message_if_any<FileError>([&] { matches(std::string(1000, '('), "a"); }), "nested too deeply"));
  const auto repeated = [](std::string_view text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  CHECK(matches(R"(\H+)", "a1 xfg") == "[ x][g]");
  CHECK(matches(repeated("[", 51) + "a" + repeated("]", 51), "ba") == "[a]");
  CHECK(contains(message_if_any<FileError>([&] { matches(repeated("[", 52) + "a" + repeated("]", 52), "a"); }),
                 "classes nested too deeply"));
  CHECK(matches("[a" + repeated("&&a", 50) + "]", "ab") == "[a]");
  CHECK(
      contains(message_if_any<FileError>([&] { matches("[a" + repeated("&&a", 51) + "]", "a"); }), "more than 50 &&"));
  // Nothing is given back by these, but they walk over the text from each start.
  for (const char* slow : {"a*+b", "(?>(?:a|b)*)c", "(?=a*+)a"}) {
    INFO(slow);
    CHECK(contains(message_if_any<TextError>([&] { matches(slow, repeated("a", 20'000)); }), "takes too long"));
  }
  CHECK_NOTHROW(matches(R"(\d{1,3}(?=(?:\d{3})*\b))", repeated("1", 2000)));
  CHECK(matches("a*+b|.", "aab") == "[aab]");
  CHECK(matches("ab|a|(?:|c|d)e|", "abaede") == "[ab][a][e][de]");
  CHECK(contains(message_if_any<FileError>([&] { matches("a" + repeated("|a", 40'000), "b"); }), "too many steps"));
  CHECK(contains(message_if_any<FileError>([&] { matches(repeated("(?:(?:ab){1000}){0}", 3000), "b"); }),
                 "too many steps"));
  CHECK(contains(message_if_any<FileError>([&] { matches("a" + repeated("?+", 51), "a"); }), "more than 50 repeats"));
}

TEST_CASE("The scanners of the usual expressions match as the expressions", "[tokenizer]") {
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  std::string qwen = llama3;
  qwen.erase(qwen.find("{1,3}"), 5);
  constexpr std::string_view parts[] = {"a",  "Zé", "'s",   "'LL",    "'",          "'\u017f", "漢",   " ",
                                        "  ", "\n", "\r\n", "\t",     "\u00a0",     "12",      "3456", "²",
                                        "!",  "?!", "-",    "\u0301", "\U0001f600", "\xff",    "\x80"};
  std::mt19937_64 random(9);
  for (const std::string& expression : {gpt2, llama3, qwen}) {
    const auto scanner = detail::known_expression(expression);
    REQUIRE(scanner);
    const detail::Expression slow(expression, "file");
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (std::size_t i = random() % 8; i > 0; --i) text += parts[random() % std::size(parts)];
      std::vector<std::size_t> expected, ends;
      slow.for_each_match(text, [&](detail::TextRange match) { expected.push_back(match.end); });
      for (std::size_t at = 0; at < text.size();) ends.push_back(at = scanner->end_of_piece(text, at));
      if (ends != expected) FAIL(Json(expression).dump() << " on a text of " << text.size() << " bytes: " << text);
    }
  }
  CHECK_FALSE(detail::known_expression(llama3 + "|x"));
  CHECK_FALSE(detail::known_expression(llama3.substr(0, 70)));
}

TEST_CASE("Dropout leaves merges of a text out, as often as the package tokenizers does", "[tokenizer]") {
  const std::string text = "the little lady, the tree \u96ea";
  for (const char* name : {"gpt2", "llama3", "llama2", "bloom"}) {
    INFO(name);
    const auto tokenizer = pipeline_of(file_of(name));
    const auto with = [&](double dropout, std::uint64_t seed) {
      return tokenizer.encode(text, {.dropout = dropout, .seed = Seed{seed}});
    };
    CHECK(with(0, 1) == tokenizer.encode(text, {}));
    CHECK(with(0.5, 1) == with(0.5, 1));
    const auto plain = with(0, 1), characters = with(1, 1);
    CHECK(characters.size() > plain.size());
    CHECK(characters == with(1, 2));
    if (tokenizer.vocabulary()[0].bytes == "!") CHECK(characters.size() == text.size());  // byte-level
    std::set<std::vector<Token>> different;
    CHECK(with(1e-9, 1) == plain);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      different.insert(with(0.5, seed));
      const auto tokens = with(0.1 * static_cast<double>(seed % 10), seed);
      CHECK(tokenizer.decode(tokens) == tokenizer.decode(plain));
      CHECK(tokens.size() >= plain.size());
      CHECK(tokens.size() <= characters.size());
    }
    CHECK(different.size() > 10);
  }
  // Mean lengths of 200,000 encodings by version 0.23.3 of the package.
  struct Mean {
    const char* name;
    std::string_view text;
    double dropout, tokens;
  };
  constexpr int times = 5'000;
  for (const Mean& mean :
       {Mean{"gpt2", " the little", 0.1, 2.744}, Mean{"gpt2", " the little", 0.5, 7.050},
        Mean{"gpt2", " the little", 0.9, 10.448}, Mean{"llama2", "the little lady", 0.1, 6.419},
        Mean{"llama2", "the little lady", 0.5, 9.880}, Mean{"llama2", "the little lady", 0.9, 15.227}}) {
    INFO(mean.name << ", " << mean.dropout);
    const auto tokenizer = pipeline_of(file_of(mean.name));
    double sum = 0, squares = 0;
    for (int i = 0; i < times; ++i) {
      const auto length = static_cast<double>(
          tokenizer.encode(mean.text, {.dropout = mean.dropout, .seed = Seed{static_cast<std::uint64_t>(i)}}).size());
      sum += length, squares += length * length;
    }
    const double average = sum / times, deviation = std::sqrt((squares / times - average * average) / times);
    CHECK(std::abs(average - mean.tokens) < 4.5 * deviation);
  }
  const auto tokenizer = pipeline_of(file_of("gpt2"));
  for (const double wrong : {-0.1, 1.1, std::nan("")}) {
    CHECK(contains(message_of<OptionError>([&] { tokenizer.encode("a", {.dropout = wrong}); }), "from 0 to 1, found"));
  }
  const auto unigram = pipeline_of(file_of("unigram_bytes"));
  CHECK(contains(message_of<OptionError>([&] { unigram.encode("a", {.dropout = 0.1}); }), "has no merges"));
}

TEST_CASE("Normal forms keep what is not UTF-8, and compose Hangul", "[tokenizer]") {
  const auto form = [](detail::NormalForm f, std::string_view text) { return detail::Normalizing(f)(text); };
  using enum detail::NormalForm;
  CHECK(form(nfc, "e\u0301\xff\u1100\u1161\u11a8") == "é\xff각");
  CHECK(form(nfd, "각é") == "\u1100\u1161\u11a8e\u0301");
  CHECK(form(nfc, "a\u0301\u0323") == "\u1ea1\u0301");
  CHECK(form(nfkc, "ﬁ①") == "fi1");
  CHECK(form(nfkd, "ﬁé") == "fie\u0301");
  CHECK(form(nfc, "\u0301") == "\u0301");
}

}  // namespace tinymoe_test::pipeline
