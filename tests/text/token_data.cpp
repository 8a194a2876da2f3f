#include "tinymoe/text/token_data.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <future>
#include <limits>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/data_split.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/selected_stories.hpp"
#include "tinymoe/text/stories/stories.hpp"
#include "tinymoe/text/story_files.hpp"
#include "tinymoe/text/token_files.hpp"

namespace tinymoe_test::token_data {

using namespace tinymoe;
using Tokens = std::vector<Token>;

namespace {

const std::string two_stories = "the lower\n<|endoftext|>\n aaa é\n<|endoftext|>\n";

Tokens all_tokens(const TokenData& data) {
  Tokens tokens(static_cast<std::size_t>(data.size()));
  data.copy(0, tokens);
  return tokens;
}

Tokens expected_tokens(const Tokenizer& tokenizer, const std::vector<std::string>& stories) {
  Tokens tokens;
  for (const auto& story : stories) {
    const auto encoded = tokenizer.encode(story);
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
    tokens.push_back(tokenizer.end_of_story());
  }
  return tokens;
}

/// A text, its token file, and how often the token file has been made.
struct Encoded {
  TemporaryFolder folder;
  std::filesystem::path text = folder / "stories.txt", file = folder / "stories.tokens";
  Tokenizer tokenizer = small_tokenizer();

  explicit Encoded(const std::string& stories = two_stories) { write_bytes(text, stories); }
  TokenData open(int threads = 2) const { return TokenData::open_or_encode(text, tokenizer, file, threads); }
  auto made() const { return std::filesystem::last_write_time(file); }
  void age() const {  // the token file's time, so that a new one can be told
    std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() - std::chrono::hours(24));
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder.path()), {}));
  }
};

/// A source that breaks off.
struct Failing {
  void for_each_story(auto&& f) const {
    for (int i = 0; i < 100; ++i) f(std::string_view("the"));
    throw TextError("the well is dry");
  }
};

}  // namespace

TEST_CASE("Stories become tokens, each with an end", "[token_data]") {
  const Encoded encoded;
  const auto data = encoded.open();
  CHECK(all_tokens(data) == expected_tokens(encoded.tokenizer, {"the lower", "aaa é"}));
  CHECK(data.stories() == 2);
  CHECK(data.text_bytes() == 9 + 6);
  CHECK(data.vocabulary_size() == 264);
  CHECK(data[data.size() - 1] == encoded.tokenizer.end_of_story());
  CHECK(encoded.entries() == 2);
}

TEST_CASE("Threads and sources give the same tokens", "[token_data]") {
  const auto tokenizer = small_tokenizer();
  const auto story = [](Index i) { return "the lower " + std::to_string(i * 7919) + std::string(i % 3000, 'a'); };
  const GeneratedStories stories(3000, story);
  const auto one = all_tokens(TokenData::encode(stories, tokenizer, 1));
  CHECK(all_tokens(TokenData::encode(stories, tokenizer, 4)) == one);
  TemporaryFolder folder;
  const auto data = TokenData::encode_to_file(stories, tokenizer, folder / "tokens", 3);
  CHECK(all_tokens(data) == one);
  CHECK(data.stories() == 3000);
  std::vector<std::string> list;
  for (Index i = 0; i < 3000; ++i) list.push_back(story(i));
  CHECK(one == expected_tokens(tokenizer, list));
}

TEST_CASE("A vocabulary beyond two bytes is stored in four", "[token_data]") {
  auto parts = parts_of(small_tokenizer());
  for (int i = 0; std::ssize(parts.vocabulary) < 70000; ++i)
    parts.vocabulary.push_back({std::to_string(i) + "q", false});
  std::swap(parts.vocabulary[263], parts.vocabulary[69999]);
  const Tokenizer tokenizer{ByteLevelBpe(parts)};
  TemporaryFolder folder;
  const auto data = TokenData::encode_to_file(StoryList{"the lower"}, tokenizer, folder / "tokens");
  CHECK(all_tokens(data) == expected_tokens(tokenizer, {"the lower"}));
  CHECK(data[data.size() - 1] == 69999);
}

