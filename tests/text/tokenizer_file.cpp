#include "tinymoe/text/byte_level/tokenizer_file.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_test::tokenizer_file {

using namespace tinymoe;
using Oracle = nlohmann::json;

namespace {

/// As in a program without text/pipeline/pipeline.hpp, which another file of this program includes.
class WithoutPipeline {
 public:
  WithoutPipeline() { detail::other_tokenizer_reader = nullptr; }
  ~WithoutPipeline() { detail::other_tokenizer_reader = reader_; }

 private:
  decltype(detail::other_tokenizer_reader) reader_ = detail::other_tokenizer_reader;
};

/// The sentence with which a changed copy of a good tokenizer.json is refused; it must name the file.
std::string refusal(const std::function<void(Oracle&)>& change) {
  const WithoutPipeline without;
  TemporaryFolder folder;
  const auto path = folder / "tokenizer.json";
  small_tokenizer().save(path);
  Oracle json = Oracle::parse(read_bytes(path));
  change(json);
  write_bytes(path, json.dump());
  const auto message = message_if_any<FileError>([&] { Tokenizer::load(path); });
  if (!message.empty()) CHECK(contains(message, path.string()));
  return message;
}

std::string refusal_of_bytes(const std::string& bytes) {
  TemporaryFolder folder;
  const auto path = folder / "tokenizer.json";
  write_bytes(path, bytes);
  const auto message = message_if_any<FileError>([&] { Tokenizer::load(path); });
  CHECK(contains(message, path.string()));
  return message;
}

}  // namespace

TEST_CASE("The byte alphabet is GPT-2's", "[tokenizer]") {
  CHECK(detail::spelled(" the\n") == "ĠtheĊ");
  CHECK(detail::spelled(std::string("\0\xff\xad", 3)) == "ĀÿŃ");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  CHECK(detail::unspelled(detail::spelled(all)) == all);
  CHECK_FALSE(detail::unspelled(" "));
  CHECK_FALSE(detail::unspelled("中"));
  CHECK_FALSE(detail::unspelled("\xff"));
}

TEST_CASE("A saved tokenizer loads as the same one, to the same bytes", "[tokenizer]") {
  TemporaryFolder folder;
  const auto tokenizer = small_tokenizer();
  tokenizer.save(folder / "a.json");
  const auto again = Tokenizer::load(folder / "a.json");
  CHECK(again == tokenizer);
  CHECK(again.fingerprint() == tokenizer.fingerprint());
  CHECK(again.encode("the lower") == tokenizer.encode("the lower"));
  again.save(folder / "b.json");
  CHECK(read_bytes(folder / "a.json") == read_bytes(folder / "b.json"));
}

TEST_CASE("GPT-2 becomes a tokenizer.json", "[tokenizer]") {
  TemporaryFolder folder;
  const auto gpt2 = Tokenizer::load_gpt2(shared_data("gpt2/vocab.json"), shared_data("gpt2/merges.txt"));
  gpt2.save(folder / "tokenizer.json");
  CHECK(Tokenizer::load(folder / "tokenizer.json") == gpt2);
}

TEST_CASE("Both forms of merges and the tolerated settings are read", "[tokenizer]") {
  CHECK(refusal([](Oracle&) {}) == "");
  CHECK(refusal([](Oracle& json) {
          for (auto& merge : json["model"]["merges"]) {
            const std::string pair = merge;
            merge = {pair.substr(0, pair.find(' ')), pair.substr(pair.find(' ') + 1)};
          }
        }) == "");
  CHECK(refusal([](Oracle& json) { json["model"].erase("type"); }) == "");
  CHECK(refusal([](Oracle& json) { json["model"]["unk_token"] = "<|endoftext|>"; }) == "");
  CHECK(refusal([](Oracle& json) { json["model"]["end_of_word_suffix"] = ""; }) == "");
  CHECK(refusal([](Oracle& json) { json["pre_tokenizer"].erase("use_regex"); }) == "");
  CHECK(refusal([](Oracle& json) { json["model"]["vocab"].erase("<|endoftext|>"); }) == "");  // in added_tokens alone
  CHECK(refusal([](Oracle& json) { json["added_tokens"].clear(); }) == "");                   // in the vocabulary alone
}

