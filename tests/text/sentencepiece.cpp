#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/checkpoint/hub_tokenizer.hpp"
#include "tinymoe/checkpoint/special_tokens_json.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/post_processor.hpp"
#include "tinymoe/text/sentencepiece/export.hpp"
#include "tinymoe/text/sentencepiece/tokenizer.hpp"
#include "tinymoe/text/token_pieces.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_test::sentencepiece {

using namespace tinymoe;

namespace {

const Json& all_cases() {
  static const Json cases = read_json(std::string(TINYMOE_SOURCE_DIR) + "/tests/text/sentencepiece_cases.json");
  return cases;
}

std::string bytes_in(const Json& model) { return detail::from_base64(model["model"].string()).value(); }
std::string bytes_of(std::string_view name) {
  for (const Json& model : all_cases()["models"].items()) {
    if (model["name"].string() == name) return bytes_in(model);
  }
  FAIL("no model " << name);
  return {};
}

std::vector<Token> tokens_of(const Json& list) {
  std::vector<Token> tokens;
  for (const Json& id : list.items()) tokens.push_back(*id.whole<Token>());
  return tokens;
}

/// The sentence with which the bytes are refused as a model, without the file's name; empty if they are none.
std::string refusal(const std::string& bytes) {
  const auto message = message_if_any<FileError>([&] { SentencePieceTokenizer(bytes, "a.model"); });
  if (message.empty()) return message;
  CHECK(message.starts_with("a.model: "));
  CHECK(message.find('\n') == std::string::npos);
  return message.substr(9);
}

std::string piece(std::string_view text, float score, int type = 1) {
  detail::ProtobufWriter made, whole;
  made.bytes(1, text);
  made.real(2, score);
  if (type != 1) made.number(3, static_cast<std::uint64_t>(type));
  whole.bytes(1, made.text());
  return whole.text();
}

std::string message(std::uint32_t id, const std::function<void(detail::ProtobufWriter&)>& fill) {
  detail::ProtobufWriter made, whole;
  fill(made);
  whole.bytes(id, made.text());
  return whole.text();
}

}  // namespace

TEST_CASE("Models of sentencepiece encode and decode as by the package", "[tokenizer]") {
  TemporaryFolder folder;
  for (const Json& model : all_cases()["models"].items()) {
    INFO(model["name"].string());
    write_bytes(folder / "a.model", bytes_in(model));
    const auto tokenizer = Tokenizer::load(folder / "a.model");
    REQUIRE(tokenizer.as<SentencePieceTokenizer>() != nullptr);
    Encoder encoder(tokenizer);
    for (const Json& text : model["texts"].items()) {
      INFO(text.items()[0].dump());
      std::vector<Token> tokens;
      encoder.encode(text.items()[0].string(), tokens);
      CHECK(tokens == tokens_of(text.items()[1]));
      CHECK(tokenizer.decode(tokens) == text.items()[2].string());
      if (model["name"].string() == "unigram_bytes") continue;  // its denormalizer sees the whole text
      for (std::size_t cut = 0; cut <= tokens.size(); ++cut) {
        const auto before = std::span(tokens).first(cut);
        CHECK(tokenizer.decode(before) + tokenizer.decode_after(before, std::span(tokens).subspan(cut)) ==
              text.items()[2].string());
      }
      tokens.insert(tokens.begin() + std::ssize(tokens) / 2, 9, tokenizer.end_of_story());
      if (const auto space = tokenizer.encode(" a"); !space.empty()) {  // more spaces than a look back
        tokens.insert(tokens.begin() + std::ssize(tokens) / 2, 6, space[0]);
      }
      std::string pieces;
      for (std::size_t i = 0; i < tokens.size(); ++i) pieces += detail::token_piece(tokenizer, tokens, i);
      CHECK(pieces == tokenizer.decode(tokens));
    }
    save_sentencepiece(folder / "b.model", tokenizer);
    CHECK(read_bytes(folder / "b.model") == read_bytes(folder / "a.model"));
    CHECK(Tokenizer::load(folder / "b.model") == tokenizer);
    CHECK(Tokenizer::load(folder / "b.model").fingerprint() == tokenizer.fingerprint());
    CHECK(tokenizer.is_special(tokenizer.end_of_story()));
    CHECK(tokenizer.bytes(tokenizer.end_of_story()) == "</s>");
  }
}

