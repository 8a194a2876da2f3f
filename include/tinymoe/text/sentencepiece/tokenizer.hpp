#pragma once
/// @file
/// The tokenizer of a sentencepiece model (.model), step by step as the package sentencepiece does it:
///
///     normalizer -> the best pieces (unigram), or merges (bpe) -> bytes of what is unknown

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/best_path.hpp"
#include "tinymoe/text/pipeline/prefix_finder.hpp"
#include "tinymoe/text/sentencepiece/bpe.hpp"
#include "tinymoe/text/sentencepiece/hub_file.hpp"
#include "tinymoe/text/sentencepiece/model_file.hpp"
#include "tinymoe/text/sentencepiece/normalizer.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

/// Immutable: copies of a `Tokenizer` and threads share it.
class SentencePieceTokenizer final : public TokenizerKind {
 public:
  /// From the bytes of a model. Throws FileError that names `file` for one that is cut or corrupt, or of the types word
  /// and char.
  [[gnu::cold]] SentencePieceTokenizer(std::string bytes, const std::string& file)
      : bytes_(std::move(bytes)), model_(detail::SentencePieceReader(bytes_, file).model()) {
    index();
    detail::Fnv1a hash;
    hash.text("sentencepiece");
    hash.text(bytes_);
    fingerprint_ = hash.value();
  }

  std::span<const VocabularyEntry> vocabulary() const override { return vocabulary_; }
  /// The control symbol that the model names for the end of a text, or else for its beginning. Throws TextError if
  /// there is none.
  inline Token end_of_story() const override;
  /// A hash of the file.
  std::uint64_t fingerprint() const override { return fingerprint_; }

  // A virtual function that is not inline makes a class's key function, and every unit would compile the whole class.
  inline std::unique_ptr<TextEncoder> encoder() const override;

  /// Control symbols give nothing, an unknown token what the model says (" ⁇ "). Bytes that are not UTF-8 stay the
  /// bytes that they are, where the package writes U+FFFD.
  std::string decode(std::span<const Token> tokens) const override {
    std::string text = Decoding{}.decode(*this, tokens);
    return has_denormalizer_ ? denormalizer_(text, {}) : text;
  }
  std::string decode_after(std::span<const Token> before, std::span<const Token> tokens) const override {
    if (has_denormalizer_) return TokenizerKind::decode_after(before, tokens);
    Decoding decoding;
    for (std::size_t i = 0; i < before.size() && decoding.begins; ++i) decoding.decode(*this, before.subspan(i, 1));
    return decoding.decode(*this, tokens);
  }

  /// Writes what was read.
  void save(const std::filesystem::path& path) const override {
    write_file_atomically(path, [&](FileWriter& out) { out.write(bytes_); });
  }
  const char* file_name() const override { return "tokenizer.model"; }
  inline HubTokenizer hub_tokenizer() const override;
  /// The file, as it was read.
  std::string_view file_bytes() const override { return bytes_; }

  bool equals(const TokenizerKind& other) const override {
    const auto* same_kind = dynamic_cast<const SentencePieceTokenizer*>(&other);
    return same_kind != nullptr && bytes_ == same_kind->bytes_;
  }

 private:
  class Encoder;
  using Type = detail::ScoredPiece::Type;

  /// Where a text is that is being decoded.
  struct Decoding {
    bool begins = true;  // the space before a text is still to be left out
    bool left_out = false;

    /// The text of the next tokens.
    std::string decode(const SentencePieceTokenizer& kind, std::span<const Token> tokens) {
      std::string text;
      for (const Token token : tokens) {
        const detail::ScoredPiece& piece = kind.piece(token);
        if (piece.type == Type::byte) {
          text += kind.vocabulary_[static_cast<std::size_t>(token)].bytes;
          has_text_ = true;
          continue;
        }
        if (left_out || has_text_) begins = false;
        left_out = false;
        if (piece.type == Type::control) continue;
        std::string_view added = kind.vocabulary_[static_cast<std::size_t>(token)].bytes;
        const detail::SentencePieceSpaces& spaces = kind.model_.normalizer;
        if (begins && piece.type != Type::unknown && (spaces.adds_dummy || spaces.removes_extra) &&
            piece.text.starts_with(detail::space_mark)) {
          added.remove_prefix(1);
          left_out = !spaces.removes_extra;
        }
        text += added;
        has_text_ = has_text_ || !added.empty();
      }
      return text;
    }

