#pragma once
/// @file
/// The file of a sentencepiece model (Kudo and Richardson 2018): a protobuf message with the pieces, how they were
/// trained, and how texts are normalized. What is read has the numbers of sentencepiece_model.proto.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/character_map.hpp"
#include "tinymoe/text/sentencepiece/protobuf.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// Bytes of a file, at most; one of 250,000 pieces has 5 MB.
inline constexpr std::size_t sentencepiece_size_limit = std::size_t{32} << 20;
/// Bytes of a piece, less than this; it is the package's limit.
inline constexpr std::size_t longest_sentencepiece = 8000;

/// Pieces of a model, at most: each one takes more memory than its bytes in the file.
inline constexpr std::size_t most_sentencepieces = std::size_t{1} << 20;

struct ScoredPiece {
  enum class Type : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

  std::string text;
  float score = 0;
  Type type = Type::normal;

  /// Whether text can become it.
  bool is_ordinary() const { return type == Type::normal || type == Type::user_defined || type == Type::unused; }
};

/// How a text is changed before it is cut.
struct SentencePieceSpaces {
  CharacterMap map;
  bool adds_dummy = true, removes_extra = true, escapes = true;
  bool as_suffix = false;
};

struct SentencePieceModel {
  std::vector<ScoredPiece> pieces;
  bool is_bpe = false;  // or a unigram language model
  bool byte_fallback = false;
  std::string unknown_text = " \xe2\x81\x87 ";
  std::string begin = "<s>", end = "</s>", padding = "<pad>";
  SentencePieceSpaces normalizer, denormalizer;
};

/// Reads the bytes of a model. Throws FileError that names `file`.
class SentencePieceReader {
 public:
  SentencePieceReader(std::string_view bytes, const std::string& file) : file_(&file) {
    if (bytes.size() > sentencepiece_size_limit) {
      fail<FileError>(file, ": expected a tokenizer of at most ", sentencepiece_size_limit, " bytes, found ",
                      bytes.size());
    }
    ProtobufReader reader(bytes, 0, file);
    using Kind = ProtobufField::Kind;
    for (ProtobufField field; reader.next(field);) {
      if (field.id > 5 || field.id == 4) continue;
      reader.expect(field, Kind::bytes);
      ProtobufReader message(reader, field);
      if (field.id == 1) read_piece(message, field.at);
      if (field.id == 2) read_training(message);
      if (field.id == 3) read_normalizer(message, model_.normalizer, "normalizer_spec.precompiled_charsmap");
      if (field.id == 5) read_normalizer(message, model_.denormalizer, "denormalizer_spec.precompiled_charsmap");
    }
    check();
  }

  SentencePieceModel model() && { return std::move(model_); }

