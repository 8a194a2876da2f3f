#include "tinymoe/files/json.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "files/bytes.hpp"

namespace tinymoe_test::json {

using namespace tinymoe;

TEST_CASE("JSON files are read", "[json]") {
  const TemporaryFolder folder;
  const auto path =
      write_bytes(folder / "config.json", R"({"width": 256, "bias": null, "name": "story", "rate": 0.5})");
  const auto config = read_json(path);
  CHECK(json_field<int>(config, "width", path) == 256);
  CHECK(json_field<std::string>(config, "name", path) == "story");
  CHECK(json_field<float>(config, "rate", path) == 0.5f);
  CHECK(json_field<double>(config, "width", path) == 256.0);
  CHECK(json_field_or<bool>(config, "bias", path, true));
  CHECK(json_field_or<int>(config, "heads", path, 8) == 8);
}

TEST_CASE("JSON that cannot be read names the file and the place", "[json]") {
  const TemporaryFolder folder;
  const auto missing = folder / "missing.json";
  check_message<FileError>([&] { read_json(missing); }, missing.string(), "No such file");
  const auto path = folder / "bad.json";
  const auto rejects = [&](const std::string& text, const char* part) {
    write_bytes(path, text);
    check_message<FileError>([&] { read_json(path); }, path.string(), part);
  };
  rejects("", "byte 1");
  rejects(R"({"a": [1, 2)", "byte 12");
  rejects(R"({"a": tru})", "byte 10");
  rejects(R"({"a": 1} x)", "byte 10");
  rejects("{\"a\": \"\xff\"}", "corrupt");
  rejects("[~", "found '~'");
  rejects("[\x7f", "found the byte 127");  // which a terminal would obey
  rejects("[\x1b", "found the byte 27");
  rejects(R"({"a": 1e999})", "number overflow");
  rejects(R"({"a": 10e9223372036854775807})", "number overflow");  // beyond which its size would not fit
  rejects(R"({"a": 1, "b": {"a": 2}, "a": 3})", "the key \"a\" twice");
  rejects(R"([{"b": 1, "b": 1}])", "the key \"b\" twice");
  rejects(std::string(65, '[') + std::string(65, ']'), "deeper than 64");
  rejects(std::string(1'000'000, '['), "deeper than 64");
  CHECK(message_of<FileError>([&] { parse_json("\"" + std::string(100'000, 'x'), "long"); }).size() < 400);
  CHECK_NOTHROW(parse_json(std::string(64, '[') + std::string(64, ']'), "deep"));
  CHECK_NOTHROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "equal keys of different objects"));
  write_bytes(path, "[1, 2, 3]");
  check_message<FileError>([&] { read_json(path, 8); }, path.string(), "at most 8 bytes", "found 9");
  check_message<FileError>([&] { read_json(folder.path()); }, folder.path().string(), "regular file");
}

TEST_CASE("JSON fields are checked for kind and range", "[json]") {
  const auto object = parse_json(
      R"({"word": "x", "minus": -1, "half": 0.5, "large": 300, "huge": 18446744073709551615, "list": [1]})", "file");
  const auto rejects = [&](auto type, const char* key, const char* part) {
    using T = decltype(type);
    check_message<FileError>([&] { json_field<T>(object, key, "file"); }, "file", key, part);
  };
  rejects(int{}, "absent", "missing");
  rejects(int{}, "word", "a whole number");
  rejects(int{}, "half", "0.5");
  rejects(unsigned{}, "minus", "-1");
  rejects(std::uint8_t{}, "large", "300");
  rejects(std::int8_t{}, "large", "300");
  rejects(std::int64_t{}, "huge", "18446744073709551615");
  rejects(bool{}, "large", "true or false");
  rejects(std::string{}, "list", "a string, found array");
  rejects(double{}, "word", "a number, found string");
  CHECK(json_field<std::uint64_t>(object, "huge", "file") == UINT64_MAX);
  CHECK(json_field<std::int8_t>(object, "minus", "file") == -1);
  check_message<FileError>([&] { json_field<int>(object["list"], "a", "file"); }, "file", "expected an object");
  check_message<FileError>([&] { json_field_or<int>(object["list"], "a", "file", 1); }, "file", "an object");
}

TEST_CASE("A JSON value is built, read and changed", "[json]") {
  Json run = {{"name", "story"}, {"steps", 100}, {"betas", {0.9, 0.95}}, {"nothing", nullptr}, {"on", true}};
  run["seed"] = UINT64_MAX;
  run["least"] = INT64_MIN;
  CHECK(run.dump() == R"({"name":"story","steps":100,"betas":[0.9,0.95],"nothing":null,"on":true,)"
                      R"("seed":18446744073709551615,"least":-9223372036854775808})");
  CHECK(Json({{"b", Json::array()}, {"a", {1, {{"c", 2}}}}}).dump(2) ==
        "{\n  \"b\": [],\n  \"a\": [\n    1,\n    {\n      \"c\": 2\n    }\n  ]\n}");
  CHECK(run["betas"].items()[1].number() == 0.95);
  CHECK(run["name"].string() == "story");
  CHECK(run["steps"].whole<std::int8_t>() == 100);
  CHECK_FALSE(run["seed"].whole<std::int64_t>().has_value());
  CHECK_FALSE(run["betas"].items()[0].whole<int>().has_value());
  CHECK(run.size() == 7);
  run.erase("seed");
  CHECK_FALSE(run.contains("seed"));
  Json list;
  list.push_back(1);
  list.push_back({"a", "b"});
  CHECK(list.dump() == R"([1,["a","b"]])");

  // Copies are independent. Numbers compare by value, objects without regard to order.
  const Json copy = run;
  run["betas"] = 1;
  CHECK(copy["betas"].size() == 2);
  CHECK(copy != run);
  CHECK(Json({{"a", 1}, {"b", -2}}) == Json({{"b", -2.0}, {"a", 1.0}}));
  CHECK(Json({{"a", 1}}) != Json({{"a", 1}, {"b", 2}}));
  CHECK(Json(UINT64_MAX) != Json(-1));  // the same bits
  CHECK(Json(-1) == Json(std::int8_t{-1}));
  CHECK(Json(INT64_MIN) != Json(INT64_MIN + 1));
  CHECK(Json() != Json(false));
  CHECK(Json("x") == "x");
  Json sorted = {{"b", 1}, {"a", {{{"d", 1}, {"c", 2}}}}};
  sorted.sort_keys();
  CHECK(sorted.dump() == R"({"a":[{"c":2,"d":1}],"b":1})");

  const Json constant = copy;
  CHECK(constant["absent"].is_null());
  CHECK(constant["name"]["absent"].is_null());
  check_message<MismatchError>([&] { constant["name"].number(); }, "a number", "string");
  check_message<MismatchError>([&] { constant["steps"].string(); }, "a string", "number");
  check_message<MismatchError>([&] { run["name"].push_back(1); }, "an array", "string");
  check_message<MismatchError>([&] { run["name"]["key"] = 1; }, "an object", "string");
  check_message<TextError>([&] { Json("\xff").dump(); }, "UTF-8");
  CHECK(Json(std::numeric_limits<double>::infinity()).dump() == "null");
}

TEST_CASE("Strictly JSON, and nothing else, is read", "[json]") {
  const auto accepts = [](std::string_view text) {
    try {
      return parse_json(text, "text"), true;
    } catch (const FileError&) {
      return false;
    }
  };
  for (const char* good : {"0", "-0", "1e5", "1E+05", "0.5e-3", " [ 1 , 2 ]\r\n\t", "\"\\u00e9\\n\\/\"",
                           "\"\\ud83d\\udc4b\"", "\xef\xbb\xbf{}", "\"\x7f\"", "1e-999", "[[],{}]"})
    CHECK(accepts(good));
  for (const char* bad : {"",
                          " ",
                          "01",
                          "-",
                          "+1",
                          "1.",
                          ".5",
                          "1e",
                          "1e+",
                          "0x1",
                          "NaN",
                          "Infinity",
                          "1,",
                          "[1,]",
                          "{\"a\":1,}",
                          "{a:1}",
                          "'a'",
                          "\"\t\"",
                          "\"\\x\"",
                          "\"\\u12g4\"",
                          "\"\\ud800\"",
                          "\"\\udc00\"",
                          "\"\\ud800\\u0041\"",
                          "\"\xed\xa0\x80\"",
                          "\"\xc0\x80\"",
                          "nul",
                          "truefalse",
                          "[1 2]",
                          "{\"a\" 1}",
                          "{1:2}",
                          "// x\n1",
                          "\xef\xbb{}",
                          "1e999",
                          "-1e999",
                          "]",
                          "\"\\"})
    CHECK_FALSE(accepts(bad));
  CHECK_FALSE(accepts(std::string_view("1\0", 2)));
  CHECK(parse_json("-0", "text") == 0);
  CHECK(std::signbit(parse_json("-0.0", "text").number()));
  CHECK(parse_json("18446744073709551616", "text").number() == 18446744073709551616.0);
  CHECK(parse_json("1e-999", "text").number() == 0);
  CHECK(parse_json("0." + std::string(400, '0') + "1e401", "text").number() == 1);
  CHECK(parse_json("\"\\ud83d\\udc4b\"", "text") == "\xf0\x9f\x91\x8b");

  // With many keys, the parser sorts them instead of comparing each with each.
  std::string many = "{";
  for (int i = 0; i < 200'000; ++i) many += "\"" + std::to_string(i) + "\":0,";
  CHECK(accepts(many + "\"a\":0}"));
  check_message<FileError>([&] { parse_json(many + "\"17\":0}", "text"); }, "text", "the key \"17\" twice");
}

}  // namespace tinymoe_test::json
