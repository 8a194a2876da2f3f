#pragma once
/// @file
/// A tokenizer in the metadata of a GGUF file: gguf_byte_level.hpp has `gpt2`, gguf_sentencepiece.hpp `llama` and `t5`.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>

#include "tinymoe/checkpoint/gguf_byte_level.hpp"
#include "tinymoe/checkpoint/gguf_sentencepiece.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/tokenizer.hpp"
#include "tinymoe/text/llama2c/tokenizer.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

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
    const auto* kind = tokenizer.as<TokenizerKind>();
    const std::string bytes(kind->file_bytes());
    if (bytes.empty()) {
      fail<TextError>("the tokenizer is of a kind that GGUF does not have: expected one of tinymoe's own kinds");
    }
    if (kind->file_name() == std::string_view("tokenizer.json")) {
      write_gguf_json(metadata, parse_json(bytes, "the tokenizer"), vocab);
    } else {
      write_gguf_sentencepiece(metadata, bytes, vocab);
    }
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
/// text, llama.cpp puts one before those of Llama 2's and Llama 3's kinds.
[[gnu::cold]] inline ModelTokens read_gguf_model_tokens(const Gguf& file) {
  ModelTokens tokens{.config = read_gguf_special_tokens(file)};
  const Json add = file.value("tokenizer.ggml.add_bos_token");
  const Json model = file.value("tokenizer.ggml.model"), name = file.value("tokenizer.ggml.pre");
  const GgufPreTokenizer* pre = name.is_string() ? find_gguf_pre_tokenizer(name.string()) : nullptr;
  const bool usual = model == "gpt2" ? pre != nullptr && pre->begins : model != "t5";
  const bool adds = add.is_boolean() ? add.boolean() : usual;
  if (!adds) tokens.before.emplace();
  return tokens;
}

/// The tokenizer of a file. Throws FileError for one that is missing, makes no sense, or is of a kind that tinymoe does
/// not have.
[[gnu::cold]] inline Tokenizer read_gguf_tokenizer(const Gguf& file) {
  const Json model = file.value("tokenizer.ggml.model");
  const std::string name = file.name();
  if (!model.is_string()) fail<FileError>(name, ": key tokenizer.ggml.model is missing; it has no tokenizer");
  return naming_file(name, [&] {
    if (model == "gpt2") {
      const Json root = read_gguf_bpe(file);
      return Tokenizer::from_json(root, root.dump(), name);
    }
    if (model == "t5") return Tokenizer::from_sentencepiece(read_gguf_sentencepiece(file, false), name);
    if (model == "llama") {
      try {
        return Tokenizer(Llama2cBpe(read_gguf_llama(file)));
      } catch (const Error&) {
        if (sentencepiece_reader == nullptr) throw;
      }
      return Tokenizer::from_sentencepiece(read_gguf_sentencepiece(file, true), name);
    }
    fail<FileError>(name, ": its tokenizer is of the kind ", in_quotes(model.string()),
                    ", which tinymoe does not have; it reads gpt2, llama and t5");
  });
}

}  // namespace tinymoe::inline v0_1::detail
