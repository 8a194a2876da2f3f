#include "tinymoe/files/json.hpp"

#include <cstdint>
#include <string>

#include "files/bytes.hpp"

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
  rejects(R"({"a": 1e999})", "number overflow");
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
  rejects(std::vector<std::string>{}, "list", "found array");
  CHECK(json_field<std::uint64_t>(object, "huge", "file") == UINT64_MAX);
  CHECK(json_field<std::int8_t>(object, "minus", "file") == -1);
  CHECK(json_field<std::vector<int>>(object, "list", "file") == std::vector{1});
  check_message<FileError>([&] { json_field<int>(object.at("list"), "a", "file"); }, "file", "expected an object");
  check_message<FileError>([&] { json_field_or<int>(object.at("list"), "a", "file", 1); }, "file", "an object");
}
