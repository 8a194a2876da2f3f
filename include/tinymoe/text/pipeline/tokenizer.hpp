#pragma once
/// @file
/// The tokenizer of any tokenizer.json with a BPE or a Unigram model, step by step as the package tokenizers does it:
///
///     normalizer -> added tokens -> pre_tokenizer -> model -> post_processor;  decoder back
///
/// `Tokenizer::load` makes one of files that are neither plain byte-level BPE nor Llama 2's.
/// Over 300 lines: it is one class.

#include <algorithm>
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
#include "tinymoe/core/random.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/merge_dropout.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/added_tokens.hpp"
#include "tinymoe/text/pipeline/decoder.hpp"
#include "tinymoe/text/pipeline/model.hpp"
#include "tinymoe/text/pipeline/normalizer.hpp"
#include "tinymoe/text/pipeline/pieces.hpp"
#include "tinymoe/text/pipeline/pre_tokenizer.hpp"
#include "tinymoe/text/post_processor.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

/// How a `PipelineTokenizer` encodes, besides as its file says. The package's defaults are true and true.
struct PipelineEncoding {
  bool special_in_text = false;  // "<s>" in a text is the token; otherwise it is three characters
  bool post_processor = false;   // the tokens that the file puts before and after a text
  /// The probability that a merge of a BPE model is left out when its turn comes (BPE dropout; Provilkov et al. 2020):
  /// 0 is the plain encoding, 1 the characters or bytes. The same seed gives a text the same tokens; give each text its
  /// own.
  double dropout = 0;
  Seed seed = {};
};

/// Immutable: copies of a `Tokenizer` and threads share it.
class PipelineTokenizer final : public TokenizerKind {
 public:
  /// From the value and the text of a tokenizer.json. Throws FileError that names `file` for what tinymoe would encode
  /// in another way than the package tokenizers.
  [[gnu::cold]] PipelineTokenizer(const Json& root, std::string text, const std::string& file);

  std::span<const VocabularyEntry> vocabulary() const override { return vocabulary_; }
  /// The special token that the post-processor puts after a text, or else one whose name says that it ends one.
  /// Throws TextError if there is none.
  inline Token end_of_story() const override;
  /// The token that the post-processor puts before a text, if it is one. Where it puts several, none: a model that is
  /// trained here begins its texts with one token, and the tokenizer.json beside it says that.
  std::optional<Token> begin_of_text() const override {
    return surroundings_.before.size() == 1 ? std::optional(surroundings_.before[0]) : std::nullopt;
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }

  // A virtual function that is not inline makes a class's key function, and every unit would compile the whole class.
  inline std::unique_ptr<TextEncoder> encoder() const override;
  inline std::unique_ptr<TextEncoder> dropout_encoder(const MergeDropout& dropout) const override;
  /// The tokens of a text, as the package encodes it with these settings. Throws OptionError for a dropout that is not
  /// from 0 to 1, or of a Unigram model.
  inline std::vector<Token> encode(std::string_view text, PipelineEncoding how) const;

  /// Special tokens give nothing.
  inline std::string decode(std::span<const Token> tokens) const override;
  std::string decode_after(std::span<const Token> before, std::span<const Token> tokens) const override {
    if (only_bytes_) return decode(tokens);
    const std::vector<Token> near = near_context(before);
    return TokenizerKind::decode_after(near.empty() ? before : near, tokens);
  }

  /// Writes what was read.
  void save(const std::filesystem::path& tokenizer_json) const override {
    write_file_atomically(tokenizer_json, [&](FileWriter& out) { out.write(text_); });
  }
  /// The tokenizer.json, as it was read.
  std::string_view file_bytes() const override { return text_; }

  bool equals(const TokenizerKind& other) const override {
    const auto* same_kind = dynamic_cast<const PipelineTokenizer*>(&other);
    return same_kind != nullptr && fingerprint_ == same_kind->fingerprint_ && vocabulary_ == same_kind->vocabulary_;
  }

 private:
  class Encoder;

  [[gnu::cold]] void read_added_tokens(const Json& root, const std::string& file);
  [[gnu::cold]] void name_tokens(const std::string& file);
  [[gnu::cold]] void hash(const Json& root);

  inline std::vector<Token> near_context(std::span<const Token> before) const;

  void expect_merges() const {
    if (model_.has_merges()) return;
    fail<OptionError>("a Unigram model has no merges, so there is no dropout of them; give a dropout of 0");
  }
  std::string normalized(std::string_view text) const;
  void normalize(detail::Pieces& pieces) const;

