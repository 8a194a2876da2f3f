#pragma once
/// @file
/// Arrays by name in one file that NumPy loads: .npz, a ZIP file of .npy files, stored as they are (PKWARE's
/// APPNOTE.TXT, without its 64-bit extension).

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/npy_format.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The checksum of ZIP: CRC-32 (ISO 3309), of `bytes` behind those of `before`.
inline std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before = 0) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      made[i] = i;
      for (int bit = 0; bit < 8; ++bit) made[i] = (made[i] >> 1) ^ ((made[i] & 1) != 0 ? 0xEDB88320u : 0);
    }
    return made;
  }();
  std::uint32_t sum = ~before;
  for (const std::byte byte : bytes) sum = table[(sum ^ std::to_integer<std::uint32_t>(byte)) & 0xff] ^ (sum >> 8);
  return ~sum;
}

}  // namespace detail

/// Writes a .npz file: `add` for each array, then `finish`.
class NpzWriter {
 public:
  explicit NpzWriter(FileWriter& file) : file_(&file) {}

  /// Appends a row-major array of this shape; numpy.load gives it under `name`. Throws FileError if the file would have
  /// more than 4 GiB or 65,535 arrays.
  template <class T>
  void add(std::string_view name, std::span<const T> values, const std::vector<std::size_t>& shape) {
    std::size_t count = 1;
    for (const std::size_t extent : shape) count *= extent;
    assert(count == values.size());
    add(name, detail::npy_begin(detail::npy_type<T>(), shape, file_->path().string()), std::as_bytes(values));
  }

  /// Writes the list of arrays; nothing is added after it.
  [[gnu::cold]] void finish() {
    const std::uint64_t begin = file_->size();
    file_->write(entries_);
    put({{0x06054b50, 4}, {0, 4}, {count_, 2}, {count_, 2}, {file_->size() - begin, 4}, {begin, 4}, {0, 2}});
  }

 private:
  /// A number and its bytes in the file, the lowest first.
  struct Field {
    std::uint64_t value;
    int bytes;
  };
  static std::string text(std::initializer_list<Field> fields) {
    std::string made;
    for (const Field& field : fields) {
      for (int i = 0; i < field.bytes; ++i) made += static_cast<char>(field.value >> (8 * i) & 0xff);
    }
    return made;
  }
  void put(std::initializer_list<Field> fields) { file_->write(text(fields)); }

  [[gnu::cold]] void add(std::string_view name, const std::string& begin, std::span<const std::byte> data) {
    const std::string file = std::string(name) + ".npy";
    const std::uint64_t at = file_->size(), size = begin.size() + data.size();
    constexpr std::uint64_t most = UINT32_MAX;
    if (count_ == UINT16_MAX || size > most || at + size + entries_.size() + 1024 > most) {
      fail<FileError>(file_->path(), ": .npz holds 4 GiB and 65535 arrays at most; write less into one file");
    }
    const std::uint32_t sum = detail::crc32(data, detail::crc32(std::as_bytes(std::span(begin))));
    constexpr Field version{20, 2}, utf8{0x800, 2}, stored{0, 2}, time{0, 2}, date{0x21, 2};  // 1980-01-01
    put({{0x04034b50, 4}, version, utf8, stored, time, date, {sum, 4}, {size, 4}, {size, 4}, {file.size(), 2}, {0, 2}});
    file_->write(file);
    file_->write(begin);
    file_->write(data);
    entries_ += text({{0x02014b50, 4},
                      version,
                      version,
                      utf8,
                      stored,
                      time,
                      date,
                      {sum, 4},
                      {size, 4},
                      {size, 4},
                      {file.size(), 2},
                      {0, 2},
                      {0, 2},
                      {0, 2},
                      {0, 2},
                      {0, 4},
                      {at, 4}});
    entries_ += file;
    ++count_;
  }

  FileWriter* file_;
  std::string entries_;
  std::uint64_t count_ = 0;
};

}  // namespace tinymoe::inline v0_1