TEST_CASE("A folder with tokenizer.model alone has a tokenizer", "[tokenizer]") {
  TemporaryFolder folder;
  write_bytes(folder / "tokenizer.model", bytes_of("llama2"));
  const auto tokenizer = Tokenizer::load(folder / "tokenizer.json");
  CHECK(tokenizer.file_name() == std::string_view("tokenizer.model"));
  // The bytes say what the file is where the name does not.
  write_bytes(folder / "renamed", bytes_of("llama2"));
  CHECK(Tokenizer::load(folder / "renamed") == tokenizer);
  small_tokenizer().save(folder / "tokenizer.json");
  CHECK(Tokenizer::load(folder / "tokenizer.json") == small_tokenizer());
  CHECK(small_tokenizer().file_name() == std::string_view("tokenizer.json"));
  const std::string json = read_bytes(folder / "tokenizer.json");
  for (const char* space : {"\n", "\n\n ", "\n\t", " \n"}) {
    write_bytes(folder / "spaced.json", space + json);
    CHECK(Tokenizer::load(folder / "spaced.json") == small_tokenizer());
  }
}

TEST_CASE("A checkpoint has a tokenizer.json wherever one says the same", "[tokenizer]") {
  const TemporaryFolder root;
  const auto model = Tokenizer(SentencePieceTokenizer(bytes_of("llama2"), "a.model"));
  std::optional<Token> begin = 1;
  const auto save = [&](const Tokenizer& tokenizer) {
    constexpr std::string_view owned[] = {"tokenizer_config.json", "tokenizer.json", "tokenizer.model",
                                          "special_tokens_map.json"};
    AtomicFolder folder(root / "run", owned);
    detail::write_tokenizer(folder, tokenizer, {.begin = begin, .end = {2}}, 64);
    folder.commit();
    CHECK(Tokenizer::load(root / "run" / "tokenizer.json") == tokenizer);
    return std::pair(std::filesystem::exists(root / "run" / "tokenizer.json"),
                     std::filesystem::exists(root / "run" / "tokenizer.model"));
  };
  CHECK(save(model) == std::pair(true, true));
  CHECK(read_bytes(root / "run" / "tokenizer.model") == bytes_of("llama2"));
  CHECK(read_json(root / "run" / "special_tokens_map.json") == Json{{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  CHECK(save(small_tokenizer()) == std::pair(true, false));
  CHECK(save(model) == std::pair(true, true));

  // The tokenizer.json alone is read as what it says, and says the same: so does transformers (tests/interop).
  const auto put_before = [&] {
    const Json file = read_json(root / "run" / "tokenizer.json");
    return detail::surroundings_of(file, "tokenizer.json").before;
  };
  CHECK(put_before() == std::vector<Token>{1});
  Json file = read_json(root / "run" / "tokenizer.json");
  file["post_processor"] = nullptr;
  const PipelineTokenizer alone(file, file.dump(), "tokenizer.json");
  std::mt19937_64 random(4);
  constexpr std::string_view parts[] = {"the", " ",  "a",    "▁",          "é", "雪", "\n",
                                        "  ",  "He", "girl", "\U0001f600", "1", "."};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (std::size_t i = random() % 14; i > 0; --i) text += parts[random() % std::size(parts)];
    INFO(Json(text).dump());
    CHECK(alone.encode(text, {}) == model.encode(text));
    CHECK(alone.decode(model.encode(text)) == model.decode(model.encode(text)));
  }
  std::filesystem::create_directory(root / "alone");
  write_bytes(root / "alone" / "tokenizer.json", file.dump());
  CHECK(Tokenizer::load(root / "alone" / "tokenizer.json").encode("He saw the girl") ==
        model.encode("He saw the girl"));

  // Another one says why there is none.
  const auto reason = [&](const Tokenizer& tokenizer) {
    CHECK(save(tokenizer) == std::pair(false, true));
    const std::string said = *tokenizer.hub_tokenizer().reason;
    CHECK(read_json(root / "run" / "tokenizer_config.json")["tinymoe_alone"] == said);
    CHECK(said.find('\n') == std::string::npos);
    return said;
  };
  const auto of = [&](std::string_view name) { return Tokenizer(SentencePieceTokenizer(bytes_of(name), "a.model")); };
  CHECK(contains(reason(of("unigram")), "transformers cannot read this tokenizer: no tokenizer.json encodes as the"));
  CHECK(contains(reason(of("unigram_bytes")), "unigram"));
  CHECK(contains(reason(of("bpe_suffix")), "because it"));
  CHECK(save(small_tokenizer()) == std::pair(true, false));
  CHECK_FALSE(read_json(root / "run" / "tokenizer_config.json").contains("tinymoe_alone"));

  // What stands before a text stands there in the file, whatever the kind's own file says.
  for (const std::optional<Token> token : {std::optional<Token>(1), std::optional<Token>(33), std::optional<Token>(),
                                           std::optional<Token>(5), std::optional<Token>(1)}) {
    begin = token;
    for (const Tokenizer& tokenizer : {llama_tokenizer(false), model, small_tokenizer()}) {
      save(tokenizer);
      CHECK(put_before() == (token ? std::vector<Token>{*token} : std::vector<Token>{}));
    }
  }
}

TEST_CASE("A sentencepiece model of which two merges may meet has a tokenizer.json only if it encodes the same",
          "[tokenizer]") {
  const auto model = [&](const std::vector<std::pair<std::string, float>>& pieces) {
    std::string bytes = piece("<unk>", 0, 2);
    for (std::size_t byte = 0; byte < 256; ++byte) bytes += piece(detail::byte_name(byte), 0, 6);
    for (const auto& [text, score] : pieces) bytes += piece(text, score);
    bytes += message(2, [](auto& m) { m.number(3, 2), m.number(35, 1); });
    bytes += message(3, [](auto& m) { m.number(3, 1), m.number(4, 0), m.number(5, 1); });
    return SentencePieceTokenizer(bytes, "a.model").hub_tokenizer().reason.value_or("");
  };
  CHECK(model({{"a", -9}, {"aa", -1}, {"aaa", -2}, {"aaaa", -3}}).empty());
  CHECK(model({{"a", -9}, {"b", -9}, {"ab", -1}, {"ba", -2}, {"aba", -3}}).empty());
  CHECK(contains(model({{"a", -9}, {"b", -9}, {"ab", -1}, {"ba", -1}}), "two merges of one score meet in"));
  CHECK(contains(model({{"a", -9}, {"ab", -1}}), "a character that is none"));
  // Many pieces of one score are refused at once: each with each would take minutes.
  std::vector<std::pair<std::string, float>> tied;
  for (char letter = 'a'; letter <= 'z'; ++letter) tied.emplace_back(std::string(1, letter), 0);
  for (const auto& [first, last] : {std::pair<std::size_t, std::size_t>{0, 26}, {26, 26 + 26 * 26}}) {
    for (std::size_t i = first; i < last; ++i) {
      for (char letter = 'a'; letter <= 'z'; ++letter) tied.emplace_back(tied[i].first + letter, 0);
    }
  }
  for (std::size_t i = 702; i < 1702; ++i) {
    for (char letter = 'a'; letter <= 'z'; ++letter) tied.emplace_back(tied[i].first + letter, 0);
  }
  const auto begin = std::chrono::steady_clock::now();
  CHECK(contains(model(tied), "too many of its pieces have one score"));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("Of several tokens before a text a folder is refused", "[tokenizer]") {
  const TemporaryFolder root;
  const auto read = [&](const Json& processor) {
    write_bytes(root / "tokenizer.json", Json{{"post_processor", processor}}.dump());
    return detail::read_before(root.path(), 100).value().token;
  };
  const std::vector<detail::NamedSpecial> one = {{"<s>", 1}}, two = {{"<s>", 1}, {"<t>", 7}}, none;
  const auto refused = [&](const Json& processor) {
    const auto message = message_if_any<FileError>([&] { read(processor); });
    CHECK(message.starts_with((root / "tokenizer.json").string() + ": the post_processor"));
    return message;
  };
  CHECK(read(nullptr) == std::nullopt);
  CHECK(read(detail::template_around(one, two)) == 1);
  CHECK(read(detail::template_around(none, two)) == std::nullopt);
  const std::string sentence = "puts 2 tokens before each text; tinymoe puts one at most";
  CHECK(contains(refused(detail::template_around(two, none)), sentence));
  Json both = detail::template_around(one, none);
  both["special_tokens"]["<s>"]["ids"] = {1, 2};
  CHECK(contains(refused(both), sentence));
  const Json twice = Json::array({detail::template_around(one, none), detail::template_around(one, none)});
  CHECK(contains(refused({{"type", "Sequence"}, {"processors", twice}}), sentence));
  for (const Token wrong : {100, -1}) {
    CHECK(contains(refused(detail::beginning_with("<s>", wrong)),
                   "puts token " + std::to_string(wrong) + " before each text; the model has tokens from 0 to 99"));
  }
  CHECK(contains(message_if_any<FileError>([&] { read({{"type", "Other"}}); }), "found \"Other\""));
  // Such a tokenizer alone begins the texts of a model that is trained here as any other.
  Json file =
      Json{{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"<|endoftext|>", 1}}}, {"merges", Json::array()}}}};
  file["added_tokens"] = Json::array({{{"id", 1}, {"content", "<|endoftext|>"}, {"special", true}}});
  file["post_processor"] = detail::template_around({{"<|endoftext|>", 1}, {"<|endoftext|>", 1}}, {});
  const Tokenizer tokenizer(PipelineTokenizer(file, file.dump(), "tokenizer.json"));
  CHECK_FALSE(tokenizer.begin_of_text());
  constexpr std::string_view owned[] = {"tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"};
  AtomicFolder folder(root / "run", owned);
  detail::write_tokenizer(folder, tokenizer, ModelTokens{}.with(tokenizer.begin_of_text(), tokenizer.end_of_story()),
                          8);
  folder.commit();
  CHECK(detail::read_before(root / "run", 2)->token == 1);
}

