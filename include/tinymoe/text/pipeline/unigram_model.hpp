#pragma once
/// @file
/// The model of a tokenizer.json that is a unigram language model, as T5, ALBERT and XLM-R have it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/best_path.hpp"
#include "tinymoe/text/pipeline/bpe_model.hpp"
#include "tinymoe/text/pipeline/prefix_finder.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

class UnigramModel {
 public:
  /// What encoding needs, for one thread.
  struct Scratch {
    std::vector<PathEnd<double>> ends;
    std::vector<std::pair<std::size_t, std::size_t>> parts;
  };

  /// Throws FileError that names `file`.
  [[gnu::cold]] UnigramModel(const Json& model, const std::string& file) {
    byte_fallback_ = json_field_or<bool>(model, "byte_fallback", file, false);
    for (const char* sampling : {"alpha", "nbest_size"}) {
      if (model[sampling].is_null()) continue;
      fail<FileError>(file, ": \"", sampling, "\" is set, so texts are encoded at random; remove it");
    }
    read_vocabulary(expect_array(model, "vocab", file), file);
    if (model["unk_id"].is_null()) return;
    const auto unknown = json_field<std::uint64_t>(model, "unk_id", file);
    if (unknown >= tokens_.size()) {
      fail<FileError>(file, ": \"unk_id\": expected a token below ", tokens_.size(), ", found ", unknown);
    }
    unknown_ = static_cast<Token>(unknown);
  }

  /// All tokens, in the order of the file.
  const std::vector<NamedToken>& tokens() const { return tokens_; }
  std::optional<Token> find(std::string_view name) const {
    const auto number = names_.find(name);
    return number ? std::optional(last_[*number]) : std::nullopt;
  }

  /// Appends the tokens of a piece of text. Throws TextError for an unknown character without an "unk_id".
  void encode(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens) const {
    const auto character = [&](std::size_t at) { return std::size_t{decode_utf8(piece, at).length}; };
    const auto scored = [&](std::size_t number, std::size_t) {
      const Token token = found_[number];
      return std::pair(token, scores_[static_cast<std::size_t>(token)]);
    };
    constexpr Token none = -1;
    find_best_path(piece, pieces_, worst_ - unknown_penalty, unknown_.value_or(none), no_limit, scored, character,
                   scratch.ends);
    // Unknown characters beside each other are one part.
    bool after_unknown = false;
    scratch.parts.clear();
    for_each_back(scratch.ends, [&](std::size_t begin, std::size_t end, Token token) {
      if (token == none) {
        fail<TextError>("the text ", in_quotes(piece.substr(begin, end - begin)),
                        " is not in the vocabulary, and tokenizer.json has no \"unk_id\"");
      }
      const bool unknown = token == unknown_;
      if (unknown && after_unknown) {
        scratch.parts.back().first = begin;
      } else {
        scratch.parts.emplace_back(begin, end);
      }
      after_unknown = unknown;
    });
    for (std::size_t i = scratch.parts.size(); i-- > 0;) {
      const auto [begin, end] = scratch.parts[i];
      add(piece.substr(begin, end - begin), tokens);
    }
  }

 private:
  static constexpr double no_limit = std::numeric_limits<double>::infinity();

  [[gnu::cold]] void read_vocabulary(const Json& vocabulary, const std::string& file) {
    for (const Json& entry : vocabulary.items()) {
      const std::size_t id = tokens_.size();
      if (!entry.is_array() || entry.size() != 2 || !entry.items()[0].is_string()) {
        fail<FileError>(file, ": token ", id, ": expected [\"text\", score], found ", json_found(entry));
      }
      const auto score = json_value<double>(entry.items()[1], "score", file);
      if (!is_finite(score)) fail<FileError>(file, ": the score of token ", id, " is not finite");
      const std::string& name = entry.items()[0].string();
      worst_ = id == 0 ? score : std::min(worst_, score);
      scores_.push_back(score);
      tokens_.push_back({name, static_cast<Token>(id)});
      const auto [number, fresh] = names_.insert(name);
      if (fresh) last_.push_back(0);
      last_[number] = static_cast<Token>(id);  // of two that are the same, the last one counts
    }
    std::vector<std::string> pieces;
    for (std::size_t i = 0; i < names_.size(); ++i) pieces.emplace_back(names_[i]);
    std::sort(pieces.begin(), pieces.end());
    for (const std::string& piece : pieces) found_.push_back(*find(piece));
    pieces_ = PrefixFinder(std::move(pieces));
    for (std::size_t byte = 0; byte < 256; ++byte) bytes_[byte] = find(byte_name(byte)).value_or(-1);
  }

  /// The token of a part, its bytes, or the unknown token.
  void add(std::string_view part, std::vector<Token>& tokens) const {
    if (const auto token = find(part)) return tokens.push_back(*token);
    const auto has = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)] >= 0; };
    if (!byte_fallback_ || !std::all_of(part.begin(), part.end(), has)) return tokens.push_back(*unknown_);
    for (const char byte : part) tokens.push_back(bytes_[static_cast<unsigned char>(byte)]);
  }

  std::vector<NamedToken> tokens_;
  std::vector<double> scores_;
  double worst_ = 0;
  PieceTable names_;
  std::vector<Token> last_;  // the token of each name, by the table's number
  PrefixFinder pieces_;
  std::vector<Token> found_;        // the token of each, by the finder's number
  std::array<Token, 256> bytes_{};  // of <0x00> to <0xFF>; -1 where there is none
  std::optional<Token> unknown_;
  bool byte_fallback_ = false;
};

}  // namespace tinymoe::inline v0_1::detail