TEST_CASE("A token file is reused until text or tokenizer change", "[token_data]") {
  Encoded encoded;
  encoded.open();
  encoded.age();
  const auto first = encoded.made();
  encoded.open();
  CHECK(encoded.made() == first);

  SECTION("a longer text") {
    write_bytes(encoded.text, two_stories + "new");
    CHECK(encoded.open().stories() == 3);
  }
  SECTION("a text of the same size and time, edited anywhere") {
    std::string text(3 << 20, 'a');  // most of it is neither among the first nor among the last megabyte
    write_bytes(encoded.text, text);
    const auto time = std::filesystem::last_write_time(encoded.text);
    CHECK(all_tokens(encoded.open()) == expected_tokens(encoded.tokenizer, {text}));
    for (const std::size_t at : {std::size_t{0}, text.size() / 2, text.size() - 1}) {
      text[at] = 'b';
      write_bytes(encoded.text, text);
      std::filesystem::last_write_time(encoded.text, time);
      CHECK(all_tokens(encoded.open()) == expected_tokens(encoded.tokenizer, {text}));
    }
  }
  SECTION("the same text with another time or name is no other text") {
    std::filesystem::last_write_time(encoded.text,
                                     std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
    encoded.open();
    std::filesystem::rename(encoded.text, encoded.folder / "renamed.txt");
    TokenData::open_or_encode(encoded.folder / "renamed.txt", encoded.tokenizer, encoded.file);
    CHECK(encoded.made() == first);
  }
  SECTION("stories that were not read from a file") {
    TokenData::encode_to_file(StoryList{"the lower", "another"}, encoded.tokenizer, encoded.file);
    CHECK(all_tokens(encoded.open()) == expected_tokens(encoded.tokenizer, {"the lower", "aaa é"}));
  }
  SECTION("another tokenizer") {
    const auto old = encoded.tokenizer;
    encoded.tokenizer = tokenizer_of({{"t", "h"}});
    CHECK(all_tokens(encoded.open()) == expected_tokens(encoded.tokenizer, {"the lower", "aaa é"}));
    CHECK(contains(message_if_any<MismatchError>([&] { TokenData::open(encoded.file, old); }), encoded.file.string()));
  }
  SECTION("a cut token file") {
    const std::string whole = read_bytes(encoded.file);
    for (const std::size_t size : {whole.size() - 1, whole.size() - 2, std::size_t{70}, std::size_t{20}}) {
      write_bytes(encoded.file, whole.substr(0, size));
      CHECK(contains(message_if_any<FileError>([&] { TokenData::open(encoded.file, encoded.tokenizer); }),
                     encoded.file.string()));
      encoded.open();
      CHECK(read_bytes(encoded.file) == whole);
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{16}}) {
      write_bytes(encoded.file, whole.substr(0, size));
      encoded.open();
      CHECK(read_bytes(encoded.file) == whole);
    }
  }
  SECTION("a token file with a wrong byte anywhere") {
    const std::string whole = read_bytes(encoded.file);
    for (std::size_t at = 16; at < whole.size(); ++at) {  // the first 16 say that it is a token file
      std::string other = whole;
      other[at] = static_cast<char>(other[at] ^ 4);
      write_bytes(encoded.file, other);
      CHECK_THROWS_AS(TokenData::open(encoded.file, encoded.tokenizer), Error);
      encoded.open();
      CHECK(read_bytes(encoded.file) == whole);
    }
  }
}