TEST_CASE("Llama 2's kind of tokenizer is exported as a sentencepiece model", "[tokenizer]") {
  TemporaryFolder folder;
  // llama2.c's file of the package's model: all three must agree.
  const SentencePieceTokenizer model(bytes_of("llama2"), "a.model");
  std::string bin;
  const auto put = [&](auto value) { bin.append(reinterpret_cast<const char*>(&value), sizeof value); };
  put(std::int32_t{100});
  const auto pieces = detail::SentencePieceReader(model.file_bytes(), "a.model").model().pieces;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string name = i < 3 ? pieces[i].text : detail::replaced(pieces[i].text, detail::space_mark, " ");
    put(pieces[i].score);
    put(static_cast<std::int32_t>(name.size()));
    bin += name;
  }
  write_bytes(folder / "tokenizer.bin", bin);
  const auto llama = Tokenizer::load_llama2c(folder / "tokenizer.bin");
  save_sentencepiece(folder / "exported.model", llama);
  const auto exported = Tokenizer::load(folder / "exported.model");
  std::mt19937_64 random(4);
  constexpr std::string_view parts[] = {"the", " ",  "a",  "▁",    "é",          "\u96ea",
                                        "\n",  "  ", "He", "girl", "\U0001f600", "1"};
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (std::size_t i = random() % 12; i > 0; --i) text += parts[random() % std::size(parts)];
    INFO(Json(text).dump());
    CHECK(exported.encode(text) == llama.encode(text));
    std::vector<Token> tokens;
    model.encoder()->encode(text, tokens);
    CHECK(exported.encode(text) == tokens);
    CHECK(exported.decode(tokens) == llama.decode(tokens));
  }
  std::vector<std::string> names;  // of the tokens around a text
  detail::ProtobufReader reader(exported.as<SentencePieceTokenizer>()->file_bytes(), 0, "exported.model");
  for (detail::ProtobufField field; reader.next(field);) {
    if (field.id != 2) continue;
    detail::ProtobufReader training(reader, field);
    for (detail::ProtobufField one; training.next(one);) {
      if (one.id >= 45 && one.id <= 47) names.emplace_back(one.bytes);
    }
  }
  CHECK(names == std::vector<std::string>{"<unk>", "<s>", "</s>"});
  CHECK(contains(message_if_any<TextError>([&] { save_sentencepiece(folder / "b.model", small_tokenizer()); }),
                 "only Llama 2's kind"));
  CHECK_FALSE(std::filesystem::exists(folder / "b.model"));
}

