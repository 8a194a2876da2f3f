#pragma once
/// @file
/// Tokenizers with scores in a GGUF file: Llama 2's kind and sentencepiece's bpe models (`llama`), sentencepiece's
/// unigram models (`t5`).

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/gguf_vocabulary.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/text/llama2c/scores.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/sentencepiece/model_file.hpp"
#include "tinymoe/text/sentencepiece/protobuf.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

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

/// The bytes of the map of characters in a sentencepiece model, which has been read.
[[gnu::cold]] inline std::string_view sentencepiece_map(std::string_view bytes) {
  const std::string file = "the tokenizer";
  ProtobufReader reader(bytes, 0, file);
  std::string_view map;
  for (ProtobufField field; reader.next(field);) {
    if (field.id != 3) continue;
    ProtobufReader normalizer(reader, field);
    for (ProtobufField part; normalizer.next(part);) {
      if (part.id == 2) map = part.bytes;
    }
  }
  return map;
}

/// Throws TextError unless llama.cpp changes texts and cuts them as a sentencepiece model says.
[[gnu::cold]] inline void expect_gguf_sentencepiece(const SentencePieceModel& model, std::string_view map) {
  const auto refuse = [](const auto&... parts) {
    fail<TextError>("the sentencepiece model has ", parts...,
                    ", which llama.cpp does not have; docs/interop.md says which tokenizers it has");
  };
  const SentencePieceSpaces& spaces = model.normalizer;
  const char* kind = model.is_bpe ? "the type bpe" : "the type unigram";
  if (!model.denormalizer.map.empty()) refuse("a denormalizer");
  if (spaces.as_suffix) refuse("white space behind words");
  if (!spaces.escapes) refuse("spaces that are not escaped");
  if (model.is_bpe && !map.empty()) refuse("a map of characters beside ", kind);
  if (model.is_bpe && spaces.removes_extra) refuse("extra spaces that are removed beside ", kind);
  if (model.is_bpe != model.byte_fallback) refuse(model.is_bpe ? "no" : "", " pieces for bytes beside ", kind);
  if (!model.is_bpe && spaces.adds_dummy != spaces.removes_extra) {
    refuse("only one of a space before a text and extra spaces that are removed, beside ", kind);
  }
  if (!map.empty()) {  // the size of the automaton, the automaton, and what takes the place of characters
    std::uint32_t automaton = 0;
    std::memcpy(&automaton, map.data(), sizeof automaton);
    if (map.substr(sizeof automaton + automaton).find("  ") != std::string_view::npos) {
      refuse("a map of a character to two spaces");
    }
  }
  for (const ScoredPiece& piece : model.pieces) {
    using Type = ScoredPiece::Type;
    if (piece.type == Type::user_defined && (!model.is_bpe || spaces.adds_dummy)) {
      refuse("the user-defined symbol ", in_quotes(piece.text), " that leaves words around it as they are");
    }
    if (piece.type == Type::unused && piece.text != std::string_view("\0", 1)) {
      refuse("the unused piece ", in_quotes(piece.text));
    }
  }
}

/// Writes a tokenizer that was read from a sentencepiece model.
[[gnu::cold]] inline void write_gguf_sentencepiece(GgufMetadata& metadata, const std::string& bytes, Index vocab) {
  const SentencePieceModel model = SentencePieceReader(bytes, "the tokenizer").model();
  const std::string_view map = sentencepiece_map(bytes);
  expect_gguf_sentencepiece(model, map);
  GgufVocabulary vocabulary;
  std::vector<float> scores;
  vocabulary.fill(vocab);
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const ScoredPiece& piece = model.pieces[i];
    // Both count the types of pieces alike. What is unused has a name of its own here.
    if (piece.type != ScoredPiece::Type::unused) vocabulary.place(i, piece.text, static_cast<GgufToken>(piece.type));
    scores.push_back(piece.score);
    if (piece.type == ScoredPiece::Type::unknown) {
      metadata.add("tokenizer.ggml.unknown_token_id", static_cast<std::uint32_t>(i));
    }
  }
  scores.resize(vocabulary.tokens.size());
  metadata.add("tokenizer.ggml.model", model.is_bpe ? "llama" : "t5");
  vocabulary.write(metadata);
  metadata.add("tokenizer.ggml.scores", std::span<const float>(scores));
  metadata.add("tokenizer.ggml.add_space_prefix", model.normalizer.adds_dummy);
  if (model.is_bpe) return;
  metadata.add("tokenizer.ggml.remove_extra_whitespaces", model.normalizer.removes_extra);
  if (map.empty()) return;
  metadata.add("tokenizer.ggml.precompiled_charsmap",
               std::span(reinterpret_cast<const std::uint8_t*>(map.data()), map.size()));
}

