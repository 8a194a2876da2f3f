#pragma once
/// @file
/// What a Metaspace says of itself, the same as a pre-tokenizer and as a decoder.

#include <cstdint>
#include <string>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// Where Metaspace puts its mark before a text.
enum class Prepending : std::uint8_t { always, first, never };

struct MetaspaceFields {
  std::string mark;  // one character, in the place of a space
  Prepending prepends = Prepending::always;
  bool splits = true;

  MetaspaceFields() = default;
  /// Throws FileError that names `file`.
  [[gnu::cold]] MetaspaceFields(const Json& component, const std::string& file)
      : mark(one_character(json_field<std::string>(component, "replacement", file), "replacement", file)),
        splits(json_field_or<bool>(component, "split", file, true)) {
    const auto scheme = json_field_or<std::string>(component, "prepend_scheme", file, "always");
    if (scheme == "first") {
      prepends = Prepending::first;
    } else if (scheme == "never") {
      prepends = Prepending::never;
    } else if (scheme != "always") {
      fail<FileError>(file, ": \"prepend_scheme\": expected always, first or never, found ", in_quotes(scheme));
    }
    if (!json_field_or<bool>(component, "add_prefix_space", file, true) && prepends != Prepending::never) {
      fail<FileError>(file, ": \"add_prefix_space\" is false, but \"prepend_scheme\" is not never");
    }
  }
};

}  // namespace tinymoe::inline v0_1::detail