TEST_CASE("A user-defined symbol is found before all else, and text that is no UTF-8 is replaced", "[tokenizer]") {
  const std::string bytes = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("ab", 0, 4) +
                            piece("a", -1) + piece("b", -1) + piece("abb", -2) + piece("\xe2\x96\x81", -2) +
                            piece("\ufffd", -3);
  for (const int type : {1, 2}) {
    const Tokenizer tokenizer(SentencePieceTokenizer(
        bytes + message(2, [&](auto& m) { m.number(3, static_cast<std::uint64_t>(type)); }), "a.model"));
    CHECK(tokenizer.encode("abb") == std::vector<Token>{7, 3, 5});
    CHECK(tokenizer.encode("\xff"
                           "a") == std::vector<Token>{7, 8, 4});
    CHECK(tokenizer.encode("xyab<s>") == std::vector<Token>{7, 0, 3, 0});
    CHECK(tokenizer.decode(std::vector<Token>{1, 7, 3, 0, 5}) == "ab \u2047 b");
    CHECK(tokenizer.encode("").empty());
    CHECK(tokenizer.encode("  ").empty());
  }
}

TEST_CASE("Letters do not merge into a control token of sentencepiece's", "[tokenizer]") {
  const auto last_of = [](int type) {
    const std::string by_merges = message(2, [](auto& m) { m.number(3, 2); });
    const Tokenizer tokenizer(SentencePieceTokenizer(
        piece("<unk>", 0, 2) + piece("a", -1) + piece("b", -2) + piece("ab", -0.5f, type) + by_merges, "a.model"));
    return tokenizer.encode("ab").back();
  };
  CHECK(last_of(1) == 3);
  CHECK(last_of(3) == 2);
}