   private:
    bool has_text_ = false;
  };

  [[gnu::cold]] void index();
  const detail::ScoredPiece& piece(Token token) const { return model_.pieces[static_cast<std::size_t>(token)]; }

  std::string bytes_;
  detail::SentencePieceModel model_;
  std::vector<VocabularyEntry> vocabulary_;
  detail::SentencePieceNormalizer normalizer_, denormalizer_;
  bool has_denormalizer_ = false;
  detail::PrefixFinder symbols_;  // the user-defined ones
  detail::PieceTable names_;      // of ordinary pieces, for merges
  std::vector<Token> named_;      // the token of each, by the table's number
  detail::PrefixFinder pieces_;   // those that a unigram model may use
  std::vector<Token> found_;      // the token of each, by the finder's number
  std::array<Token, 256> byte_tokens_{};
  Token unknown_ = -1;
  float worst_ = std::numeric_limits<float>::max();
  std::uint64_t fingerprint_ = 0;
};

inline void SentencePieceTokenizer::index() {
  using namespace detail;
  std::vector<std::string> symbols;
  std::vector<std::pair<std::string_view, Token>> ordered;
  for (std::size_t at = 0; at < model_.pieces.size(); ++at) {
    const ScoredPiece& found = model_.pieces[at];
    const auto token = static_cast<Token>(at);
    VocabularyEntry entry{replaced(found.text, space_mark, " "), found.type == Type::control};
    if (found.type == Type::control) entry.bytes = found.text;
    if (found.type == Type::unknown) {
      entry.bytes = model_.unknown_text;
      unknown_ = token;
    }
    if (found.type == Type::byte) {
      entry.bytes = std::string(1, *llama2c_byte(found.text));
      byte_tokens_[static_cast<unsigned char>(entry.bytes[0])] = token;
    }
    if (found.type == Type::user_defined) symbols.push_back(found.text);
    if (found.type == Type::normal) worst_ = std::min(worst_, found.score);
    const bool gap = found.text.find('\0') != std::string::npos;
    if (found.is_ordinary() && !gap && model_.is_bpe) {
      names_.insert(found.text);
      named_.push_back(token);
    }
    if (found.is_ordinary() && found.type != Type::unused && !model_.is_bpe) ordered.emplace_back(found.text, token);
    vocabulary_.push_back(std::move(entry));
  }
  std::sort(symbols.begin(), symbols.end());
  symbols_ = PrefixFinder(std::move(symbols));
  std::sort(ordered.begin(), ordered.end());
  std::vector<std::string> pieces;
  for (const auto& [text, token] : ordered) {
    pieces.emplace_back(text);
    found_.push_back(token);
  }
  pieces_ = PrefixFinder(std::move(pieces));
  normalizer_ = SentencePieceNormalizer(model_.normalizer);
  has_denormalizer_ = !model_.denormalizer.map.empty();
  if (has_denormalizer_) denormalizer_ = SentencePieceNormalizer(model_.denormalizer);
}

inline Token SentencePieceTokenizer::end_of_story() const {
  for (const std::string* name : {&model_.end, &model_.begin}) {
    for (std::size_t at = 0; at < model_.pieces.size(); ++at) {
      const detail::ScoredPiece& found = model_.pieces[at];
      if (found.type == Type::control && found.text == *name) return static_cast<Token>(at);
    }
  }
  fail<TextError>("the sentencepiece model has no control symbol ", detail::in_quotes(model_.end),
                  " that ends a story; train it with one (--eos_id)");
}

