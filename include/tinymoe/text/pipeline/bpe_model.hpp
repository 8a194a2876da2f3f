#pragma once
/// @file
/// The model of a tokenizer.json that is byte-pair encoding of a piece of text, from its characters on.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// A token's name and number.
struct NamedToken {
  std::string name;
  Token token = -1;
};

class BpeModel {
 public:
  /// Throws FileError that names `file`.
  [[gnu::cold]] BpeModel(const Json& model, const std::string& file) {
    prefix_ = json_field_or<std::string>(model, "continuing_subword_prefix", file, "");
    suffix_ = json_field_or<std::string>(model, "end_of_word_suffix", file, "");
    fuse_unknown_ = json_field_or<bool>(model, "fuse_unk", file, false);
    byte_fallback_ = json_field_or<bool>(model, "byte_fallback", file, false);
    ignore_merges_ = json_field_or<bool>(model, "ignore_merges", file, false);
    json_field_or<double>(model, "dropout", file, 0.0);  // of training; PipelineEncoding says whether there is one
    read_vocabulary(expect_object(model, "vocab", file), file);
    read_merges(expect_array(model, "merges", file), file);
    if (model["unk_token"].is_null()) return;
    unknown_name_ = json_field<std::string>(model, "unk_token", file);
    if (unknown_name_->empty())
      fail<FileError>(file, ": \"unk_token\": expected the name of a token or null, found \"\"");
    unknown_ = find(*unknown_name_);
  }

  /// All tokens, in the order of the file.
  const std::vector<NamedToken>& tokens() const { return tokens_; }
  std::optional<Token> find(std::string_view name) const {
    const auto number = names_.find(name);
    return number ? std::optional(tokens_[*number].token) : std::nullopt;
  }

  /// Appends the tokens of a piece. Throws TextError for an unknown character whose token is no token.
  void encode(std::string_view piece, PieceMerger& merger, std::vector<Token>& scratch,
              std::vector<Token>& tokens) const {
    if (ignore_merges_) {
      if (const auto whole = find(piece)) return tokens.push_back(*whole);
    }
    scratch.clear();
    add_characters(piece, scratch);
    merger(merges_, scratch);
    tokens.insert(tokens.end(), scratch.begin(), scratch.end());
  }

  /// The same with dropout: merges for which `drops()` is true are left out (`PieceMerger`). As in the package,
  /// "ignore_merges" does not count then.
  template <class Drops>
  void encode(std::string_view piece, PieceMerger& merger, std::vector<Token>& scratch, std::vector<Token>& tokens,
              Drops&& drops) const {
    scratch.clear();
    add_characters(piece, scratch);
    merger(merges_, scratch, drops);
    tokens.insert(tokens.end(), scratch.begin(), scratch.end());
  }

 private:
  [[gnu::cold]] void read_vocabulary(const Json& vocabulary, const std::string& file) {
    tokens_.reserve(vocabulary.size());
    std::vector<bool> taken;
    for (const auto& [name, number] : vocabulary.members()) {
      const auto id = json_value<std::uint64_t>(number, name, file);
      if (id > 2 * vocabulary.size() + 65'536) {
        fail<FileError>(file, ": expected the numbers of ", vocabulary.size(), " tokens, found ", id, " for ",
                        in_quotes(name));
      }
      taken.resize(std::max<std::size_t>(taken.size(), id + 1));
      if (taken[id]) fail<FileError>(file, ": two tokens have the number ", id);
      taken[id] = true;
      if (!names_.insert(name).second) fail<FileError>(file, ": the token ", in_quotes(name), " is there twice");
      tokens_.push_back({name, static_cast<Token>(id)});
    }
    for (std::size_t byte = 0; byte < 256; ++byte) bytes_[byte] = find(byte_name(byte)).value_or(-1);
  }

  [[gnu::cold]] void read_merges(const Json& merges, const std::string& file) {
    const auto& items = merges.items();
    merges_ = MergeTable(items.size());
    for (std::size_t rank = items.size(); rank-- > 0;) {  // of two equal merges the last one counts
      const auto [left, right] = halves(items[rank], rank, file);
      const std::string both = left + (right.size() < prefix_.size() ? right : right.substr(prefix_.size()));
      const auto one = find(left), other = find(right), result = find(both);
      if (!one || !other || !result || right.size() < prefix_.size()) {
        fail<FileError>(file, ": merge ", rank, ", of ", in_quotes(left), " and ", in_quotes(right),
                        ": expected two tokens that make a third");
      }
      merges_.insert({*one, *other}, static_cast<std::uint32_t>(rank), *result);
    }
  }

  [[gnu::cold]] static std::pair<std::string, std::string> halves(const Json& merge, std::size_t rank,
                                                                  const std::string& file) {
    if (is_pair_of_strings(merge)) return {merge.items()[0].string(), merge.items()[1].string()};
    if (merge.is_string()) {
      const std::string& line = merge.string();
      const std::size_t space = line.find(' ');
      if (space != std::string::npos && line.find(' ', space + 1) == std::string::npos) {
        return {line.substr(0, space), line.substr(space + 1)};
      }
    }
    fail<FileError>(file, ": merge ", rank, ": expected \"left right\" or [\"left\", \"right\"], found ",
                    merge.is_string() ? in_quotes(merge.string()) : json_found(merge));
  }

  void add_characters(std::string_view piece, std::vector<Token>& to) const {
    bool unknown = false;  // one is waiting to be added
    const auto flush = [&] {
      if (unknown) to.push_back(*unknown_);
      unknown = false;
    };
    std::string name;
    std::size_t at = 0;
    for_each_code_point(piece, [&](char32_t, std::string_view bytes) {
      const bool first = at == 0, last = at + bytes.size() == piece.size();
      at += bytes.size();
      std::string_view character = bytes;
      if ((!first && !prefix_.empty()) || (last && !suffix_.empty())) {
        name = first ? "" : prefix_;
        name += bytes;
        if (last) name += suffix_;
        character = name;
      }
      if (const auto token = find(character)) {
        flush();
        to.push_back(*token);
        return;
      }
      if (byte_fallback_ && std::all_of(character.begin(), character.end(), [&](char byte) {
            return bytes_[static_cast<unsigned char>(byte)] >= 0;
          })) {  // as in the package, an unknown character that waits comes after these
        for (const char byte : character) to.push_back(bytes_[static_cast<unsigned char>(byte)]);
        return;
      }
      if (!unknown_name_) return;  // the package drops it, too
      if (!unknown_) {
        fail<TextError>("the character ", in_quotes(bytes), " is not in the vocabulary, nor is the unk_token ",
                        in_quotes(*unknown_name_));
      }
      if (!fuse_unknown_) flush();
      unknown = true;
    });
    flush();
  }

  std::vector<NamedToken> tokens_;
  PieceTable names_;
  MergeTable merges_;
  std::array<Token, 256> bytes_{};  // of <0x00> to <0xFF>; -1 where there is none
  std::string prefix_, suffix_;
  std::optional<std::string> unknown_name_;
  std::optional<Token> unknown_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace tinymoe::inline v0_1::detail
