#pragma once
/// @file
/// A tokenizer in the metadata of a GGUF file: byte-level BPE with GPT-2's pre-tokenizer (`gpt2`), and Llama 2's kind
/// with scores (`llama`).

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/byte_level/tokenizer.hpp"
#include "tinymoe/text/byte_level/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/scores.hpp"
#include "tinymoe/text/llama2c/tokenizer.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

/// What llama.cpp calls the kinds of tokens.
enum class GgufToken : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };

/// The lists of a tokenizer, as a file has them.
struct GgufVocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;

  void add(std::string token, GgufToken type) {
    tokens.push_back(std::move(token));
    types.push_back(static_cast<std::int32_t>(type));
  }
  /// The model may have more tokens than the tokenizer: llama.cpp wants a name for each.
  [[gnu::cold]] void fill(Index vocab) {
    while (static_cast<Index>(tokens.size()) < vocab) add(sentence_of({"[PAD", tokens.size(), "]"}), GgufToken::unused);
  }
  void write(GgufMetadata& metadata) const {
    metadata.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
    metadata.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
  }
};

[[gnu::cold]] inline void write_gguf_byte_level(GgufMetadata& metadata, const TokenizerParts& parts, Index vocab) {
  GgufVocabulary vocabulary;
  for (const VocabularyEntry& entry : parts.vocabulary) {
    vocabulary.add(spelled(entry), entry.special ? GgufToken::control : GgufToken::normal);
  }
  std::vector<std::string> merges;
  for (const Merge& merge : parts.merges) {
    merges.push_back(vocabulary.tokens[static_cast<std::size_t>(merge.left)] + " " +
                     vocabulary.tokens[static_cast<std::size_t>(merge.right)]);
  }
  vocabulary.fill(vocab);
  metadata.add("tokenizer.ggml.model", "gpt2");
  metadata.add("tokenizer.ggml.pre", "gpt-2");
  vocabulary.write(metadata);
  metadata.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
}

[[gnu::cold]] inline void write_gguf_llama(GgufMetadata& metadata, const Llama2cParts& parts, Index vocab) {
  GgufVocabulary vocabulary;
  for (Token token = 0; token < static_cast<Token>(parts.vocabulary.size()); ++token) {
    GgufToken type = parts.vocabulary.is_byte(token) ? GgufToken::byte : GgufToken::normal;
    if (parts.vocabulary.is_special(token)) type = token == 0 ? GgufToken::unknown : GgufToken::control;
    vocabulary.add(llama2c_spelled(parts.vocabulary, token), type);
  }
  std::vector<float> scores = llama2c_scores(parts);
  vocabulary.fill(vocab);
  scores.resize(vocabulary.tokens.size());
  metadata.add("tokenizer.ggml.model", "llama");
  vocabulary.write(metadata);
  metadata.add("tokenizer.ggml.scores", std::span<const float>(scores));
  metadata.add("tokenizer.ggml.add_space_prefix", true);
}

/// Writes the keys of a tokenizer for a model of `vocab` tokens. Throws TextError for one that llama.cpp does not have.
[[gnu::cold]] inline void write_gguf_tokenizer(GgufMetadata& metadata, const Tokenizer& tokenizer,
                                               const SpecialTokens& special, Index vocab) {
  if (tokenizer.vocabulary_size() > vocab) {
    fail<MismatchError>("the tokenizer has ", tokenizer.vocabulary_size(), " tokens, the model a vocabulary of ",
                        vocab);
  }
  if (const auto* byte_level = tokenizer.as<ByteLevelBpe>()) {
    write_gguf_byte_level(metadata, byte_level->parts(), vocab);
  } else if (const auto* llama = tokenizer.as<Llama2cBpe>()) {
    write_gguf_llama(metadata, llama->parts(), vocab);
  } else {
    fail<TextError>("the tokenizer is of a kind that GGUF has not: expected byte-level BPE as GPT-2's, or Llama 2's");
  }
  metadata.add("tokenizer.ggml.add_bos_token", special.begin.has_value());
  metadata.add("tokenizer.ggml.add_eos_token", false);
  const auto add = [&](const char* key, Token token) {
    if (token >= 0 && token < vocab) metadata.add(key, static_cast<std::uint32_t>(token));
  };
  if (special.begin) add("tokenizer.ggml.bos_token_id", *special.begin);
  // llama.cpp has three names for tokens that end a text.
  const char* const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                              "tokenizer.ggml.eom_token_id"};
  for (std::size_t i = 0; i < special.end.size() && i < std::size(ends); ++i) add(ends[i], special.end[i]);
  if (special.pad) add("tokenizer.ggml.padding_token_id", *special.pad);
}

/// The special tokens that a file names.
[[gnu::cold]] inline SpecialTokens read_gguf_special_tokens(const Gguf& file) {
  SpecialTokens special;
  const auto read = [&](const char* key) -> std::optional<Token> {
    if (!file.contains(key)) return std::nullopt;
    const auto token = file.value(key).whole<Token>();
    if (!token || *token < 0) fail<FileError>(file.name(), ": key ", key, ": expected a token");
    return token;
  };
  special.begin = read("tokenizer.ggml.bos_token_id");
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto token = read(key); token && !special.ends(*token)) special.end.push_back(*token);
  }
  special.pad = read("tokenizer.ggml.padding_token_id");
  return special;
}

