// Stories for a vocabulary that lacks characters.

#include "tinymoe/text/known_stories.hpp"

#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/corpus.hpp"

namespace tinymoe_test::known_stories {

using namespace tinymoe;

namespace {

template <StorySource Source>
std::vector<std::string> stories_of(const Source& source) {
  std::vector<std::string> stories;
  source.for_each_story([&](std::string_view story) { stories.emplace_back(story); });
  return stories;
}

}  // namespace

TEST_CASE("A tokenizer with the bytes gets every story as it is", "[text]") {
  const StoryList stories{"One day,\n\nTom sat.", "\xc2\xab \t\xc2\xbb", "caf\xc3\xa9"};
  const auto tokenizer = train_tokenizer(stories, {.vocabulary = 257});
  CHECK(tokenizer.has_bytes());
  CHECK(stories_of(KnownStories(stories, tokenizer)) == stories_of(stories));
}

TEST_CASE("A vocabulary of characters gets spaces for other white space, and only stories that it can encode",
          "[text]") {
  const auto tokenizer = Tokenizer::load_llama2c(shared_data("llama2c/tokenizer.bin"));
  CHECK_FALSE(tokenizer.has_bytes());
  CHECK(tokenizer.knows("One day, Tom sat."));
  CHECK_FALSE(tokenizer.knows("One day,\nTom sat."));
  const StoryList stories{
      "One day,\n\n Tom sat.", "Two  spaces.", "\xc2\xabWho?\xc2\xbb", "Last.\n", "\n", "caf\xc3\xa9"};
  const std::vector<std::string> known{"One day, Tom sat.", "Two  spaces.", "Last. ", " ", "caf\xc3\xa9"};
  CHECK(stories_of(KnownStories(stories, tokenizer)) == known);

  // Nearly all real stories can be encoded.
  const TextCorpus corpus(shared_data("tinystories-valid.txt"));
  const auto all = stories_of(corpus), written = stories_of(KnownStories(corpus, tokenizer));
  CHECK(all.size() == 500);
  CHECK(written.size() > 490);
  for (const auto& story : written) {
    if (!tokenizer.knows(story)) FAIL(story);
  }
}

}  // namespace tinymoe_test::known_stories
