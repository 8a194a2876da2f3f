#include "stories.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <tinymoe/checkpoint/checkpoint.hpp>
#include <tinymoe/checkpoint/training_state_json.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/atomic_folder.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/text/known_stories.hpp>
#include <tinymoe/text/text.hpp>
#include <tinymoe/text/token_files.hpp>
#include <utility>

#include "programs/interruption.hpp"
#include "programs/numbers.hpp"
#include "run_paths.hpp"
#include "shown_stories.hpp"
#if defined(TINYMOE_EXAMPLE_ZLIB)
#include <tinymoe/files/gzip.hpp>
#endif
#if defined(TINYMOE_EXAMPLE_PARQUET)
#include <tinymoe/text/parquet.hpp>
#endif

namespace examples {

using namespace tinymoe;
using std::filesystem::path;

namespace {

/// The tokenizer that was named, or that of the checkpoint, or that another process has learnt.
std::optional<Tokenizer> named_tokenizer(const StoryOptions& options) {
  if (options.learnt) return options.learnt;
  if (options.tokenizer.extension() == ".bin") return Tokenizer::load_llama2c(options.tokenizer);
  if (!options.tokenizer.empty()) return Tokenizer::load(options.tokenizer);
  if (options.checkpoint.empty()) return std::nullopt;
  return tinymoe::detail::open_together(  // of one save, though a run may be saving another
      options.checkpoint, tinymoe::detail::checkpoint_files[0],
      [](const path& folder) { return Tokenizer::load(folder / "tokenizer.json"); });
}

template <StorySource Source>
Tokenizer tokenizer_for(const StoryOptions& options, const Source& source, Index vocabulary, int threads) {
  if (auto tokenizer = named_tokenizer(options)) return *std::move(tokenizer);
  std::printf("learning a tokenizer of %td tokens\n", vocabulary);
  programs::flush_progress();
  auto tokenizer = learn_tokenizer(source, {.vocabulary = vocabulary, .threads = threads, .or_fewer = true});
  if (tokenizer.vocabulary_size() < vocabulary) {
    std::printf("the text fills %td of them; the model's other tokens stay unused\n", tokenizer.vocabulary_size());
  }
  return tokenizer;
}

using Part = SelectedStories<StoryFiles>;

/// Stories as tokens. With a vocabulary without bytes, stories with unknown characters are left out.
TokenData encode_part(const Part& part, const Tokenizer& tokenizer, const path& token_file, int threads,
                      const MergeDropout& dropout) {
  const ShownStories shown(part, "encoding");
  if (tokenizer.has_bytes()) return TokenData::open_or_encode(shown, tokenizer, token_file, threads, dropout);
  auto data = tinymoe::detail::naming_file(part.name(), [&] {
    return TokenData::encode_to_file(KnownStories(shown, tokenizer), tokenizer, token_file, threads, dropout);
  });
  Index stories = 0;
  part.for_each_story([&](std::string_view) { ++stories; });
  if (const Index left_out = stories - data.stories(); left_out > 0) {
    std::printf("left out %td of %td stories, for characters that the vocabulary lacks\n", left_out, stories);
  }
  return data;
}

/// Before a text is read. A file that is there may be what is needed, in a folder that cannot be written.
void expect_made_or_writable(const path& token_file) {
  if (tinymoe::detail::look_at(token_file) != tinymoe::detail::Found::file) expect_writable(token_file);
}

/// The first stories of --validation, or all.
StorySelection validation_part(const StoryOptions& options) {
  StorySelection part;
  if (options.validation_stories > 0) part.count = options.validation_stories;
  return part;
}

/// Without a validation text, the last stories of the training text.
Stories with_held_out(Tokenizer tokenizer, const TokenData& data, const StoryOptions& options) {
  auto split = options.validation_stories > 0 ? hold_out_stories(data, tokenizer, options.validation_stories)
                                              : hold_out(data, tokenizer);
  return {std::move(tokenizer), std::move(split.training), std::move(split.validation)};
}

/// The tokenizer of a run. Throws OptionError for token files where none was named.
Tokenizer tokenizer_of_files(const StoryOptions& options, Index vocabulary, int threads) {
  if (auto tokenizer = options.encoded ? named_tokenizer(options) : std::nullopt) return *std::move(tokenizer);
  const auto files = tinymoe::detail::story_paths(options.data);
  if (tinymoe::detail::are_token_files(files)) {
    if (auto tokenizer = named_tokenizer(options)) return *std::move(tokenizer);
    fail<OptionError>(tinymoe::detail::name_of(files), ": has tokens; give the --tokenizer that made them");
  }
  const Part part(open_stories(options.data, options.field), options.part);
  return tinymoe::detail::naming_file(part.name(), [&] { return tokenizer_for(options, part, vocabulary, threads); });
}

/// A part of the stories of text files or token files.
TokenData read_files(const std::vector<path>& paths, const std::string& field, const StorySelection& part,
                     const Tokenizer& tokenizer, const path& token_file, int threads,
                     const MergeDropout& dropout = {}) {
  const auto files = tinymoe::detail::story_paths(paths);
  std::printf("reading %s\n", tinymoe::detail::name_of(files).c_str());
  programs::flush_progress();
  if (tinymoe::detail::are_token_files(files)) {
    if (dropout.rate > 0) {
      fail<OptionError>(tinymoe::detail::name_of(files),
                        ": has tokens, of which no merge can be left out; give texts, or no --bpe-dropout");
    }
    const SelectedStories stories(TokenFiles(paths, tokenizer), part);
    return TokenData::open_or_import(ShownStories(stories, "encoding"), tokenizer, token_file);
  }
  return encode_part(Part(open_stories(paths, field), part), tokenizer, token_file, threads, dropout);
}

/// Stories from files.
Stories from_files(const StoryOptions& options, Index vocabulary, const path& token_folder, int threads) {
  const path folder = tinymoe::detail::write_target(token_folder);
  const tinymoe::detail::MadeFolder made(folder, token_folder);  // goes again if a mistake leaves it empty
  const path training_file = folder / "training.tokens", validation_file = folder / "validation.tokens";
  const path dropout_file = folder / "training-dropout.tokens";
  const bool drops = options.dropout.rate > 0;
  expect_made_or_writable(training_file);
  if (drops) expect_made_or_writable(dropout_file);
  if (!options.validation.empty()) expect_made_or_writable(validation_file);
  auto tokenizer = tokenizer_of_files(options, vocabulary, threads);
  const auto encoded = [&](const path& token_file, const MergeDropout& dropout) {
    if (options.encoded) return TokenData::open(token_file, tokenizer);
    return read_files(options.data, options.field, options.part, tokenizer, token_file, threads, dropout);
  };
  if (options.validation.empty()) {  // the last stories are encoded without dropout, as all are that are not trained on
    Encoder(tokenizer, options.dropout);  // its errors before the work
    Stories stories = with_held_out(tokenizer, encoded(training_file, {}), options);
    if (!drops) return stories;
    const TokenData dropped = encoded(dropout_file, options.dropout);
    stories.training = hold_out_stories(dropped, tokenizer, stories.validation.stories()).training;
    return stories;
  }
  auto training = encoded(drops ? dropout_file : training_file, options.dropout);
  auto validation = options.encoded ? TokenData::open(validation_file, tokenizer)
                                    : read_files(options.validation, options.field, validation_part(options), tokenizer,
                                                 validation_file, threads);
  return {tokenizer, std::move(training), std::move(validation)};
}

/// The embedded stories, different ones for training and validation.
Stories embedded(const StoryOptions& options, Index vocabulary, int threads) {
  std::printf("no stories were named: training on %td that tinymoe makes up itself\n", options.embedded);
  const auto count = static_cast<std::uint64_t>(options.embedded), held_out = std::max<std::uint64_t>(1, count / 100);
  const EmbeddedStories training{.count = count}, validation{.count = held_out, .first = count};
  auto tokenizer = tokenizer_for(options, training, vocabulary, threads);
  auto tokens = TokenData::encode(ShownStories(training, "encoding"), tokenizer, threads, options.dropout);
  auto held_out_tokens = TokenData::encode(validation, tokenizer, threads);
  return {std::move(tokenizer), std::move(tokens), std::move(held_out_tokens)};
}

}  // namespace

void add_field_option(CLI::App& app, std::string& field) {
  app.add_option("--field", field, "field of JSON with the story; default: text or story");
}

StoryFiles open_stories(const std::vector<path>& paths, const std::string& field) {
  StoryFileOptions options{.field = field};
#if defined(TINYMOE_EXAMPLE_ZLIB)
  options.gzip = open_gzip;
#endif
#if defined(TINYMOE_EXAMPLE_PARQUET)
  options.parquet = read_parquet;
#endif
  return StoryFiles(paths, options);
}

void add_story_options(CLI::App& app, StoryOptions& options) {
  using programs::range::whole;
  auto* data = app.add_option(
      "--data", options.data,
      "stories to train on: .txt, separated by <|endoftext|>, .jsonl or .json, each also .gz, tokens (.bin), or "
      "folders or patterns of them; default: stories made up");
  app.add_option("--validation", options.validation,
                 "stories to validate on, in such files; default: the last of --data");
  programs::add_number_function<Index>(app, "--stories", "stories of --data to use; default: all", whole(1),
                                       [&](Index count) { options.part.count = count; })
      ->needs(data);
  programs::add_number_function<Index>(app, "--skip", "stories of --data to leave out first", whole(0),
                                       [&](Index count) { options.part.skip = count; })
      ->needs(data);
  programs::add_number_function<std::uint64_t>(app, "--shuffle-seed",
                                               "shuffle the stories of --data before; default: their own order",
                                               whole(0), [&](std::uint64_t seed) { options.part.shuffle_seed = seed; })
      ->needs(data);
  add_field_option(app, options.field);
  auto* tokens = programs::add_number(
      app, "--validation-tokens", options.validation_tokens,
      "tokens to validate on, the first of --validation or of what is held out, up to a story's end", whole(1));
  programs::add_number(app, "--validation-stories", options.validation_stories,
                       "stories to validate on: the first of --validation, or the last of --data", whole(1), false)
      ->needs(data)
      ->excludes(tokens);
  programs::add_number(app, "--embedded", options.embedded, "number of stories made up without --data",
                       whole(1, 100000000));
  app.add_option("--tokenizer", options.tokenizer,
                 "tokenizer.json, sentencepiece's .model or llama2.c's tokenizer.bin to use; default: one is learnt "
                 "from the data");
}

TokenData encode_stories(const std::vector<path>& paths, const std::string& field, const Tokenizer& tokenizer,
                         int threads) {
  return tinymoe::detail::naming_file(tinymoe::detail::name_of(tinymoe::detail::story_paths(paths)), [&] {
    const ShownStories shown(open_stories(paths, field), "encoding");
    return TokenData::encode(KnownStories(shown, tokenizer), tokenizer, threads);
  });
}

std::optional<TokenData> unseen_stories(const std::vector<path>& paths, const std::string& field,
                                        const path& checkpoint, const Tokenizer& tokenizer, int threads) {
  if (!paths.empty()) return encode_stories(paths, field, tokenizer, threads);
  const path folder = RunPaths(checkpoint).tokens, validation = folder / "validation.tokens";
  const path training = folder / "training.tokens";
  using tinymoe::detail::is_there;
  if (is_there(validation)) return TokenData::open(validation, tokenizer);
  if (!is_there(training) || !tinymoe::detail::folder_has(checkpoint, "trainer.json")) return std::nullopt;
  const TokenData all = TokenData::open(training, tokenizer);  // the last stories were held out
  const Index learnt =
      tinymoe::detail::open_together(checkpoint, "trainer.json", tinymoe::detail::read_state).data.tokens;
  if (learnt <= 0 || learnt >= all.size()) return std::nullopt;
  return all.stories_between(learnt, all.size() - learnt, tokenizer);
}

Stories load_stories(const StoryOptions& options, Index vocabulary, const path& token_folder, int threads) {
  Stories stories = options.data.empty() ? embedded(options, vocabulary, threads)
                                         : from_files(options, vocabulary, token_folder, threads);
  if (options.validation_stories == 0) {
    stories.validation = first_stories(stories.validation, stories.tokenizer, options.validation_tokens);
  }
  if (const auto& kind = stories.tokenizer; kind.file_name() != std::string_view("tokenizer.json")) {
    if (const auto reason = kind.hub_tokenizer().reason) std::printf("note: %s\n", reason->c_str());
  }
  std::printf("%td tokens to train on, %td to validate; %.2f bytes a token\n", stories.training.size(),
              stories.validation.size(), double(stories.validation.text_bytes()) / double(stories.validation.size()));
  programs::flush_progress();
  return stories;
}

}  // namespace examples
