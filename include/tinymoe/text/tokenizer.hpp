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
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/byte_alphabet.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/llama2c/tokenizer.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pre_tokenizer.hpp"
#include "tinymoe/text/tokenizer_file.hpp"

namespace tinymoe::inline v0_1 {

/// A vocabulary and its merges. Immutable: copies share it, and threads may use one object at the same time.
class Tokenizer {
 public:
  /// Checks the parts: each of the 256 bytes is a token, no two tokens are equal, each merge is of two ordinary tokens
  /// and makes a third, no pair merges twice, and "<|endoftext|>" is a special token. Throws TextError.
  explicit Tokenizer(TokenizerParts parts) : state_(std::make_shared<const State>(std::move(parts))) {}
  /// A tokenizer of the other kind, Llama 2's, behind the same functions; it has no `parts`.
  Tokenizer(Llama2cTokenizer scored) : scored_(std::move(scored)) {}

  /// Reads a Hugging Face tokenizer.json of a byte-level BPE with GPT-2's pre-tokenizer, or of Llama 2's kind.
  /// Throws FileError that names the file if it is missing, corrupt, or would be encoded in another way.
  static Tokenizer load(const std::filesystem::path& tokenizer_json) {
    if (Llama2cTokenizer::is_kind_of(tokenizer_json)) return Llama2cTokenizer::load(tokenizer_json);
    return checked(tokenizer_json, detail::read_tokenizer_json(tokenizer_json));
  }

  /// Reads GPT-2's vocab.json and merges.txt. Throws FileError as `load`.
  static Tokenizer load_gpt2(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt) {
    return checked(vocab_json, detail::read_gpt2_files(vocab_json, merges_txt));
  }

  /// Writes tokenizer.json for `load` and for Hugging Face tokenizers; a crash leaves the old file or the new one.
  /// Throws FileError if it cannot be written.
  void save(const std::filesystem::path& tokenizer_json) const {
    scored_ ? scored_->save(tokenizer_json) : detail::write_tokenizer_json(tokenizer_json, state_->parts);
  }

  /// The tokens of any bytes. Special tokens are not looked for: "<|endoftext|>" in a text is encoded as text.
  /// For many texts an `Encoder` is faster, as it remembers pieces. Throws TextError for a piece above 2^31 - 1 bytes.
  std::vector<Token> encode(std::string_view text) const;

  /// Whether any text can be encoded, as all but vocabularies of Llama 2's kind without bytes do.
  bool has_bytes() const { return !scored_ || scored_->has_bytes(); }
  /// Whether `encode` takes this text: a vocabulary without bytes has to have all its characters.
  bool knows(std::string_view text) const { return !scored_ || scored_->knows(text); }

  /// The bytes of tokens, one after the other; special tokens, the end of a story among them, give nothing.
  /// Throws TextError for a token outside the vocabulary.
  std::string decode(std::span<const Token> tokens) const {
    if (scored_) return scored_->decode(tokens);
    std::string text;
    for (const Token token : tokens) {
      const auto& found = entry(token);
      if (!found.special) text += found.bytes;
    }
    return text;
  }

  /// The bytes of one token, which may be part of a character; of a special token its name.
  /// Throws TextError for a token outside the vocabulary.
  std::string_view bytes(Token token) const { return scored_ ? scored_->bytes(token) : entry(token).bytes; }
  /// Whether a token is special: never the outcome of `encode`, nothing in `decode`. Throws TextError as `bytes`.
  bool is_special(Token token) const { return scored_ ? scored_->is_special(token) : entry(token).special; }

  /// Number of tokens; they are 0 to `vocabulary_size() - 1`.
  Index vocabulary_size() const {
    return scored_ ? scored_->vocabulary_size() : static_cast<Index>(state_->parts.vocabulary.size());
  }
  /// The token "<|endoftext|>", which ends each story.
  Token end_of_story() const { return scored_ ? scored_->end_of_story() : state_->end_of_story; }
  /// A hash of vocabulary and merges (64-bit FNV-1a) that is the same on every machine and in every version.
  std::uint64_t fingerprint() const { return scored_ ? scored_->fingerprint() : state_->fingerprint; }
  /// Vocabulary and merges. Throws TextError for a tokenizer of Llama 2's kind, which has none.
  const TokenizerParts& parts() const {
    if (scored_) fail<TextError>("a tokenizer of Llama 2's kind has scores, not the parts of a byte-level one");
    return state_->parts;
  }

  friend bool operator==(const Tokenizer& a, const Tokenizer& b) {
    if (a.scored_ || b.scored_) return a.scored_ == b.scored_;
    return a.state_ == b.state_ || a.parts() == b.parts();
  }

 private:
  friend class Encoder;