TEST_CASE("Dropout of merges cuts training stories in other ways, the same for each seed", "[token_data]") {
  const Encoded encoded;
  const auto stories = [&](const Tokenizer& tokenizer, int threads, const MergeDropout& dropout) {
    return all_tokens(TokenData::encode(EmbeddedStories{.count = 40}, tokenizer, threads, dropout));
  };
  const auto plain = all_tokens(TokenData::encode(EmbeddedStories{.count = 40}, encoded.tokenizer));
  CHECK(stories(encoded.tokenizer, 2, {}) == plain);
  CHECK(stories(encoded.tokenizer, 2, {.rate = 0, .seed = Seed{7}}) == plain);
  const auto half = stories(encoded.tokenizer, 1, {.rate = 0.5, .seed = Seed{7}});
  CHECK(half.size() > plain.size());
  CHECK(stories(encoded.tokenizer, 3, {.rate = 0.5, .seed = Seed{7}}) == half);
  CHECK(stories(encoded.tokenizer, 3, {.rate = 0.5, .seed = Seed{8}}) != half);
  CHECK(stories(encoded.tokenizer, 3, {.rate = 0.4, .seed = Seed{7}}) != half);
  CHECK(encoded.tokenizer.decode(half) == encoded.tokenizer.decode(plain));

  // Each kind with merges has it: at 1, no merge is left.
  Json file = {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"<|endoftext|>", 3}}}}}};
  file["model"]["merges"] = Json::array({"a b"});
  file["decoder"] = {{"type", "Fuse"}};
  file["added_tokens"] = Json::array({{{"id", 3}, {"content", "<|endoftext|>"}, {"special", true}}});
  const Tokenizer pipeline(PipelineTokenizer(file, file.dump(), "tokenizer.json"));
  const auto tokens_of = [](const Tokenizer& tokenizer, std::string_view text, double rate) {
    Tokens tokens;
    Encoder(tokenizer, {.rate = rate, .seed = Seed{3}}).encode(text, tokens);
    return tokens;
  };
  for (const Tokenizer& tokenizer : {small_tokenizer(), llama_tokenizer(true), pipeline}) {
    CHECK(tokens_of(tokenizer, "abab", 0) == tokenizer.encode("abab"));
    for (const Token token : tokens_of(tokenizer, "the abab", 1)) {
      if (!tokenizer.is_special(token)) CHECK(tokenizer.bytes(token).size() == 1);
    }
    CHECK(tokenizer.decode(tokens_of(tokenizer, "abab", 0.5)) == "abab");
    for (const double wrong : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
      CHECK(contains(message_if_any<OptionError>([&] { tokens_of(tokenizer, "a", wrong); }), "from 0 to 1"));
    }
  }
  file["model"] = parse_json(R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1]]})", "model");
  const auto unigram = [&] {
    Json other = file;
    other["added_tokens"] = Json::array({{{"id", 2}, {"content", "<|endoftext|>"}, {"special", true}}});
    return Tokenizer(PipelineTokenizer(other, other.dump(), "tokenizer.json"));
  }();
  CHECK(contains(message_if_any<OptionError>([&] { stories(unigram, 2, {.rate = 0.1}); }), "no merges"));

  // A token file is of one dropout.
  const auto open = [&](const MergeDropout& dropout) {
    return all_tokens(TokenData::open_or_encode(encoded.text, encoded.tokenizer, encoded.file, 2, dropout));
  };
  const auto whole = open({});
  encoded.age();
  const auto made = encoded.made();
  CHECK(open({}) == whole);
  CHECK(encoded.made() == made);
  const auto dropped = open({.rate = 1, .seed = Seed{7}});
  CHECK(dropped != whole);
  encoded.age();
  const auto again = encoded.made();
  CHECK(open({.rate = 1, .seed = Seed{7}}) == dropped);
  CHECK(encoded.made() == again);
  open({.rate = 1, .seed = Seed{8}});
  CHECK(encoded.made() != again);
  CHECK(open({}) == whole);
}

TEST_CASE("Several processes may encode into one token file at once", "[token_data]") {
  const Encoded encoded;
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        ::_exit(all_tokens(encoded.open(1)) == expected_tokens(encoded.tokenizer, {"the lower", "aaa é"}) ? 0 : 1);
      } catch (const std::exception&) {
        ::_exit(2);
      }
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  CHECK(encoded.entries() == 2);
}

TEST_CASE("The hash of whole files is XXH64, in whatever pieces they come", "[token_data]") {
  const auto hash = [](std::string_view text, std::size_t piece) {
    detail::Xxh64 hash;
    for (; !text.empty(); text.remove_prefix(std::min(piece, text.size()))) {
      hash.bytes(std::as_bytes(std::span(text.substr(0, piece))));
    }
    return hash.value();
  };
  std::string all;  // the bytes 0 to 255, five times
  for (int i = 0; i < 1280; ++i) all += static_cast<char>(i);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{31}, std::size_t{33}, std::size_t{5000}}) {
    CHECK(hash("", piece) == 0xef46db3751d8e999u);
    CHECK(hash("abc", piece) == 0x44bc2cf5ad770999u);
    CHECK(hash(all, piece) == 0xafc184ad7938a354u);
  }
}

namespace {

/// A tokenizer that puts a space before a text and leaves out what is not ASCII: its tokens' bytes are not the text's.
class Plain final : public TokenizerKind {
 public:
  Plain() {
    for (int byte = 0; byte < 256; ++byte) vocabulary_.push_back({std::string(1, static_cast<char>(byte)), false});
    vocabulary_.push_back({std::string(end_of_story_text), true});
  }
  std::span<const VocabularyEntry> vocabulary() const override { return vocabulary_; }
  Token end_of_story() const override { return 256; }
  std::uint64_t fingerprint() const override { return 7; }
  std::unique_ptr<TextEncoder> encoder() const override {
    struct Encode : TextEncoder {
      void encode(std::string_view text, std::vector<Token>& tokens) override {
        tokens.push_back(' ');
        for (const char byte : text) {
          if (static_cast<unsigned char>(byte) < 128) tokens.push_back(byte);
        }
      }
    };
    return std::make_unique<Encode>();
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token token : tokens) {
      if (token < 256) text += static_cast<char>(token);
    }
    return text.substr(text.starts_with(' ') ? 1 : 0);
  }
  void save(const std::filesystem::path&) const override {}
  bool equals(const TokenizerKind& other) const override { return dynamic_cast<const Plain*>(&other) != nullptr; }

