#include "tinymoe/text/batches.hpp"

#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/padded_batches.hpp"

namespace tinymoe_test::batches {

using namespace tinymoe;
using Tokens = std::vector<Token>;

namespace {

/// Tokens 0, 1, 2…, so that a token is its own position.
TokenData counting(Index size) {
  Tokens tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  return TokenData::from_tokens(tokens, size + 1);
}

struct Batch {
  Tokens inputs, targets;
  friend bool operator==(const Batch&, const Batch&) = default;
};

template <class Source>
Batch batch_of(const Source& source, Index index) {
  const auto size = static_cast<std::size_t>(source.batch() * source.time());
  Batch batch{Tokens(size, -7), Tokens(size, -7)};
  source.fill(index, batch.inputs, batch.targets);
  return batch;
}

}  // namespace

TEST_CASE("A permutation hits each number once", "[batches]") {
  for (const std::uint64_t size : {1u, 2u, 3u, 4u, 5u, 16u, 17u, 1000u, 4096u, 4097u}) {
    const detail::RandomPermutation order({Seed{1}, 0, random_site::batches}, size);
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < size; ++i) seen.insert(order(i));
    CHECK(seen.size() == size);
    CHECK(*seen.rbegin() == size - 1);
  }
  const detail::RandomPermutation huge({Seed{1}, 0, random_site::batches}, std::uint64_t{1} << 40);
  CHECK(huge(0) < std::uint64_t{1} << 40);
  CHECK(huge(0) != huge(1));
}

TEST_CASE("A permutation of few looks uniform", "[batches]") {
  std::map<std::uint64_t, int> counts;  // of where 0 goes
  for (std::uint32_t epoch = 0; epoch < 6000; ++epoch) {
    ++counts[detail::RandomPermutation({Seed{3}, epoch, random_site::batches}, 6)(0)];
  }
  REQUIRE(counts.size() == 6);
  for (const auto& [place, count] : counts) CHECK(std::abs(count - 1000) < 150);
}

TEST_CASE("Targets are the inputs' successors", "[batches]") {
  const Batches batches(counting(1000), 4, 16, Seed{1});
  for (Index step = 0; step < 40; ++step) {
    const auto [inputs, targets] = batch_of(batches, step);
    for (Index row = 0; row < 4; ++row) {
      for (Index i = 0; i < 16; ++i) {
        REQUIRE(inputs[row * 16 + i] == inputs[row * 16] + i);
        REQUIRE(targets[row * 16 + i] == inputs[row * 16] + i + 1);
      }
    }
  }
}

TEST_CASE("An epoch visits each window once, and its windows do not overlap", "[batches]") {
  struct Shape {
    Index size, batch, time;
  };
  for (const auto& [size, batch, time] : {Shape{1000, 4, 16},
                                          {17, 1, 16},
                                          {18, 2, 16},
                                          {33, 3, 16},
                                          {100, 7, 1},
                                          {2, 1, 1},
                                          {500, 64, 10},
                                          {256, 1, 255}}) {
    CAPTURE(size, batch, time);
    const Batches batches(counting(size), batch, time, Seed{9});
    const Index windows = batches.windows_per_epoch();
    CHECK(windows >= std::max<Index>(1, (size - time) / time));
    CHECK(batches.batches_per_epoch() * batch >= windows);
    for (Index epoch = 0; epoch < 3; ++epoch) {
      std::set<Index> starts, phases;
      for (Index sample = epoch * windows; sample < (epoch + 1) * windows; ++sample) {
        const Index start = batches.window_start(sample / batch, sample % batch);
        CHECK(start >= 0);
        CHECK(start + time < size);
        starts.insert(start);
        phases.insert(start % time);
      }
      CHECK(std::ssize(starts) == windows);
      CHECK(phases.size() == 1);
    }
  }
}

TEST_CASE("Over the epochs every token is read and predicted", "[batches]") {
  const Batches batches(counting(103), 2, 10, Seed{4});
  std::set<Token> inputs, targets;
  for (Index step = 0; step < 60 * batches.batches_per_epoch(); ++step) {
    const auto batch = batch_of(batches, step);
    inputs.insert(batch.inputs.begin(), batch.inputs.end());
    targets.insert(batch.targets.begin(), batch.targets.end());
  }
  CHECK(inputs.size() == 102);
  CHECK(targets.size() == 102);
}