  struct State {
    explicit State(TokenizerParts given);
    TokenizerParts parts;
    std::array<Token, 256> byte_tokens{};
    detail::MergeTable merges;
    Token end_of_story = -1;
    std::uint64_t fingerprint = 0;
  };

  static Tokenizer checked(const std::filesystem::path& path, TokenizerParts parts) {
    try {
      return Tokenizer(std::move(parts));
    } catch (const TextError& error) {
      fail<FileError>(path.string(), ": ", error.what());
    }
  }

  const VocabularyEntry& entry(Token token) const {
    if (token < 0 || token >= vocabulary_size()) {
      fail<TextError>("expected a token from 0 to ", vocabulary_size() - 1, ", found ", token);
    }
    return state_->parts.vocabulary[static_cast<std::size_t>(token)];
  }

  std::shared_ptr<const State> state_;
  std::optional<Llama2cTokenizer> scored_;
};

/// Encodes many texts with one tokenizer, and remembers the tokens of the pieces it has met. For one thread; other
/// threads have their own.
class Encoder {
 public:
  explicit Encoder(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {
    if (tokenizer_.scored_) scored_.emplace(*tokenizer_.scored_);
  }

  /// Appends the tokens of a text, as `Tokenizer::encode`.
  void encode(std::string_view text, std::vector<Token>& tokens) {
    if (scored_) return scored_->encode(text, tokens);
    for_each_piece(text, [&](std::string_view piece) {
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
    scratch_.resize(piece.size());
    const auto& state = *tokenizer_.state_;
    std::transform(piece.begin(), piece.end(), scratch_.begin(),
                   [&](char byte) { return state.byte_tokens[static_cast<unsigned char>(byte)]; });
    merger_(state.merges, scratch_);
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

  Tokenizer tokenizer_;
  std::optional<Llama2cTokenizer::Encoder> scored_;
  detail::PieceTable pieces_;
  std::vector<Token> remembered_;  // the tokens of all pieces
  std::vector<std::size_t> ends_;  // where those of a piece end
  std::vector<Token> scratch_;
  detail::PieceMerger merger_;
};

inline std::vector<Token> Tokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens;
  Encoder(*this).encode(text, tokens);
  return tokens;
}

inline Tokenizer::State::State(TokenizerParts given) : parts(std::move(given)), merges(parts.merges.size()) {
  const auto& vocabulary = parts.vocabulary;
  if (vocabulary.size() > static_cast<std::size_t>(std::numeric_limits<Token>::max())) {
    fail<TextError>("expected a vocabulary of at most 2147483647 tokens, found ", vocabulary.size());
  }
  detail::PieceTable names;
  detail::Fnv1a hash;
  hash.number(vocabulary.size());
  byte_tokens.fill(-1);
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const auto& [bytes, special] = vocabulary[id];
    const std::string name = detail::spelled(vocabulary[id]);
    if (bytes.empty()) fail<TextError>("token ", id, " is empty");
    if (special && detail::find_invalid_utf8(bytes) != std::string_view::npos) {
      fail<TextError>("the name of the special token ", id, " is not UTF-8");
    }
    if (!names.insert(name).second) fail<TextError>("the token ", detail::quoted(name), " is there twice");
    if (bytes.size() == 1 && !special) byte_tokens[static_cast<unsigned char>(bytes[0])] = static_cast<Token>(id);
    if (special && bytes == end_of_story_text) end_of_story = static_cast<Token>(id);
    hash.number(special);
    hash.number(bytes.size());
    hash.text(bytes);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_tokens[byte] < 0) fail<TextError>("expected a token for each byte, found none for byte ", byte);
  }
  if (end_of_story < 0) fail<TextError>("expected the special token ", end_of_story_text, ", found none");
  for (std::size_t rank = 0; rank < parts.merges.size(); ++rank) {
    const Merge& merge = parts.merges[rank];
    for (const Token part : {merge.left, merge.right}) {
      if (part < 0 || static_cast<std::size_t>(part) >= vocabulary.size() || vocabulary[part].special) {
        fail<TextError>("merge ", rank, ": expected an ordinary token of the vocabulary, found ", part);
      }
    }
    const std::string name = detail::spelled(vocabulary[merge.left].bytes + vocabulary[merge.right].bytes);
    const auto result = names.find(name);
    if (!result || vocabulary[*result].special) {
      fail<TextError>("merge ", rank, " makes ", detail::quoted(name), ", which is not an ordinary token");
    }
    if (!merges.insert(merge, static_cast<std::uint32_t>(rank), static_cast<Token>(*result))) {
      fail<TextError>("merge ", rank, " of ", detail::quoted(name), " is there twice");
    }
    hash.number(static_cast<std::uint64_t>(merge.left));
    hash.number(static_cast<std::uint64_t>(merge.right));
  }
  fingerprint = hash.value();
}

}  // namespace tinymoe::inline v0_1
