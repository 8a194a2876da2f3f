// Harness of JSON, against nlohmann's library.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fuzz/harness.hpp"
#include "tinymoe/files/json.hpp"

namespace tinymoe_fuzz {

namespace jsons {

using Oracle = nlohmann::ordered_json;

bool same(const Json& ours, const Oracle& theirs) {
  if (theirs.is_object()) {
    if (!ours.is_object() || ours.size() != theirs.size()) return false;
    auto member = ours.members().begin();
    for (const auto& [key, value] : theirs.items()) {
      if (member->key != key || !same(member->value, value)) return false;
      ++member;
    }
    return true;
  }
  if (theirs.is_array()) {
    if (!ours.is_array() || ours.size() != theirs.size()) return false;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      if (!same(ours.items()[i], theirs[i])) return false;
    }
    return true;
  }
  if (theirs.is_string()) return ours.is_string() && ours.string() == theirs.get_ref<const std::string&>();
  if (theirs.is_boolean()) return ours.is_boolean() && ours.boolean() == theirs.get<bool>();
  if (theirs.is_number_unsigned()) return ours.whole<std::uint64_t>() == theirs.get<std::uint64_t>();
  if (theirs.is_number_integer()) return ours.whole<std::int64_t>() == theirs.get<std::int64_t>();
  if (theirs.is_number()) return ours.is_number() && ours.number() == theirs.get<double>();
  return ours.is_null() && theirs.is_null();
}

void json(std::string_view input) {
  Json value;
  std::string refusal;
  const bool read = accepts([&] {
    try {
      value = parse_json(input, "text");
    } catch (const FileError& error) {
      refusal = error.what();
      throw;
    }
  });
  // nlohmann takes keys that are there twice, nests without limit, and ends a text at a zero.
  const bool stricter = input.find('\0') != std::string_view::npos || refusal.find("twice") != std::string::npos ||
                        refusal.find("nested deeper") != std::string::npos;
  if (!stricter) {
    const Oracle theirs = Oracle::parse(input, nullptr, false);
    expect(theirs.is_discarded() == !read, "nlohmann's library reads what tinymoe does not, or refuses what it reads");
    expect(!read || same(value, theirs), "nlohmann's library reads another value");
  }
  if (!read) return;
  for (const int indent : {-1, 1}) {
    expect(parse_json(value.dump(indent), "dump") == value, "what is written is another value");
  }
}

void json_seeds(const TakeSeed& take) {
  for (const char* text : {"{\"a\":[1,-2,3.5e-7,null,true,false],\"b\":{\"c\":\"\\u00e9\\ud83d\\ude00\\n\"}}", "[]",
                           "-0.0", "1e400", "1e-400", "18446744073709551616", "\"\xc3\xa9\"", "[[[[]]]]"}) {
    take(text);
  }
}

constexpr Harness harnesses[] = {
    {"json", json, json_seeds, 1 << 10, 2 * json_memory_factor, "json"}};  // with the other library's values

}  // namespace jsons

std::span<const Harness> json_harnesses() { return jsons::harnesses; }

}  // namespace tinymoe_fuzz
