#pragma once
/// @file
/// What a llama2.c tokenizer is made of, and its file:
///
///     tokenizer.bin:  i32 longest token | for each token: f32 score, i32 length, bytes
///
/// The file is untrusted, so everything in it is checked.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

/// Tokens 0 to 2: unknown, the beginning of a text, its end. In most vocabularies the 256 bytes follow.
inline constexpr Token llama2c_begin = 1, llama2c_end = 2, llama2c_first = 3;
/// Bytes of a token, at most; Llama 2's longest has 27.
inline constexpr std::int32_t llama2c_longest = 256;
/// Bytes of a tokenizer.bin, at most; one of 128,000 tokens has 2.4 MB. This bounds how many cuts of tokens are tried.
inline constexpr std::size_t llama2c_size_limit = std::size_t{4} << 20;

/// A merge with its rank, which all merges of equal score share, and its result.
struct RankedMerge {
  detail::Merge pair;
  std::uint32_t rank = 0;
  Token result = 0;
  friend bool operator==(const RankedMerge&, const RankedMerge&) = default;
};

/// The byte that a token spelled <0xHH> stands for.
[[gnu::cold]] inline std::optional<char> llama2c_byte(std::string_view name) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (name.size() != 6 || !name.starts_with("<0x") || name[5] != '>') return std::nullopt;
  const std::size_t high = digits.find(name[3]), low = digits.find(name[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

/// The tokens of a vocabulary and how to find them.
class Llama2cVocabulary {
 public:
  /// From the names of tokens. Tokens 0 to 2 are special, marked so or not. Throws TextError unless tokens 1 and 2
  /// begin and end a text, and a space has a token.
  [[gnu::cold]] explicit Llama2cVocabulary(std::vector<VocabularyEntry> names) : is_byte_(names.size()) {
    const std::array<const char*, 3> special = {nullptr, "<s>", "</s>"};
    for (const Token id : {llama2c_begin, llama2c_end}) {
      const auto at = static_cast<std::size_t>(id);
      if (at >= names.size()) fail<TextError>("expected three tokens or more, found ", names.size());
      if (names[at].bytes == special[at]) continue;
      fail<TextError>("expected token ", id, " to be ", special[at], ", found ", in_quotes(names[at].bytes));
    }
    for (auto& [name, marked] : names) {
      const std::size_t id = entries_.size();
      if (id < llama2c_first || marked) {
        entries_.push_back({std::move(name), true});
        continue;
      }
      if (const auto byte = llama2c_byte(name)) {
        name = std::string(1, *byte);
        is_byte_[id] = true;
      } else if (table_.insert(name).second) {
        ordinary_.push_back(static_cast<Token>(id));
      }
      entries_.push_back({std::move(name), false});
    }
    has_bytes_ = size() >= llama2c_first + 256;
    for (std::size_t byte = 0; has_bytes_ && byte < 256; ++byte) {
      const std::size_t id = llama2c_first + byte;
      has_bytes_ = is_byte_[id] && static_cast<unsigned char>(entries_[id].bytes[0]) == byte;
    }
    if (!has_bytes_ && !find(" ")) fail<TextError>("expected a token for the space, found none");
  }

  std::size_t size() const { return entries_.size(); }
  const std::vector<VocabularyEntry>& entries() const { return entries_; }
  /// The bytes that a token stands for, or its name if it is special.
  const std::string& operator[](Token token) const { return entries_[static_cast<std::size_t>(token)].bytes; }
  bool is_special(Token token) const { return entries_[static_cast<std::size_t>(token)].special; }
  bool is_byte(Token token) const { return is_byte_[static_cast<std::size_t>(token)]; }
  /// Whether tokens 3 to 258 are the bytes.
  bool has_bytes() const { return has_bytes_; }
  /// The tokens that are neither special nor bytes, without repetitions.
  const std::vector<Token>& ordinary() const { return ordinary_; }
  /// The ordinary token of a piece, the first one where there are several.
  std::optional<Token> find(std::string_view piece) const {
    const auto number = table_.find(piece);
    return number ? std::optional(ordinary_[*number]) : std::nullopt;
  }

  friend bool operator==(const Llama2cVocabulary& a, const Llama2cVocabulary& b) {
    return a.entries_ == b.entries_ && a.is_byte_ == b.is_byte_;
  }

 private:
  std::vector<VocabularyEntry> entries_;
  std::vector<bool> is_byte_;
  PieceTable table_;             // numbers the ordinary pieces
  std::vector<Token> ordinary_;  // the first token of each, by its number
  bool has_bytes_ = false;
};

/// What a llama2.c tokenizer is made of.
struct Llama2cParts {
  Llama2cVocabulary vocabulary;
  std::vector<RankedMerge> merges;  // by rank
  friend bool operator==(const Llama2cParts&, const Llama2cParts&) = default;
};

[[gnu::cold]] inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t found = std::min(text.find(from, at), text.size());
    result.append(text.substr(at, found - at));
    if (found < text.size()) result.append(to);
    at = found + from.size();
  }
  return result;
}

