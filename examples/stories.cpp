#include "stories.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <tinymoe/checkpoint/checkpoint.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/atomic_folder.hpp>
#include <tinymoe/text/text.hpp>
#include <utility>

#include "programs/interruption.hpp"
#include "programs/numbers.hpp"

namespace examples {

using namespace tinymoe;
using std::filesystem::path;

namespace {

template <StorySource Source>
Tokenizer tokenizer_for(const StoryOptions& options, const Source& source, Index vocabulary, int threads) {
  if (!options.tokenizer.empty()) return Tokenizer::load(options.tokenizer);
  if (!options.checkpoint.empty()) {  // of one save, though a run may be saving another
    return tinymoe::detail::open_together(
        options.checkpoint, tinymoe::detail::checkpoint_files[0],
        [](const path& folder) { return Tokenizer::load(folder / "tokenizer.json"); });
  }
  std::printf("learning a tokenizer of %td tokens\n", vocabulary);
  programs::flush_progress();
  auto tokenizer = train_tokenizer(source, {.vocabulary = vocabulary, .threads = threads, .or_fewer = true});
  if (tokenizer.vocabulary_size() < vocabulary) {
    std::printf("the text fills %td of them; the model's other tokens stay unused\n", tokenizer.vocabulary_size());
  }
  return tokenizer;
}

/// The stories of a file as tokens. With a vocabulary without bytes, stories with unknown characters are left out.
TokenData encode_file(const path& text, const Tokenizer& tokenizer, const path& token_file, int threads) {
  if (tokenizer.has_bytes()) return TokenData::open_or_encode(text, tokenizer, token_file, threads);
  const TextCorpus corpus(text);
  auto data = tinymoe::detail::naming_file(text.string(), [&] {
    return TokenData::encode_to_file(KnownStories(corpus, tokenizer), tokenizer, token_file, threads);
  });
  Index stories = 0;
  corpus.for_each_story([&](std::string_view) { ++stories; });
  if (const Index left_out = stories - data.stories(); left_out > 0) {
    std::printf("left out %td of %td stories, for characters that the vocabulary lacks\n", left_out, stories);
  }
  return data;
}

/// Before a text is read. A file that is there may be what is needed, in a folder that cannot be written.
void expect_made_or_writable(const path& token_file) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(token_file, ignored)) expect_writable(token_file);
}

/// Texts from files; without a validation text, the last stories of the training text are held out.
Stories from_files(const StoryOptions& options, Index vocabulary, const path& token_folder, int threads) {
  const path folder = tinymoe::detail::write_target(token_folder);
  const tinymoe::detail::MadeFolder made(folder, token_folder);  // goes again if a mistake leaves it empty
  const path training_file = folder / "training.tokens", validation_file = folder / "validation.tokens";
  expect_made_or_writable(training_file);
  if (!options.validation.empty()) expect_made_or_writable(validation_file);
  auto tokenizer = tinymoe::detail::naming_file(
      options.data.string(), [&] { return tokenizer_for(options, TextCorpus(options.data), vocabulary, threads); });
  std::printf("reading %s\n", options.data.c_str());
  programs::flush_progress();
  auto training = encode_file(options.data, tokenizer, training_file, threads);
  if (options.validation.empty()) {
    auto split = hold_out(training, tokenizer);
    return {std::move(tokenizer), std::move(split.training), std::move(split.validation)};
  }
  auto validation = encode_file(options.validation, tokenizer, validation_file, threads);
  return {tokenizer, std::move(training), std::move(validation)};
}

/// The embedded stories, different ones for training and validation.
Stories embedded(const StoryOptions& options, Index vocabulary, int threads) {
  std::printf("no stories were named: training on %td that tinymoe makes up itself\n", options.embedded);
  const auto count = static_cast<std::uint64_t>(options.embedded), held_out = std::max<std::uint64_t>(1, count / 100);
  const EmbeddedStories training{.count = count}, validation{.count = held_out, .first = count};
  auto tokenizer = tokenizer_for(options, training, vocabulary, threads);
  auto tokens = TokenData::encode(training, tokenizer, threads);
  auto held_out_tokens = TokenData::encode(validation, tokenizer, threads);
  return {std::move(tokenizer), std::move(tokens), std::move(held_out_tokens)};
}

}  // namespace

void add_story_options(CLI::App& app, StoryOptions& options) {
  app.add_option("--data", options.data,
                 "text to train on, stories separated by <|endoftext|>; default: stories made up");
  app.add_option("--validation", options.validation, "text to validate on; default: the last of --data");
  programs::add_number(app, "--validation-tokens", options.validation_tokens,
                       "tokens to validate on, the first of --validation or of what is held out, up to a story's end",
                       programs::range::whole(1));
  programs::add_number(app, "--embedded", options.embedded, "number of stories made up without --data",
                       programs::range::whole(1, 100000000));
  app.add_option("--tokenizer", options.tokenizer, "tokenizer.json to use; default: one is learnt from the data");
}

Stories load_stories(const StoryOptions& options, Index vocabulary, const path& token_folder, int threads) {
  Stories stories = options.data.empty() ? embedded(options, vocabulary, threads)
                                         : from_files(options, vocabulary, token_folder, threads);
  stories.validation = first_stories(stories.validation, stories.tokenizer, options.validation_tokens);
  std::printf("%td tokens to train on, %td to validate; %.2f bytes a token\n", stories.training.size(),
              stories.validation.size(), double(stories.validation.text_bytes()) / double(stories.validation.size()));
  programs::flush_progress();
  return stories;
}

}  // namespace examples