  std::string text_;
  std::vector<detail::Normalizer> normalizers_;
  std::vector<detail::PreTokenizer> pre_tokenizers_;
  detail::TokenizerModel model_;
  std::vector<detail::Decoder> decoders_;
  bool joins_with_spaces_ = false;  // without a decoder
  bool only_bytes_ = false;         // the decoder is ByteLevel, so each token has a text of its own
  bool is_local_ = false;           // what a token adds to a text depends on the first tokens and the last ones
  detail::Surroundings surroundings_;
  std::vector<detail::AddedToken> added_;
  detail::AddedTokenFinder found_before_, found_after_;  // the normalizers
  std::vector<std::string> names_;                       // of all tokens, as the decoders get them
  std::vector<VocabularyEntry> vocabulary_;
  std::uint64_t fingerprint_ = 0;
};

/// Caches the tokens of pieces, because most pieces of a text repeat.
class PipelineTokenizer::Encoder final : public TextEncoder {
 public:
  Encoder(const PipelineTokenizer& kind, const PipelineEncoding& how)
      : kind_(&kind),
        special_(how.special_in_text),
        dropout_(how.dropout),
        random_(how.seed, 0, random_site::merge_dropout) {
    const auto& steps = kind.pre_tokenizers_;
    spells_last_ = !steps.empty() && steps.back().spells();
  }

  /// With a stream of draws for each text.
  Encoder(const PipelineTokenizer& kind, const MergeDropout& dropout)
      : Encoder(kind, PipelineEncoding{.dropout = dropout.rate}) {
    draws_.emplace(dropout);
  }

  void encode(std::string_view text, std::vector<Token>& tokens) override {
    if (draws_) draws_->begin(text);
    pieces_.begin(text);
    pieces_.for_each([&](const detail::Piece& piece) { kind_->found_before_.cut(pieces_, piece, special_); });
    kind_->normalize(pieces_);
    pieces_.for_each([&](const detail::Piece& piece) { kind_->found_after_.cut(pieces_, piece, special_); });
    for (const auto& step : kind_->pre_tokenizers_) {
      step(pieces_, segments_);
      // The last bytes are spelled where a piece is new.
      if (step.spells() && &step != &kind_->pre_tokenizers_.back()) detail::PreTokenizer::spell(pieces_);
      detail::check_form(pieces_.bytes(), detail::longest_form(text.size()));
    }
    for (const detail::Piece& piece : pieces_.all()) {
      piece.is_token() ? tokens.push_back(piece.token) : encode_piece(piece.text, tokens);
    }
  }

 private:
  static constexpr std::size_t longest_remembered = 64, memory_limit = std::size_t{4} << 20;

  void encode_piece(std::string_view piece, std::vector<Token>& tokens) {
    if (piece.size() > longest_remembered || dropout_ > 0) return merge(piece, tokens);
    auto number = known_.find(piece);
    if (!number) {
      made_.clear();
      merge(piece, made_);  // may throw, and then the piece is not known
      number = known_.insert(piece).first;
      remembered_.insert(remembered_.end(), made_.begin(), made_.end());
      ends_.push_back(remembered_.size());
    }
    const std::size_t begin = *number == 0 ? 0 : ends_[*number - 1];
    tokens.insert(tokens.end(), remembered_.data() + begin, remembered_.data() + ends_[*number]);
    if (known_.bytes() > memory_limit) forget();
  }

  void merge(std::string_view piece, std::vector<Token>& tokens) {
    if (!spells_last_) return merge_spelled(piece, tokens);
    merge_spelled(detail::spelled(piece), tokens);
  }

  void merge_spelled(std::string_view piece, std::vector<Token>& tokens) {
    if (dropout_ == 0) return kind_->model_.encode(piece, scratch_, tokens);
    if (draws_) return kind_->model_.encode(piece, scratch_, tokens, [&] { return (*draws_)(); });
    kind_->model_.encode(piece, scratch_, tokens, [&] { return random_uniform(random_, drawn_++) < dropout_; });
  }

  void forget() {
    known_.clear();
    remembered_.clear();
    ends_.clear();
  }

  const PipelineTokenizer* kind_;
  bool special_ = false, spells_last_ = false;
  double dropout_ = 0;
  RandomStream random_;
  std::uint64_t drawn_ = 0;  // numbers of the stream
  std::optional<detail::MergeDraws> draws_;
  detail::Pieces pieces_;
  std::vector<detail::PieceRange> segments_;
  detail::PieceTable known_;
  std::vector<Token> remembered_;  // the tokens of all known pieces
  std::vector<std::size_t> ends_;  // where those of a piece end
  std::vector<Token> made_;
  detail::TokenizerModel::Scratch scratch_;
};

inline std::unique_ptr<TextEncoder> PipelineTokenizer::encoder() const {
  return std::make_unique<Encoder>(*this, PipelineEncoding{});
}

