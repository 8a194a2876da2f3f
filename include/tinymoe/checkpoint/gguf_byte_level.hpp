#pragma once
/// @file
/// Byte-level BPE in a GGUF file (`gpt2`): tinymoe's own kind, and any tokenizer.json whose steps llama.cpp has.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/checkpoint/gguf_pre_tokenizers.hpp"
#include "tinymoe/checkpoint/gguf_vocabulary.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/byte_level/tokenizer_file.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

[[gnu::cold]] inline void write_gguf_bpe(GgufMetadata& metadata, std::string_view pre, const GgufVocabulary& vocabulary,
                                         const std::vector<std::string>& merges) {
  metadata.add("tokenizer.ggml.model", "gpt2");
  metadata.add("tokenizer.ggml.pre", pre);
  vocabulary.write(metadata);
  metadata.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
}

[[gnu::cold]] inline void write_gguf_byte_level(GgufMetadata& metadata, const TokenizerParts& parts, Index vocab) {
  GgufVocabulary vocabulary;
  for (const VocabularyEntry& entry : parts.vocabulary) {
    vocabulary.add(spelled(entry), entry.special ? GgufToken::control : GgufToken::normal);
  }
  std::vector<std::string> merges;
  for (const Merge& merge : parts.merges) {
    merges.push_back(vocabulary.tokens[static_cast<std::size_t>(merge.left)] + " " +
                     vocabulary.tokens[static_cast<std::size_t>(merge.right)]);
  }
  vocabulary.fill(vocab);
  write_gguf_bpe(metadata, "gpt-2", vocabulary, merges);
}

/// Throws TextError unless llama.cpp does all that a tokenizer.json asks for besides its pre_tokenizer. What only acts
/// where a byte has no token does not count, since all of them must have one. The normalizer NFC changes no text that
/// is in this form, and llama.cpp has none.
[[gnu::cold]] inline void expect_gguf_steps(const Json& root) {
  const Json& model = root["model"];
  if (!model["type"].is_null() && model["type"] != "BPE") refuse_gguf_tokenizer("a model that is not BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[key].is_null() && model[key] != "") refuse_gguf_tokenizer("the option ", key);
  }
  const Json& normalizer = root["normalizer"];
  const bool changes = !normalizer.is_null() && normalizer["type"] != "NFC" &&
                       !(normalizer["type"] == "Sequence" && normalizer["normalizers"].size() == 0);
  if (changes) refuse_gguf_tokenizer("a normalizer other than NFC");
  if (root["decoder"]["type"] != "ByteLevel") refuse_gguf_tokenizer("another decoder than ByteLevel");
}

/// Writes a tokenizer that was read from a tokenizer.json.
[[gnu::cold]] inline void write_gguf_json(GgufMetadata& metadata, const Json& root, Index vocab) {
  expect_gguf_steps(root);
  const std::string_view pre = gguf_pre_tokenizer_of(root).name;
  GgufVocabulary vocabulary;
  vocabulary.fill(vocab);
  std::vector<bool> is_byte(256);
  for (const auto& [name, id] : root["model"]["vocab"].members()) {
    vocabulary.place(id.whole<std::size_t>().value(), name, GgufToken::normal);
    const auto bytes = unspelled(name);
    if (bytes && bytes->size() == 1) is_byte[static_cast<unsigned char>((*bytes)[0])] = true;
  }
  for (std::size_t byte = 0; byte < is_byte.size(); ++byte) {
    if (!is_byte[byte]) refuse_gguf_tokenizer("no token for the byte ", byte);
  }
  for (const Json& added : root["added_tokens"].items()) {
    const std::string& content = added["content"].string();
    if (content.empty()) continue;
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (added[key] == true) refuse_gguf_tokenizer("the option ", key, " of the token ", in_quotes(content));
    }
    const bool special = added["special"] == true;
    vocabulary.place(added["id"].whole<std::size_t>().value(), content,
                     special ? GgufToken::control : GgufToken::user_defined);
  }
  std::vector<std::string> merges;
  for (const Json& merge : root["model"]["merges"].items()) {
    merges.push_back(merge.is_string() ? merge.string() : merge.items()[0].string() + " " + merge.items()[1].string());
  }
  write_gguf_bpe(metadata, pre, vocabulary, merges);
}

/// The pre-tokenizer that a file names. Throws FileError for one that tinymoe does not have.
[[gnu::cold]] inline const GgufPreTokenizer& read_gguf_pre_tokenizer(const Gguf& file) {
  const Json pre = file.value("tokenizer.ggml.pre");
  const std::string name = pre.is_string() ? pre.string() : std::string();
  if (const GgufPreTokenizer* known = find_gguf_pre_tokenizer(name)) return *known;
  fail<FileError>(file.name(), ": key tokenizer.ggml.pre is ", in_quotes(name),
                  ", a pre-tokenizer that tinymoe does not have; take the model's tokenizer.json");
}

/// The tokenizer.json of a file's byte-level BPE. Tokens of the type user_defined are found in each text, those of the
/// type unused are gaps. Throws FileError.
[[gnu::cold]] inline Json read_gguf_bpe(const Gguf& file) {
  const GgufPreTokenizer& pre = read_gguf_pre_tokenizer(file);
  Json vocabulary = Json::object(), merges = Json::array(), added = Json::array();
  Token id = 0;
  for (const auto& [token, type] : read_gguf_tokens(file)) {
    const Token number = id++;
    if (type == GgufToken::unused) continue;
    vocabulary.append(std::string(token), number);
    if (type == GgufToken::normal || type == GgufToken::byte) continue;
    added.push_back({{"id", number},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != GgufToken::user_defined}});
  }
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    if (find_invalid_utf8(merge) != std::string_view::npos) {
      fail<FileError>(file.name(), ": merge ", merges.size(), " is not UTF-8");
    }
    merges.push_back(merge);
  }
  Json root = parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": null, "normalizer": null,
    "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
              "vocab": null, "merges": null}
  })",
                         "tokenizer.json");
  root["added_tokens"] = std::move(added);
  root["pre_tokenizer"] = gguf_cutting_json(pre);
  root["model"]["ignore_merges"] = pre.ignore_merges;
  root["model"]["vocab"] = std::move(vocabulary);
  root["model"]["merges"] = std::move(merges);
  return root;
}

}  // namespace tinymoe::inline v0_1::detail
