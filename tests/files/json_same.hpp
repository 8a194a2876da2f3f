#pragma once
// Whether a document is the same for us and for nlohmann's library.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "tinymoe/files/json.hpp"

namespace tinymoe_test {

using tinymoe::Json;

inline bool same_json(const Json& ours, const nlohmann::ordered_json& theirs) {
  if (theirs.is_object()) {
    if (!ours.is_object() || ours.size() != theirs.size()) return false;
    auto member = ours.members().begin();
    for (const auto& [key, value] : theirs.items()) {
      if (member->key != key || !same_json(member->value, value)) return false;
      ++member;
    }
    return true;
  }
  if (theirs.is_array()) {
    if (!ours.is_array() || ours.size() != theirs.size()) return false;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      if (!same_json(ours.items()[i], theirs[i])) return false;
    }
    return true;
  }
  if (theirs.is_string()) return ours.is_string() && ours.string() == theirs.get_ref<const std::string&>();
  if (theirs.is_boolean()) return ours.is_boolean() && ours.boolean() == theirs.get<bool>();
  if (theirs.is_number_unsigned()) return ours.whole<std::uint64_t>() == theirs.get<std::uint64_t>();
  if (theirs.is_number_integer()) return ours.whole<std::int64_t>() == theirs.get<std::int64_t>();
  if (theirs.is_number()) {
    if (!ours.is_number() || ours.is_whole()) return false;
    const double one = ours.number(), other = theirs.get<double>();
    return std::memcmp(&one, &other, sizeof one) == 0;  // −0 too
  }
  return ours.is_null() && theirs.is_null();
}

}  // namespace tinymoe_test