TEST_CASE("A tokenizer.json of another kind is refused", "[tokenizer]") {
  CHECK(contains(refusal([](Oracle& json) { json["model"]["type"] = "Unigram"; }), "type BPE, found \"Unigram\""));
  CHECK(contains(refusal([](Oracle& json) { json["normalizer"] = {{"type", "NFC"}}; }), "\"normalizer\" is set"));
  CHECK(contains(refusal([](Oracle& json) { json["pre_tokenizer"] = nullptr; }),
                 "pre_tokenizer ByteLevel, found \"none\"; a program that includes tinymoe/text/pipeline/pipeline.hpp"));
  CHECK(contains(refusal([](Oracle& json) { json["pre_tokenizer"]["type"] = "Metaspace"; }), "found \"Metaspace\""));
  CHECK(contains(refusal([](Oracle& json) { json["pre_tokenizer"]["add_prefix_space"] = true; }), "add_prefix_space"));
  CHECK(contains(refusal([](Oracle& json) { json["pre_tokenizer"]["use_regex"] = false; }), "use_regex"));
  CHECK(contains(refusal([](Oracle& json) { json["decoder"] = nullptr; }), "decoder ByteLevel"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["byte_fallback"] = true; }), "byte_fallback"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["ignore_merges"] = true; }), "ignore_merges"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["dropout"] = 0.1; }), "dropout"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["continuing_subword_prefix"] = "##"; }), "prefix"));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"][0]["special"] = false; }), "is not special"));
}

TEST_CASE("A corrupt vocabulary is refused", "[tokenizer]") {
  const auto with_id = [](const char* name, Oracle id) {
    return refusal([&](Oracle& json) { json["model"]["vocab"][name] = id; });
  };
  CHECK(contains(with_id("lo", 264), "expected token numbers from 0 to 263 without gaps, found 264"));
  CHECK(contains(with_id("lo", 9223372036854775808u), "found 9223372036854775808"));
  CHECK(contains(with_id("lo", -1), "whole number in range, found -1"));
  CHECK(contains(with_id("lo", 1.5), "whole number in range, found 1.5"));
  CHECK(contains(with_id("lo", "7"), "found string"));
  CHECK(contains(with_id("lo", nullptr), "found null"));
  CHECK(contains(with_id("lo", 7), "two tokens have the number 7"));
  CHECK(contains(with_id("<|endoftext|>", 7), "has the two numbers"));
  CHECK(contains(with_id("a b", 264), "byte alphabet"));
  CHECK(contains(with_id("中", 264), "found \"中\""));
  CHECK(contains(with_id("", 264), "token 264 is empty"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["vocab"] = Oracle::array(); }), "expected an object"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["vocab"] = Oracle::object(); }), "from 0 to 0"));
  CHECK(contains(refusal([](Oracle& json) { json["model"].erase("vocab"); }), "\"vocab\" is missing"));
  CHECK(contains(refusal([](Oracle& json) { json.erase("model"); }), "\"model\" is missing"));
  CHECK(contains(refusal([](Oracle& json) { json["model"] = 3; }), "expected an object"));
  CHECK(contains(refusal([](Oracle& json) {
                   json["added_tokens"].clear();
                   json["model"]["vocab"].erase("<|endoftext|>");
                 }),
                 "expected the special token <|endoftext|>"));
  CHECK(contains(refusal([](Oracle& json) {
                   json["model"]["vocab"].erase("z");
                   json["model"]["vocab"]["zz"] = 89;
                 }),
                 "found none for byte 122"));
}

