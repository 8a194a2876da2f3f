#pragma once
/// @file
/// What the kinds share in reading a Hugging Face tokenizer.json. The file is untrusted, so everything in it is
/// checked.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

inline constexpr std::size_t tokenizer_size_limit = std::size_t{64} << 20;

/// The member of a tokenizer.json's model that says that tinymoe made the file of the tokenizer.model beside it, which
/// then is what tinymoe reads. Others ignore it.
inline constexpr std::string_view made_of_model = "made_of_tokenizer_model";

/// What to do about a file that is more than a plain byte-level BPE or a Llama 2's.
inline constexpr const char* only_pipeline = "; a program that includes tinymoe/text/pipeline/pipeline.hpp reads it";

/// The name of the token of a byte, <0x00> to <0xFF>.
[[gnu::cold]] inline std::string byte_name(std::size_t byte) {
  constexpr char digits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
}

/// At most forty bytes of a hostile string, for an error: on one line, whatever it is.
[[gnu::cold]] inline std::string in_quotes(std::string_view text) {
  std::size_t length = std::min<std::size_t>(text.size(), 40);
  while (length > 0 && length < text.size() && continues_character(text[length])) --length;
  std::string quote = "\"";
  for (const char c : text.substr(0, length)) {
    const auto byte = static_cast<unsigned char>(c);
    byte < ' ' || byte == 0x7f ? void(quote += byte_name(byte)) : quote.push_back(c);
  }
  quote += length < text.size() ? "…\"" : "\"";
  return quote;
}

/// A text that must be one character. Throws FileError that names `file` and `key`.
[[gnu::cold]] inline std::string one_character(std::string text, const char* key, const std::string& file) {
  if (text.empty() || decode_utf8(text, 0).length != text.size()) {
    fail<FileError>(file, ": \"", key, "\": expected one character, found ", in_quotes(text));
  }
  return text;
}

/// The tokens of a file, gathered by the names that they have there.
class NumberedTokens {
 public:
  struct Entry {
    std::string name;
    bool special = false;
  };

  explicit NumberedTokens(std::string file) : file_(std::move(file)) {}

  [[gnu::cold]] void add(std::string name, std::uint64_t id, bool special) {
    const auto [found, fresh] = tokens_.try_emplace(std::move(name), Numbered{id, special});
    if (!fresh && found->second.id != id) {
      fail<FileError>(file_, ": token ", in_quotes(found->first), " has the two numbers ", found->second.id, " and ",
                      id);
    }
    found->second.special |= special;
  }

  /// Adds each member of an object of names and numbers.
  void add_vocabulary(const Json& object) {
    for (const auto& [name, id] : object.members()) add(name, json_value<std::uint64_t>(id, name, file_), false);
  }

  /// Adds "added_tokens", which must all be special, if there are any.
  [[gnu::cold]] void add_special(const Json& root) {
    const Json& found = root["added_tokens"];
    if (found.is_null()) return;
    if (!found.is_array()) fail<FileError>(file_, ": \"added_tokens\": expected an array, found ", json_found(found));
    for (const Json& token : found.items()) {
      auto content = json_field<std::string>(token, "content", file_);
      if (!json_field_or<bool>(token, "special", file_, false)) {
        fail<FileError>(file_, ": the added token ", in_quotes(content), " is not special, so it is looked for in text",
                        only_pipeline);
      }
      add(std::move(content), json_field<std::uint64_t>(token, "id", file_), true);
    }
  }

  /// All tokens by number. The numbers must be 0 to one below the number of tokens, each once.
  [[gnu::cold]] std::vector<Entry> in_order() const {
    std::vector<Entry> entries(tokens_.size());
    std::vector<bool> taken(tokens_.size());
    for (const auto& [name, token] : tokens_) {
      if (token.id >= entries.size()) {
        fail<FileError>(file_, ": expected token numbers from 0 to ", entries.size() - 1, " without gaps, found ",
                        token.id, " for ", in_quotes(name));
      }
      if (taken[token.id]) fail<FileError>(file_, ": two tokens have the number ", token.id);
      taken[token.id] = true;
      entries[token.id] = {name, token.special};
    }
    return entries;
  }

  Token find(std::string_view name) const {
    const auto found = tokens_.find(std::string(name));
    if (found == tokens_.end()) fail<FileError>(file_, ": a merge has the unknown token ", in_quotes(name));
    return static_cast<Token>(found->second.id);
  }

