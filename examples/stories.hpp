#pragma once
// Where the programs that train get their stories from.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <tinymoe/text/token_data.hpp>
#include <tinymoe/text/tokenizer.hpp>

namespace examples {

using tinymoe::Index;

/// What the command line says of the stories.
struct StoryOptions {
  std::filesystem::path data, validation;  // texts; without `data` the library makes stories up itself
  std::filesystem::path tokenizer;         // a tokenizer.json; empty: one is learnt from the data
  Index embedded = 60000, validation_tokens = 500000;
};

/// The data sets of a run; `tokenizer` is what its checkpoints get.
struct Stories {
  tinymoe::Tokenizer tokenizer;
  tinymoe::TokenData training, validation;
};

/// Adds --data, --validation, --validation-tokens, --embedded and --tokenizer.
void add_story_options(CLI::App& app, StoryOptions& options);

/// Reads or makes up the stories, for a model with this vocabulary; training and validation share none. Encoded texts
/// are kept in `token_folder`. Throws FileError, TextError, MismatchError.
Stories load_stories(const StoryOptions& options, Index vocabulary, const std::filesystem::path& token_folder,
                     int threads);

}  // namespace examples
