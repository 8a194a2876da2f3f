// Our JSON against nlohmann's: what is read and refused, the value, and what is written, for random documents and for
// documents with some bytes changed.

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>

#include "files/json_same.hpp"
#include "support/catch.hpp"
#include "tinymoe/files/json.hpp"

namespace tinymoe_test::json_oracle {

using namespace tinymoe;

namespace {

using Oracle = nlohmann::ordered_json;

class Documents {
 public:
  explicit Documents(std::uint32_t seed) : random_(seed) {}

  /// A random document, as nlohmann has it.
  Oracle value(int depth = 0) {
    switch (below(depth < 5 ? 9 : 6)) {
      case 0:
        return nullptr;
      case 1:
        return below(2) == 0;
      case 2:
        return std::int64_t(bits() >> below(64));
      case 3:
        return -std::int64_t(bits() >> (1 + below(63)));
      case 4:
        return real();
      case 5:
        return string();
      case 6: {
        Oracle object = Oracle::object();
        for (std::uint64_t i = below(20); i > 0; --i) object[string()] = value(depth + 1);
        return object;
      }
      default: {
        Oracle array = Oracle::array();
        for (std::uint64_t i = below(5); i > 0; --i) array.push_back(value(depth + 1));
        return array;
      }
    }
  }

  /// Some bytes of a text changed, taken out, or doubled.
  std::string changed(std::string text) {
    constexpr std::string_view bytes = "{}[]\",:\\/u0123456789.eE+-truefalsn \n\t\x01\x7f\x80\xc3\xa9\xed\xff";
    for (std::uint64_t i = 1 + below(3); i > 0 && !text.empty(); --i) {
      const std::size_t at = below(text.size());
      switch (below(4)) {
        case 0:
          text.erase(at, 1 + below(3));
          break;
        case 1:
          text.insert(at, text.substr(below(text.size()), 1 + below(4)));
          break;
        case 2:
          text.insert(at, 1, bytes[below(bytes.size())]);
          break;
        default:
          text[at] = bytes[below(bytes.size())];
      }
    }
    return text;
  }

  std::uint64_t below(std::uint64_t end) { return random_() % end; }

 private:
  std::uint64_t bits() { return random_(); }
  double real() {
    if (below(2) == 0) return double(std::int64_t(below(2'000'000)) - 1'000'000) / std::pow(10.0, double(below(9)));
    double number;
    for (std::uint64_t pattern = bits();; pattern = bits()) {
      std::memcpy(&number, &pattern, sizeof number);
      if (std::isfinite(number)) return number;
    }
  }
  std::string string() {
    constexpr std::string_view parts[] = {"a", "key", " ", "\"", "\\", "/", "\n", "\x01", "\x7f", "é", "中", "👋"};
    std::string text;
    for (std::uint64_t i = below(6); i > 0; --i) text += parts[below(std::size(parts))];
    return text;
  }

  std::mt19937_64 random_;
};

/// Checks that both read a text to the same value, or both refuse it. Gives whether they read it.
bool check_reading(const std::string& text) {
  bool twice = false, read = true;
  Oracle theirs;
  try {
    theirs = Oracle::parse(text);
  } catch (const Oracle::exception&) {
    read = false;
  }
  Json ours;
  std::string message;
  try {
    ours = parse_json(text, "text");
  } catch (const FileError& error) {
    message = error.what();
    twice = message.find("twice") != std::string::npos;  // nlohmann accepts that
  }
  if (twice) return false;
  if (read == message.empty() && (!read || same_json(ours, theirs))) return read;
  CAPTURE(text, message, read);
  FAIL("the two differ");
  return false;
}

}  // namespace

TEST_CASE("JSON is read and written as nlohmann's library does", "[json]") {
  Documents documents(11);
  int changed = 0;
  for (int i = 0; i < 8'000; ++i) {
    const Oracle theirs = documents.value();
    const std::string line = theirs.dump();
    REQUIRE(check_reading(line));
    const Json ours = parse_json(line, "text");
    if (ours.dump() != line || ours.dump(2) != theirs.dump(2)) {
      // Its digits are not always the fewest. Then ours are fewer, or as many, and give the same number.
      REQUIRE(ours.dump().size() <= line.size());
      REQUIRE(same_json(parse_json(ours.dump(), "text"), theirs));
      ++changed;
    }
    REQUIRE(check_reading(theirs.dump(static_cast<int>(documents.below(4)))));
    REQUIRE(check_reading(theirs.dump(-1, ' ', true)));  // with everything escaped
    // Its other document type sorts the keys.
    Json sorted = ours;
    sorted.sort_keys();
    REQUIRE(same_json(sorted, Oracle::parse(nlohmann::json::parse(line).dump())));
  }
  CHECK(changed < 80);
}

TEST_CASE("JSON with changed bytes is read or refused as nlohmann's library does", "[json]") {
  Documents documents(12);
  int read = 0;
  for (int i = 0; i < 40'000; ++i) read += check_reading(documents.changed(documents.value().dump()));
  CHECK(read > 2'000);
  CHECK(read < 38'000);
}

}  // namespace tinymoe_test::json_oracle
