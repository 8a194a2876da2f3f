#pragma once
/// @file
/// The tokenizer of llama2.c (Karpathy 2023), which is Llama 2's: a text becomes its characters, or their bytes where a
/// character is no token; then the neighbours that together are the token of the best score become one, until none do.
///
/// A text is encoded as if a space stood before it, so that its first word is the token that it is elsewhere.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/core/utf8.hpp"

namespace tinymoe::inline v0_1 {

/// A vocabulary and its scores. Immutable: copies share it, and threads may use one object at the same time.
class Llama2cTokenizer {
 public:
  /// Encodes many texts; for one thread, other threads have their own.
  class Encoder;

  /// Reads llama2.c's tokenizer.bin. Throws FileError that names the file and the token if it is missing, cut, corrupt
  /// or above 4 MiB, if a score is not finite, or if tokens 1 and 2 are not <s> and </s>.
  static Llama2cTokenizer load_bin(const std::filesystem::path& tokenizer_bin) {
    return checked(tokenizer_bin, detail::read_llama2c_tokenizer(tokenizer_bin));
  }
  /// Reads a Hugging Face tokenizer.json of this kind: what `save` writes, or a Llama 2's or Mixtral's.
  /// Throws FileError that names the file if it is missing, corrupt, or would be encoded in another way.
  static Llama2cTokenizer load(const std::filesystem::path& tokenizer_json) {
    return checked(tokenizer_json, detail::read_llama2c_tokenizer_json(tokenizer_json));
  }
  /// Whether a tokenizer.json is of this kind, and not byte-level as `Tokenizer` reads. Throws FileError as
  /// `read_json`.
  static bool is_kind_of(const std::filesystem::path& tokenizer_json) {
    const auto root = read_json(tokenizer_json, detail::tokenizer_size_limit);
    return root["normalizer"] == detail::llama2c_normalizer();
  }
  /// Writes tokenizer.json for `load` and for Hugging Face tokenizers; a crash leaves the old file or the new one.
  /// Throws FileError if it cannot be written, TextError for what the format cannot say: a token that is not UTF-8 or
  /// has U+2581, or two tokens of one name.
  void save(const std::filesystem::path& tokenizer_json) const {
    detail::write_llama2c_tokenizer_json(tokenizer_json, state_->parts);
  }

  /// The tokens of a text, without the one that begins it; of an empty text none.
  /// Throws TextError, naming the character, for one that is no token where the vocabulary has no bytes.
  std::vector<Token> encode(std::string_view text) const;
  /// Whether every character of a text has a token, so that `encode` does not throw.
  bool knows(std::string_view text) const {
    return has_bytes() || for_each_character(text, [this](std::string_view character) {
             return state_->parts.vocabulary.find(character).has_value();
           });
  }
  /// Whether any text can be encoded: tokens 3 to 258 are the bytes.
  bool has_bytes() const { return state_->parts.vocabulary.has_bytes(); }

  /// The text of tokens. Special tokens give nothing; the space before a text is left out, at the start and after each
  /// token that begins a text. Throws TextError for a token outside the vocabulary.
  std::string decode(std::span<const Token> tokens) const {
    std::string text;
    bool begins = true;
    for (const Token token : tokens) {
      if (!is_special(token)) {
        const std::string_view piece = bytes(token);
        text += piece.substr(begins && piece.starts_with(' ') ? 1 : 0);
      }
      begins = token == end_of_story();
    }
    return text;
  }

  /// The bytes of one token, a space before a word among them; of a special token its name.
  /// Throws TextError for a token outside the vocabulary.
  std::string_view bytes(Token token) const {
    if (token < 0 || token >= vocabulary_size()) {
      fail<TextError>("expected a token from 0 to ", vocabulary_size() - 1, ", found ", token);
    }
    return state_->parts.vocabulary[token];
  }
  /// Whether a token is special: never the outcome of `encode`, nothing in `decode`. Throws TextError as `bytes`.
  bool is_special(Token token) const { return bytes(token), token < detail::llama2c_first; }