/// Encodes one text after the other.
class SentencePieceTokenizer::Encoder final : public TextEncoder {
 public:
  explicit Encoder(const SentencePieceTokenizer& kind) : kind_(&kind) {}

  void encode(std::string_view text, std::vector<Token>& tokens) override {
    const std::string normal = kind_->normalizer_(text, kind_->symbols_);
    after_unknown_ = false;
    kind_->model_.is_bpe ? merge(normal, tokens) : take_best(normal, tokens);
  }

 private:
  /// The bytes of a character by its first one, as far as the text goes.
  static std::size_t character(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    return std::min<std::size_t>(lead < 0xc0 ? 1 : detail::character_length(lead), text.size());
  }

  void merge(std::string_view text, std::vector<Token>& tokens) {
    using Found = detail::SentencePieceMerger::Found;
    const auto found = [&](std::string_view string) -> Found {
      const auto number = kind_->names_.find(string);
      if (!number) return {};
      const detail::ScoredPiece& piece = kind_->piece(kind_->named_[*number]);
      return {true, piece.type == Type::unused, piece.score};
    };
    const auto length = [&](std::string_view rest) {
      const std::size_t symbol = detail::longest_symbol(kind_->symbols_, rest);
      return std::pair(symbol > 0 ? symbol : character(rest), symbol > 0);
    };
    merger_(text, found, length, [&](std::string_view string, bool even_unused) {
      const auto number = kind_->names_.find(string);
      const Token token = number ? kind_->named_[*number] : kind_->unknown_;
      const bool known = number && (even_unused || kind_->piece(token).type != Type::unused);
      add(string, known ? token : kind_->unknown_, tokens);
    });
  }

  void take_best(std::string_view text, std::vector<Token>& tokens) {
    const auto piece = [&](std::size_t number, std::size_t bytes) {
      const Token token = kind_->found_[number];
      const detail::ScoredPiece& found = kind_->piece(token);
      if (found.type != Type::user_defined) return std::pair(token, found.score);
      return std::pair(token, static_cast<float>(0.1 * (static_cast<double>(bytes) - 1)));
    };
    detail::find_best_path(
        text, kind_->pieces_, kind_->worst_ - detail::unknown_penalty, kind_->unknown_, 100'000.0f, piece,
        [&](std::size_t at) { return character(text.substr(at)); }, ends_);
    parts_.clear();
    detail::for_each_back(ends_, [&](std::size_t begin, std::size_t end, Token token) {
      parts_.emplace_back(text.substr(begin, end - begin), token);
    });
    for (std::size_t i = parts_.size(); i-- > 0;) add(parts_[i].first, parts_[i].second, tokens);
  }

  void add(std::string_view string, Token token, std::vector<Token>& tokens) {
    const bool unknown = token == kind_->unknown_;
    if (unknown && kind_->model_.byte_fallback) {
      for (const char byte : string) tokens.push_back(kind_->byte_tokens_[static_cast<unsigned char>(byte)]);
    } else if (!unknown || !after_unknown_) {
      tokens.push_back(token);
    }
    after_unknown_ = unknown;
  }

  const SentencePieceTokenizer* kind_;
  detail::SentencePieceMerger merger_;
  std::vector<detail::PathEnd<float>> ends_;
  std::vector<std::pair<std::string_view, Token>> parts_;
  bool after_unknown_ = false;
};

inline HubTokenizer SentencePieceTokenizer::hub_tokenizer() const {
  Encoder encoder(*this);
  return detail::SentencePieceHubFile(model_).made([&](const std::string& text) {
    std::vector<Token> tokens;
    encoder.encode(text, tokens);
    return tokens;
  });
}

inline std::unique_ptr<TextEncoder> SentencePieceTokenizer::encoder() const { return std::make_unique<Encoder>(*this); }

}  // namespace tinymoe::inline v0_1