TEST_CASE("A sentencepiece model that is cut or wrong is refused in a sentence", "[tokenizer]") {
  const std::string whole = bytes_of("llama2"), unknown = piece("<unk>", 0, 2), letter = piece("a", -1);
  CHECK(refusal(unknown + letter).empty());
  CHECK(contains(refusal(""), "expected pieces, found none"));
  CHECK(contains(refusal(unknown), "expected pieces, found none"));
  CHECK(contains(refusal(letter), "has neither a piece of the type unknown"));
  CHECK(contains(refusal(unknown + letter + piece("?", 0, 2)), "expected one piece of the type unknown, found 2"));
  CHECK(contains(refusal(unknown + letter + letter), "the piece \"a\" is there twice"));
  CHECK(contains(refusal(unknown + piece("", 0)), "expected piece 1 to have 1 to 7999 bytes, found 0"));
  CHECK(contains(refusal(unknown + piece(std::string(8000, 'a'), 0)), "found 8000"));
  CHECK(contains(refusal(unknown + piece("\xff", 0)), "piece 1 is not UTF-8"));
  CHECK(contains(refusal(unknown + piece(std::string_view("a\0", 2), 0)), "piece 1 has a zero byte"));
  CHECK(contains(refusal(unknown + piece("a", std::numeric_limits<float>::quiet_NaN())),
                 "score of piece 1 is not finite"));
  CHECK(contains(refusal(unknown + piece("a", std::numeric_limits<float>::infinity())), "is not finite"));
  CHECK(contains(refusal(unknown + piece("a", 0, 9)), "piece 1 is of the unknown type 9"));
  CHECK(contains(refusal(unknown + letter + piece("<0x00>", 0, 6)), "expected 0 pieces of the type byte"));
  const auto training = [](std::uint32_t id, std::uint64_t value) {
    return message(2, [&](auto& m) { m.number(id, value); });
  };
  CHECK(contains(refusal(unknown + letter + training(35, 1)), "expected 256 pieces of the type byte"));
  CHECK(contains(refusal(unknown + letter + training(35, 1) + piece("<0xzz>", 0, 6)), "found \"<0xzz>\""));
  CHECK(
      contains(refusal(unknown + letter + training(3, 3)), "expected a model of the type unigram or bpe, found word"));
  CHECK(contains(refusal(unknown + letter + training(3, 4)), "found char"));
  CHECK(contains(refusal(unknown + letter + training(3, 77)), "found an unknown one"));
  CHECK(contains(refusal(unknown + letter + message(3, [](auto& m) { m.bytes(2, "abc"); })),
                 "\"normalizer_spec.precompiled_charsmap\": expected a character map, found 3 bytes"));
  CHECK(contains(refusal(unknown + letter + message(3, [](auto& m) { m.bytes(3, "abc"); })),
                 "field 3 is of the type 2, expected 0"));
  // Lengths and numbers that the file cannot have.
  CHECK(contains(refusal("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "byte 0: a field of 9223372036854775807 bytes"));
  CHECK(contains(refusal("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "of at most ten bytes"));
  CHECK(contains(refusal(unknown + "\x0a"), "byte 17: is cut within a length"));
  CHECK(contains(refusal(unknown + "\x0b"), "unknown type 3"));
  CHECK(contains(refusal(std::string("\x02\0", 2)), "expected the number of a field, found 0"));

  std::string many;
  for (std::size_t i = 0; i <= detail::most_sentencepieces; ++i) many.append("\x0a\x05\x0a\x01\0\x18\x05", 7);
  CHECK(contains(refusal(many), "expected at most 1048576 pieces, found more"));
  CHECK(contains(refusal(std::string((std::size_t{32} << 20) + 1, '\n')), "of at most 33554432 bytes, found 33554433"));

  // Wherever a file is cut or changed: a sentence, or a tokenizer that works.
  std::mt19937_64 random(8);
  for (int round = 0; round < 300; ++round) {
    std::string wrong = whole.substr(0, round % 2 == 0 ? random() % whole.size() : whole.size());
    for (std::size_t i = random() % 4; i > 0 && !wrong.empty(); --i) {
      wrong[random() % wrong.size()] = static_cast<char>(random() % 256);
    }
    if (!refusal(wrong).empty()) continue;
    const Tokenizer tokenizer(SentencePieceTokenizer(wrong, "a.model"));
    CHECK_NOTHROW(tokenizer.decode(tokenizer.encode("the  dog \u00e9")));
  }
}

TEST_CASE("A file of tiktoken's is named as such", "[tokenizer]") {
  const TemporaryFolder folder;
  for (const char* name : {"tokenizer.model", "cl100k_base.tiktoken"}) {
    for (const char* text : {"IQ== 0\nIg== 1\n", "IQ== 0\r\nIg== 1", "IGFuZA== 220"}) {
      write_bytes(folder / name, text);
      CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load(folder / name); }),
                     std::string(name) + ": has tokens and ranks as text, as tiktoken does"));
    }
  }
  for (const std::string& text : {std::string(" 0"), std::string("IQ 0"), std::string(260, 'A') + " 0",
                                  std::string("IQ== "), std::string("IQ== 123456789012"), std::string("I!== 0")}) {
    write_bytes(folder / "cl100k_base.tiktoken", text);
    const auto found = message_if_any<FileError>([&] { Tokenizer::load(folder / "cl100k_base.tiktoken"); });
    INFO(text);
    CHECK_FALSE(found.empty());
    CHECK_FALSE(contains(found, "as tiktoken does"));
  }
  write_bytes(folder / "tokenizer.model", "3Q== x\n");
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load(folder / "tokenizer.model"); }), "byte 0"));
}

