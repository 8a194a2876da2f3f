#pragma once
/// @file
/// What a folder of the hub has beside tokenizer.json, so that transformers writes the texts that tinymoe writes: the
/// special tokens by their names, in tokenizer_config.json and special_tokens_map.json.

#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/post_processor.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

/// The name of a special token; nothing if the tokenizer has none of this number, or it is ordinary.
[[gnu::cold]] inline std::optional<std::string> special_name(const Tokenizer& tokenizer, std::optional<Token> token) {
  if (!token || *token < 0 || *token >= tokenizer.vocabulary_size() || !tokenizer.is_special(*token)) return {};
  std::string name(tokenizer.bytes(*token));
  if (find_invalid_utf8(name) != std::string_view::npos) return {};
  return name;
}

/// The post_processor of a tokenizer.json changed so that it puts `begin`, or nothing, before each text, and after it
/// what it did. Throws FileError that names `file`.
[[gnu::cold]] inline Json beginning_as(const Json& root, const Tokenizer& tokenizer, std::optional<Token> begin,
                                       const std::string& file) {
  Surroundings around = surroundings_of(root, file);
  std::vector<Token> wanted;
  if (begin) wanted = {*begin};
  if (around.before == wanted) return root["post_processor"];
  const auto named = [&](const std::vector<Token>& tokens) {
    std::vector<NamedSpecial> result;
    for (const Token token : tokens) {
      result.push_back({special_name(tokenizer, token).value_or("token " + std::to_string(token)), token});
    }
    return result;
  };
  return post_processor_of(named(wanted), named(around.after), root, file);
}

/// Writes the tokenizer's file, and tokenizer.json, tokenizer_config.json and special_tokens_map.json for texts with
/// these special tokens, of a model with this context: tokenizer.json puts the token that begins each text here before
/// each text there, or none. A kind whose file is another one has a tokenizer.json beside it where one encodes the
/// same; else "tinymoe_alone" of tokenizer_config.json says why not. Throws FileError, TextError.
[[gnu::cold]] inline void write_tokenizer(AtomicFolder& folder, const Tokenizer& tokenizer, const SpecialTokens& tokens,
                                          Index context) {
  const auto write = [&](const char* name, const Json& json) {
    folder.write(name, [&](FileWriter& file) { file.write(json.dump(2) + "\n"); });
  };
  constexpr const char* hub_file = "tokenizer.json";
  tokenizer.save(folder / tokenizer.file_name());
  std::optional<std::string> alone;
  if (tokenizer.file_name() != std::string_view(hub_file)) {
    const HubTokenizer other = tokenizer.hub_tokenizer();
    alone = other.reason;
    if (!alone) folder.write(hub_file, [&](FileWriter& file) { file.write(other.text); });
  }
  const bool begins = tokens.begin && *tokens.begin >= 0 && *tokens.begin < tokenizer.vocabulary_size();
  const auto begin = begins ? tokens.begin : std::nullopt;
  // What a kind puts before each text itself, its file does.
  if (!alone && (!begin || tokenizer.begin_of_text() != begin)) {
    Json file = read_json(folder / hub_file, tokenizer_size_limit);
    Json processor = beginning_as(file, tokenizer, begin, hub_file);
    if (processor != file["post_processor"]) {
      file["post_processor"] = std::move(processor);
      write(hub_file, file);
    }
  }

  Json names = Json::object();
  const auto add = [&](const char* key, std::optional<Token> token) {
    if (const auto name = special_name(tokenizer, token)) names[key] = *name;
  };
  add("bos_token", tokens.begin);
  for (const Token token : tokens.end) {
    if (!names.contains("eos_token")) add("eos_token", token);
  }
  add("pad_token", tokens.pad);
  write("special_tokens_map.json", names);
  names["clean_up_tokenization_spaces"] = false;
  if (alone) names["tinymoe_alone"] = *alone;
  names["model_max_length"] = context;
  names["tokenizer_class"] = "PreTrainedTokenizerFast";
  names.sort_keys();
  write("tokenizer_config.json", names);
}

}  // namespace tinymoe::inline v0_1::detail
