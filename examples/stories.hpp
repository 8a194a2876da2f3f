#pragma once
// The training data of the programs.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <tinymoe/text/token_data.hpp>
#include <tinymoe/text/tokenizer.hpp>

namespace examples {

using tinymoe::Index;

/// The command line's options of the data.
struct StoryOptions {
  std::filesystem::path data, validation;  // texts; without `data`: the library's embedded stories
  std::filesystem::path tokenizer;         // a tokenizer.json; empty: the checkpoint's, or else one is learnt
  std::filesystem::path checkpoint;        // a folder with a tokenizer.json; no option of the command line
  Index embedded = 60000, validation_tokens = 500000;
};

/// The data sets of a run, and the tokenizer that its checkpoints store.
struct Stories {
  tinymoe::Tokenizer tokenizer;
  tinymoe::TokenData training, validation;
};

/// Adds --data, --validation, --validation-tokens, --embedded and --tokenizer.
void add_story_options(CLI::App& app, StoryOptions& options);

/// Reads or generates the stories, for a model with this vocabulary. Training and validation data share no story.
/// Encoded texts are cached in `token_folder`, which may be a link to a folder that is yet to be made, and is looked at
/// before the work. Throws FileError, TextError, MismatchError.
Stories load_stories(const StoryOptions& options, Index vocabulary, const std::filesystem::path& token_folder,
                     int threads);

}  // namespace examples