 private:
  std::vector<VocabularyEntry> vocabulary_;
};

}  // namespace

TEST_CASE("Stories have the same bytes whether they are held out or a file of their own", "[token_data]") {
  struct Ways {
    std::string all, valid;  // a text, and its last story as a text
  };
  const std::string last = "aaa é naïve lower";
  const Ways ways[] = {
      {two_stories + last, last},
      {two_stories + last + "\n<|endoftext|>\n", last + "\n<|endoftext|>\n"},
      {two_stories + last + "<|endoftext|>", "\n\n" + last},
      {two_stories + "<|endoftext|> \n <|endoftext|>\r\n" + last + "\r\n<|endoftext|>\r\n<|endoftext|>",
       "<|endoftext|>" + last + "\r\n"}};
  for (const auto& tokenizer : {small_tokenizer(), Tokenizer(Plain())}) {
    for (const auto& [all, valid] : ways) {
      TemporaryFolder folder;
      write_bytes(folder / "all.txt", all);
      write_bytes(folder / "valid.txt", valid);
      const auto given = TokenData::open_or_encode(folder / "valid.txt", tokenizer, folder / "valid.tokens");
      CHECK(given.text_bytes() == std::ssize(last));
      CHECK(given.stories() == 1);
      const auto data = TokenData::open_or_encode(folder / "all.txt", tokenizer, folder / "all.tokens");
      for (const auto& source : {data, TokenData::encode(TextCorpus(folder / "all.txt"), tokenizer)}) {
        const auto [training, validation] = hold_out(source, tokenizer, 0.01);
        CHECK(all_tokens(validation) == all_tokens(given));
        CHECK(validation.text_bytes() == given.text_bytes());
        CHECK(validation.stories() == 1);
        CHECK(training.size() == source.size() - given.size());
        CHECK(training.text_bytes() == source.text_bytes() - given.text_bytes());
        CHECK(training.stories() == source.stories() - 1);
        CHECK(source.first(source.size()).text_bytes() == source.text_bytes());
        CHECK(training.tokenizer_fingerprint() == tokenizer.fingerprint());
        // Parts of parts.
        const auto more = hold_out(source, tokenizer, 1, given.size() + 2).validation;
        CHECK(more.stories() == 2);
        CHECK(more.text_bytes() == 6 + given.text_bytes());
        CHECK(hold_out(more, tokenizer, 0.01).validation.text_bytes() == given.text_bytes());
        CHECK(first_stories(more, tokenizer, 1).text_bytes() == 6);
        CHECK(first_stories(source, tokenizer, 1).text_bytes() == 9);
        CHECK(first_stories(source, tokenizer, 1).stories() == 1);
      }
    }
    // Tokens alone have the bytes of what they decode to.
    const auto tokens = expected_tokens(tokenizer, {"the lower", "aaa", "low"});
    const auto [rest, held_out] = hold_out(TokenData::from_tokens(tokens, 300), tokenizer, 0.01);
    CHECK(rest.text_bytes() == 9 + 3);
    CHECK_FALSE(rest.tokenizer_fingerprint());
    CHECK(held_out.text_bytes() == 3);
    CHECK(held_out.stories() == 1);
    CHECK_THROWS_AS(held_out.stories_between(1, held_out.size(), tokenizer), ShapeError);
  }
}

TEST_CASE("Another file is never replaced by tokens", "[token_data]") {
  Encoded encoded;
  CHECK(contains(
      message_if_any<FileError>([&] { TokenData::open_or_encode(encoded.text, encoded.tokenizer, encoded.text); }),
      "will not replace another file"));
  CHECK(read_bytes(encoded.text) == two_stories);
  write_bytes(encoded.file, "tinymoes");
  CHECK_THROWS_AS(encoded.open(), FileError);
  CHECK(read_bytes(encoded.file) == "tinymoes");
  std::filesystem::remove(encoded.file);
  std::filesystem::create_directory(encoded.file);
  CHECK(contains(message_if_any<FileError>([&] { encoded.open(); }), encoded.file.string()));
}