TEST_CASE("A batch is a pure function of seed and step", "[batches]") {
  const auto data = counting(5000);
  const Batches first(data, 8, 32, Seed{1}), again(data, 8, 32, Seed{1}), other(data, 8, 32, Seed{2});
  std::vector<Batch> run;
  for (Index step = 0; step < 50; ++step) run.push_back(batch_of(first, step));
  for (Index step = 49; step >= 23; --step)
    CHECK(batch_of(again, step) == run[static_cast<std::size_t>(step)]);  // resumed
  CHECK_FALSE(batch_of(other, 0) == run[0]);
  CHECK_FALSE(run[0] == run[1]);
  const Index epoch = first.windows_per_epoch();
  bool differs = false;
  for (Index i = 0; i < 10; ++i) {
    differs |= first.window_start(i / 8, i % 8) / 32 != first.window_start((epoch + i) / 8, (epoch + i) % 8) / 32;
  }
  CHECK(differs);
}

TEST_CASE("Data shorter than a window is refused", "[batches]") {
  CHECK(message_if_any<TrainingError>([] { Batches(counting(16), 1, 16, Seed{1}); }) ==
        "expected at least 17 tokens for a window of 16, found 16");
  CHECK_THROWS_AS(Batches(counting(0), 1, 1, Seed{1}), TrainingError);
  CHECK_THROWS_AS(Batches(counting(100), 0, 16, Seed{1}), ShapeError);
  CHECK_THROWS_AS(Batches(counting(100), 1, 0, Seed{1}), ShapeError);
  CHECK_THROWS_AS(Batches(counting(100), 1, std::numeric_limits<Index>::max(), Seed{1}), ShapeError);
  const Batches batches(counting(17), 1, 16, Seed{1});
  Tokens inputs(16), targets(15);
  CHECK_THROWS_AS(batches.fill(0, inputs, targets), ShapeError);
  CHECK_THROWS_AS(batch_of(batches, -1), ShapeError);
}

TEST_CASE("Evaluation predicts each token but the first once", "[batches]") {
  for (const Index size : {2, 9, 10, 11, 39, 40, 41, 100}) {
    for (const Index batch : {1, 3}) {
      CAPTURE(size, batch);
      const EvaluationWindows windows(counting(size), batch, 10);
      CHECK(windows.scored_tokens() == size - 1);
      std::multiset<Token> targets;
      for (Index index = 0; index < windows.batches(); ++index) {
        const auto filled = batch_of(windows, index);
        for (std::size_t i = 0; i < filled.inputs.size(); ++i) {
          if (filled.targets[i] == -1) {
            REQUIRE(filled.inputs[i] == pad_token);
          } else {
            REQUIRE(filled.targets[i] == filled.inputs[i] + 1);
            targets.insert(filled.targets[i]);
          }
        }
      }
      CHECK(std::ssize(targets) == size - 1);
      CHECK(std::set<Token>(targets.begin(), targets.end()).size() == targets.size());
      CHECK(*targets.begin() == 1);
      CHECK(*targets.rbegin() == size - 1);
    }
  }
}

TEST_CASE("Evaluation refuses too little data and batches that are not there", "[batches]") {
  CHECK_THROWS_AS(EvaluationWindows(counting(1), 1, 10), TrainingError);
  const EvaluationWindows windows(counting(12), 1, 10);
  CHECK(windows.batches() == 2);
  CHECK_THROWS_AS(batch_of(windows, 2), ShapeError);
  CHECK_THROWS_AS(batch_of(windows, -1), ShapeError);
}

TEST_CASE("A story longer than a window goes through several", "[batches]") {
  const auto tokenizer = small_tokenizer();
  const auto data = TokenData::encode(StoryList{std::string(100, 'x'), "the end"}, tokenizer);
  const EvaluationWindows windows(data, 1, 16);
  Tokens targets;
  for (Index index = 0; index < windows.batches(); ++index) {
    const auto filled = batch_of(windows, index);
    targets.insert(targets.end(), filled.targets.begin(), filled.targets.end());
  }
  CHECK(std::count(targets.begin(), targets.end(), tokenizer.end_of_story()) == 2);
  CHECK(std::count(targets.begin(), targets.end(), tokenizer.encode("x")[0]) == 99);
}

namespace {

/// Stories of the tokens 1, 2, 3…, each with 0 at its end; `lengths` without the end.
TokenData stories_of(const std::vector<Index>& lengths, bool last_ends = true) {
  Tokens tokens;
  Token next = 1;
  for (const Index length : lengths) {
    for (Index i = 0; i < length; ++i) tokens.push_back(next++);
    tokens.push_back(0);
  }
  if (!last_ends) tokens.pop_back();
  return TokenData::from_tokens(tokens, next);
}

}  // namespace

