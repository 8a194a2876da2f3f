#pragma once
/// @file
/// JSON files and their fields, checked for kind and range, with errors that name the file and the key.

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"

namespace tinymoe::inline v0_1 {

/// The value of an open JSON file of at most `size_limit` bytes.
/// Throws FileError that names `path` if it is too large, and as `parse_json`.
inline Json read_json(const MappedFile& file, const std::filesystem::path& path, std::size_t size_limit) {
  if (file.size() > size_limit) {
    fail<FileError>(path, ": expected a JSON file of at most ", size_limit, " bytes, found ", file.size());
  }
  return parse_json(file.text(), path.string());
}

/// The value of a JSON file. Throws FileError if it is missing, and as for an open one.
inline Json read_json(const std::filesystem::path& path, std::size_t size_limit = std::size_t{256} << 20) {
  return read_json(MappedFile(path), path, size_limit);
}

namespace detail {

template <class T>
constexpr const char* json_kind() {
  if constexpr (std::same_as<T, bool>) return "true or false";
  if constexpr (std::integral<T>) return "a whole number in range";
  return std::floating_point<T> ? "a number" : "a string";
}

inline std::string json_found(const Json& value) {
  return value.is_number() || value.is_boolean() ? value.dump() : std::string(value.kind());
}

[[noreturn]] inline void refuse_json(const Json& value, std::string_view key, const std::string& name,
                                     const char* expected) {
  fail<FileError>(name, ": \"", key, "\": expected ", expected, ", found ", json_found(value));
}

}  // namespace detail

/// `value` as a `T`: bool, a whole number, a floating-point number or std::string. Numbers are range-checked and never
/// rounded to whole ones. Throws FileError that names `name` and `key`.
template <class T>
T json_value(const Json& value, std::string_view key, const std::string& name) {
  if constexpr (std::same_as<T, bool>) {
    if (value.is_boolean()) return value.boolean();
  } else if constexpr (std::integral<T>) {
    if (const std::optional<T> number = value.whole<T>()) return *number;
  } else if constexpr (std::floating_point<T>) {
    if (value.is_number()) return static_cast<T>(value.number());
  } else {
    static_assert(std::same_as<T, std::string>);
    if (value.is_string()) return value.string();
  }
  detail::refuse_json(value, key, name, detail::json_kind<T>());
}

/// The member `key` of a JSON object. Throws FileError that names `name` and `key` if there is none.
inline const Json& json_member(const Json& object, std::string_view key, const std::string& name) {
  if (!object.is_object()) {
    fail<FileError>(name, ": expected an object with \"", key, "\", found ", detail::json_found(object));
  }
  const Json* found = object.find(key);
  if (found == nullptr) fail<FileError>(name, ": \"", key, "\" is missing");
  return *found;
}

/// The member `key` of a JSON object as a `T`. Throws FileError as `json_member` and `json_value`.
template <class T>
T json_field(const Json& object, std::string_view key, const std::string& name) {
  return json_value<T>(json_member(object, key, name), key, name);
}

/// As `json_field` of a number, and throws FileError for one outside the range.
template <class T>
T json_field(const Json& object, std::string_view key, const std::string& name, const detail::NumberRange& range) {
  const T number = json_field<T>(object, key, name);
  if (!range.allows(static_cast<double>(number))) {
    fail<FileError>(name, ": \"", key, "\"", range.refusal(static_cast<double>(number)));
  }
  return number;
}

/// As `json_field`, but `fallback` where the member is absent or null.
template <class T>
T json_field_or(const Json& object, std::string_view key, const std::string& name, T fallback) {
  if (object.is_object() && object[key].is_null()) return fallback;
  return json_field<T>(object, key, name);
}

}  // namespace tinymoe::inline v0_1