TEST_CASE("A hostile token file is refused", "[token_data]") {
  Encoded encoded;
  encoded.open();
  const std::string good = read_bytes(encoded.file);
  const auto refused = [&](std::size_t at, auto value) {
    std::string bad = good;
    std::memcpy(bad.data() + at, &value, sizeof value);
    write_bytes(encoded.file, bad);
    const auto message = message_if_any<FileError>([&] { TokenData::open(encoded.file, encoded.tokenizer); });
    CHECK(contains(message, encoded.file.string()));
    return message;
  };
  const std::size_t counts = good.size() - 40;
  CHECK(contains(refused(0, 'T'), "expected a tinymoe token file"));
  CHECK(contains(refused(16, std::uint32_t{3}), "expected a token file of version 2, found 3"));
  CHECK(contains(refused(20, std::uint32_t{0}), "token width"));
  CHECK(contains(refused(20, std::uint32_t{4}), "token width"));
  CHECK(contains(refused(24, std::uint64_t{1} << 63), "token width"));
  CHECK(contains(refused(counts, std::uint64_t{1} << 63), "count of 9223372036854775808 tokens"));
  CHECK(contains(refused(counts, ~std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts, std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts + 8, std::uint64_t{1} << 63), "do not belong together"));
  CHECK(contains(refused(counts + 16, std::uint64_t{1} << 63), "do not belong together"));
  CHECK(contains(refused(counts + 16, std::uint64_t{1}), "do not belong together"));
  CHECK(contains(refused(counts + 24, ~std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts + 24, std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts - 1, '\xff'), "do not belong together"));
  CHECK(contains(refused(counts + 32, std::uint64_t{1}), "it is corrupt"));
  write_bytes(encoded.file, good.substr(0, 64) + std::string(40, '\0'));
  CHECK(
      contains(message_if_any<FileError>([&] { TokenData::open(encoded.file, encoded.tokenizer); }), "do not belong"));
  CHECK(contains(message_if_any<FileError>([&] { TokenData::open(encoded.folder / "absent", encoded.tokenizer); }),
                 "absent"));
}

TEST_CASE("A token outside the vocabulary is found when it is read", "[token_data]") {
  Encoded encoded;
  encoded.open();
  std::string bad = read_bytes(encoded.file);
  bad[64 + 3] = '\x01', bad[64 + 2] = '\x08';  // token 1 is 264
  detail::Xxh64 hash;
  hash.bytes(std::as_bytes(std::span(bad).first(bad.size() - 8)));
  const std::uint64_t value = hash.value();
  std::memcpy(bad.data() + bad.size() - 8, &value, 8);
  write_bytes(encoded.file, bad);
  const auto data = TokenData::open(encoded.file, encoded.tokenizer);
  CHECK(data[0] == encoded.tokenizer.encode("the")[0]);
  CHECK(message_if_any<FileError>([&] { (void)data[1]; }) ==
        encoded.file.string() + ": expected tokens from 0 to 263, found 264 between 1 and 1");
  CHECK_THROWS_AS(all_tokens(data), FileError);
}

TEST_CASE("Tokens outside the data cannot be copied", "[token_data]") {
  const auto data = TokenData::from_tokens(Tokens{1, 2, 3}, 4);
  Tokens out(2);
  data.copy(1, out);
  CHECK(out == Tokens{2, 3});
  CHECK_NOTHROW(data.copy(3, {}));  // none
  CHECK_THROWS_AS(data.copy(4, {}), ShapeError);
  CHECK_THROWS_AS(data.copy(2, out), ShapeError);
  CHECK_THROWS_AS(data.copy(-1, out), ShapeError);
  CHECK_THROWS_AS(data.copy(std::numeric_limits<Index>::max(), out), ShapeError);
  CHECK_THROWS_AS(data[3], ShapeError);
  CHECK_THROWS_AS(TokenData::from_tokens(Tokens{4}, 4), TextError);
  CHECK_THROWS_AS(TokenData::from_tokens(Tokens{-1}, 4), TextError);
}

TEST_CASE("A text without stories, or one that is not UTF-8, leaves no token file", "[token_data]") {
  for (const std::string text : {"", " \n<|endoftext|>\n", "caf\xe9"}) {
    const Encoded encoded(text);
    CHECK(contains(message_if_any<FileError>([&] { encoded.open(); }), encoded.text.string()));
    CHECK(encoded.entries() == 1);
  }
  CHECK_THROWS_AS(TokenData::encode(StoryList{}, small_tokenizer()), TextError);
}

