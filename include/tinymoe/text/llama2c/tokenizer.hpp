#pragma once
/// @file
/// The tokenizer of llama2.c (Karpathy 2023), which is Llama 2's. A text becomes its characters, or their bytes if a
/// character is no token. Then two neighbours that together are a token are merged, always those whose token has the
/// best score, until no two are.
///
/// A text is encoded as if a space stood before it, so that its first word has the token that it has elsewhere. U+2581,
/// which stands for a space in sentencepiece's files, is a space in a text too: it comes back as one.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/merge_dropout.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

/// A vocabulary and its scores. An empty text has no tokens. `encode` does not add the token that begins a text.
class Llama2cBpe final : public TokenizerKind {
 public:
  /// Throws TextError if two merges are of the same tokens.
  explicit Llama2cBpe(Llama2cParts parts);

  const Llama2cParts& parts() const { return parts_; }

  std::span<const VocabularyEntry> vocabulary() const override { return parts_.vocabulary.entries(); }
  /// The token that begins a text in llama2.c's training data, and so ends the one before.
  Token end_of_story() const override { return llama2c_begin; }
  std::optional<Token> begin_of_text() const override { return llama2c_begin; }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  // A virtual function that is not inline makes a class's key function, and every unit would compile the whole class.
  inline std::unique_ptr<TextEncoder> encoder() const override;
  inline std::unique_ptr<TextEncoder> dropout_encoder(const MergeDropout& dropout) const override;

  /// The space before a text is left out, at the start and after each token that begins a text.
  std::string decode(std::span<const Token> tokens) const override { return decode_after({}, tokens); }
  std::string decode_after(std::span<const Token> before, std::span<const Token> tokens) const override {
    bool begins = true;  // no text yet, or none since the last token that begins one
    for (std::size_t i = before.size(); i-- > 0 && before[i] != llama2c_begin && begins;) {
      begins = parts_.vocabulary.is_special(before[i]);
    }
    std::string text;
    for (const Token token : tokens) {
      if (parts_.vocabulary.is_special(token)) {
        begins = begins || token == llama2c_begin;
        continue;
      }
      const std::string_view piece = parts_.vocabulary[token];
      text += piece.substr(begins && piece.starts_with(' ') ? 1 : 0);
      begins = false;
    }
    return text;
  }

  bool has_bytes() const override { return parts_.vocabulary.has_bytes(); }
  /// Without the bytes, every character of the text needs a token.
  bool knows(std::string_view text) const override {
    return has_bytes() ||
           for_each_character(text, [this](std::string_view character) { return find(character).has_value(); });
  }

  /// Throws TextError for a token that is not UTF-8 or has U+2581, or two tokens of one name.
  void save(const std::filesystem::path& tokenizer_json) const override { write_llama2c_json(tokenizer_json, parts_); }
  bool equals(const TokenizerKind& other) const override {
    const auto* same_kind = dynamic_cast<const Llama2cBpe*>(&other);
    return same_kind != nullptr && parts_ == same_kind->parts_;
  }

 private:
  class Encoder;

  /// Calls f(character) until it gives false; true if it never did. As in llama2.c, a character is a byte and up to
  /// three continuation bytes after it, be it UTF-8 or not.
  template <class F>
  static bool for_each_character(std::string_view text, F&& f) {
    for (std::size_t at = 0, end = 0; at < text.size(); at = end) {
      end = at + 1;
      while (end < text.size() && end - at < 4 && continues_character(text[end])) ++end;
      if (!f(text.substr(at, end - at))) return false;
    }
    return true;
  }

  /// The token of a character of a text.
  std::optional<Token> find(std::string_view character) const {
    return parts_.vocabulary.find(character == space_mark ? " " : character);
  }

  Llama2cParts parts_;
  MergeTable merges_;
  std::uint64_t fingerprint_ = 0;
};

class Llama2cBpe::Encoder final : public TextEncoder {
 public:
  explicit Encoder(const Llama2cBpe& kind) : kind_(&kind) {}
  Encoder(const Llama2cBpe& kind, const MergeDropout& dropout) : kind_(&kind), draws_(dropout) {}

  /// Throws TextError that names a character which is no token, if the vocabulary has no bytes.
  void encode(std::string_view text, std::vector<Token>& tokens) override {
    scratch_.clear();
    if (!text.empty()) add(" ");
    for_each_character(text, [this](std::string_view character) { return add(character), true; });
    if (draws_) {
      draws_->begin(text);
      merger_(kind_->merges_, scratch_, [this] { return (*draws_)(); });
    } else {
      merger_(kind_->merges_, scratch_);
    }
    tokens.insert(tokens.end(), scratch_.begin(), scratch_.end());
  }

 private:
  void add(std::string_view character) {
    if (const auto token = kind_->find(character)) {
      scratch_.push_back(*token);
    } else if (character == space_mark) {
      add(" ");
    } else if (kind_->has_bytes()) {
      for (const char byte : character) scratch_.push_back(llama2c_first + static_cast<unsigned char>(byte));
    } else if (const std::size_t at = find_invalid_utf8(character); at == std::string_view::npos) {
      fail<TextError>("the character ", in_quotes(character), " is not in the vocabulary, which has no bytes");
    } else {
      fail<TextError>("expected UTF-8, as the vocabulary has no bytes, found the byte ",
                      static_cast<int>(static_cast<unsigned char>(character[at])));
    }
  }

  const Llama2cBpe* kind_;
  std::optional<MergeDraws> draws_;
  std::vector<Token> scratch_;
  PieceMerger merger_;
};

inline std::unique_ptr<TextEncoder> Llama2cBpe::encoder() const { return std::make_unique<Encoder>(*this); }
inline std::unique_ptr<TextEncoder> Llama2cBpe::dropout_encoder(const MergeDropout& dropout) const {
  return std::make_unique<Encoder>(*this, dropout);
}

inline Llama2cBpe::Llama2cBpe(Llama2cParts parts) : parts_(std::move(parts)), merges_(parts_.merges.size()) {
  Fnv1a hash;
  const auto& vocabulary = parts_.vocabulary;
  hash.text("llama2.c, U+2581 is a space");
  hash.number(vocabulary.size());
  for (Token token = 0; token < static_cast<Token>(vocabulary.size()); ++token) {
    hash.number(vocabulary.is_special(token) ? 2 : (vocabulary.is_byte(token) ? 1 : 0));
    hash.number(vocabulary[token].size());
    hash.text(vocabulary[token]);
  }
  for (const auto& [pair, rank, result] : parts_.merges) {
    if (!merges_.insert(pair, rank, result)) {
      fail<TextError>("two merges are of the tokens ", pair.left, " and ", pair.right);
    }
    for (const Token token : {pair.left, pair.right}) hash.number(static_cast<std::uint64_t>(token));
    hash.number(rank);
  }
  fingerprint_ = hash.value();
}

}  // namespace tinymoe::inline v0_1::detail