 private:
  void read_piece(ProtobufReader& reader, std::size_t at) {
    ScoredPiece piece;
    const std::size_t id = model_.pieces.size();
    if (id == most_sentencepieces) reader.refuse(at, "expected at most ", most_sentencepieces, " pieces, found more");
    for (ProtobufField field; reader.next(field);) {
      if (field.id == 1) {
        reader.expect(field, ProtobufField::Kind::bytes);
        piece.text = field.bytes;
      } else if (field.id == 2) {
        reader.expect(field, ProtobufField::Kind::four_bytes);
        piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.number));
      } else if (field.id == 3) {
        reader.expect(field, ProtobufField::Kind::number);
        if (field.number < 1 || field.number > 6) {
          reader.refuse(field.at, "piece ", id, " is of the unknown type ", field.number);
        }
        piece.type = static_cast<ScoredPiece::Type>(field.number);
      }
    }
    if (piece.text.empty() || piece.text.size() >= longest_sentencepiece) {
      reader.refuse(at, "expected piece ", id, " to have 1 to ", longest_sentencepiece - 1, " bytes, found ",
                    piece.text.size());
    }
    if (find_invalid_utf8(piece.text) != std::string_view::npos) reader.refuse(at, "piece ", id, " is not UTF-8");
    if (!is_finite(piece.score)) reader.refuse(at, "the score of piece ", id, " is not finite");
    // Models that were made smaller have unused zeros.
    const bool gap = piece.type == ScoredPiece::Type::unused && piece.text == std::string_view("\0", 1);
    if (!gap && piece.text.find('\0') != std::string::npos) reader.refuse(at, "piece ", id, " has a zero byte");
    if (!gap && !names_.insert(piece.text).second) {
      reader.refuse(at, "the piece ", in_quotes(piece.text), " is there twice");
    }
    model_.pieces.push_back(std::move(piece));
  }

  void read_training(ProtobufReader& reader) {
    const auto text = [&](const ProtobufField& field, std::string& to) {
      reader.expect(field, ProtobufField::Kind::bytes);
      to = field.bytes;
    };
    const auto number = [&](const ProtobufField& field) {
      reader.expect(field, ProtobufField::Kind::number);
      return field.number;
    };
    for (ProtobufField field; reader.next(field);) {
      switch (field.id) {
        case 3:
          if (const auto type = number(field); type != 1 && type != 2) {
            reader.refuse(field.at, "expected a model of the type unigram or bpe, found ",
                          type == 3   ? "word"
                          : type == 4 ? "char"
                                      : "an unknown one",
                          "; train one of these types (--model_type)");
          }
          model_.is_bpe = field.number == 2;
          break;
        case 24:
          model_.normalizer.as_suffix = number(field) != 0;
          break;
        case 35:
          model_.byte_fallback = number(field) != 0;
          break;
        case 44:
          text(field, model_.unknown_text);
          break;
        case 46:
          text(field, model_.begin);
          break;
        case 47:
          text(field, model_.end);
          break;
        case 48:
          text(field, model_.padding);
          break;
        default:
          break;
      }
    }
  }

  void read_normalizer(ProtobufReader& reader, SentencePieceSpaces& to, const char* key) const {
    for (ProtobufField field; reader.next(field);) {
      if (field.id == 2) {
        reader.expect(field, ProtobufField::Kind::bytes);
        to.map = field.bytes.empty() ? CharacterMap() : CharacterMap(field.bytes, key, *file_);
      } else if (field.id >= 3 && field.id <= 5) {
        reader.expect(field, ProtobufField::Kind::number);
        (field.id == 3 ? to.adds_dummy : field.id == 4 ? to.removes_extra : to.escapes) = field.number != 0;
      }
    }
  }

  void check() const {
    using Type = ScoredPiece::Type;
    const std::string& file = *file_;
    std::size_t unknown = 0, bytes = 0, ordinary = 0;
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
      const ScoredPiece& piece = model_.pieces[id];
      ordinary += piece.is_ordinary();
      unknown += piece.type == Type::unknown;
      if (piece.type != Type::byte) continue;
      ++bytes;
      if (!llama2c_byte(piece.text)) {
        fail<FileError>(file, ": expected piece ", id, " to be a byte, <0x00> to <0xFF>, found ",
                        in_quotes(piece.text));
      }
    }
    if (ordinary == 0) fail<FileError>(file, ": expected pieces, found none; it may be no sentencepiece model");
    if (unknown > 1) fail<FileError>(file, ": expected one piece of the type unknown, found ", unknown);
    if (unknown == 0 && !model_.byte_fallback) {
      fail<FileError>(file, ": has neither a piece of the type unknown nor bytes in its place");
    }
    if (bytes != (model_.byte_fallback ? 256u : 0u)) {
      fail<FileError>(file, ": expected ", model_.byte_fallback ? 256 : 0, " pieces of the type byte, since ",
                      "byte_fallback is ", model_.byte_fallback ? "true" : "false", ", found ", bytes);
    }
  }

  const std::string* file_;
  SentencePieceModel model_;
  PieceTable names_;
};

}  // namespace tinymoe::inline v0_1::detail