TEST_CASE("A padded row is one story from its start, with its end and pads", "[batches]") {
  // 1 2 3 | 4 | 5 6 7 8 9 10, in rows of 5.
  const PaddedBatches batches(stories_of({3, 1, 6}), 0, 3, 5, Seed{1});
  CHECK(batches.stories() == 3);
  CHECK(batches.batches_per_epoch() == 1);
  const std::map<Index, std::pair<Tokens, Tokens>> expected = {{0, {{0, 1, 2, 3, -1}, {1, 2, 3, 0, -1}}},
                                                               {1, {{0, 4, -1, -1, -1}, {4, 0, -1, -1, -1}}},
                                                               {2, {{0, 5, 6, 7, 8}, {5, 6, 7, 8, 9}}}};  // cut
  std::set<Index> seen;
  const auto [inputs, targets] = batch_of(batches, 0);
  for (Index row = 0; row < 3; ++row) {
    const auto& story = expected.at(batches.story(0, row));
    seen.insert(batches.story(0, row));
    CHECK(Tokens(inputs.begin() + 5 * row, inputs.begin() + 5 * row + 5) == story.first);
    CHECK(Tokens(targets.begin() + 5 * row, targets.begin() + 5 * row + 5) == story.second);
  }
  CHECK(seen.size() == 3);
  // A row that a story fills exactly, and one of one token.
  const PaddedBatches exact(stories_of({4}), 0, 1, 5, Seed{1});
  CHECK(batch_of(exact, 0) == Batch{{0, 1, 2, 3, 4}, {1, 2, 3, 4, 0}});
  const PaddedBatches single(stories_of({4}), 0, 1, 1, Seed{1});
  CHECK(batch_of(single, 0) == Batch{{0}, {1}});
}

TEST_CASE("The last story may be cut, and an end alone is no story", "[batches]") {
  const PaddedBatches cut(stories_of({2, 3}, false), 0, 1, 5, Seed{1});
  CHECK(cut.stories() == 2);
  const Index step = cut.story(0, 0) == 1 ? 0 : 1;
  CHECK(batch_of(cut, step) == Batch{{0, 3, 4, -1, -1}, {3, 4, 5, -1, -1}});  // the data ends within the story
  const PaddedBatches gaps(stories_of({0, 2, 0, 0, 1}), 0, 1, 5, Seed{1});
  CHECK(gaps.stories() == 2);
  CHECK_THROWS_AS(PaddedBatches(stories_of({0, 0}), 0, 1, 5, Seed{1}), TrainingError);
  CHECK_THROWS_AS(PaddedBatches(stories_of({}), 0, 1, 5, Seed{1}), TrainingError);
  CHECK_THROWS_AS(PaddedBatches(stories_of({3}), 0, 0, 5, Seed{1}), ShapeError);
  Tokens inputs(5), targets(4);
  CHECK_THROWS_AS(gaps.fill(0, inputs, targets), ShapeError);
  CHECK_THROWS_AS(batch_of(gaps, -1), ShapeError);
}

TEST_CASE("Padded epochs visit each story once, as a pure function of seed and step", "[batches]") {
  std::vector<Index> lengths;
  for (Index i = 0; i < 37000; ++i) lengths.push_back(i % 5 + 1);  // more tokens than one block of the search
  const auto data = stories_of(lengths);
  const PaddedBatches batches(data, 0, 8, 4, Seed{3}), again(data, 0, 8, 4, Seed{3}), other(data, 0, 8, 4, Seed{4});
  REQUIRE(batches.stories() == 37000);
  for (Index epoch = 0; epoch < 2; ++epoch) {
    std::set<Index> seen;
    for (Index sample = 0; sample < 37000; ++sample) {
      const Index at = epoch * 37000 + sample;
      seen.insert(batches.story(at / 8, at % 8));
    }
    CHECK(seen.size() == 37000);
  }
  CHECK(batches.story(0, 0) != batches.story(4625, 0));  // the first of each epoch
  CHECK(batch_of(batches, 1234) == batch_of(again, 1234));
  CHECK_FALSE(batch_of(batches, 1234) == batch_of(other, 1234));
  CHECK_FALSE(batch_of(batches, 1234) == batch_of(batches, 1235));
}

TEST_CASE("Padded batches of encoded stories have the tokens that generation reads and gives", "[batches]") {
  const auto tokenizer = small_tokenizer();
  const auto data = TokenData::encode(StoryList{"the low", "er"}, tokenizer);
  const PaddedBatches batches(data, tokenizer.end_of_story(), 2, 8, Seed{1});
  const auto filled = batch_of(batches, 0);
  for (Index row = 0; row < 2; ++row) {
    Tokens expected = tokenizer.encode(batches.story(0, row) == 0 ? "the low" : "er");
    const auto begin = filled.targets.begin() + 8 * row;
    expected.push_back(tokenizer.end_of_story());
    expected.resize(8, -1);
    CHECK(Tokens(begin, begin + 8) == expected);
    CHECK(filled.inputs[static_cast<std::size_t>(8 * row)] == tokenizer.end_of_story());
  }
}

}  // namespace tinymoe_test::batches
