#pragma once
/// @file
/// Byte-level byte-pair encoding as in GPT-2: any bytes become tokens, and the tokens give the same bytes back.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/byte_level/tokenizer_file.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

/// The kind of tokenizer that `train_tokenizer` learns and GPT-2 has. Special tokens are not looked for in a text:
/// "<|endoftext|>" is encoded as text.
class ByteLevelBpe final : public TokenizerKind {
 public:
  /// Checks the parts: each of the 256 bytes is a token, no two tokens are equal, each merge is of two ordinary tokens
  /// and makes a third, no pair merges twice, and "<|endoftext|>" is a special token. Throws TextError.
  explicit ByteLevelBpe(detail::TokenizerParts parts);

  const detail::TokenizerParts& parts() const { return parts_; }

  std::span<const VocabularyEntry> vocabulary() const override { return parts_.vocabulary; }
  Token end_of_story() const override { return end_of_story_; }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  // A virtual function that is not inline makes a class's key function, and every unit would compile the whole class.
  inline std::unique_ptr<TextEncoder> encoder() const override;
  inline std::unique_ptr<TextEncoder> dropout_encoder(const MergeDropout& dropout) const override;
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token token : tokens) {
      const auto& entry = parts_.vocabulary[static_cast<std::size_t>(token)];
      if (!entry.special) text += entry.bytes;
    }
    return text;
  }
  std::string decode_after(std::span<const Token>, std::span<const Token> tokens) const override {
    return decode(tokens);
  }
  void save(const std::filesystem::path& tokenizer_json) const override {
    detail::write_byte_level_json(tokenizer_json, parts_);
  }
  bool equals(const TokenizerKind& other) const override {
    const auto* same_kind = dynamic_cast<const ByteLevelBpe*>(&other);
    return same_kind != nullptr && parts_ == same_kind->parts_;
  }

 private:
  class Encoder;
  class DropoutEncoder;

  /// The tokens of the bytes of a piece.
  void spell(std::string_view piece, std::vector<Token>& tokens) const {
    tokens.resize(piece.size());
    std::transform(piece.begin(), piece.end(), tokens.begin(),
                   [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; });
  }
  void add_vocabulary(detail::PieceTable& names, detail::Fnv1a& hash);
  void add_merges(const detail::PieceTable& names, detail::Fnv1a& hash);

  detail::TokenizerParts parts_;
  std::array<Token, 256> byte_tokens_{};
  detail::MergeTable merges_;
  Token end_of_story_ = -1;
  std::uint64_t fingerprint_ = 0;
};

/// Caches the tokens of pieces, because most pieces of a text repeat.
class ByteLevelBpe::Encoder final : public TextEncoder {
 public:
  explicit Encoder(const ByteLevelBpe& kind) : kind_(&kind) {}

  /// Throws TextError for a piece above 2^31 - 1 bytes.
  void encode(std::string_view text, std::vector<Token>& tokens) override {
    detail::for_each_piece(text, [&](std::string_view piece) {
      if (piece.size() > longest_remembered) {
        merge(piece);
        tokens.insert(tokens.end(), scratch_.begin(), scratch_.end());
        return;
      }
      const auto [number, fresh] = pieces_.insert(piece);
      if (fresh) remember(piece);
      const std::size_t begin = number == 0 ? 0 : ends_[number - 1];
      tokens.insert(tokens.end(), remembered_.data() + begin, remembered_.data() + ends_[number]);
      if (pieces_.bytes() > memory_limit) forget();
    });
  }

 private:
  static constexpr std::size_t longest_remembered = 64, memory_limit = std::size_t{4} << 20;

  void merge(std::string_view piece) {
    kind_->spell(piece, scratch_);
    merger_(kind_->merges_, scratch_);
  }

  void remember(std::string_view piece) {
    merge(piece);
    remembered_.insert(remembered_.end(), scratch_.begin(), scratch_.end());
    ends_.push_back(remembered_.size());
  }

  void forget() {
    pieces_.clear();
    remembered_.clear();
    ends_.clear();
  }

  const ByteLevelBpe* kind_;
  detail::PieceTable pieces_;
  std::vector<Token> remembered_;  // the tokens of all pieces
  std::vector<std::size_t> ends_;  // where those of a piece end
  std::vector<Token> scratch_;
  detail::PieceMerger merger_;
};

