#pragma once
/// @file
/// What a kind of tokenizer is: byte-level BPE is one (byte_level/), Llama 2's scored merging another (llama2c/). A new
/// kind derives from `TokenizerKind` in a file of its own; where it has a file format, `Tokenizer::load` names it.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/merge_dropout.hpp"

namespace tinymoe::inline v0_1 {

/// The special token that ends each story: "<|endoftext|>".
inline constexpr std::string_view end_of_story_text = "<|endoftext|>";

/// One token of a vocabulary: the bytes it stands for, or the name of a special token, which text never encodes to.
struct VocabularyEntry {
  std::string bytes;
  bool special = false;
  friend bool operator==(const VocabularyEntry&, const VocabularyEntry&) = default;
};

/// A tokenizer.json that encodes and decodes as a kind whose own file is another one, or why there is none.
struct HubTokenizer {
  std::string text;
  std::optional<std::string> reason = {};
};

/// Encodes texts for one thread; may have a cache. One virtual call a text.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  /// Appends the tokens of a text. Throws TextError for a text that the kind cannot encode.
  virtual void encode(std::string_view text, std::vector<Token>& tokens) = 0;
};

/// A vocabulary, and how text becomes its tokens. Immutable: many `Tokenizer`s and threads share one.
class TokenizerKind {
 public:
  virtual ~TokenizerKind() = default;

  /// All tokens; a token's number is its place. The same memory at every call.
  virtual std::span<const VocabularyEntry> vocabulary() const = 0;
  /// The token that ends each story.
  virtual Token end_of_story() const = 0;
  /// The token that the kind puts before each text, whatever a model's config.json says. Without one, config.json's
  /// "bos_token_id" begins a text (`ModelTokens::with`).
  virtual std::optional<Token> begin_of_text() const { return std::nullopt; }
  /// A hash of all that decides how texts are encoded, the same on every machine and in every version: token files keep
  /// it.
  virtual std::uint64_t fingerprint() const = 0;

  /// An encoder for one thread. It reads this object, which must outlive it.
  virtual std::unique_ptr<TextEncoder> encoder() const = 0;
  /// The same for a kind that can leave out merges. Throws OptionError for another one.
  virtual std::unique_ptr<TextEncoder> dropout_encoder(const MergeDropout&) const {
    fail<OptionError>(
        "this kind of tokenizer has no merges that could be left out; give no dropout of merges, or a BPE "
        "tokenizer.json");
  }
  /// The text of tokens, all of them in the vocabulary; special ones give nothing.
  virtual std::string decode(std::span<const Token> tokens) const = 0;
  /// What `tokens` add to the text of `before`: the rest of `decode` of both. A kind whose tokens have a text of their
  /// own, whatever stands before them, can return `decode(tokens)`, which is faster.
  virtual std::string decode_after(std::span<const Token> before, std::span<const Token> tokens) const {
    std::vector<Token> both(before.begin(), before.end());
    both.insert(both.end(), tokens.begin(), tokens.end());
    const std::string text = decode(both);
    return text.substr(std::min(decode(before).size(), text.size()));
  }
  /// Whether any text can be encoded.
  virtual bool has_bytes() const { return true; }
  /// Whether `encode` takes this text.
  virtual bool knows(std::string_view) const { return true; }

  /// Writes a tokenizer.json, or another file where `file_name` says so; a crash leaves the old file or the new one.
  /// Throws FileError if it cannot be written, TextError if the format cannot express the vocabulary.
  virtual void save(const std::filesystem::path& path) const = 0;

  /// What the file that `save` writes is called in a model's folder.
  virtual const char* file_name() const { return "tokenizer.json"; }
  /// The bytes of that file, where the object was read from one and keeps them; else none.
  virtual std::string_view file_bytes() const { return {}; }
  /// For a kind with another file: the tokenizer.json that is saved beside it, for programs that read no other.
  virtual HubTokenizer hub_tokenizer() const { return {{}, "this kind of tokenizer has no tokenizer.json"}; }

  /// Whether another one is of the same kind and encodes all texts alike.
  virtual bool equals(const TokenizerKind& other) const = 0;
};

}  // namespace tinymoe::inline v0_1