TEST_CASE("Corrupt merges and added tokens are refused", "[tokenizer]") {
  const auto with_merge = [](Oracle merge) {
    return refusal([&](Oracle& json) { json["model"]["merges"].push_back(merge); });
  };
  CHECK(contains(with_merge("qq u"), "unknown token \"qq\""));
  CHECK(contains(with_merge("q u"), "makes \"qu\", which is not an ordinary token"));
  CHECK(contains(with_merge("t h"), "is there twice"));
  CHECK(contains(with_merge("th"), "expected a merge of two tokens"));
  CHECK(contains(with_merge("t h e"), "expected a merge of two tokens"));
  CHECK(contains(with_merge("t "), "unknown token \"\""));
  CHECK(contains(with_merge({"t", "h", "e"}), "found array"));
  CHECK(contains(with_merge({"t", 1}), "found array"));
  CHECK(contains(with_merge(5), "found 5"));
  CHECK(contains(with_merge("<|endoftext|> a"), "expected an ordinary token"));
  CHECK(contains(refusal([](Oracle& json) { json["model"]["merges"] = "t h"; }), "expected an array"));
  CHECK(contains(refusal([](Oracle& json) { json["model"].erase("merges"); }), "\"merges\" is missing"));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"] = 1; }), "expected an array"));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"] = {1}; }), "content"));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"][0]["id"] = -5; }), "\"id\""));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"][0]["id"] = 3; }), "two numbers"));
  CHECK(contains(refusal([](Oracle& json) { json["added_tokens"][0]["content"] = 3; }), "\"content\""));
}

TEST_CASE("A file that is no tokenizer.json is refused", "[tokenizer]") {
  TemporaryFolder folder;
  small_tokenizer().save(folder / "good.json");
  const std::string good = read_bytes(folder / "good.json");
  for (std::size_t size = 0; size + 2 < good.size(); size += 97) refusal_of_bytes(good.substr(0, size));
  refusal_of_bytes("[]");
  refusal_of_bytes("3");
  refusal_of_bytes(std::string(2000000, '['));
  refusal_of_bytes(std::string(100, '\0'));
  refusal_of_bytes("{\"model\": \"\xff\"}");
  std::string nested;
  for (int i = 0; i < 300000; ++i) nested += "{\"model\":";
  refusal_of_bytes(nested);
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load(folder / "absent.json"); }), "absent.json"));
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load(folder.path()); }), folder.path().string()));
  write_bytes(folder / "huge.json", "{}");
  std::filesystem::resize_file(folder / "huge.json", (std::uintmax_t{64} << 20) + 1);
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load(folder / "huge.json"); }), "at most 67108864 bytes"));
}

TEST_CASE("Damaged bytes are refused and do no harm", "[tokenizer]") {
  const WithoutPipeline without;
  TemporaryFolder folder;
  small_tokenizer().save(folder / "good.json");
  const std::string good = read_bytes(folder / "good.json");
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string bad = good;
    for (int i = 0; i < 3; ++i) bad[random() % bad.size()] = static_cast<char>(random());
    write_bytes(folder / "bad.json", bad);
    try {
      const auto tokenizer = Tokenizer::load(folder / "bad.json");
      REQUIRE(tokenizer.decode(tokenizer.encode("the lower")) == "the lower");
    } catch (const FileError& error) {
      REQUIRE(contains(error.what(), "bad.json"));
    }
  }
}

TEST_CASE("GPT-2's pair of files is checked as well", "[tokenizer]") {
  TemporaryFolder folder;
  const auto tokenizer = small_tokenizer();
  tokenizer.save(folder / "tokenizer.json");
  const Oracle vocabulary = Oracle::parse(read_bytes(folder / "tokenizer.json"))["model"]["vocab"];
  const auto vocab = folder / "vocab.json", merges = folder / "merges.txt";
  write_bytes(vocab, vocabulary.dump());
  write_bytes(merges, "#version: 0.2\r\nt h\r\nth e\r\nĠ the\r\nl o\nlo w\n\ne r\na a");
  CHECK(Tokenizer::load_gpt2(vocab, merges) == tokenizer);
  write_bytes(merges, "t h\nth\n");
  CHECK(
      contains(message_if_any<FileError>([&] { Tokenizer::load_gpt2(vocab, merges); }), merges.string() + ", merge 1"));
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load_gpt2(vocab, folder / "absent"); }), "absent"));
  write_bytes(vocab, "[1]");
  CHECK(contains(message_if_any<FileError>([&] { Tokenizer::load_gpt2(vocab, merges); }), vocab.string()));
}

TEST_CASE("A tokenizer that cannot be written is an error", "[tokenizer]") {
  CHECK(contains(message_if_any<FileError>([] { small_tokenizer().save("/nonexistent-folder/tokenizer.json"); }),
                 "/nonexistent-folder/tokenizer.json"));
}

}  // namespace tinymoe_test::tokenizer_file