inline std::unique_ptr<TextEncoder> PipelineTokenizer::dropout_encoder(const MergeDropout& dropout) const {
  expect_merges();
  return std::make_unique<Encoder>(*this, dropout);
}

inline std::vector<Token> PipelineTokenizer::encode(std::string_view text, PipelineEncoding how) const {
  detail::check_rate({how.dropout, how.seed});
  if (how.dropout > 0) expect_merges();
  std::vector<Token> tokens;
  if (how.post_processor) tokens = surroundings_.before;
  Encoder(*this, how).encode(text, tokens);
  if (how.post_processor) tokens.insert(tokens.end(), surroundings_.after.begin(), surroundings_.after.end());
  return tokens;
}

inline std::string PipelineTokenizer::normalized(std::string_view text) const {
  detail::NormalizedText changed{std::string(text)};
  for (const auto& normalizer : normalizers_) normalizer(changed, detail::longest_form(text.size()));
  return std::move(changed.text);
}

inline void PipelineTokenizer::normalize(detail::Pieces& pieces) const {
  if (normalizers_.empty()) return;
  std::size_t most = detail::longest_form(pieces.bytes());
  pieces.for_each([&](detail::Piece piece) {
    detail::NormalizedText changed{std::string(piece.text), piece.from_first};
    for (const auto& normalizer : normalizers_) normalizer(changed, most);
    most -= changed.text.size();
    piece.text = pieces.keep(std::move(changed.text));
    piece.from_first = changed.from_first;
    // What is left of a text may begin after its first character.
    pieces.add(piece.part(0, piece.text.size()));
  });
}

inline std::string PipelineTokenizer::decode(std::span<const Token> tokens) const {
  std::vector<std::string> names;
  for (const Token token : tokens) {
    const auto at = static_cast<std::size_t>(token);
    if (!vocabulary_[at].special) names.push_back(names_[at]);
  }
  if (names.empty()) return {};
  std::size_t bytes = names.size();  // a decoder may put a space after each
  for (const std::string& name : names) bytes += name.size();
  for (const auto& decoder : decoders_) decoder(names, detail::longest_form(bytes));
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (joins_with_spaces_ && i > 0) text += ' ';
    text += names[i];
  }
  return text;
}

/// Tokens after which others add the same text as after `before`, and whose number has a bound: some first ones and
/// some last ones. None where all of `before` is needed.
inline std::vector<Token> PipelineTokenizer::near_context(std::span<const Token> before) const {
  constexpr std::size_t most = 32, fewest = 4;
  if (!is_local_ || before.size() <= 2 * most) return {};
  const auto has_text = [&](std::size_t at) { return !vocabulary_[static_cast<std::size_t>(before[at])].special; };
  // Bytes that follow each other are one character or more, so no part ends or begins among them.
  const auto is_byte = [&](std::size_t at) {
    return detail::Decoder::is_byte(names_[static_cast<std::size_t>(before[at])]);
  };
  std::size_t head = 1;
  while (head < most && (!has_text(head) || is_byte(head) || decode(before.first(head)).empty())) ++head;
  std::size_t tail = before.size(), found = 0;
  while (before.size() - tail < most && (found < fewest || !has_text(tail) || is_byte(tail))) found += has_text(--tail);
  if (head == most || before.size() - tail == most) return {};
  std::vector<Token> near(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(head));
  near.insert(near.end(), before.begin() + static_cast<std::ptrdiff_t>(tail), before.end());
  return near;
}

inline Token PipelineTokenizer::end_of_story() const {
  if (surroundings_.after.size() == 1) return surroundings_.after[0];
  for (const std::string_view name :
       {end_of_story_text, std::string_view("</s>"), std::string_view("<|end_of_text|>"), std::string_view("<eos>"),
        std::string_view("<|im_end|>"), std::string_view("<|eot_id|>"), std::string_view("<｜end▁of▁sentence｜>"),
        std::string_view("[EOS]"), std::string_view("[SEP]")}) {
    for (const auto& token : added_) {
      if (token.special && token.content == name) return token.token;
    }
  }
  fail<TextError>("the tokenizer has no special token that ends a story; add <|endoftext|> to its added_tokens");
}

inline PipelineTokenizer::PipelineTokenizer(const Json& root, std::string text, const std::string& file)
    : text_(std::move(text)), model_(json_member(root, "model", file), file) {
  const auto for_each = [&](const char* part, const char* members, auto& list) {
    detail::for_each_part(root, part, members, file,
                          [&](const Json& component) { list.emplace_back(component, file); });
  };
  for_each("normalizer", "normalizers", normalizers_);
  for_each("pre_tokenizer", "pretokenizers", pre_tokenizers_);
  for_each("decoder", "decoders", decoders_);
  surroundings_ = detail::surroundings_of(root, file);
  joins_with_spaces_ = root["decoder"].is_null();
  only_bytes_ = decoders_.size() == 1 && decoders_[0].is_byte_level();
  is_local_ = detail::decode_locally(decoders_);
  try {
    read_added_tokens(root, file);
    name_tokens(file);
  } catch (const TextError& error) {  // of a normalizer or a decoder, on a token
    fail<FileError>(file, ": ", error.what());
  }
  hash(root);
}

