#pragma once
/// @file
/// xtensor arrays as NumPy's .npy files (format 1.0, 2.0 and 3.0; NumPy Enhancement Proposal 1).
///
/// The header is read and written here rather than by xtensor/xnpy.hpp, which trusts the file: it allocates by the
/// header's shape, leaves the rest of a cut file uninitialised, and misreads headers of 128 to 255 bytes.

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/npy_format.hpp"
#include "tinymoe/files/xtensor.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The header of a .npy file.
struct NpyHeader {
  std::string type;  // "<f4"
  bool column_major = false;
  std::vector<std::size_t> shape;
};

/// Reads the Python dictionary of a .npy header: three keys, in any order.
class NpyDictionary {
 public:
  NpyDictionary(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  NpyHeader read() {
    NpyHeader header;
    int seen = 0;  // one bit a key
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      const int bit = key == "descr" ? 1 : key == "fortran_order" ? 2 : key == "shape" ? 4 : 0;
      if (bit == 0 || (seen & bit) != 0) fail<FileError>(name_, ": the header has the unexpected key ", key);
      seen |= bit;
      if (bit == 1) header.type = quoted();
      if (bit == 2) header.column_major = truth();
      if (bit == 4) header.shape = tuple();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (seen != 7) fail<FileError>(name_, ": the header lacks descr, fortran_order or shape");
    skip_space();
    if (position_ != text_.size()) corrupt("its end");
    return header;
  }

 private:
  [[noreturn]] void corrupt(std::string_view expected) const {
    fail<FileError>(name_, ": the header is corrupt at its byte ", position_, ": expected ", expected);
  }
  void skip_space() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n')) ++position_;
  }
  bool accept(char character) {
    skip_space();
    if (position_ == text_.size() || text_[position_] != character) return false;
    ++position_;
    return true;
  }
  void expect(char character) {
    if (!accept(character)) corrupt(std::string_view(&character, 1));
  }
  std::string quoted() {
    skip_space();
    const char quote = accept('"') ? '"' : '\'';
    if (quote == '\'' && !accept('\'')) corrupt("a string (records are not supported)");
    const auto end = text_.find(quote, position_);
    if (end == std::string_view::npos) corrupt("the end of a string");
    std::string text(text_.substr(position_, end - position_));
    position_ = end + 1;
    return text;
  }
  bool truth() {
    skip_space();
    for (const std::string_view word : {"False", "True"}) {
      if (!text_.substr(position_).starts_with(word)) continue;
      position_ += word.size();
      return word == "True";
    }
    corrupt("True or False");
  }
  std::vector<std::size_t> tuple() {
    std::vector<std::size_t> shape;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::uint64_t extent = 0;
      const auto parsed = std::from_chars(text_.data() + position_, text_.data() + text_.size(), extent);
      if (parsed.ec != std::errc() || extent > INT64_MAX) corrupt("a size");
      position_ = static_cast<std::size_t>(parsed.ptr - text_.data());
      shape.push_back(static_cast<std::size_t>(extent));
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  std::string name_;
  std::size_t position_ = 0;
};

/// Splits a .npy file into its header and its data. Throws FileError if the header does not lie within the file.
inline NpyHeader read_npy_header(const MappedFile& file, std::span<const std::byte>& data) {
  const std::string name = file.path().string();
  const auto text = file.text();
  if (!text.starts_with(npy_magic)) fail<FileError>(name, ": expected a .npy file");
  const std::size_t major = text.size() > 6 ? static_cast<unsigned char>(text[6]) : 0;
  if (major < 1 || major > 3) fail<FileError>(name, ": expected .npy format 1, 2 or 3, found ", major);
  const std::size_t length_bytes = major == 1 ? 2 : 4, begin = 8 + length_bytes;
  if (text.size() < begin) fail<FileError>(name, ": is cut within the header");
  std::uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, length_bytes);
  if (length > text.size() - begin) {
    fail<FileError>(name, ": the header claims ", length, " bytes; the file has ", text.size());
  }
  data = file.bytes().subspan(begin + length);
  return NpyDictionary(text.substr(begin, length), name).read();
}

}  // namespace detail

/// Loads a .npy file whose numbers are of type `T`; column-major arrays become row-major.
/// Throws FileError that names the file: missing, cut, corrupt, of another type, or with more or fewer bytes of data
/// than its shape has.
template <class T = float>
xt::xarray<T> load_npy(const std::filesystem::path& path) {
  const MappedFile file(path);
  std::span<const std::byte> data;
  const auto header = detail::read_npy_header(file, data);
  const std::string expected = detail::npy_type<T>();
  if (header.type != expected) fail<FileError>(path, ": expected numbers ", expected, ", found ", header.type);
  std::size_t count = 1;
  bool fits = header.shape.size() <= 64;
  for (const std::size_t extent : header.shape) {
    fits = fits && (extent == 0 || count <= INT64_MAX / sizeof(T) / extent);
    count *= fits ? extent : 1;
  }
  if (!fits || count * sizeof(T) != data.size()) {
    fail<FileError>(path, ": the shape does not fit the ", data.size(), " bytes of data");
  }
  if constexpr (std::is_same_v<T, bool>) {
    for (const std::byte value : data) {
      if (std::to_integer<int>(value) > 1) fail<FileError>(path, ": holds bytes that are not bool");
    }
  }
  const auto filled = [&](auto array) {
    if (!data.empty()) std::memcpy(array.data(), data.data(), data.size());
    return array;
  };
  using Shape = typename xt::xarray<T>::shape_type;
  const Shape shape(header.shape.begin(), header.shape.end());
  if (!header.column_major) return filled(xt::xarray<T>(shape));
  return filled(xt::xarray<T, xt::layout_type::column_major>(shape));
}

/// Saves an xtensor expression as a .npy file (format 1.0, row-major), whole or not at all.
/// Throws FileError if it cannot be written.
template <class E>
void save_npy(const std::filesystem::path& path, const xt::xexpression<E>& expression) {
  using T = std::remove_const_t<typename E::value_type>;
  const xt::xarray<T, xt::layout_type::row_major> array = expression.derived_cast();
  const std::vector<std::size_t> shape(array.shape().begin(), array.shape().end());
  const std::string begin = detail::npy_begin(detail::npy_type<T>(), shape, path.string());
  write_file_atomically(path, [&](FileWriter& file) {
    file.write(begin);
    file.write(std::as_bytes(std::span<const T>(array.data(), array.size())));
  });
}

}  // namespace tinymoe::inline v0_1
