#pragma once
/// @file
/// The tokenizer that the library and its users hold, of any kind, and the encoder for many texts.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/text/byte_level/tokenizer.hpp"
#include "tinymoe/text/byte_level/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/merge_dropout.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Makes a tokenizer of the value and the text of a tokenizer.json that the kinds here do not read. In programs that
/// include text/pipeline/pipeline.hpp it is set before `main`.
inline std::unique_ptr<const TokenizerKind> (*other_tokenizer_reader)(const Json& root, std::string_view text,
                                                                      const std::string& file) = nullptr;
/// Makes one of the bytes of a sentencepiece model. It is set there, too.
inline std::unique_ptr<const TokenizerKind> (*sentencepiece_reader)(std::string_view bytes,
                                                                    const std::string& file) = nullptr;

/// The tokenizer.model beside a tokenizer.json that does not exist; else the path itself.
[[gnu::cold]] inline std::filesystem::path existing_tokenizer(const std::filesystem::path& path) {
  const auto model = path.parent_path() / "tokenizer.model";
  const bool other = path.filename() == "tokenizer.json" && !is_there(path) && is_there(model);
  return other ? model : path;
}

/// Whether a file is a sentencepiece model by its name, or its bytes are those of one: a line feed and control
/// characters.
[[gnu::cold]] inline bool is_sentencepiece(const std::filesystem::path& path, std::string_view bytes) {
  if (path.extension() == ".model") return true;
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  return bytes.starts_with('\n') && first != std::string_view::npos && static_cast<unsigned char>(bytes[first]) < ' ';
}

/// Whether a file begins with a line of tiktoken's: the bytes of a token in base64, a space and its rank.
[[gnu::cold]] inline bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find_first_of("\r\n"));
  const std::size_t space = line.find(' ');
  if (space == 0 || space > 256 || space % 4 != 0 || space + 1 == line.size() || line.size() - space > 12) return false;
  constexpr std::string_view digits = "0123456789";
  constexpr std::string_view base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
  return line.substr(0, space).find_first_not_of(base64) == std::string_view::npos &&
         line.substr(space + 1).find_first_not_of(digits) == std::string_view::npos;
}

}  // namespace detail

/// A vocabulary, and how text becomes its tokens. Immutable: copies share it, and threads may use one object at the
/// same time.
class Tokenizer {
 public:
  /// A tokenizer of some kind: `Tokenizer(ByteLevelBpe(parts))`, or one of your own.
  template <std::derived_from<TokenizerKind> Kind>
  explicit Tokenizer(Kind kind)
      : kind_(std::make_shared<const Kind>(std::move(kind))), vocabulary_(kind_->vocabulary()) {}

  /// Reads a Hugging Face tokenizer.json of a byte-level BPE with GPT-2's pre-tokenizer, or of a Llama 2 or Mixtral; in
  /// a program that includes text/pipeline/pipeline.hpp, of any BPE or Unigram, and models of sentencepiece (.model).
  /// Where there is no tokenizer.json, or tinymoe made it of the tokenizer.model beside it, that is read. Throws
  /// FileError that names the file if it is missing, corrupt, or asks for an encoding that tinymoe does not have.
  static Tokenizer load(const std::filesystem::path& tokenizer_file) {
    const auto path = detail::existing_tokenizer(tokenizer_file);
    const std::string name = path.string();
    const MappedFile file(path);
    if (detail::is_tiktoken(file.text())) {
      fail<FileError>(name,
                      ": has tokens and ranks as text, as tiktoken does, without the expression that cuts a text; ",
                      "give the tokenizer.json of the model");
    }
    if (detail::is_sentencepiece(path, file.text())) return from_sentencepiece(file.text(), name);
    const Json root = read_json(file, path, detail::tokenizer_size_limit);
    const auto model = path.parent_path() / "tokenizer.model";
    if (root["model"].contains(detail::made_of_model) && detail::is_there(model)) {
      return load(model);
    }
    return from_json(root, file.text(), name);
  }
  /// From the value and the text of a tokenizer.json. Throws as `load`, naming `file`.
  static Tokenizer from_json(const Json& root, std::string_view text, const std::string& file) {
    return detail::naming_file(file, [&] {
      try {
        if (detail::is_llama2c_json(root)) return Tokenizer(detail::Llama2cBpe(detail::read_llama2c_json(root, file)));
        return Tokenizer(ByteLevelBpe(detail::read_byte_level_json(root, file)));
      } catch (const Error&) {
        // A file with "tied_merges" is tinymoe's own, which no other reader understands.
        if (detail::other_tokenizer_reader == nullptr || root["model"].contains("tied_merges")) throw;
      }
      return Tokenizer(detail::other_tokenizer_reader(root, text, file));
    });
  }
  /// From the bytes of a sentencepiece model. Throws as `load`, naming `file`.
  static Tokenizer from_sentencepiece(std::string_view bytes, const std::string& file) {
    if (detail::sentencepiece_reader == nullptr) {
      fail<FileError>(file, ": is a sentencepiece model", detail::only_pipeline);
    }
    return Tokenizer(detail::sentencepiece_reader(bytes, file));
  }
  /// Reads GPT-2's vocab.json and merges.txt. Throws FileError as `load`.
  static Tokenizer load_gpt2(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt) {
    return detail::naming_file(
        vocab_json.string(), [&] { return Tokenizer(ByteLevelBpe(detail::read_gpt2_files(vocab_json, merges_txt))); });
  }
  /// Reads llama2.c's tokenizer.bin. Throws FileError that names the file and the token if it is missing, cut, corrupt
  /// or above 4 MiB, if a score is not finite, or if tokens 1 and 2 are not <s> and </s>.
  static Tokenizer load_llama2c(const std::filesystem::path& tokenizer_bin) {
    return detail::naming_file(tokenizer_bin.string(),
                               [&] { return Tokenizer(detail::Llama2cBpe(detail::read_llama2c_bin(tokenizer_bin))); });
  }