inline void PipelineTokenizer::read_added_tokens(const Json& root, const std::string& file) {
  const Json& list = root["added_tokens"];
  if (!list.is_null() && !list.is_array()) {
    fail<FileError>(file, ": \"added_tokens\": expected an array, found ", detail::json_found(list));
  }
  detail::PieceTable contents;
  // New ones are numbered in their order, as the package does whatever the file says.
  auto next = static_cast<Token>(model_.tokens().size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& found = list.items()[i];
    detail::AddedToken token{.content = json_field<std::string>(found, "content", file),
                             .token = json_field<Token>(found, "id", file),
                             .single_word = json_field_or<bool>(found, "single_word", file, false),
                             .strips_left = json_field_or<bool>(found, "lstrip", file, false),
                             .strips_right = json_field_or<bool>(found, "rstrip", file, false),
                             .normalized = json_field_or<bool>(found, "normalized", file, true),
                             .special = json_field_or<bool>(found, "special", file, false)};
    if (token.content.empty()) continue;
    const auto [number, fresh] = contents.insert(token.content);
    const auto known = fresh ? model_.find(token.content) : std::optional(added_[number].token);
    const Token expected = known ? *known : next++;
    if (token.token != expected) {
      fail<FileError>(file, ": the added token ", detail::in_quotes(token.content), " has the number ", token.token,
                      ", expected ", expected);
    }
    fresh ? added_.push_back(std::move(token)) : void(added_[number] = std::move(token));
  }
  std::vector<detail::AddedToken> before, after;
  for (const auto& token : added_) {
    detail::AddedToken looked_for = token;
    if (token.normalized) looked_for.content = normalized(token.content);
    (token.normalized ? after : before).push_back(std::move(looked_for));
  }
  found_before_ = detail::AddedTokenFinder(std::move(before));
  found_after_ = detail::AddedTokenFinder(std::move(after));
}

inline void PipelineTokenizer::name_tokens(const std::string& file) {
  std::size_t size = 0;
  for (const auto& token : model_.tokens()) size = std::max(size, static_cast<std::size_t>(token.token) + 1);
  for (const auto& token : added_) size = std::max(size, static_cast<std::size_t>(token.token) + 1);
  if (size == 0) fail<FileError>(file, ": the vocabulary is empty");
  names_.resize(size);
  std::vector<bool> taken(size);
  for (const auto& [name, token] : model_.tokens()) {
    const auto at = static_cast<std::size_t>(token);
    taken[at] = true;
    names_[at] = name;
  }
  vocabulary_.resize(size);
  for (std::size_t at = 0; at < size; ++at) vocabulary_[at].special = !taken[at];  // a gap is decoded to nothing
  for (const auto& token : added_) {
    const auto at = static_cast<std::size_t>(token.token);
    names_[at] = token.normalized ? normalized(token.content) : token.content;
    vocabulary_[at].special = token.special && names_[at] == token.content;
    if (token.special) vocabulary_[at].bytes = token.content;
  }
  for (const auto* tokens : {&surroundings_.before, &surroundings_.after}) {
    for (const Token token : *tokens) {
      if (token < 0 || static_cast<std::size_t>(token) >= size) {
        fail<FileError>(file, ": the post_processor has the unknown token ", token);
      }
    }
  }
  for (std::size_t at = 0; at < size; ++at) {
    if (vocabulary_[at].special) continue;
    const auto token = static_cast<Token>(at);
    vocabulary_[at].bytes = only_bytes_ ? detail::Decoder::bytes_of(names_[at])
                                        : TokenizerKind::decode_after(std::span(&token, 1), std::span(&token, 1));
  }
}

inline void PipelineTokenizer::hash(const Json& root) {
  detail::Fnv1a sum;
  const auto add = [&](std::string_view text) {
    sum.number(text.size());
    sum.text(text);
  };
  add("tokenizer.json");
  const Json& model = root["model"];
  for (const char* part : {"normalizer", "pre_tokenizer", "added_tokens"}) add(root[part].dump());
  for (const auto& [key, value] : model.members()) {
    if (key == "dropout") continue;
    add(key);
    add(value.dump());
  }
  fingerprint_ = sum.value();
}

}  // namespace tinymoe::inline v0_1
