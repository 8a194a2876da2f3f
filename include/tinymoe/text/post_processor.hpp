#pragma once
/// @file
/// The post_processor of a tokenizer.json: which tokens it puts before and after a text.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// What a post_processor puts around the tokens of a text.
struct Surroundings {
  std::vector<Token> before, after;
};

/// Adds what a component puts. Throws FileError that names `file`.
[[gnu::cold]] inline void add_surroundings(const Json& component, const std::string& file, Surroundings& to) {
  const auto type = json_field<std::string>(component, "type", file);
  if (type == "ByteLevel") return;  // it changes offsets
  Surroundings made;
  if (type == "TemplateProcessing") {
    bool text_seen = false;
    for (const Json& part : expect_array(component, "single", file).items()) {
      if (part.contains("Sequence")) {
        if (text_seen) fail<FileError>(file, ": the post_processor has the text twice");
        text_seen = true;
        continue;
      }
      const auto name = json_field<std::string>(json_member(part, "SpecialToken", file), "id", file);
      const Json& token = json_member(json_member(component, "special_tokens", file), name, file);
      for (const Json& id : expect_array(token, "ids", file).items()) {
        (text_seen ? made.after : made.before).push_back(json_value<Token>(id, "ids", file));
      }
    }
    if (!text_seen) fail<FileError>(file, ": the post_processor leaves the text out");
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const char* key : {"cls", "sep"}) {
      if (component[key].is_null()) continue;
      const Json& pair = expect_array(component, key, file);
      if (pair.size() != 2) fail<FileError>(file, ": \"", key, "\": expected a token and its number");
      (key[0] == 'c' ? made.before : made.after).push_back(json_value<Token>(pair.items()[1], key, file));
    }
  } else {
    fail<FileError>(
        file,
        ": expected the post_processors ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or "
        "a Sequence of them, found ",
        in_quotes(type));
  }
  to.before.insert(to.before.begin(), made.before.begin(), made.before.end());
  to.after.insert(to.after.end(), made.after.begin(), made.after.end());
}

/// What the post_processor of a tokenizer.json puts around a text. Throws FileError that names `file`.
[[gnu::cold]] inline Surroundings surroundings_of(const Json& root, const std::string& file) {
  Surroundings found;
  for_each_part(root, "post_processor", "processors", file,
                [&](const Json& component) { add_surroundings(component, file, found); });
  return found;
}

/// The post_processor that puts tokens before and after each text, besides what `old` does that puts none; null where
/// there is nothing to do. Throws FileError that names `file`.
[[gnu::cold]] inline Json post_processor_of(const std::vector<NamedSpecial>& before,
                                            const std::vector<NamedSpecial>& after, const Json& old_root,
                                            const std::string& file) {
  Json processors = Json::array();
  for_each_part(old_root, "post_processor", "processors", file, [&](const Json& component) {
    if (component["type"] == "ByteLevel") processors.push_back(component);
  });
  if (!before.empty() || !after.empty()) processors.push_back(template_around(before, after));
  if (processors.size() < 2) return processors.size() == 0 ? Json() : Json(processors.items()[0]);
  return {{"type", "Sequence"}, {"processors", std::move(processors)}};
}

}  // namespace tinymoe::inline v0_1::detail
