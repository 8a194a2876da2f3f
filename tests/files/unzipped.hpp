#pragma once
// A reader of ZIP files of stored files, by their list at the end, for tests of what writes them.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/files/npz.hpp"

namespace tinymoe_test {

/// Writes the files of a ZIP file into a folder, checks all that is said of them, and returns their names.
inline std::vector<std::string> unzipped(const std::filesystem::path& path, const TemporaryFolder& folder) {
  const std::string zip = read_bytes(path);
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    REQUIRE(at + bytes <= zip.size());
    std::memcpy(&value, zip.data() + at, bytes);
    return value;
  };
  REQUIRE(zip.size() >= 22);
  const std::size_t end = zip.size() - 22;
  CHECK(number(end, 4) == 0x06054b50);
  CHECK(number(end + 20, 2) == 0);  // no comment
  const std::uint64_t count = number(end + 10, 2);
  CHECK(number(end + 8, 2) == count);
  std::size_t at = number(end + 16, 4), next = 0;
  CHECK(at + number(end + 12, 4) == end);
  std::vector<std::string> names;
  for (std::uint64_t i = 0; i < count; ++i) {
    REQUIRE(number(at, 4) == 0x02014b50);
    const std::size_t size = number(at + 24, 4), name_size = number(at + 28, 2), local = number(at + 42, 4);
    CHECK(number(at + 10, 2) == 0);  // stored
    CHECK(number(at + 20, 4) == size);
    const std::string name = zip.substr(at + 46, name_size);
    CHECK(local == next);
    REQUIRE(number(local, 4) == 0x04034b50);
    CHECK(zip.substr(local + 6, 20) == zip.substr(at + 8, 20));  // flags, method, date, checksum, sizes
    CHECK(number(local + 26, 2) == name_size);
    CHECK(number(local + 28, 2) == 0);
    CHECK(zip.substr(local + 30, name_size) == name);
    const std::string data = zip.substr(local + 30 + name_size, size);
    CHECK(number(at + 16, 4) == tinymoe::detail::crc32(std::as_bytes(std::span(data))));
    write_bytes(folder / name, data);
    names.push_back(name);
    next = local + 30 + name_size + size;
    at += 46 + name_size;
  }
  CHECK(at == end);
  return names;
}

}  // namespace tinymoe_test
