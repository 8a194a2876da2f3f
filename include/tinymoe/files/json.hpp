#pragma once
/// @file
/// JSON from files that nobody vouches for: limits on size and depth, no duplicate keys, and errors that name the file.

#include <cstddef>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/mapped_file.hpp"

namespace tinymoe::inline v0_1 {

/// How deeply objects and arrays may nest in a file; a real tokenizer.json or config.json has fewer than ten levels.
inline constexpr int json_depth_limit = 64;

/// The value of a JSON text; `name` says in errors where the text came from.
/// Throws FileError for text that is cut or corrupt (with the byte position), nested deeper than `depth_limit`, or
/// that gives a key of an object twice.
inline nlohmann::json parse_json(std::string_view text, const std::string& name, int depth_limit = json_depth_limit) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open, outermost first
  const auto inspect = [&](int depth, Event event, nlohmann::json& parsed) {
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= depth_limit) fail<FileError>(name, ": JSON is nested deeper than ", depth_limit, " levels");
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second)
        fail<FileError>(name, ": JSON has the key \"", key, "\" twice in one object");
    }
    return true;
  };
  const auto shortened = [](std::string_view reason) {  // it quotes the text, which may be a string of any length
    return reason.size() <= 240 ? std::string(reason) : std::string(reason.substr(0, 240)) + "...";
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), inspect);
  } catch (const nlohmann::json::parse_error& error) {
    fail<FileError>(name, ": JSON is cut or corrupt at byte ", error.byte, ": ", shortened(error.what()));
  } catch (const nlohmann::json::exception& error) {  // a number out of range
    fail<FileError>(name, ": JSON cannot be read: ", shortened(error.what()));
  }
}

/// The value of a JSON file of at most `size_limit` bytes.
/// Throws FileError if it is missing or too large, and as `parse_json`.
inline nlohmann::json read_json(const std::filesystem::path& path, std::size_t size_limit = std::size_t{256} << 20) {
  const MappedFile file(path);
  if (file.size() > size_limit) {
    fail<FileError>(path.string(), ": expected a JSON file of at most ", size_limit, " bytes, found ", file.size());
  }
  return parse_json(file.text(), path.string());
}

namespace detail {

template <class T>
const char* json_kind() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_integral_v<T>) return "a whole number in range";
  if constexpr (std::is_floating_point_v<T>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  return "another kind of value";
}

inline std::string json_found(const nlohmann::json& value) {
  return value.is_number() || value.is_boolean() ? value.dump() : std::string(value.type_name());
}

}  // namespace detail

/// `value` as a `T` (bool, a whole number, a floating-point number, std::string, or what nlohmann converts to); numbers
/// are range-checked and never rounded to whole ones. Throws FileError that names `name` and `key`.
template <class T>
T json_value(const nlohmann::json& value, std::string_view key, const std::string& name) {
  if constexpr (std::is_same_v<T, bool>) {
    if (value.is_boolean()) return value.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    using Limits = std::numeric_limits<T>;
    if (value.is_number_unsigned()) {
      const auto number = value.get<std::uint64_t>();
      if (number <= static_cast<std::uint64_t>(Limits::max())) return static_cast<T>(number);
    } else if (value.is_number_integer() && std::is_signed_v<T>) {  // negative
      const auto number = value.get<std::int64_t>();
      if (number >= static_cast<std::int64_t>(Limits::min())) return static_cast<T>(number);
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    if (value.is_number()) return value.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (value.is_string()) return value.get<std::string>();
  } else {
    try {
      return value.get<T>();
    } catch (const nlohmann::json::exception&) {
    }
  }
  fail<FileError>(name, ": \"", key, "\": expected ", detail::json_kind<T>(), ", found ", detail::json_found(value));
}

/// The member `key` of a JSON object. Throws FileError that names `name` and `key` if there is none.
inline const nlohmann::json& json_member(const nlohmann::json& object, std::string_view key, const std::string& name) {
  if (!object.is_object()) {
    fail<FileError>(name, ": expected an object with \"", key, "\", found ", detail::json_found(object));
  }
  const auto found = object.find(key);
  if (found == object.end()) fail<FileError>(name, ": \"", key, "\" is missing");
  return *found;
}

/// The member `key` of a JSON object as a `T`. Throws FileError as `json_member` and `json_value`.
template <class T>
T json_field(const nlohmann::json& object, std::string_view key, const std::string& name) {
  return json_value<T>(json_member(object, key, name), key, name);
}

/// As `json_field`, but `fallback` where the member is absent or null.
template <class T>
T json_field_or(const nlohmann::json& object, std::string_view key, const std::string& name, T fallback) {
  if (object.is_object()) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return fallback;
  }
  return json_field<T>(object, key, name);
}

}  // namespace tinymoe::inline v0_1