TEST_CASE("A full disk leaves the old token file and no other", "[token_data]") {
  Encoded encoded;
  encoded.open();
  const std::string old = read_bytes(encoded.file);
  write_bytes(encoded.text, std::string(3000000, '!'));
  struct rlimit limit {};
  getrlimit(RLIMIT_FSIZE, &limit);
  const auto unlimited = limit;
  limit.rlim_cur = 100000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const auto message = message_if_any<FileError>([&] { encoded.open(); });
  setrlimit(RLIMIT_FSIZE, &unlimited);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(message, "cannot be written"));
  CHECK(read_bytes(encoded.file) == old);
  CHECK(encoded.entries() == 2);
}

TEST_CASE("An error of one story ends the encoding", "[token_data]") {
  TemporaryFolder folder;
  CHECK(message_if_any<TextError>(
            [&] { TokenData::encode_to_file(Failing{}, small_tokenizer(), folder / "tokens"); }) == "the well is dry");
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("Workers pass on exceptions and keep the order", "[token_data]") {
  std::vector<int> finished;
  const auto run = [&](int bad) {
    finished.clear();
    const auto make_work = [&]() -> detail::OrderedWorkers::Work {
      return [bad](detail::StoryBlock& block) {
        if (block.stories.size() == bad) throw TextError("block " + std::to_string(bad));
        block.result.resize(static_cast<std::size_t>(10 * block.stories.size()));
      };
    };
    detail::OrderedWorkers workers(
        3, make_work, [&](detail::StoryBlock& block) { finished.push_back(static_cast<int>(block.result.size())); });
    StoryList stories;
    for (int i = 0; i < 100; ++i) {
      workers.push(stories);  // block i has i stories
      stories.add("");
    }
    workers.drain();
  };
  run(-1);
  REQUIRE(finished.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(finished[i] == 10 * i);
  CHECK(message_if_any<TextError>([&] { run(57); }) == "block 57");
  CHECK(finished.size() == 57);
}

TEST_CASE("Fewer threads than were asked for do the work; none is an error with a sentence", "[token_data]") {
  if (!MemoryLimit::works) skip("this process cannot limit its memory");
  std::vector<std::size_t> sizes;
  const auto make_work = []() -> detail::OrderedWorkers::Work {
    return [](detail::StoryBlock& block) { block.result.resize(block.stories.bytes()); };
  };
  const auto run = [&](int threads) {
    detail::OrderedWorkers workers(threads, make_work,
                                   [&](detail::StoryBlock& block) { sizes.push_back(block.result.size()); });
    for (const char* story : {"one", "three", "a", "seventy"}) workers.push({story});
    workers.drain();
  };
  std::promise<void> end;
  const auto ended = end.get_future().share();
  std::vector<std::thread> others;
  {
    const MemoryLimit limit(std::size_t{40} << 20);  // stacks of 8 MiB
    run(64);
    CHECK(sizes == std::vector<std::size_t>{3, 5, 1, 7});
    try {
      others.reserve(64);
      while (others.size() < 64) others.emplace_back([ended] { ended.wait(); });
    } catch (const std::system_error&) {  // no further thread can be started
    }
    CHECK(others.size() < 64);
    check_message<DeviceError>([&] { run(2); }, "no thread can be started", "ulimit -u");
  }
  end.set_value();
  for (auto& other : others) other.join();
}

TEST_CASE("The counts of real stories are right", "[token_data]") {
  const auto text = shared_data("tinystories-valid.txt");
  TemporaryFolder folder;
  const auto data = TokenData::open_or_encode(text, small_tokenizer(), folder / "tokens");
  CHECK(data.stories() == 500);
  const TextCorpus corpus(text);
  Index bytes = 0;
  corpus.for_each_story([&](std::string_view story) { bytes += std::ssize(story); });
  CHECK(data.text_bytes() == bytes);
}

TEST_CASE("A token file of a part of files is reused until files or part change", "[token_data]") {
  Encoded encoded("one<|endoftext|>two<|endoftext|>three");
  using Part = SelectedStories<StoryFiles>;
  const auto stories = [&](const std::vector<std::filesystem::path>& paths, StorySelection part,
                           StoryFileOptions how = {}) {
    return TokenData::open_or_encode(Part(StoryFiles(paths, how), part), encoded.tokenizer, encoded.file).stories();
  };
  const auto reuses = [&](auto&&... asked) {
    encoded.age();
    const auto before = encoded.made();
    const Index count = stories(asked...);
    return std::pair(count, encoded.made() == before);
  };
  const auto other = encoded.folder / "other.jsonl";
  write_bytes(other, "{\"text\": \"four\", \"body\": \"five\"}");
  encoded.open();
  CHECK(reuses(std::vector{encoded.text}, StorySelection{}) == std::pair(Index{3}, true));  // as by its path
  CHECK(reuses(std::vector{encoded.text}, StorySelection{.count = 2}) == std::pair(Index{2}, false));
  CHECK(reuses(std::vector{encoded.text}, StorySelection{.count = 2}) == std::pair(Index{2}, true));
  CHECK(reuses(std::vector{encoded.text}, StorySelection{.skip = 1}) == std::pair(Index{2}, false));
  CHECK(reuses(std::vector{encoded.text}, StorySelection{.shuffle_seed = 0, .skip = 1}) == std::pair(Index{2}, false));
  CHECK(reuses(std::vector{encoded.text}, StorySelection{.shuffle_seed = 1, .skip = 1}) == std::pair(Index{2}, false));
  CHECK(reuses(std::vector{encoded.text, other}, StorySelection{}) == std::pair(Index{4}, false));
  CHECK(reuses(std::vector{encoded.text, other}, StorySelection{}) == std::pair(Index{4}, true));
  CHECK(reuses(std::vector{other, encoded.text}, StorySelection{}) == std::pair(Index{4}, false));
  CHECK(reuses(std::vector{other, encoded.text}, StorySelection{}, StoryFileOptions{.field = "body"}) ==
        std::pair(Index{4}, false));
  std::filesystem::rename(other, encoded.folder / "other.txt");  // now a text that begins as JSON
  const auto message = message_if_any<FileError>([&] { stories({encoded.text, encoded.folder / "other.txt"}, {}); });
  CHECK(contains(message, "begins as JSON"));
  CHECK(contains(message_if_any<FileError>([&] { stories({encoded.text}, {.count = 9}); }),
                 "stories.txt: expected 9 stories, found 3"));
}

TEST_CASE("A number of stories is held out", "[token_data]") {
  const auto tokenizer = small_tokenizer();
  const auto data = TokenData::encode(StoryList{"one", "two", "three"}, tokenizer);
  const auto [rest, held_out] = hold_out_stories(data, tokenizer, 2);
  CHECK(all_tokens(rest) == expected_tokens(tokenizer, {"one"}));
  CHECK(all_tokens(held_out) == expected_tokens(tokenizer, {"two", "three"}));
  CHECK(held_out.stories() == 2);
  CHECK(held_out.text_bytes() == 8);
  CHECK(contains(message_if_any<TrainingError>([&] { hold_out_stories(data, tokenizer, 3); }), "found 3"));
  CHECK_THROWS_AS(hold_out_stories(data, tokenizer, 0), OptionError);
}

namespace {

template <class Stored>
std::string stored(const std::vector<Stored>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Stored)};
}
using Two = std::vector<std::uint16_t>;

std::string llmc_header(std::int32_t magic, std::int32_t version, std::int32_t tokens) {
  std::vector<std::int32_t> header(256);
  header[0] = magic, header[1] = version, header[2] = tokens;
  return stored(header);
}

/// Files of other projects, and the tokens that are made of them.
struct Foreign {
  TemporaryFolder folder;
  Tokenizer tokenizer = small_tokenizer();  // 264 tokens; the last ends a story

  TokenData data(const std::vector<std::string>& contents, StorySelection part = {}) const {
    std::vector<std::filesystem::path> files;
    for (std::size_t i = 0; i < contents.size(); ++i) {
      files.push_back(folder / ("data" + std::to_string(i) + ".bin"));
      write_bytes(files.back(), contents[i]);
    }
    return TokenData::open_or_import(SelectedStories(TokenFiles(files, tokenizer), part), tokenizer, folder / "tokens");
  }
  Tokens tokens(const std::vector<std::string>& contents, StorySelection part = {}) const {
    return all_tokens(data(contents, part));
  }
  /// What is said of a file, from its name on; no token file may be left.
  std::string refusal(const std::string& content) const {
    const auto message = message_if_any<Error>([&] { data({content}); });
    CHECK(!std::filesystem::exists(folder / "tokens"));
    return message.substr(std::min(message.find("data0.bin"), message.size()));
  }
};

}  // namespace

