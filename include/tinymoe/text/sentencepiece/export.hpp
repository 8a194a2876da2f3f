#pragma once
/// @file
/// Tokenizers written as sentencepiece models.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/text/llama2c/scores.hpp"
#include "tinymoe/text/llama2c/tokenizer.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/sentencepiece/model_file.hpp"
#include "tinymoe/text/sentencepiece/protobuf.hpp"
#include "tinymoe/text/sentencepiece/tokenizer.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The bytes of a bpe model that encodes as Llama 2's kind. Throws TextError where sentencepiece would encode
/// otherwise.
[[gnu::cold]] inline std::string sentencepiece_of(const Llama2cParts& parts) {
  const Llama2cVocabulary& vocabulary = parts.vocabulary;
  // The package merges characters that are no pieces, too.
  for (const Token token : vocabulary.ordinary()) {
    const std::string_view piece = vocabulary[token];
    for (std::size_t at = 0; at < piece.size();) {
      const std::size_t length = decode_utf8(piece, at).length;
      if (length < piece.size() && !vocabulary.find(piece.substr(at, length))) {
        fail<TextError>("the token ", in_quotes(piece),
                        " has a character that is no token, so sentencepiece would merge ", "it in another way");
      }
      at += length;
    }
  }
  const std::vector<float> scores = llama2c_scores(parts);
  ProtobufWriter model;
  PieceTable names;
  for (Token token = 0; token < static_cast<Token>(vocabulary.size()); ++token) {
    const std::string name = llama2c_spelled(vocabulary, token);
    if (!names.insert(name).second) fail<TextError>("two tokens are ", in_quotes(name));
    if (name.size() >= longest_sentencepiece || name.find('\0') != std::string::npos) {
      fail<TextError>("the token ", in_quotes(name), " has a zero byte or more than ", longest_sentencepiece - 1,
                      " bytes, which sentencepiece does not have");
    }
    auto type = ScoredPiece::Type::normal;
    if (vocabulary.is_byte(token)) type = ScoredPiece::Type::byte;
    if (vocabulary.is_special(token)) type = ScoredPiece::Type::control;
    if (token == 0) type = ScoredPiece::Type::unknown;
    ProtobufWriter piece;
    piece.bytes(1, name);
    piece.real(2, scores[static_cast<std::size_t>(token)]);
    if (type != ScoredPiece::Type::normal) piece.number(3, static_cast<std::uint64_t>(type));
    model.bytes(1, piece.text());
  }
  ProtobufWriter training;
  training.number(3, 2);  // bpe
  training.number(4, vocabulary.size());
  training.number(35, vocabulary.has_bytes() ? 1 : 0);
  training.bytes(45, vocabulary[0]);
  training.bytes(46, vocabulary[llama2c_begin]);
  training.bytes(47, vocabulary[llama2c_end]);
  model.bytes(2, training.text());
  ProtobufWriter spaces;
  spaces.bytes(1, "identity");
  spaces.number(3, 1);
  spaces.number(4, 0);  // spaces are no extra ones
  spaces.number(5, 1);
  model.bytes(3, spaces.text());
  return model.text();
}

}  // namespace detail

/// Writes a tokenizer as a model for the package sentencepiece, which encodes texts in UTF-8 the same: the bytes that
/// were read for one that came from such a file, or a bpe model for Llama 2's kind. A crash leaves the old file or the
/// new one. Throws TextError for another kind, and FileError if it cannot be written.
[[gnu::cold]] inline void save_sentencepiece(const std::filesystem::path& path, const Tokenizer& tokenizer) {
  if (tokenizer.as<SentencePieceTokenizer>() != nullptr) return tokenizer.save(path);
  const auto* llama = tokenizer.as<detail::Llama2cBpe>();
  if (llama == nullptr) {
    fail<TextError>("only Llama 2's kind of tokenizer and those read from a .model can be a sentencepiece model");
  }
  const std::string bytes = detail::sentencepiece_of(llama->parts());
  write_file_atomically(path, [&](FileWriter& out) { out.write(bytes); });
}

}  // namespace tinymoe::inline v0_1
