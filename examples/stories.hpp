#pragma once
// The training data of the programs.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <tinymoe/text/merge_dropout.hpp>
#include <tinymoe/text/selected_stories.hpp>
#include <tinymoe/text/story_files.hpp>
#include <tinymoe/text/token_data.hpp>
#include <tinymoe/text/tokenizer.hpp>
#include <vector>

namespace examples {

using tinymoe::Index;

/// The command line's options of the data.
struct StoryOptions {
  std::vector<std::filesystem::path> data, validation;  // without `data`: the library's embedded stories
  std::string field;                                    // of JSON and tables; empty: "text" or "story"
  tinymoe::StorySelection part;                         // of `data`
  std::filesystem::path tokenizer;   // a tokenizer.json; empty: the checkpoint's, or else one is learnt
  std::filesystem::path checkpoint;  // a folder with a tokenizer.json; no option of the command line
  Index embedded = 60000, validation_tokens = 500000;
  Index validation_stories = 0;     // 0: as many as `validation_tokens` allows
  tinymoe::MergeDropout dropout{};  // of the stories to train on
  // Of a process for which another has read the texts: the tokenizer that it has learnt, and whether its token files
  // are there, so that no text is read.
  std::optional<tinymoe::Tokenizer> learnt{};
  bool encoded = false;
};

/// The data sets of a run, and the tokenizer that its checkpoints store.
struct Stories {
  tinymoe::Tokenizer tokenizer;
  tinymoe::TokenData training, validation;
};

/// Adds --data, --validation, those that choose a part of them, --field, --embedded and --tokenizer.
void add_story_options(CLI::App& app, StoryOptions& options);

/// Adds --field.
void add_field_option(CLI::App& app, std::string& field);

/// The stories of files, folders and patterns, of all formats that this build reads. Throws FileError.
tinymoe::StoryFiles open_stories(const std::vector<std::filesystem::path>& paths, const std::string& field);

/// The stories of files that the tokenizer can encode, in memory. Throws FileError, TextError.
tinymoe::TokenData encode_stories(const std::vector<std::filesystem::path>& paths, const std::string& field,
                                  const tinymoe::Tokenizer& tokenizer, int threads);

/// Stories that a model did not learn from: those of `paths`, or else what its run validated on, where that is stored
/// beside the run, which is so if it had --data. None where it is not.
std::optional<tinymoe::TokenData> unseen_stories(const std::vector<std::filesystem::path>& paths,
                                                 const std::string& field, const std::filesystem::path& checkpoint,
                                                 const tinymoe::Tokenizer& tokenizer, int threads);

/// Reads or generates the stories, for a model with this vocabulary. Training and validation data share no story.
/// Encoded texts are cached in `token_folder`, which may be a link to a folder that is yet to be made, and is looked at
/// before the work. Throws FileError, TextError, MismatchError.
Stories load_stories(const StoryOptions& options, Index vocabulary, const std::filesystem::path& token_folder,
                     int threads);

}  // namespace examples
