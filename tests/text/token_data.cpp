#include "tinymoe/text/token_data.hpp"

#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/bpe_trainer.hpp"

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
  SECTION("a text of the same size and time") {
    const auto time = std::filesystem::last_write_time(encoded.text);
    std::string other = two_stories;
    other[0] = 'T';
    write_bytes(encoded.text, other);
    std::filesystem::last_write_time(encoded.text, time);
    CHECK(all_tokens(encoded.open()) == expected_tokens(encoded.tokenizer, {"The lower", "aaa é"}));
  }
  SECTION("a text that was written anew") {
    std::filesystem::last_write_time(encoded.text,
                                     std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
    encoded.open();
    CHECK(encoded.made() != first);
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
  }
}

TEST_CASE("Another file is never replaced by tokens", "[token_data]") {
  Encoded encoded;
  CHECK(contains(
      message_if_any<FileError>([&] { TokenData::open_or_encode(encoded.text, encoded.tokenizer, encoded.text); }),
      "will not replace another file"));
  CHECK(read_bytes(encoded.text) == two_stories);
  write_bytes(encoded.file, "");
  CHECK_THROWS_AS(encoded.open(), FileError);
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
  const std::size_t counts = good.size() - 24;
  CHECK(contains(refused(0, 'T'), "expected a tinymoe token file"));
  CHECK(contains(refused(16, std::uint32_t{2}), "expected a token file of version 1, found 2"));
  CHECK(contains(refused(20, std::uint32_t{0}), "token width"));
  CHECK(contains(refused(20, std::uint32_t{4}), "token width"));
  CHECK(contains(refused(24, std::uint64_t{1} << 63), "token width"));
  CHECK(contains(refused(counts, std::uint64_t{1} << 63), "count of 9223372036854775808 tokens"));
  CHECK(contains(refused(counts, ~std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts, std::uint64_t{0}), "cut or corrupt"));
  CHECK(contains(refused(counts + 8, std::uint64_t{1} << 63), "do not belong together"));
  CHECK(contains(refused(counts + 16, std::uint64_t{1} << 63), "do not belong together"));
  write_bytes(encoded.file, good.substr(0, 64) + std::string(24, '\0'));
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
    detail::OrderedWorkers<int> workers(
        3,
        [&] {
          return [bad](int& block) {
            if (block == bad) throw TextError("block " + std::to_string(block));
            block *= 10;
          };
        },
        [&](int& block) { finished.push_back(block); });
    for (int i = 0; i < 100; ++i) workers.push(i);
    workers.drain();
  };
  run(-1);
  REQUIRE(finished.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(finished[i] == 10 * i);
  CHECK(message_if_any<TextError>([&] { run(57); }) == "block 57");
  CHECK(finished.size() == 57);
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
