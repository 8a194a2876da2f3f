#pragma once
/// @file
/// tokenizer.json as the hub has it for Llama 2 and Mixtral: the vocabulary of a llama2.c tokenizer with its merges.
///
/// The file is untrusted, so everything in it is checked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// What stands for a space in the hub's files.
inline constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581

/// How the hub's files say that a space comes before a text, and that a space is U+2581.
[[gnu::cold]] inline Json llama2c_normalizer() {
  return parse_json(R"({
    "normalizers": [
      {"prepend": "\u2581", "type": "Prepend"},
      {"content": "\u2581", "pattern": {"String": " "}, "type": "Replace"}
    ],
    "type": "Sequence"
  })",
                    "normalizer");
}

/// What each tokenizer.json of this kind has in common; null where they differ.
[[gnu::cold]] inline Json llama2c_frame() {
  return parse_json(R"({
    "version": "1.0",
    "truncation": null,
    "padding": null,
    "added_tokens": null,
    "normalizer": null,
    "pre_tokenizer": null,
    "post_processor": {
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
      ],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    },
    "decoder": {
      "type": "Sequence",
      "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}
      ]
    },
    "model": {
      "type": "BPE",
      "dropout": null,
      "unk_token": null,
      "continuing_subword_prefix": null,
      "end_of_word_suffix": null,
      "fuse_unk": true,
      "byte_fallback": null,
      "ignore_merges": false,
      "vocab": null,
      "merges": null,
      "tied_merges": null
    }
  })",
                    "tokenizer.json");
}

/// Which merges have the same score as the one before and make another token, as Llama 2's runs of spaces do. The
/// format puts merges in one order, so a reader that does not know this splits such runs in another way. Throws
/// FileError.
[[gnu::cold]] inline std::vector<bool> read_tied_merges(const Json& model, std::size_t merges, const std::string& file) {
  std::vector<bool> tied(merges);
  const Json& found = model["tied_merges"];
  if (found.is_null()) return tied;
  if (!found.is_array()) fail<FileError>(file, ": \"tied_merges\": expected an array, found ", json_found(found));
  for (const Json& value : found.items()) {
    const auto merge = json_value<std::uint64_t>(value, "tied_merges", file);
    if (merge >= merges) fail<FileError>(file, ": \"tied_merges\": there is no merge ", merge);
    tied[merge] = true;
  }
  return tied;
}

/// Whether a tokenizer.json is of this kind.
inline bool is_llama2c_json(const Json& root) { return root["normalizer"] == llama2c_normalizer(); }

/// The two halves of a merge, written as "left right" or ["left", "right"]; empty where it is neither.
[[gnu::cold]] inline std::pair<std::string, std::string> halves_of_merge(const Json& merge) {
  std::string left, right;
  if (is_pair_of_strings(merge)) {
    left = merge.items()[0].string(), right = merge.items()[1].string();
  } else if (merge.is_string()) {
    const std::string& line = merge.string();
    const std::size_t space = std::min(line.find(' '), line.size());
    left = line.substr(0, space), right = line.substr(std::min(space + 1, line.size()));
  }
  return {replaced(std::move(left), space_mark, " "), replaced(std::move(right), space_mark, " ")};
}

