#pragma once
/// @file
/// The parts of a byte-level BPE and its files: tokenizer.json as Hugging Face tokenizers reads and writes it, and
/// GPT-2's older pair vocab.json and merges.txt. The files are untrusted, so everything in them is checked.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// What a byte-level BPE is made of: a token's number is its place in `vocabulary`, a merge's rank its place in
/// `merges`.
struct TokenizerParts {
  std::vector<VocabularyEntry> vocabulary;
  std::vector<Merge> merges;
  friend bool operator==(const TokenizerParts&, const TokenizerParts&) = default;
};

/// A token as it is written in a file: a special one by its name, another in the byte alphabet.
inline std::string spelled(const VocabularyEntry& entry) { return entry.special ? entry.bytes : spelled(entry.bytes); }

/// The tokens of a file, of which all but the special ones are written in the byte alphabet.
[[gnu::cold]] inline std::vector<VocabularyEntry> unspelled_vocabulary(const NumberedTokens& tokens) {
  std::vector<VocabularyEntry> vocabulary;
  for (auto& [name, marked] : tokens.in_order()) {
    const bool special = marked || name == end_of_story_text;
    auto bytes = special ? name : unspelled(name);
    if (!bytes) {
      fail<FileError>(tokens.file(), ": expected tokens written in the byte alphabet of GPT-2, found ",
                      in_quotes(name));
    }
    vocabulary.push_back({std::move(*bytes), special});
  }
  return vocabulary;
}

/// A merge written as "left right".
[[gnu::cold]] inline Merge merge_of_line(const NumberedTokens& tokens, std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    fail<FileError>(tokens.file(), ": expected a merge of two tokens, \"left right\", found ", in_quotes(line));
  }
  return {tokens.find(line.substr(0, space)), tokens.find(line.substr(space + 1))};
}

/// Reads tokenizer.json. Truncation, padding and the post-processor's templates are left to the caller of `encode`.
/// Throws FileError for anything that cannot be read, or that tinymoe would encode in another way.
[[gnu::cold]] inline TokenizerParts read_byte_level_json(const Json& root, const std::string& file) {
  const auto& model = json_member(root, "model", file);
  if (const auto type = json_field_or<std::string>(model, "type", file, "BPE"); type != "BPE") {
    fail<FileError>(file, ": expected a model of the type BPE, found ", in_quotes(type));
  }
  expect_absent(root, "normalizer", file);
  expect_component(root, "decoder", "ByteLevel", file);
  const auto& splitter = expect_component(root, "pre_tokenizer", "ByteLevel", file);
  if (json_field<bool>(splitter, "add_prefix_space", file)) {
    fail<FileError>(file, ": expected a pre_tokenizer without add_prefix_space", only_pipeline);
  }
  if (!json_field_or<bool>(splitter, "use_regex", file, true)) {
    fail<FileError>(file, ": expected a pre_tokenizer with use_regex", only_pipeline);
  }
  expect_absent(model, "dropout", file, {0.0});
  expect_absent(model, "continuing_subword_prefix", file, {""});
  expect_absent(model, "end_of_word_suffix", file, {""});
  expect_absent(model, "byte_fallback", file, {false});
  expect_absent(model, "ignore_merges", file, {false});

  NumberedTokens tokens(file);
  tokens.add_vocabulary(expect_object(model, "vocab", file));
  tokens.add_special(root);
  TokenizerParts parts{unspelled_vocabulary(tokens), {}};
  for (const Json& merge : expect_array(model, "merges", file).items()) {
    if (merge.is_string()) {
      parts.merges.push_back(merge_of_line(tokens, merge.string()));
    } else if (is_pair_of_strings(merge)) {
      parts.merges.push_back({tokens.find(merge.items()[0].string()), tokens.find(merge.items()[1].string())});
    } else {
      fail<FileError>(file, ": expected merges as \"left right\" or [\"left\", \"right\"], found ", json_found(merge));
    }
  }
  return parts;
}

/// Reads GPT-2's vocab.json and merges.txt. Throws FileError for anything that cannot be read.
[[gnu::cold]] inline TokenizerParts read_gpt2_files(const std::filesystem::path& vocab_json,
                                      const std::filesystem::path& merges_txt) {
  NumberedTokens tokens(vocab_json.string());
  const Json root = read_json(vocab_json, tokenizer_size_limit);
  if (!root.is_object()) fail<FileError>(vocab_json, ": expected an object, found ", json_found(root));
  tokens.add_vocabulary(root);
  TokenizerParts parts{unspelled_vocabulary(tokens), {}};

  const MappedFile file(merges_txt);
  if (file.size() > tokenizer_size_limit) {
    fail<FileError>(merges_txt, ": expected at most ", tokenizer_size_limit, " bytes, found ", file.size());
  }
  std::string_view rest = file.text();
  for (bool first = true; !rest.empty(); first = false) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    try {
      parts.merges.push_back(merge_of_line(tokens, line));
    } catch (const FileError& error) {  // it names the vocabulary
      fail<FileError>(merges_txt, ", merge ", parts.merges.size(), ": ", error.what());
    }
  }
  return parts;
}

/// Writes tokenizer.json, so that a crash leaves the old file or the new one. Its readers put the end of a story before
/// each text, as generation does. Throws FileError if it cannot be written.
[[gnu::cold]] inline void write_byte_level_json(const std::filesystem::path& path, const TokenizerParts& parts) {
  std::string added, vocabulary, merges, begin = "null";
  const auto name_of = [&](Token token) { return spelled(parts.vocabulary[static_cast<std::size_t>(token)]); };
  for (std::size_t id = 0; id < parts.vocabulary.size(); ++id) {
    const auto& entry = parts.vocabulary[id];
    vocabulary += sentence_of({id == 0 ? "\n      " : ",\n      ", Json(spelled(entry)).dump(), ": ", id});
    if (!entry.special) continue;
    if (entry.bytes == end_of_story_text) begin = beginning_with(entry.bytes, static_cast<Token>(id)).dump();
    added += sentence_of({added.empty() ? "" : ",", "\n    {\"id\": ", id, ", \"content\": ", Json(entry.bytes).dump(),
                          ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, ",
                          "\"special\": true}"});
  }
  for (const Merge& merge : parts.merges) {
    merges.append(merges.empty() ? "\n      " : ",\n      ");
    merges += Json(name_of(merge.left).append(" ").append(name_of(merge.right))).dump();
  }
  write_file_atomically(path, [&](FileWriter& file) {
    file.write(R"({
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [)");
    file.write(added);
    file.write(R"(
  ],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": )");
    file.write(begin);
    file.write(R"(,
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {)");
    file.write(vocabulary);
    file.write("\n    },\n    \"merges\": [");
    file.write(merges);
    file.write("\n    ]\n  }\n}\n");
  });
}

}  // namespace detail
}  // namespace tinymoe::inline v0_1
