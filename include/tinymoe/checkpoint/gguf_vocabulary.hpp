#pragma once
/// @file
/// The tokens of a tokenizer as a GGUF file lists them.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"

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
  void place(std::size_t at, std::string token, GgufToken type) {
    tokens[at] = std::move(token);
    types[at] = static_cast<std::int32_t>(type);
  }
  /// The model may have more tokens than the tokenizer, and the tokenizer gaps: llama.cpp wants a name for each.
  [[gnu::cold]] void fill(Index vocab) {
    tokens.resize(static_cast<std::size_t>(vocab));
    types.resize(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (types[i] == 0) place(i, sentence_of({"[PAD", i, "]"}), GgufToken::unused);
    }
  }
  void write(GgufMetadata& metadata) const {
    metadata.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
    metadata.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
  }
};

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
    if (!(type >= 1 && type <= 6 && type == std::floor(type))) fail<FileError>(file.name(), ": token ", i, " is of the unknown type ", type);
    if (find_invalid_utf8(names[i]) != std::string_view::npos) {
      fail<FileError>(file.name(), ": token ", i, " is not UTF-8");
    }
    tokens.emplace_back(names[i], static_cast<GgufToken>(static_cast<std::int32_t>(type)));
  }
  while (!tokens.empty() && tokens.back().second == GgufToken::unused) tokens.pop_back();
  return tokens;
}

}  // namespace tinymoe::inline v0_1::detail
