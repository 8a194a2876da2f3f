// Harness of JSON, against nlohmann's library.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "files/json_same.hpp"
#include "fuzz/harness.hpp"
#include "tinymoe/files/json.hpp"

namespace tinymoe_fuzz {

namespace jsons {

using Oracle = nlohmann::ordered_json;

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
    expect(!read || tinymoe_test::same_json(value, theirs), "nlohmann's library reads another value");
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
