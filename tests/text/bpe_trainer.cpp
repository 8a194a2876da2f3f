#include "tinymoe/text/bpe_trainer.hpp"

#include <map>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/corpus.hpp"

namespace tinymoe_test::bpe_trainer {

using namespace tinymoe;

namespace {

std::vector<std::string> merge_results(const Tokenizer& tokenizer) {
  std::vector<std::string> results;
  for (const detail::Merge& merge : parts_of(tokenizer).merges) {
    results.push_back(std::string(tokenizer.bytes(merge.left)) + "+" + std::string(tokenizer.bytes(merge.right)));
  }
  return results;
}

/// Training by the definition: all pairs of all pieces are counted anew for each merge.
std::vector<std::string> train_by_definition(const StoryList& stories, std::size_t merges) {
  std::map<std::string, Token> number;
  std::vector<std::string> bytes;
  const auto token = [&](const std::string& text) {
    const auto [found, fresh] = number.try_emplace(text, static_cast<Token>(bytes.size()));
    if (fresh) bytes.push_back(text);
    return found->second;
  };
  for (const unsigned char byte : detail::byte_alphabet.in_order) token(std::string(1, static_cast<char>(byte)));
  std::vector<std::vector<Token>> pieces;
  stories.for_each_story([&](std::string_view story) {
    tinymoe::detail::for_each_piece(story, [&](std::string_view piece) {
      pieces.emplace_back();
      for (const char byte : piece) pieces.back().push_back(token(std::string(1, byte)));
    });
  });
  std::vector<std::string> results;
  while (results.size() < merges) {
    std::map<std::pair<Token, Token>, int> counts;
    for (const auto& piece : pieces) {
      for (std::size_t i = 0; i + 1 < piece.size(); ++i) ++counts[{piece[i], piece[i + 1]}];
    }
    auto best = counts.begin();
    for (auto pair = counts.begin(); pair != counts.end(); ++pair) {
      if (pair->second > best->second) best = pair;
    }
    const auto [left, right] = best->first;
    results.push_back(bytes[left] + "+" + bytes[right]);
    const Token result = token(bytes[left] + bytes[right]);
    for (auto& piece : pieces) {
      for (std::size_t i = 0; i + 1 < piece.size(); ++i) {
        if (piece[i] != left || piece[i + 1] != right) continue;
        piece[i] = result;
        piece.erase(piece.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  return results;
}

const StoryList few_stories = {
    "The cat sat on the mat. The cat, the fat cat, ate the rat that sat on the mat.",
    "A lower tower is slower than the lowest flower; aaaaa aaaa aaa banana bandana.",
    "It's the cat's mat, isn't it? It is the mat that the cat sat on 100 or 1000 times.",
};

}  // namespace

TEST_CASE("The most frequent pair becomes the first merge", "[bpe_trainer]") {
  // The example of Sennrich et al. 2016: low 5 times, lower 2, newest 6, widest 3. By hand: e+s occurs 9 times, as s+t
  // does; then es+t 9; l+o 7, as o+w; lo+w 7; then e+w 6, as n+e and w+est; n+ew 6, as ew+est; new+est 6.
  StoryList words;
  const auto add = [&](const char* word, int times) {
    for (int i = 0; i < times; ++i) words.add(word);
  };
  add("low", 5), add("lower", 2), add("newest", 6), add("widest", 3);
  const auto tokenizer = train_tokenizer(words, {.vocabulary = 257 + 7});
  CHECK(merge_results(tokenizer) == std::vector<std::string>{"e+s", "es+t", "l+o", "lo+w", "e+w", "n+ew", "new+est"});
  CHECK(tokenizer.encode("lowest").size() == 2);
}

TEST_CASE("Of equally frequent pairs the smaller tokens come first", "[bpe_trainer]") {
  const auto tokenizer = train_tokenizer(StoryList{"xy", "ab", "xy", "ab", "!?", "!?"}, {.vocabulary = 257 + 3});
  CHECK(merge_results(tokenizer) == std::vector<std::string>{"!+?", "a+b", "x+y"});
}

TEST_CASE("The layout is GPT-2's: bytes, merges, the end of a story", "[bpe_trainer]") {
  std::vector<Index> learnt;
  const auto tokenizer = train_tokenizer(few_stories, {.vocabulary = 280, .on_progress = [&](Index done, Index all) {
                                                         CHECK(all == 280);
                                                         learnt.push_back(done);
                                                       }});
  REQUIRE(learnt.size() == 23);
  CHECK(learnt.front() == 258);
  CHECK(learnt.back() == 280);
  CHECK(tokenizer.vocabulary_size() == 280);
  CHECK(tokenizer.end_of_story() == 279);
  CHECK(tokenizer.bytes(0) == "!");
  CHECK(parts_of(tokenizer).merges.size() == 23);
  few_stories.for_each_story(
      [&](std::string_view story) { CHECK(tokenizer.decode(tokenizer.encode(story)) == story); });
}

TEST_CASE("Training equals its definition, on any number of threads", "[bpe_trainer]") {
  const auto expected = train_by_definition(few_stories, 60);
  for (const int threads : {1, 2, 5}) {
    const auto tokenizer = train_tokenizer(few_stories, {.vocabulary = 257 + 60, .threads = threads, .least_count = 1});
    CHECK(merge_results(tokenizer) == expected);
  }
}

TEST_CASE("The smallest vocabulary has the bytes alone", "[bpe_trainer]") {
  const auto tokenizer = train_tokenizer(StoryList{}, {.vocabulary = 257});
  CHECK(parts_of(tokenizer).merges.empty());
  CHECK(tokenizer.encode("ab").size() == 2);
  CHECK(contains(message_if_any<TextError>([] { train_tokenizer(few_stories, {.vocabulary = 256}); }),
                 "at least 257 tokens (256 bytes and the end of a story), found 256"));
  CHECK_THROWS_AS(train_tokenizer(few_stories, {.vocabulary = -1}), TextError);
}

TEST_CASE("The error of too little text names the vocabulary that it fills", "[bpe_trainer]") {
  const StoryList stories = {"ab ab", "ab"};
  const auto message = message_if_any<TextError>([&] { train_tokenizer(stories, {.vocabulary = 2048}); });
  CHECK(contains(message, "too small for a vocabulary of 2048"));
  CHECK(contains(message, "it fills one of 258; ask for that or give more text"));
  CHECK(train_tokenizer(stories, {.vocabulary = 258}).bytes(256) == "ab");
  // With `or_fewer` it is no error, and gives the same tokenizer as asking for so many.
  CHECK(train_tokenizer(stories, {.vocabulary = 2048, .or_fewer = true}) ==
        train_tokenizer(stories, {.vocabulary = 258}));
}

TEST_CASE("Long runs of one letter are learnt in reasonable time", "[bpe_trainer]") {
  const auto tokenizer = train_tokenizer(StoryList{std::string(1 << 20, 'a')}, {.vocabulary = 260});
  CHECK(merge_results(tokenizer) == std::vector<std::string>{"a+a", "aa+aa", "aaaa+aaaa"});
}

TEST_CASE("Real stories fill a vocabulary of 2048", "[bpe_trainer]") {
  const TextCorpus corpus(shared_data("tinystories-valid.txt"));
  const auto tokenizer = train_tokenizer(corpus, {.vocabulary = 2048});
  CHECK(tokenizer.vocabulary_size() == 2048);
  std::size_t bytes = 0, tokens = 0;
  corpus.for_each_story([&](std::string_view story) {
    const auto encoded = tokenizer.encode(story);
    REQUIRE(tokenizer.decode(encoded) == story);
    bytes += story.size(), tokens += encoded.size();
  });
  CHECK(static_cast<double>(bytes) / static_cast<double>(tokens) > 3.5);
}

}  // namespace tinymoe_test::bpe_trainer
