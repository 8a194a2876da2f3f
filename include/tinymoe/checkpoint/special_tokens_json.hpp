#pragma once
/// @file
/// The special tokens in a model's folder: "bos_token_id", "eos_token_id" (a number or a list) and "pad_token_id" of
/// config.json, and of generation_config.json, which transformers prefers for generation where a folder has it.

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/text/post_processor.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// The special tokens of one file. A field that is null names none; a field that is absent, `absent`'s. An id may lie
/// outside the vocabulary, as "pad_token_id" −1 of some files of the hub does. Throws FileError for other values.
[[gnu::cold]] inline SpecialTokens read_special_tokens(const Json& file, const std::string& name,
                                                       SpecialTokens absent) {
  if (!file.is_object()) fail<FileError>(name, ": expected an object, found ", json_found(file));
  const auto read = [&](const char* key, std::optional<Token>& token) {
    if (!file.contains(key)) return;
    token.reset();
    if (!file[key].is_null()) token = json_value<Token>(file[key], key, name);
  };
  SpecialTokens tokens = std::move(absent);
  read("bos_token_id", tokens.begin);
  read("pad_token_id", tokens.pad);
  if (const Json* end = file.find("eos_token_id")) {
    tokens.end.clear();
    if (end->is_array()) {
      for (const Json& one : end->items()) tokens.end.push_back(json_value<Token>(one, "eos_token_id", name));
    } else if (!end->is_null()) {
      tokens.end.push_back(json_value<Token>(*end, "eos_token_id", name));
    }
  }
  return tokens;
}

/// Sets the three fields.
[[gnu::cold]] inline void write_special_tokens(Json& file, const SpecialTokens& tokens) {
  const auto number = [](const std::optional<Token>& token) { return token ? Json(*token) : Json(); };
  Json end = tokens.end.empty() ? Json() : Json(tokens.end[0]);
  if (tokens.end.size() > 1) {
    end = Json::array();
    for (const Token token : tokens.end) end.push_back(token);
  }
  file["bos_token_id"] = number(tokens.begin);
  file["eos_token_id"] = std::move(end);
  file["pad_token_id"] = number(tokens.pad);
}

/// The key of a config.json of tinymoe's that keeps `ModelTokens::before`.
inline constexpr std::string_view before_text_key = "tinymoe_before_text";

/// Throws FileError that names the file and who says so unless a token that stands before each text is one of a
/// vocabulary.
[[gnu::cold]] inline void check_before(const TokenBefore& before, Index vocabulary, const std::string& name,
                                       const char* what) {
  if (!before.token || (*before.token >= 0 && *before.token < vocabulary)) return;
  fail<FileError>(name, ": ", what, " puts token ", *before.token, " before each text; the model has tokens from 0 to ",
                  vocabulary - 1);
}

/// What a folder of another program puts before each text, as transformers 5 takes it: the post_processor of its
/// tokenizer.json decides, and "add_bos_token" of tokenizer_config.json does not. Nothing where there is no
/// tokenizer.json. Throws FileError for more tokens than one.
[[gnu::cold]] inline std::optional<TokenBefore> read_before(const std::filesystem::path& folder, Index vocabulary) {
  const auto path = folder / "tokenizer.json";
  if (!is_there(path)) return std::nullopt;
  const std::string name = path.string();
  const std::vector<Token> found = surroundings_of(read_json(path, tokenizer_size_limit), name).before;
  if (found.size() > 1) {
    fail<FileError>(name, ": the post_processor puts ", found.size(),
                    " tokens before each text; tinymoe puts one at most: use a tokenizer.json that puts one or none");
  }
  TokenBefore before;
  if (!found.empty()) before.token = found[0];
  check_before(before, vocabulary, name, "the post_processor");
  return before;
}

/// Puts the special tokens of a model into its config.json, and writes its generation_config.json where it had one,
/// with the fields that tinymoe does not read.
[[gnu::cold]] inline void write_model_tokens(AtomicFolder& folder, const ModelTokens& tokens, Json& config) {
  if (tokens.config) write_special_tokens(config, *tokens.config);
  if (tokens.before) config[before_text_key] = tokens.before->token ? Json(*tokens.before->token) : Json();
  if (!tokens.generation) return;
  constexpr const char* name = "generation_config.json";
  Json generation =
      tokens.generation_fields.empty() ? Json::object() : parse_json(tokens.generation_fields, std::string(name));
  write_special_tokens(generation, *tokens.generation);
  folder.write(name, [&](FileWriter& file) { file.write(generation.dump(2) + "\n"); });
}

/// The special tokens of a model's folder. What the config.json of a hub's architecture leaves out is what its class
/// has: in a Mixtral 1 begins a text and 2 ends it. Another file is tinymoe's alone: one that leaves out both names no
/// token, and the tokenizer's end of a story decides. A generation_config.json counts as a whole: what it leaves out,
/// it does not name. Throws FileError, also for a token before each text that is none of `vocabulary` tokens.
[[gnu::cold]] inline ModelTokens read_model_tokens(const std::filesystem::path& folder,
                                                   Index vocabulary = std::numeric_limits<Token>::max()) {
  constexpr std::size_t size_limit = std::size_t{1} << 20;
  ModelTokens tokens;
  const auto config = folder / "config.json", generation = folder / "generation_config.json";
  const Json file = read_json(config, size_limit);
  const HubArchitecture* hub = hub_architecture(file["model_type"]);
  if (!file.contains("tinymoe") || hub != nullptr) {
    const HubArchitecture& known = hub != nullptr ? *hub : hub_architectures[0];
    SpecialTokens absent;
    if (known.begin >= 0) absent.begin = known.begin;
    if (known.end >= 0) absent.end = {known.end};
    tokens.config = read_special_tokens(file, config.string(), std::move(absent));
  } else if (file.contains("eos_token_id")) {
    tokens.config = read_special_tokens(file, config.string(), {});
  } else if (file.contains("bos_token_id")) {
    fail<FileError>(config.string(),
                    ": \"eos_token_id\" is missing beside \"bos_token_id\"; write the token that ends a text, or null");
  }
  if (is_there(generation)) {
    Json fields = read_json(generation, size_limit);
    tokens.generation = read_special_tokens(fields, generation.string(), {});
    for (const std::string_view key : {"bos_token_id", "eos_token_id", "pad_token_id"}) fields.erase(key);
    if (fields.size() > 0) tokens.generation_fields = fields.dump();
  }
  if (!file.contains("tinymoe")) {
    tokens.before = read_before(folder, vocabulary);
  } else if (file.contains(before_text_key)) {
    tokens.before.emplace();
    if (!file[before_text_key].is_null())
      tokens.before->token = json_value<Token>(file[before_text_key], before_text_key, config.string());
    check_before(*tokens.before, vocabulary, config.string(), "\"tinymoe_before_text\"");
  }
  return tokens;
}

}  // namespace tinymoe::inline v0_1::detail