TEST_CASE("A sentencepiece model that makes texts much longer is refused when it does", "[tokenizer]") {
  const auto model = [&](const std::string& replacement) {
    const std::string map = character_map_bytes({{0, 128u << 10}, {225, 0x161u | 1u << 10}, {224, 1u << 31}},
                                                replacement + '\0');  // of one key, "a"
    return piece("<unk>", 0, 2) + piece("b", 0) + message(3, [&](auto& m) { m.bytes(2, map); });
  };
  const Tokenizer tokenizer(SentencePieceTokenizer(model(std::string(1000, 'b')), "a.model"));
  CHECK(tokenizer.encode("a").size() == 1001);
  CHECK(contains(message_if_any<TextError>([&] { tokenizer.encode(std::string(50, 'a')); }), "makes a text longer"));
  // Spaces that are left out again take time, too.
  const Tokenizer spaces(SentencePieceTokenizer(model(std::string(1000, ' ')), "a.model"));
  CHECK(spaces.encode("b a").size() == 2);
  CHECK(contains(message_if_any<TextError>([&] { spaces.encode(std::string(50, 'a')); }), "makes a text longer"));
  CHECK(
      contains(refusal(model(std::string(1025, ' '))),
               "\"normalizer_spec.precompiled_charsmap\": expected strings of at most 1024 bytes, found one of 1025"));
  CHECK(refusal(model(std::string(1024, ' '))).empty());
}

}  // namespace tinymoe_test::sentencepiece