  /// Writes tokenizer.json for `load` and for Hugging Face tokenizers, or `file_name`; a crash leaves the old file or
  /// the new one. Throws FileError if it cannot be written, TextError if the format cannot express the vocabulary.
  void save(const std::filesystem::path& path) const { kind_->save(path); }
  /// What its file is called in a model's folder: "tokenizer.json", or "tokenizer.model" for one of sentencepiece.
  const char* file_name() const { return kind_->file_name(); }
  /// The tokenizer.json beside that, where the file is another one, or the reason why transformers cannot read this
  /// tokenizer.
  HubTokenizer hub_tokenizer() const { return kind_->hub_tokenizer(); }

  /// The tokens of a text. Special tokens are not looked for in it ("<s>" is three characters), and none is put before
  /// or after it: as Hugging Face tokenizers does with `encode_special_tokens` and without `add_special_tokens`. For
  /// many texts an `Encoder` is faster. Throws TextError for a text that the kind cannot encode.
  std::vector<Token> encode(std::string_view text) const {
    std::vector<Token> tokens;
    kind_->encoder()->encode(text, tokens);
    return tokens;
  }

  /// Whether any text can be encoded. Only vocabularies of Llama 2's kind without bytes cannot.
  bool has_bytes() const { return kind_->has_bytes(); }
  /// Whether `encode` takes this text: a vocabulary without bytes needs all its characters.
  bool knows(std::string_view text) const { return kind_->knows(text); }

  /// The text of tokens; special tokens, the end of a story among them, give nothing.
  /// Throws TextError for a token outside the vocabulary.
  std::string decode(std::span<const Token> tokens) const {
    for (const Token token : tokens) static_cast<void>(entry(token));
    return kind_->decode(tokens);
  }
  /// What `tokens` add to the text of `before`, so that a text can be decoded piece by piece: all pieces together are
  /// `decode` of all tokens. Throws TextError as `decode`.
  std::string decode_after(std::span<const Token> before, std::span<const Token> tokens) const {
    for (const auto part : {before, tokens}) {
      for (const Token token : part) static_cast<void>(entry(token));
    }
    return kind_->decode_after(before, tokens);
  }

  /// The bytes of one token, which may be part of a character; of a special token its name.
  /// Throws TextError for a token outside the vocabulary.
  std::string_view bytes(Token token) const { return entry(token).bytes; }
  /// Whether a token is special: never the outcome of `encode`, nothing in `decode`. Throws TextError as `bytes`.
  bool is_special(Token token) const { return entry(token).special; }

  /// Number of tokens; they are 0 to `vocabulary_size() - 1`.
  Index vocabulary_size() const { return std::ssize(vocabulary_); }
  /// The token that ends each story.
  Token end_of_story() const { return kind_->end_of_story(); }
  /// The token that this kind puts before each text, whatever a model's config.json says: "<s>" of Llama's kind.
  /// Without one, config.json's "bos_token_id" begins a text (`ModelTokens::with`).
  std::optional<Token> begin_of_text() const { return kind_->begin_of_text(); }
  /// A hash of vocabulary and merges that is the same on every machine and in every version.
  std::uint64_t fingerprint() const { return kind_->fingerprint(); }

  /// The implementation, if it is of this kind: `tokenizer.as<ByteLevelBpe>()`. Else nullptr.
  template <std::derived_from<TokenizerKind> Kind>
  const Kind* as() const {
    return dynamic_cast<const Kind*>(kind_.get());
  }

  friend bool operator==(const Tokenizer& a, const Tokenizer& b) {
    return a.kind_ == b.kind_ || a.kind_->equals(*b.kind_);
  }

 private:
  friend class Encoder;

  explicit Tokenizer(std::shared_ptr<const TokenizerKind> kind)
      : kind_(std::move(kind)), vocabulary_(kind_->vocabulary()) {}

  const VocabularyEntry& entry(Token token) const {
    if (token < 0 || token >= vocabulary_size()) {
      fail<TextError>("expected a token from 0 to ", vocabulary_size() - 1, ", found ", token);
    }
    return vocabulary_[static_cast<std::size_t>(token)];
  }

  std::shared_ptr<const TokenizerKind> kind_;
  std::span<const VocabularyEntry> vocabulary_;  // the kind's
};

/// Encodes many texts with one tokenizer, faster than `Tokenizer::encode` if its kind has a cache. It is for one
/// thread; other threads have their own.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer) : kind_(tokenizer.kind_), encoder_(kind_->encoder()) {}
  /// With merges left out, if the rate is above 0. Throws OptionError for a rate that is no probability, and for a kind
  /// without merges.
  Encoder(const Tokenizer& tokenizer, const MergeDropout& dropout) : kind_(tokenizer.kind_) {
    detail::check_rate(dropout);
    encoder_ = dropout.rate == 0 ? kind_->encoder() : kind_->dropout_encoder(dropout);
  }

  /// Appends the tokens of a text, as `Tokenizer::encode` without dropout.
  void encode(std::string_view text, std::vector<Token>& tokens) { encoder_->encode(text, tokens); }

 private:
  std::shared_ptr<const TokenizerKind> kind_;  // the encoder reads it
  std::unique_ptr<TextEncoder> encoder_;
};

}  // namespace tinymoe::inline v0_1