TEST_CASE("Token files of nanoGPT, llm.c and llama2.c are read", "[token_data]") {
  Foreign foreign;
  const Tokens expected = {1, 2, 263, 3, 263, 4, 5, 263};
  CHECK(foreign.tokens({stored(Two{1, 2, 263, 3, 263, 4, 5, 263})}) == expected);  // nanoGPT: the end after a story
  CHECK(foreign.tokens({stored(Two{263, 1, 2, 263, 263, 3, 263, 4, 5})}) == expected);  // llm.c's order: before it
  const std::string two = stored(Two{263, 1, 2, 263, 3, 263, 4, 5});
  CHECK(foreign.tokens({llmc_header(20240520, 1, 8) + two}) == expected);
  const std::string four = stored(std::vector<std::uint32_t>{263, 1, 2, 263, 3, 263, 4, 5});
  CHECK(foreign.tokens({llmc_header(20240801, 7, 8) + four}) == expected);
  CHECK(foreign.tokens({stored(Two{1, 2}), llmc_header(20240520, 1, 2) + stored(Two{263, 3}), "", stored(Two{4, 5})}) ==
        expected);
  CHECK(foreign.tokens({two}, {.skip = 1, .count = 1}) == Tokens{3, 263});
  CHECK(foreign.tokens({two}, {.shuffle_seed = 1, .count = 3}).size() == expected.size());

  const auto& tokenizer = foreign.tokenizer;
  const Tokens words = expected_tokens(tokenizer, {"the lower", "aaa é"});
  const auto data = foreign.data({stored(Two(words.begin(), words.end()))});
  CHECK(all_tokens(data) == words);
  CHECK(data.stories() == 2);
  CHECK(data.text_bytes() == 9 + 6);  // as of the text
  CHECK(data.stories_between(data.size() - 1 - std::ssize(tokenizer.encode("aaa é")),
                             std::ssize(tokenizer.encode("aaa é")) + 1, tokenizer)
            .text_bytes() == 6);

  const Two longer(std::size_t{3} << 19, 7);  // more than the reader's buffer and than a story
  const auto parts = foreign.data({stored(longer)});
  CHECK(parts.stories() == 2);
  CHECK(parts.size() == std::ssize(longer) + 2);

  foreign.tokenizer = llama_tokenizer(true);  // 1 begins a story and is its end
  CHECK(foreign.tokens({stored(Two{1, 260, 261, 1, 262}), stored(Two{1, 263})}) == Tokens{260, 261, 1, 262, 1, 263, 1});
  CHECK(contains(message_if_any<FileError>([&] {
                   foreign.data({stored(Two{260, 261, 1, 262})});
                 }),
                 "expected a story that begins with the token 1, found 260"));
}

