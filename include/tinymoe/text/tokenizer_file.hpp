#pragma once
/// @file
/// The files of a byte-level BPE: tokenizer.json as Hugging Face tokenizers reads and writes it, and GPT-2's older pair
/// vocab.json and merges.txt. Nobody vouches for these files, so everything in them is checked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/byte_alphabet.hpp"
#include "tinymoe/text/merge_table.hpp"

namespace tinymoe::inline v0_1 {

/// The special token that ends each story: "<|endoftext|>".
inline constexpr std::string_view end_of_story_text = "<|endoftext|>";

/// One token of a vocabulary: the bytes it stands for, or the name of a special token, which text never encodes to.
struct VocabularyEntry {
  std::string bytes;
  bool special = false;
  friend bool operator==(const VocabularyEntry&, const VocabularyEntry&) = default;
};

/// What a tokenizer is made of: a token's number is its place in `vocabulary`, a merge's rank its place in `merges`.
struct TokenizerParts {
  std::vector<VocabularyEntry> vocabulary;
  std::vector<Merge> merges;
  friend bool operator==(const TokenizerParts&, const TokenizerParts&) = default;
};

namespace detail {

inline constexpr std::size_t tokenizer_size_limit = std::size_t{64} << 20;

/// A token as it is written in a file: a special one by its name, another in the byte alphabet.
inline std::string spelled(const VocabularyEntry& entry) { return entry.special ? entry.bytes : spelled(entry.bytes); }

/// At most forty bytes of a hostile string, for an error.
inline std::string quoted(std::string_view text) {
  std::size_t length = std::min<std::size_t>(text.size(), 40);
  while (length > 0 && length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0u) == 0x80u) --length;
  std::string quote = "\"";
  quote += text.substr(0, length);
  quote += length < text.size() ? "…\"" : "\"";
  return quote;
}

/// Gathers the tokens of a file by the names they have there, then gives the parts of a tokenizer.
class TokenizerPartsBuilder {
 public:
  explicit TokenizerPartsBuilder(std::string file) : file_(std::move(file)) {}

  void add(std::string name, std::uint64_t id, bool special) {
    const auto [found, fresh] = tokens_.try_emplace(std::move(name), Named{id, special});
    if (!fresh && found->second.id != id) {
      fail<FileError>(file_, ": token ", quoted(found->first), " has the two numbers ", found->second.id, " and ", id);
    }
    found->second.special |= special;
  }

  /// The numbers must be 0 to one below the number of tokens, each once.
  std::vector<VocabularyEntry> vocabulary() {
    std::vector<VocabularyEntry> entries(tokens_.size());
    std::vector<bool> taken(tokens_.size());
    for (auto& [name, token] : tokens_) {
      if (token.id >= entries.size()) {
        fail<FileError>(file_, ": expected token numbers from 0 to ", entries.size() - 1, " without gaps, found ",
                        token.id, " for ", quoted(name));
      }
      if (taken[token.id]) fail<FileError>(file_, ": two tokens have the number ", token.id);
      taken[token.id] = true;
      token.special |= name == end_of_story_text;
      auto bytes = token.special ? name : unspelled(name);
      if (!bytes) {
        fail<FileError>(file_, ": expected tokens written in the byte alphabet of GPT-2, found ", quoted(name));
      }
      entries[token.id] = {std::move(*bytes), token.special};
    }
    return entries;
  }

  Token find(std::string_view name) const {
    const auto found = tokens_.find(std::string(name));
    if (found == tokens_.end()) fail<FileError>(file_, ": a merge has the unknown token ", quoted(name));
    return static_cast<Token>(found->second.id);
  }

  /// A merge written as "left right".
  Merge merge(std::string_view line) const {
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      fail<FileError>(file_, ": expected a merge of two tokens, \"left right\", found ", quoted(line));
    }
    return {find(line.substr(0, space)), find(line.substr(space + 1))};
  }

 private:
  struct Named {
    std::uint64_t id = 0;
    bool special = false;
  };
  std::string file_;
  std::unordered_map<std::string, Named> tokens_;
};

/// Fails unless a member that would change the encoding is absent, null or one of the harmless values.
inline void expect_absent(const Json& object, const char* key, const std::string& file,
                          std::initializer_list<Json> harmless = {}) {
  const Json& found = object[key];
  if (found.is_null() || std::find(harmless.begin(), harmless.end(), found) != harmless.end()) return;
  fail<FileError>(file, ": \"", key, "\" is set, which tinymoe's byte-level BPE does not have");
}

/// Fails unless `object[key]` is a component of the type `expected`.
inline const Json& expect_component(const Json& object, const char* key, const char* expected,
                                              const std::string& file) {
  const auto& component = json_member(object, key, file);
  const auto type = component.is_null() ? std::string("none") : json_field<std::string>(component, "type", file);
  if (type != expected) fail<FileError>(file, ": expected the ", key, " ", expected, ", found ", quoted(type));
  return component;
}

inline bool is_pair_of_strings(const Json& value) {
  return value.is_array() && value.size() == 2 && value.items()[0].is_string() && value.items()[1].is_string();
}