/// Without a cache, as a piece has other tokens each time.
class ByteLevelBpe::DropoutEncoder final : public TextEncoder {
 public:
  DropoutEncoder(const ByteLevelBpe& kind, const MergeDropout& dropout) : kind_(&kind), draws_(dropout) {}

  void encode(std::string_view text, std::vector<Token>& tokens) override {
    draws_.begin(text);
    detail::for_each_piece(text, [&](std::string_view piece) {
      kind_->spell(piece, scratch_);
      merger_(kind_->merges_, scratch_, [this] { return draws_(); });
      tokens.insert(tokens.end(), scratch_.begin(), scratch_.end());
    });
  }

 private:
  const ByteLevelBpe* kind_;
  detail::MergeDraws draws_;
  std::vector<Token> scratch_;
  detail::PieceMerger merger_;
};

inline std::unique_ptr<TextEncoder> ByteLevelBpe::encoder() const { return std::make_unique<Encoder>(*this); }
inline std::unique_ptr<TextEncoder> ByteLevelBpe::dropout_encoder(const MergeDropout& dropout) const {
  return std::make_unique<DropoutEncoder>(*this, dropout);
}

inline ByteLevelBpe::ByteLevelBpe(detail::TokenizerParts parts)
    : parts_(std::move(parts)), merges_(parts_.merges.size()) {
  detail::PieceTable names;
  detail::Fnv1a hash;
  add_vocabulary(names, hash);
  add_merges(names, hash);
  fingerprint_ = hash.value();
}

inline void ByteLevelBpe::add_vocabulary(detail::PieceTable& names, detail::Fnv1a& hash) {
  const auto& vocabulary = parts_.vocabulary;
  if (vocabulary.size() > static_cast<std::size_t>(std::numeric_limits<Token>::max())) {
    fail<TextError>("expected a vocabulary of at most 2147483647 tokens, found ", vocabulary.size());
  }
  hash.number(vocabulary.size());
  byte_tokens_.fill(-1);
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const auto& [bytes, special] = vocabulary[id];
    const std::string name = detail::spelled(vocabulary[id]);
    if (bytes.empty()) fail<TextError>("token ", id, " is empty");
    if (special && find_invalid_utf8(bytes) != std::string_view::npos) {
      fail<TextError>("the name of the special token ", id, " is not UTF-8");
    }
    if (!names.insert(name).second) fail<TextError>("the token ", detail::in_quotes(name), " is there twice");
    if (bytes.size() == 1 && !special) byte_tokens_[static_cast<unsigned char>(bytes[0])] = static_cast<Token>(id);
    if (special && bytes == end_of_story_text) end_of_story_ = static_cast<Token>(id);
    hash.number(special);
    hash.number(bytes.size());
    hash.text(bytes);
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    if (byte_tokens_[byte] < 0) fail<TextError>("expected a token for each byte, found none for byte ", byte);
  }
  if (end_of_story_ < 0) fail<TextError>("expected the special token ", end_of_story_text, ", found none");
}

inline void ByteLevelBpe::add_merges(const detail::PieceTable& names, detail::Fnv1a& hash) {
  const auto& vocabulary = parts_.vocabulary;
  const auto entry = [&](Token token) -> const VocabularyEntry& { return vocabulary[static_cast<std::size_t>(token)]; };
  for (std::size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const detail::Merge& merge = parts_.merges[rank];
    for (const Token part : {merge.left, merge.right}) {
      if (part < 0 || static_cast<std::size_t>(part) >= vocabulary.size() || entry(part).special) {
        fail<TextError>("merge ", rank, ": expected an ordinary token of the vocabulary, found ", part);
      }
    }
    const std::string name = detail::spelled(entry(merge.left).bytes + entry(merge.right).bytes);
    const auto result = names.find(name);
    if (!result || vocabulary[*result].special) {
      fail<TextError>("merge ", rank, " makes ", detail::in_quotes(name), ", which is not an ordinary token");
    }
    if (!merges_.insert(merge, static_cast<std::uint32_t>(rank), static_cast<Token>(*result))) {
      fail<TextError>("merge ", rank, " of ", detail::in_quotes(name), " is there twice");
    }
    hash.number(static_cast<std::uint64_t>(merge.left));
    hash.number(static_cast<std::uint64_t>(merge.right));
  }
}

}  // namespace tinymoe::inline v0_1