TEST_CASE("A cut or mixed-up token file is told with its byte", "[token_data]") {
  const Foreign foreign;
  const std::string whole = llmc_header(20240520, 1, 3) + stored(Two{1, 2, 263});
  CHECK(foreign.refusal(stored(Two{1, 2, 263}) + "x") ==
        "data0.bin: is cut or no token file: expected 2 bytes a token, found 7 bytes");
  CHECK(
      contains(foreign.refusal(stored(Two{1, 2, 264})),
               "data0.bin: expected tokens from 0 to 263, found 264 at offset 4; was it made with another tokenizer?"));
  CHECK(contains(foreign.refusal(llmc_header(20240520, 1, 1) + stored(Two{300})), "found 300 at offset 1024"));
  CHECK(foreign.refusal(whole.substr(0, whole.size() - 2)) ==
        "data0.bin: is cut at byte 1028: its header says that it has 3 tokens, found 2");
  CHECK(contains(foreign.refusal(whole.substr(0, whole.size() - 1)), "found 1029 bytes"));
  CHECK(foreign.refusal(whole.substr(0, 500)) ==
        "data0.bin: is cut: expected a header of llm.c of 1024 bytes, found 500");
  CHECK(contains(foreign.refusal(whole + stored(Two{1})),
                 "has other bytes behind its tokens, up to byte 1032: its header says that it has 3 tokens, found 4"));
  CHECK(contains(foreign.refusal(llmc_header(20240520, 2, 0)), "expected a token file of llm.c of version 1, found 2"));
  CHECK(contains(foreign.refusal(llmc_header(20240520, 1, -1)), "says that it has -1 tokens"));
  CHECK(contains(foreign.refusal(llmc_header(20240520, 1, 2147483647)), "is cut at byte 1024"));
  CHECK(contains(foreign.refusal("Once upon a time there was a text."), "data0.bin: has text"));
  CHECK(contains(foreign.refusal("\x1f\x8b\x08"), "is gzipped"));
  CHECK(contains(foreign.refusal(""), "data0.bin: expected at least one story, found none"));
  CHECK(contains(foreign.refusal(stored(Two{263, 263})), "expected at least one story, found none"));
  const Encoded encoded;
  encoded.open();
  CHECK(contains(foreign.refusal(read_bytes(encoded.file)), "is a token file of tinymoe's"));
}

}  // namespace tinymoe_test::token_data