  std::size_t size() const { return tokens_.size(); }
  const std::string& file() const { return file_; }

 private:
  struct Numbered {
    std::uint64_t id = 0;
    bool special = false;
  };
  std::string file_;
  std::unordered_map<std::string, Numbered> tokens_;
};

/// Fails unless a member that would change the encoding is absent, null or one of the harmless values.
[[gnu::cold]] inline void expect_absent(const Json& object, const char* key, const std::string& file,
                                        std::initializer_list<Json> harmless = {}) {
  const Json& found = object[key];
  if (found.is_null() || std::find(harmless.begin(), harmless.end(), found) != harmless.end()) return;
  fail<FileError>(file, ": \"", key, "\" is set, which tinymoe's byte-level BPE does not have", only_pipeline);
}

/// Fails unless `object[key]` is a component of the type `expected`.
inline const Json& expect_component(const Json& object, const char* key, const char* expected,
                                    const std::string& file) {
  const auto& component = json_member(object, key, file);
  const auto type = component.is_null() ? std::string("none") : json_field<std::string>(component, "type", file);
  if (type != expected) {
    fail<FileError>(file, ": expected the ", key, " ", expected, ", found ", in_quotes(type), only_pipeline);
  }
  return component;
}

/// A token and what a post_processor calls it.
struct NamedSpecial {
  std::string name;
  Token token = 0;
};

/// The post_processor that puts special tokens before and after each text.
[[gnu::cold]] inline Json template_around(const std::vector<NamedSpecial>& before,
                                          const std::vector<NamedSpecial>& after) {
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto put = [&](const std::vector<NamedSpecial>& tokens, Json& to) {
    for (const auto& [name, token] : tokens) {
      to.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      special[name] = {{"id", name}, {"ids", Json::array({token})}, {"tokens", Json::array({name})}};
    }
  };
  const auto sequence = [&](const char* id, int type, Json& to) {
    put(before, to);
    to.push_back({{"Sequence", {{"id", id}, {"type_id", type}}}});
    put(after, to);
  };
  sequence("A", 0, single);
  sequence("A", 0, pair), sequence("B", 1, pair);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}
[[gnu::cold]] inline Json beginning_with(const std::string& name, Token token) {
  return template_around({{name, token}}, {});
}

/// Whether a merge is written as ["left", "right"].
inline bool is_pair_of_strings(const Json& value) {
  return value.is_array() && value.size() == 2 && value.items()[0].is_string() && value.items()[1].is_string();
}

/// The array "merges" or the object "vocab" of a model.
inline const Json& expect_array(const Json& object, const char* key, const std::string& file) {
  const auto& found = json_member(object, key, file);
  if (!found.is_array()) fail<FileError>(file, ": \"", key, "\": expected an array, found ", json_found(found));
  return found;
}
inline const Json& expect_object(const Json& object, const char* key, const std::string& file) {
  const auto& found = json_member(object, key, file);
  if (!found.is_object()) fail<FileError>(file, ": \"", key, "\": expected an object, found ", json_found(found));
  return found;
}

/// The components of one that may be null, one, or a Sequence, in order: calls f(component) for each.
/// `members` is what a Sequence calls its list. Throws FileError that names `file`.
template <class F>
void for_each_component(const Json& component, const char* members, const std::string& file, F&& f, int depth = 0) {
  if (component.is_null()) return;
  if (depth > 20) fail<FileError>(file, ": \"", members, "\" are nested too deeply");
  if (json_field<std::string>(component, "type", file) != "Sequence") return f(component);
  for (const Json& member : expect_array(component, members, file).items()) {
    for_each_component(member, members, file, f, depth + 1);
  }
}

/// Components of a part of a file, at most: each one costs time for each token of the file, and for each text.
inline constexpr std::size_t most_components = 256;

/// Calls f(component) for those of a part of a tokenizer.json. Throws FileError that names `file` where they are too
/// many.
template <class F>
void for_each_part(const Json& root, const char* part, const char* members, const std::string& file, F&& f) {
  std::size_t count = 0;
  for_each_component(root[part], members, file, [&](const Json& component) {
    if (++count > most_components) {
      fail<FileError>(file, ": \"", part, "\" has more than ", most_components,
                      " components, which tinymoe does not read; the file cannot be used here");
    }
    f(component);
  });
}

}  // namespace tinymoe::inline v0_1::detail