/// The scores of a file, one for each of its tokens. Throws FileError.
[[gnu::cold]] inline std::vector<float> read_gguf_scores(const Gguf& file) {
  std::vector<float> scores;
  for (const double score : file.numbers("tokenizer.ggml.scores")) {
    const auto rounded = static_cast<float>(score);
    if (!is_finite(rounded)) fail<FileError>(file.name(), ": the score of token ", scores.size(), " is not finite");
    scores.push_back(rounded);
  }
  const std::size_t tokens = file.strings("tokenizer.ggml.tokens").size();
  if (scores.size() < tokens) {
    fail<FileError>(file.name(), ": has ", tokens, " tokens and ", scores.size(), " scores");
  }
  return scores;
}

[[gnu::cold]] inline Llama2cParts read_gguf_llama(const Gguf& file) {
  std::vector<VocabularyEntry> names;
  const std::vector<float> scores = read_gguf_scores(file);
  if (file.value("tokenizer.ggml.add_space_prefix") == false) {
    fail<FileError>(file.name(), ": its tokenizer puts no space before a text, which Llama 2's does", only_pipeline);
  }
  bool has_bytes = false;
  for (const auto& [token, type] : read_gguf_tokens(file)) {
    if (type == GgufToken::user_defined) {
      fail<FileError>(file.name(), ": the token ", in_quotes(token), " is of the type user_defined, which ",
                      "Llama 2's kind does not have", only_pipeline);
    }
    has_bytes = has_bytes || type == GgufToken::byte;
    const bool special = type == GgufToken::control || type == GgufToken::unknown || type == GgufToken::unused;
    if (token.empty()) fail<FileError>(file.name(), ": token ", names.size(), " is empty");
    names.push_back({special ? std::string(token) : replaced(token, space_mark, " "), special});
  }
  Llama2cVocabulary vocabulary(std::move(names));
  if (has_bytes && !vocabulary.has_bytes()) {
    fail<FileError>(file.name(), ": its tokens of bytes are not the tokens 3 to 258, as Llama 2's are", only_pipeline);
  }
  auto merges = scored_merges(vocabulary, scores);
  return {std::move(vocabulary), std::move(merges)};
}

/// The sentencepiece model that encodes as llama.cpp with a file's tokenizer. Throws FileError.
[[gnu::cold]] inline std::string read_gguf_sentencepiece(const Gguf& file, bool is_bpe) {
  const auto flag = [&](const char* key, bool absent) {
    const Json found = file.value(key);
    return found.is_boolean() ? found.boolean() : absent;
  };
  const bool adds_dummy = flag("tokenizer.ggml.add_space_prefix", is_bpe);
  const bool removes_extra = !is_bpe && flag("tokenizer.ggml.remove_extra_whitespaces", false);
  if (!is_bpe && adds_dummy != removes_extra) {
    fail<FileError>(file.name(), ": keys tokenizer.ggml.add_space_prefix and remove_extra_whitespaces differ, and ",
                    "tinymoe has no tokenizer t5 of that kind; take the model's tokenizer.json");
  }
  const std::vector<float> scores = read_gguf_scores(file);
  ProtobufWriter model;
  std::size_t id = 0, bytes = 0;
  for (const auto& [token, type] : read_gguf_tokens(file)) {
    if (type == GgufToken::user_defined && (!is_bpe || adds_dummy)) {
      fail<FileError>(file.name(), ": the token ", in_quotes(token),
                      " is of the type user_defined, and llama.cpp puts ",
                      "a space behind it, which tinymoe does not; take the model's tokenizer.json");
    }
    bytes += type == GgufToken::byte;
    ProtobufWriter piece;
    piece.bytes(1, type == GgufToken::unused ? std::string_view("\0", 1) : token);
    piece.real(2, scores[id++]);
    piece.number(3, static_cast<std::uint64_t>(type));
    model.bytes(1, piece.text());
  }
  ProtobufWriter training;
  training.number(3, is_bpe ? 2 : 1);
  training.number(35, bytes > 0 ? 1 : 0);
  training.bytes(44, "");  // llama.cpp writes nothing for an unknown token
  model.bytes(2, training.text());
  ProtobufWriter spaces;
  if (!is_bpe && file.contains("tokenizer.ggml.precompiled_charsmap")) {
    std::string map;
    for (const double byte : file.numbers("tokenizer.ggml.precompiled_charsmap")) {
      if (!(byte >= -128 && byte <= 255 && byte == std::floor(byte))) {
        fail<FileError>(file.name(), ": key tokenizer.ggml.precompiled_charsmap: expected bytes, found ", byte);
      }
      map.push_back(static_cast<char>(static_cast<int>(byte)));
    }
    spaces.bytes(2, map);
  }
  spaces.number(3, adds_dummy ? 1 : 0);
  spaces.number(4, removes_extra ? 1 : 0);
  spaces.number(5, 1);
  model.bytes(3, spaces.text());
  return model.text();
}

}  // namespace tinymoe::inline v0_1::detail
