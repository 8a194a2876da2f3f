#pragma once
/// @file
/// The special tokens around a text: which one begins it, and which end it.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// The special tokens that a file of a model names.
struct SpecialTokens {
  std::optional<Token> begin = {};  // "bos_token_id"
  std::vector<Token> end = {};      // "eos_token_id": each ends a text; without any, only the limit of tokens does
  std::optional<Token> pad = {};    // "pad_token_id"

  bool ends(Token token) const { return std::find(end.begin(), end.end(), token) != end.end(); }

  friend bool operator==(const SpecialTokens&, const SpecialTokens&) = default;
};

/// What stands before each text, where the files of another program say it.
struct TokenBefore {
  std::optional<Token> token = {};  // none: a text begins with its own first token
  friend bool operator==(const TokenBefore&, const TokenBefore&) = default;
};

/// The special tokens of a model: those of the files that it was read from, so that saving writes them again. Empty for
/// a model that was not: the tokenizer's end of a story then begins and ends each text.
struct ModelTokens {
  std::optional<SpecialTokens> config = {};      // of config.json
  std::optional<SpecialTokens> generation = {};  // of generation_config.json; where there is one, it decides
  std::optional<TokenBefore> before = {};        // where the files of another program say it
  std::string generation_fields = {};  // its other fields, as JSON: nothing here reads them; saving writes them again

  /// Those of the texts that are written with a tokenizer. Of each, the first that there is:
  ///
  ///     begin   `before`, be it none            | the tokenizer's `begin_of_text` | generation's, config's
  ///             | the tokenizer's `end_of_story`
  ///     end     generation's, if it is there    | config's, if it is there        | the tokenizer's `end_of_story`
  ///     pad     generation's, if it is there    | config's, if it is there        | none
  ///
  /// A file that is there may name no end: then no token ends a text. In training the end of the story before stands
  /// where a text begins.
  [[gnu::cold]] SpecialTokens with(std::optional<Token> begin_of_text, Token end_of_story) const {
    SpecialTokens tokens{.begin = begin_of_text, .end = {end_of_story}};
    for (const auto& file : {generation, config}) {
      if (file && !tokens.begin) tokens.begin = file->begin;
    }
    if (!tokens.begin) tokens.begin = end_of_story;
    if (before) tokens.begin = before->token;
    if (const auto& file = generation ? generation : config) tokens.end = file->end, tokens.pad = file->pad;
    return tokens;
  }

  /// Lets `token` end texts too. A model that learns stories learns to end them so, and to begin them after such an
  /// end.
  [[gnu::cold]] void add_end(Token token) {
    before.reset();
    for (auto* tokens : {&config, &generation}) {
      if (*tokens && !(*tokens)->ends(token)) (*tokens)->end.push_back(token);
    }
  }

  friend bool operator==(const ModelTokens&, const ModelTokens&) = default;
};

}  // namespace tinymoe::inline v0_1