/// Reads a tokenizer.json of which `is_llama2c_json` is true. Throws FileError for anything that cannot be read, or
/// that would be encoded in another way; TextError for tokens that make no vocabulary.
[[gnu::cold]] inline Llama2cParts read_llama2c_json(const Json& root, const std::string& file) {
  expect_absent(root, "pre_tokenizer", file);
  const auto& model = json_member(root, "model", file);
  if (const auto type = json_field<std::string>(model, "type", file); type != "BPE") {
    fail<FileError>(file, ": expected a model of the type BPE, found ", in_quotes(type));
  }
  expect_absent(model, "dropout", file, {0.0});
  expect_absent(model, "continuing_subword_prefix", file, {""});
  expect_absent(model, "end_of_word_suffix", file, {""});
  expect_absent(model, "ignore_merges", file, {false});

  NumberedTokens numbered(file);
  numbered.add_vocabulary(expect_object(model, "vocab", file));
  numbered.add_special(root);
  std::vector<VocabularyEntry> names;
  for (auto& [name, marked] : numbered.in_order()) {
    const bool special = marked || names.size() < llama2c_first;
    if (name.empty()) fail<FileError>(file, ": token ", names.size(), " is empty");
    names.push_back({special ? std::move(name) : replaced(name, space_mark, " "), special});
  }
  const auto& pairs = expect_array(model, "merges", file);
  Llama2cVocabulary vocabulary(std::move(names));
  if (json_field_or<bool>(model, "byte_fallback", file, false) != vocabulary.has_bytes()) {
    fail<FileError>(file, ": expected byte_fallback just where the vocabulary has the 256 bytes");
  }
  const std::vector<bool> tied = read_tied_merges(model, pairs.size(), file);
  std::vector<RankedMerge> merges;
  for (const Json& pair : pairs.items()) {
    const auto [left, right] = halves_of_merge(pair);
    const auto one = vocabulary.find(left), other = vocabulary.find(right), both = vocabulary.find(left + right);
    if (!one || !other || !both) {
      fail<FileError>(file, ": merge ", merges.size(), ", of ", in_quotes(left), " and ", in_quotes(right),
                      ": expected two ordinary tokens that make a third");
    }
    std::uint32_t rank = 0;
    if (!merges.empty()) {  // the cuts of one token have one score
      const bool same = merges.back().result == *both || tied[merges.size()];
      rank = merges.back().rank + (same ? 0 : 1);
    }
    merges.push_back({{*one, *other}, rank, *both});
  }
  return {std::move(vocabulary), std::move(merges)};
}

/// A token as it is written in tokenizer.json. Throws TextError for one that cannot be.
[[gnu::cold]] inline std::string llama2c_spelled(const Llama2cVocabulary& vocabulary, Token token) {
  const std::string& piece = vocabulary[token];
  if (vocabulary.is_byte(token)) return byte_name(static_cast<unsigned char>(piece[0]));
  const bool special = vocabulary.is_special(token);
  if (find_invalid_utf8(piece) != std::string_view::npos || (!special && piece.find(space_mark) != std::string::npos)) {
    fail<TextError>("token ", token, " is not UTF-8 or has U+2581, which a tokenizer.json cannot say");
  }
  return special ? piece : replaced(piece, " ", space_mark);
}

/// Writes tokenizer.json, so that a crash leaves the old file or the new one. Throws FileError, TextError.
[[gnu::cold]] inline void write_llama2c_json(const std::filesystem::path& path, const Llama2cParts& parts) {
  const auto& vocabulary = parts.vocabulary;
  Json tokens = Json::object(), added = Json::array(), merges = Json::array(), tied = Json::array();
  PieceTable names;  // an object is searched from its start
  for (Token token = 0; token < static_cast<Token>(vocabulary.size()); ++token) {
    const std::string name = llama2c_spelled(vocabulary, token);
    if (!names.insert(name).second) fail<TextError>("two tokens are ", in_quotes(name));
    tokens.append(name, token);
    if (!vocabulary.is_special(token)) continue;
    Json entry = parse_json(R"({"id": 0, "content": "", "single_word": false, "lstrip": false, "rstrip": false,
                                "normalized": false, "special": true})",
                            "added token");
    entry["id"] = token;
    entry["content"] = name;
    added.push_back(std::move(entry));
  }
  for (std::size_t i = 0; i < parts.merges.size(); ++i) {
    const RankedMerge& merge = parts.merges[i];
    merges.push_back({llama2c_spelled(vocabulary, merge.pair.left), llama2c_spelled(vocabulary, merge.pair.right)});
    if (i == 0 || parts.merges[i - 1].result == merge.result) continue;
    if (parts.merges[i - 1].rank == merge.rank) tied.push_back(i);
  }
  Json file = llama2c_frame();
  file["added_tokens"] = std::move(added);
  file["normalizer"] = llama2c_normalizer();
  Json& model = file["model"];
  model["unk_token"] = vocabulary[0];
  model["byte_fallback"] = vocabulary.has_bytes();
  model["vocab"] = std::move(tokens);
  model["merges"] = std::move(merges);
  model["tied_merges"] = std::move(tied);
  const std::string written = file.dump(2) + "\n";
  write_file_atomically(path, [&](FileWriter& out) { out.write(written); });
}

}  // namespace tinymoe::inline v0_1::detail