/// The special tokens of a model that comes from a file. Where the file does not say whether a token stands before each
/// text, llama.cpp puts one before those of Llama 2's kind alone.
[[gnu::cold]] inline ModelTokens read_gguf_model_tokens(const Gguf& file) {
  ModelTokens tokens{.config = read_gguf_special_tokens(file)};
  const Json add = file.value("tokenizer.ggml.add_bos_token");
  const bool adds = add.is_boolean() ? add.boolean() : file.value("tokenizer.ggml.model") != "gpt2";
  if (!adds) tokens.before.emplace();
  return tokens;
}

/// The tokens of a file and their types; those at the end that are not used are left out. Throws FileError.
[[gnu::cold]] inline std::vector<std::pair<std::string_view, GgufToken>> read_gguf_tokens(const Gguf& file) {
  const auto names = file.strings("tokenizer.ggml.tokens");
  std::vector<double> types(names.size(), double(GgufToken::normal));
  if (file.contains("tokenizer.ggml.token_type")) types = file.numbers("tokenizer.ggml.token_type");
  if (types.size() != names.size()) {
    fail<FileError>(file.name(), ": has ", names.size(), " tokens and ", types.size(), " types of tokens");
  }
  std::vector<std::pair<std::string_view, GgufToken>> tokens;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double type = types[i];
    if (!(type >= 1 && type <= 6)) fail<FileError>(file.name(), ": token ", i, " is of the unknown type ", type);
    const auto kind = static_cast<GgufToken>(static_cast<std::int32_t>(type));
    if (kind == GgufToken::user_defined) {
      fail<FileError>(file.name(), ": the token ", in_quotes(names[i]),
                      " is looked for in texts before they are encoded, which tinymoe does not do");
    }
    tokens.emplace_back(names[i], kind);
  }
  while (!tokens.empty() && tokens.back().second == GgufToken::unused) tokens.pop_back();
  return tokens;
}

[[gnu::cold]] inline TokenizerParts read_gguf_byte_level(const Gguf& file) {
  const std::string name = file.name();
  const Json pre = file.value("tokenizer.ggml.pre");
  if (pre != "gpt-2") {
    fail<FileError>(name, ": key tokenizer.ggml.pre is ", pre.is_string() ? in_quotes(pre.string()) : "missing",
                    ", and tinymoe reads the pre-tokenizer gpt-2 alone; take the model's tokenizer.json");
  }
  NumberedTokens numbered(name);
  std::uint64_t id = 0;
  for (const auto& [token, type] : read_gguf_tokens(file)) {
    numbered.add(std::string(token), id++, type != GgufToken::normal && type != GgufToken::byte);
  }
  if (numbered.size() != id) fail<FileError>(name, ": two tokens are the same");
  TokenizerParts parts{unspelled_vocabulary(numbered), {}};
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    parts.merges.push_back(merge_of_line(numbered, merge));
  }
  return parts;
}

[[gnu::cold]] inline Llama2cParts read_gguf_llama(const Gguf& file) {
  std::vector<VocabularyEntry> names;
  std::vector<float> scores;
  for (const double score : file.numbers("tokenizer.ggml.scores")) {
    if (!is_finite(score)) fail<FileError>(file.name(), ": the score of token ", scores.size(), " is not finite");
    scores.push_back(static_cast<float>(score));
  }
  if (file.value("tokenizer.ggml.add_space_prefix") == false) {
    fail<FileError>(file.name(), ": its tokenizer puts no space before a text, which Llama 2's does");
  }
  for (const auto& [token, type] : read_gguf_tokens(file)) {
    const bool special = type == GgufToken::control || type == GgufToken::unknown || type == GgufToken::unused;
    if (token.empty()) fail<FileError>(file.name(), ": token ", names.size(), " is empty");
    names.push_back({special ? std::string(token) : replaced(token, space_mark, " "), special});
  }
  if (scores.size() < names.size()) {
    fail<FileError>(file.name(), ": has ", names.size(), " tokens and ", scores.size(), " scores");
  }
  Llama2cVocabulary vocabulary(std::move(names));
  auto merges = scored_merges(vocabulary, scores);
  return {std::move(vocabulary), std::move(merges)};
}

/// The tokenizer of a file. Throws FileError for one that is missing, makes no sense, or is of a kind that tinymoe does
/// not have.
[[gnu::cold]] inline Tokenizer read_gguf_tokenizer(const Gguf& file) {
  const Json model = file.value("tokenizer.ggml.model");
  if (!model.is_string()) fail<FileError>(file.name(), ": key tokenizer.ggml.model is missing; it has no tokenizer");
  return naming_file(file.name(), [&] {
    if (model == "gpt2") return Tokenizer(ByteLevelBpe(read_gguf_byte_level(file)));
    if (model == "llama") return Tokenizer(Llama2cBpe(read_gguf_llama(file)));
    fail<FileError>(file.name(), ": its tokenizer is of the kind ", in_quotes(model.string()),
                    ", which tinymoe does not have; it reads gpt2 and llama");
  });
}

}  // namespace tinymoe::inline v0_1::detail
