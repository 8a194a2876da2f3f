#pragma once
/// @file
/// llama.cpp's pre-tokenizers ("tokenizer.ggml.pre") as the expressions at which they cut a text, one after the other,
/// each cutting the pieces of the one before: how to find the one that a tokenizer.json means, and back.

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

struct GgufPreTokenizer {
  std::string_view name;
  std::array<std::string_view, 6> expressions;  // up to the first empty one
  bool ignore_merges = false;                   // a piece that is a token is that token
  bool begins = false;  // where a file does not say it, the token that begins a text stands before each

  std::vector<std::string> cuts() const {
    std::vector<std::string> cuts;
    for (const std::string_view expression : expressions) {
      if (!expression.empty()) cuts.emplace_back(expression);
    }
    return cuts;
  }
};

/// That of ByteLevel with its expression.
inline constexpr std::string_view gpt2_expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// GPT-4's and Llama 3's.
inline constexpr std::string_view gpt4_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen35_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// Letters of the scripts that have two cases, as DeepSeek's first tokenizer lists them.
inline constexpr std::string_view deepseek_letters =
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102"
    "\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943]+";

/// Those that are written stand first. Other names of the same ones are in `gguf_pre_tokenizer_names`.
inline constexpr GgufPreTokenizer gguf_pre_tokenizers[] = {
    {"gpt-2", {gpt2_expression}},
    {"llama-bpe", {gpt4_expression}, true, true},
    {"smaug-bpe", {gpt4_expression}},
    {"glm4", {gpt4_expression}, true},
    {"qwen2", {qwen2_expression}},
    {"qwen35", {qwen35_expression}},
    {"starcoder", {R"(\p{N})", gpt2_expression}},
    {"deepseek-llm",
     {R"([\r\n])", deepseek_letters, "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", R"(\s+$)",
      "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", R"(\p{N}+)"}},
    {"deepseek-coder",
     {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", R"(\p{N})"}},
    {"deepseek-v3",
     {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"falcon", {R"([\p{P}$+<=>\^~|`]+)", gpt2_expression, "[0-9][0-9][0-9]"}},
    {"default", {R"([\p{P}$+<=>\^~|]+)", gpt2_expression, R"(\p{N}+)", "[0-9][0-9][0-9]"}}};

/// Other names, and the pre-tokenizer that each of them is.
inline constexpr std::pair<std::string_view, std::string_view> gguf_pre_tokenizer_names[] = {
    {"", "default"},
    {"llama3", "llama-bpe"},
    {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"},
    {"pixtral", "llama-bpe"},
    {"lfm2", "llama-bpe"},
    {"dbrx", "smaug-bpe"},
    {"phi-2", "gpt-2"},
    {"mpt", "gpt-2"},
    {"olmo", "gpt-2"},
    {"jais", "gpt-2"},
    {"gigachat", "gpt-2"},
    {"exaone4", "gpt-2"},
    {"modern-bert", "gpt-2"},
    {"trillion", "gpt-2"},
    {"granite-docling", "gpt-2"},
    {"megrez", "qwen2"},
    {"deepseek-r1-qwen", "qwen2"},
    {"stablelm2", "qwen2"},
    {"hunyuan", "qwen2"},
    {"refact", "starcoder"},
    {"command-r", "starcoder"},
    {"smollm", "starcoder"},
    {"codeshell", "starcoder"},
    {"exaone", "starcoder"},
    {"minerva-7b", "starcoder"},
    {"hunyuan-dense", "deepseek-v3"}};

/// The pre-tokenizer of a name; nullptr for one that tinymoe does not have.
[[gnu::cold]] inline const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  for (const auto& [other, same] : gguf_pre_tokenizer_names) {
    if (name == other) name = same;
  }
  for (const GgufPreTokenizer& known : gguf_pre_tokenizers) {
    if (name == known.name) return &known;
  }
  return nullptr;
}

/// The pre_tokenizer of a tokenizer.json that cuts so and then writes bytes in the byte alphabet.
[[gnu::cold]] inline Json gguf_cutting_json(const GgufPreTokenizer& pre) {
  Json steps = Json::array();
  const std::vector<std::string> cuts = pre.cuts();
  const bool usual = cuts.back() == gpt2_expression;
  for (std::size_t i = 0; i + (usual ? 1 : 0) < cuts.size(); ++i) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", cuts[i]}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  Json spelling = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", usual}};
  if (steps.size() == 0) return spelling;
  steps.push_back(std::move(spelling));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

/// Throws TextError for what llama.cpp has not.
template <class... Parts>
[[noreturn, gnu::cold]] void refuse_gguf_tokenizer(const Parts&... parts) {
  fail<TextError>("the tokenizer has ", parts...,
                  ", which llama.cpp does not have; docs/interop.md says which tokenizers it has");
}

/// Appends the expressions at which a pre_tokenizer cuts; `spells` says whether bytes are in the byte alphabet then.
[[gnu::cold]] inline void add_gguf_cuts(const Json& component, std::vector<std::string>& cuts, bool& spells) {
  const auto refuse = [&] {
    refuse_gguf_tokenizer("the pre_tokenizer ", component["type"].is_string() ? component["type"].string() : "null");
  };
  const Json& type = component["type"];
  if (type == "Sequence") {
    for (const Json& part : component["pretokenizers"].items()) add_gguf_cuts(part, cuts, spells);
    return;
  }
  if (spells) refuse();  // it would cut what the bytes are written as
  if (type == "ByteLevel") {
    if (component["add_prefix_space"] != false) refuse_gguf_tokenizer("the pre_tokenizer ByteLevel that adds a space");
    if (component["use_regex"] != false) cuts.emplace_back(gpt2_expression);
    spells = true;
  } else if (type == "Digits") {
    cuts.emplace_back(component["individual_digits"] == true ? R"(\p{N})" : R"(\p{N}+)");
  } else if (type == "Split" && component["pattern"]["Regex"].is_string()) {
    // DeepSeek's files have the characters themselves.
    const std::string expression =
        replaced(replaced(component["pattern"]["Regex"].string(), "\r", R"(\r)"), "\n", R"(\n)");
    // An expression that ends so matches all of a text, so that nothing is removed between two matches.
    const bool complete = expression.ends_with(R"(|\s+)");
    const bool isolated = component["behavior"] == "Isolated" && component["invert"] == false;
    const bool matches = complete && component["behavior"] == "Removed" && component["invert"] == true;
    if (!isolated && !matches) refuse();
    cuts.push_back(expression);
  } else {
    refuse();
  }
}

/// Whether a token has two numbers, one behind the other, so that it matters where a text is cut between them.
[[gnu::cold]] inline bool joins_numbers(const Json& vocabulary) {
  for (const auto& [name, id] : vocabulary.members()) {
    const std::string bytes = unspelled(name).value_or("");
    bool before = false;
    for (std::size_t at = 0; at < bytes.size();) {
      const Character character = character_at(bytes, at);
      const bool number = character.kind == CharacterClass::number;
      if (number && before) return true;
      before = number;
      at += character.length;
    }
  }
  return false;
}

/// The pre-tokenizer of llama.cpp for a tokenizer.json. Throws TextError that says what llama.cpp does not have.
[[gnu::cold]] inline const GgufPreTokenizer& gguf_pre_tokenizer_of(const Json& root) {
  std::vector<std::string> cuts;
  bool spells = false;
  if (root["pre_tokenizer"].is_object()) add_gguf_cuts(root["pre_tokenizer"], cuts, spells);
  if (!spells) refuse_gguf_tokenizer("no pre_tokenizer ByteLevel");
  // DeepSeek's first tokenizer cuts at each digit, llama.cpp around all of them.
  if (cuts.size() > 1 && cuts.back() == R"(\p{N})" && cuts[1] == deepseek_letters &&
      !joins_numbers(root["model"]["vocab"])) {
    cuts.back() += '+';
  }
  const bool ignores = root["model"]["ignore_merges"] == true;
  const GgufPreTokenizer* near = nullptr;
  for (const GgufPreTokenizer& known : gguf_pre_tokenizers) {
    if (known.cuts() != cuts) continue;
    if (known.ignore_merges == ignores) return known;
    near = &known;
  }
  if (near != nullptr) {
    refuse_gguf_tokenizer("ignore_merges ", ignores ? "true" : "false", " beside the pre-tokenizer of ", near->name);
  }
  std::string all;
  for (const std::string& cut : cuts) all += (all.empty() ? "" : ", then ") + in_quotes(cut);
  refuse_gguf_tokenizer("a pre_tokenizer that cuts at ", all.empty() ? "nothing" : all);
}

}  // namespace tinymoe::inline v0_1::detail
