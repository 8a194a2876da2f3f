#pragma once
/// @file
/// What a folder of the hub has beside tokenizer.json, so that transformers writes the texts that tinymoe writes: the
/// special tokens by their names, in tokenizer_config.json and special_tokens_map.json.

#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// The name of a special token; nothing if the tokenizer has none of this number, or it is ordinary.
[[gnu::cold]] inline std::optional<std::string> special_name(const Tokenizer& tokenizer, std::optional<Token> token) {
  if (!token || *token < 0 || *token >= tokenizer.vocabulary_size() || !tokenizer.is_special(*token)) return {};
  std::string name(tokenizer.bytes(*token));
  if (find_invalid_utf8(name) != std::string_view::npos) return {};
  return name;
}

/// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json for texts with these special tokens, of a
/// model with this context. Where the kind leaves the token before each text to the model, tokenizer.json names that.
/// Throws FileError, TextError.
[[gnu::cold]] inline void write_tokenizer(AtomicFolder& folder, const Tokenizer& tokenizer, const SpecialTokens& tokens,
                                          Index context) {
  const auto write = [&](const char* name, const Json& json) {
    folder.write(name, [&](FileWriter& file) { file.write(json.dump(2) + "\n"); });
  };
  tokenizer.save(folder / tokenizer.file_name());
  const auto begin = special_name(tokenizer, tokens.begin);
  const Token end = tokenizer.end_of_story();
  const bool writes_json = tokenizer.file_name() == std::string_view("tokenizer.json");
  if (!tokens.begin && !tokenizer.begin_of_text() && writes_json) {  // not the kind's own way to begin a text
    Json file = read_json(folder / "tokenizer.json", tokenizer_size_limit);
    const auto usual = special_name(tokenizer, end);
    if (usual && file["post_processor"] == beginning_with(*usual, end)) {
      file["post_processor"] = Json();
      write("tokenizer.json", file);
    }
  }
  if (begin && !tokenizer.begin_of_text() && writes_json) {
    Json file = read_json(folder / "tokenizer.json", tokenizer_size_limit);
    const Json before = beginning_with(*begin, *tokens.begin), old = file["post_processor"];
    const auto usual = special_name(tokenizer, end);
    if (old.is_null() || (usual && old == beginning_with(*usual, end))) {
      file["post_processor"] = before;
    } else {
      file["post_processor"] = {{"type", "Sequence"}, {"processors", Json::array({old, before})}};
    }
    if (file["post_processor"] != old) write("tokenizer.json", file);
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
  if (!tokens.begin && tokenizer.begin_of_text()) names["add_bos_token"] = false;
  names["model_max_length"] = context;
  names["tokenizer_class"] = "PreTrainedTokenizerFast";
  names.sort_keys();
  write("tokenizer_config.json", names);
}

}  // namespace tinymoe::inline v0_1::detail