  /// Number of tokens; they are 0 to `vocabulary_size() - 1`.
  Index vocabulary_size() const { return static_cast<Index>(state_->parts.vocabulary.size()); }
  /// The token that begins a text in llama2.c's training data, and so ends the one before.
  Token end_of_story() const { return detail::llama2c_begin; }
  /// A hash of vocabulary and merges (64-bit FNV-1a) that is the same on every machine and in every version.
  std::uint64_t fingerprint() const { return state_->fingerprint; }

  friend bool operator==(const Llama2cTokenizer& a, const Llama2cTokenizer& b) {
    return a.state_ == b.state_ || a.state_->parts == b.state_->parts;
  }

 private:
  struct State {
    explicit State(detail::Llama2cParts given);
    detail::Llama2cParts parts;
    detail::MergeTable merges;
    std::uint64_t fingerprint = 0;
  };

  explicit Llama2cTokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  static Llama2cTokenizer checked(const std::filesystem::path& path, detail::Llama2cParts parts) {
    try {
      return Llama2cTokenizer(std::make_shared<const State>(std::move(parts)));
    } catch (const TextError& error) {
      fail<FileError>(path.string(), ": ", error.what());
    }
  }

  /// f(character) until it gives false, and whether it never did. As in llama2.c, a character is a byte with up to
  /// three after it that continue one, be it UTF-8 or not.
  template <class F>
  static bool for_each_character(std::string_view text, F&& f) {
    for (std::size_t at = 0, end = 0; at < text.size(); at = end) {
      end = at + 1;
      while (end < text.size() && end - at < 4 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u) ++end;
      if (!f(text.substr(at, end - at))) return false;
    }
    return true;
  }

  std::shared_ptr<const State> state_;
};

class Llama2cTokenizer::Encoder {
 public:
  explicit Encoder(Llama2cTokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  /// Appends the tokens of a text, as `Llama2cTokenizer::encode`.
  void encode(std::string_view text, std::vector<Token>& tokens) {
    scratch_.clear();
    if (!text.empty()) add(" ");
    for_each_character(text, [this](std::string_view character) { return add(character), true; });
    merger_(tokenizer_.state_->merges, scratch_);
    tokens.insert(tokens.end(), scratch_.begin(), scratch_.end());
  }

 private:
  void add(std::string_view character) {
    if (const auto token = tokenizer_.state_->parts.vocabulary.find(character)) {
      scratch_.push_back(*token);
    } else if (tokenizer_.has_bytes()) {
      for (const char byte : character) scratch_.push_back(detail::llama2c_first + static_cast<unsigned char>(byte));
    } else if (const std::size_t at = detail::find_invalid_utf8(character); at == std::string_view::npos) {
      fail<TextError>("the character ", detail::quoted(character), " is not in the vocabulary, which has no bytes");
    } else {
      fail<TextError>("expected UTF-8, as the vocabulary has no bytes, found the byte ",
                      static_cast<int>(static_cast<unsigned char>(character[at])));
    }
  }

  Llama2cTokenizer tokenizer_;
  std::vector<Token> scratch_;
  detail::PieceMerger merger_;
};

inline std::vector<Token> Llama2cTokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens;
  Encoder(*this).encode(text, tokens);
  return tokens;
}

inline Llama2cTokenizer::State::State(detail::Llama2cParts given)
    : parts(std::move(given)), merges(parts.merges.size()) {
  detail::Fnv1a hash;
  const auto tokens = static_cast<Token>(parts.vocabulary.size());
  hash.text("llama2.c");
  hash.number(parts.vocabulary.size());
  for (Token token = 0; token < tokens; ++token) {
    hash.number(parts.vocabulary.is_byte(token));
    hash.number(parts.vocabulary[token].size());
    hash.text(parts.vocabulary[token]);
  }
  for (const auto& [pair, rank, result] : parts.merges) {
    if (!merges.insert(pair, rank, result)) {
      fail<TextError>("two merges are of the tokens ", pair.left, " and ", pair.right);
    }
    for (const Token token : {pair.left, pair.right}) hash.number(static_cast<std::uint64_t>(token));
    hash.number(rank);
  }
  fingerprint = hash.value();
}

}  // namespace tinymoe::inline v0_1