inline void read_added_tokens(const Json& root, const std::string& file, TokenizerPartsBuilder& builder) {
  const Json& found = root["added_tokens"];
  if (found.is_null()) return;
  if (!found.is_array()) fail<FileError>(file, ": \"added_tokens\": expected an array, found ", json_found(found));
  for (const Json& token : found.items()) {
    auto content = json_field<std::string>(token, "content", file);
    if (!json_field_or<bool>(token, "special", file, false)) {
      fail<FileError>(file, ": the added token ", quoted(content),
                      " is not special, and tinymoe does not look for added tokens in text");
    }
    builder.add(std::move(content), json_field<std::uint64_t>(token, "id", file), true);
  }
}

/// Reads tokenizer.json. Truncation, padding and the post-processor's templates are left to the caller of `encode`.
/// Throws FileError for anything that cannot be read, or that tinymoe would encode in another way.
inline TokenizerParts read_tokenizer_json(const std::filesystem::path& path) {
  const std::string file = path.string();
  const Json root = read_json(path, tokenizer_size_limit);
  const auto& model = json_member(root, "model", file);
  if (const auto type = json_field_or<std::string>(model, "type", file, "BPE"); type != "BPE") {
    fail<FileError>(file, ": expected a model of the type BPE, found ", quoted(type));
  }
  expect_absent(root, "normalizer", file);
  expect_component(root, "decoder", "ByteLevel", file);
  const auto& splitter = expect_component(root, "pre_tokenizer", "ByteLevel", file);
  if (json_field<bool>(splitter, "add_prefix_space", file)) {
    fail<FileError>(file, ": expected a pre_tokenizer without add_prefix_space");
  }
  if (!json_field_or<bool>(splitter, "use_regex", file, true)) {
    fail<FileError>(file, ": expected a pre_tokenizer with use_regex");
  }
  expect_absent(model, "dropout", file, {0.0});
  expect_absent(model, "continuing_subword_prefix", file, {""});
  expect_absent(model, "end_of_word_suffix", file, {""});
  expect_absent(model, "byte_fallback", file, {false});
  expect_absent(model, "ignore_merges", file, {false});

  TokenizerPartsBuilder builder(file);
  const auto& tokens = json_member(model, "vocab", file);
  if (!tokens.is_object()) fail<FileError>(file, ": \"vocab\": expected an object, found ", json_found(tokens));
  for (const auto& [name, id] : tokens.members()) builder.add(name, json_value<std::uint64_t>(id, name, file), false);
  read_added_tokens(root, file, builder);
  TokenizerParts parts{builder.vocabulary(), {}};

  const auto& merges = json_member(model, "merges", file);
  if (!merges.is_array()) fail<FileError>(file, ": \"merges\": expected an array, found ", json_found(merges));
  for (const Json& merge : merges.items()) {
    if (merge.is_string()) {
      parts.merges.push_back(builder.merge(merge.string()));
    } else if (is_pair_of_strings(merge)) {
      parts.merges.push_back({builder.find(merge.items()[0].string()), builder.find(merge.items()[1].string())});
    } else {
      fail<FileError>(file, ": expected merges as \"left right\" or [\"left\", \"right\"], found ", json_found(merge));
    }
  }
  return parts;
}

/// Reads GPT-2's vocab.json and merges.txt. Throws FileError for anything that cannot be read.
inline TokenizerParts read_gpt2_files(const std::filesystem::path& vocab_json,
                                      const std::filesystem::path& merges_txt) {
  TokenizerPartsBuilder tokens(vocab_json.string());
  const Json root = read_json(vocab_json, tokenizer_size_limit);
  if (!root.is_object()) fail<FileError>(vocab_json.string(), ": expected an object, found ", json_found(root));
  for (const auto& [name, id] : root.members()) {
    tokens.add(name, json_value<std::uint64_t>(id, name, vocab_json.string()), false);
  }
  TokenizerParts parts{tokens.vocabulary(), {}};

  const MappedFile file(merges_txt);
  if (file.size() > tokenizer_size_limit) {
    fail<FileError>(merges_txt.string(), ": expected at most ", tokenizer_size_limit, " bytes, found ", file.size());
  }
  std::string_view rest = file.text();
  for (bool first = true; !rest.empty(); first = false) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    try {
      parts.merges.push_back(tokens.merge(line));
    } catch (const FileError& error) {  // it names the vocabulary
      fail<FileError>(merges_txt.string(), ", merge ", parts.merges.size(), ": ", error.what());
    }
  }
  return parts;
}

/// Writes tokenizer.json, so that a crash leaves the old file or the new one. Throws FileError if it cannot be written.
inline void write_tokenizer_json(const std::filesystem::path& path, const TokenizerParts& parts) {
  const auto quote = [](const std::string& text) { return Json(text).dump(); };
  std::vector<std::string> names;
  std::string added, vocabulary, merges;
  for (std::size_t id = 0; id < parts.vocabulary.size(); ++id) {
    const auto& entry = parts.vocabulary[id];
    names.push_back(spelled(entry));
    vocabulary += (id == 0 ? "\n      " : ",\n      ") + quote(names.back()) + ": " + std::to_string(id);
    if (!entry.special) continue;
    added +=
        (added.empty() ? "\n    {\"id\": " : ",\n    {\"id\": ") + std::to_string(id) +
        ", \"content\": " + quote(entry.bytes) +
        ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}";
  }
  for (const Merge& merge : parts.merges) {
    merges += (merges.empty() ? "\n      " : ",\n      ") + quote(names[merge.left] + ' ' + names[merge.right]);
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
  "post_processor": null,
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