/// The merges that the scores imply: every cut of a token into two tokens, those of the best token first.
[[gnu::cold]] inline std::vector<RankedMerge> scored_merges(const Llama2cVocabulary& vocabulary, const std::vector<float>& scores) {
  const auto score = [&](Token token) { return scores[static_cast<std::size_t>(token)]; };
  std::vector<Token> order;
  for (const Token token : vocabulary.ordinary()) {
    if (score(token) > -1e10f) order.push_back(token);  // llama2.c looks for a score above this
  }
  std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return score(a) > score(b); });
  std::vector<RankedMerge> merges;
  for (const Token token : order) {
    const std::string_view piece = vocabulary[token];
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = vocabulary.find(piece.substr(0, cut)), right = vocabulary.find(piece.substr(cut));
      if (!left || !right) continue;
      std::uint32_t rank = 0;
      if (!merges.empty()) rank = merges.back().rank + (score(merges.back().result) == score(token) ? 0 : 1);
      merges.push_back({{*left, *right}, rank, token});
    }
  }
  return merges;
}

/// Reads tokenizer.bin. Throws FileError; TextError for tokens that make no vocabulary.
[[gnu::cold]] inline Llama2cParts read_llama2c_bin(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string name = path.string();
  std::string_view rest = file.text();
  if (rest.size() > llama2c_size_limit) {
    fail<FileError>(name, ": expected a tokenizer of at most ", llama2c_size_limit, " bytes, found ", rest.size());
  }
  std::vector<VocabularyEntry> names;
  std::vector<float> scores;
  const auto take = [&]<class T>(T value) {
    if (rest.size() < sizeof value) fail<FileError>(name, ": cut within token ", names.size());
    std::memcpy(&value, rest.data(), sizeof value);
    rest.remove_prefix(sizeof value);
    return value;
  };
  const auto longest = take(std::int32_t{});
  if (longest < 1 || longest > llama2c_longest) {
    fail<FileError>(name, ": expected the longest token to have 1 to ", llama2c_longest, " bytes, found ", longest);
  }
  while (!rest.empty()) {
    const auto id = static_cast<Token>(names.size());
    scores.push_back(take(float{}));
    if (!is_finite(scores.back())) fail<FileError>(name, ": the score of token ", id, " is not finite");
    const auto length = take(std::int32_t{});
    // The names of the special tokens may be longer than the longest one: they have line feeds around them.
    const std::int32_t most = id < llama2c_first ? llama2c_longest : longest;
    if (length < 1 || length > most) {
      fail<FileError>(name, ": expected token ", id, " to have 1 to ", most, " bytes, found ", length);
    }
    const auto bytes = static_cast<std::size_t>(length);
    if (bytes > rest.size()) fail<FileError>(name, ": cut within token ", id);
    names.push_back({std::string(rest.substr(0, bytes)), false});
    if (id < llama2c_first) names.back().bytes = replaced(names.back().bytes, "\n", "");
    rest.remove_prefix(bytes);
  }
  Llama2cVocabulary vocabulary(std::move(names));
  auto merges = scored_merges(vocabulary, scores);
  return {std::move(vocabulary), std::move(merges)};
}

}  // namespace tinymoe::inline v0_1::detail
