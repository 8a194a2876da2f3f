#pragma once
/// @file
/// Writes GGUF files of version 3 in one pass: the metadata and the list of tensors first, then each tensor's bytes as
/// they come.

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/gguf_types.hpp"

namespace tinymoe::inline v0_1 {

/// The keys and values of a file, in the order in which they are added. The type of a value is that of the file.
class GgufMetadata {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void add(std::string_view key, T value) {
    begin(key, kind_of<T>());
    number(value);
  }
  void add(std::string_view key, std::string_view value) {
    begin(key, detail::GgufKind::string);
    string(value);
  }
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  template <class T>
  requires std::is_arithmetic_v<T>
  void add(std::string_view key, std::span<const T> values) {
    begin_array(key, kind_of<T>(), values.size());
    for (const T value : values) number(value);
  }
  void add(std::string_view key, std::span<const std::string> values) {
    begin_array(key, detail::GgufKind::string, values.size());
    for (const std::string& value : values) string(value);
  }

  std::uint64_t size() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  static constexpr detail::GgufKind kind_of() {
    using enum detail::GgufKind;
    if constexpr (std::is_same_v<T, bool>) return boolean;
    if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? float32 : float64;
    constexpr detail::GgufKind natural = sizeof(T) == 1   ? uint8
                                         : sizeof(T) == 2 ? uint16
                                         : sizeof(T) == 4 ? uint32
                                                          : uint64;
    constexpr detail::GgufKind whole = sizeof(T) == 1 ? int8 : sizeof(T) == 2 ? int16 : sizeof(T) == 4 ? int32 : int64;
    return std::is_signed_v<T> ? whole : natural;
  }

  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(std::string_view text) {
    number(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  void begin(std::string_view key, detail::GgufKind kind) {
    ++count_;
    string(key);
    number(static_cast<std::uint32_t>(kind));
  }
  void begin_array(std::string_view key, detail::GgufKind kind, std::size_t count) {
    begin(key, detail::GgufKind::array);
    number(static_cast<std::uint32_t>(kind));
    number(static_cast<std::uint64_t>(count));
  }

  std::string bytes_;
  std::uint64_t count_ = 0;
};

/// A tensor that a GGUF file will have. Its rows are whole blocks of its type.
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::float32;
  std::vector<Index> shape;  // the fastest first
};

/// Writes a GGUF file whose tensors come one after the other, in pieces of any size.
///
/// Throws FileError that names the file and the tensor: names given twice or longer than 63 bytes, which llama.cpp does
/// not read, tensors out of order or incomplete, and as FileWriter.
class GgufWriter {
 public:
  /// Writes the header; the tensors follow in the order given here.
  [[gnu::cold]] GgufWriter(FileWriter& file, const GgufMetadata& metadata, std::vector<GgufTensor> tensors)
      : file_(file), tensors_(std::move(tensors)) {
    std::string header = "GGUF";
    const auto number = [&](auto value) { header.append(reinterpret_cast<const char*>(&value), sizeof value); };
    number(detail::gguf_version);
    number(static_cast<std::uint64_t>(tensors_.size()));
    number(metadata.size());
    header += metadata.bytes();
    std::uint64_t offset = 0;
    std::set<std::string_view> names;
    for (const GgufTensor& tensor : tensors_) {
      constexpr std::size_t longest_name = 63;
      if (tensor.name.size() > longest_name || !names.insert(tensor.name).second) {
        fail<FileError>(where(tensor.name), "the name is given twice or has more than ", longest_name, " bytes");
      }
      number(static_cast<std::uint64_t>(tensor.name.size()));
      header += tensor.name;
      number(static_cast<std::uint32_t>(tensor.shape.size()));
      std::uint64_t rows = 1;
      for (const Index extent : tensor.shape) number(static_cast<std::uint64_t>(extent));
      for (std::size_t d = 1; d < tensor.shape.size(); ++d) rows *= static_cast<std::uint64_t>(tensor.shape[d]);
      number(static_cast<std::uint32_t>(tensor.type));
      number(offset);
      bytes_.push_back(rows * detail::gguf_row_bytes(tensor.type, tensor.shape[0]));
      offset += padded(bytes_.back());
    }
    header.resize(padded(header.size()), '\0');
    file_.expect(header.size() + offset);
    file_.write(header);
  }

  /// Appends bytes, already of the stored type, to the tensor whose turn it is, which must be `name`.
  [[gnu::cold]] void append(std::string_view name, std::span<const std::byte> bytes) {
    if (current_ == tensors_.size()) fail<FileError>(where(name), "given after the last tensor was complete");
    if (tensors_[current_].name != name || bytes.size() > bytes_[current_] - written_) {
      fail<FileError>(where(name), "given ", bytes.size(), " bytes, expected at most ", bytes_[current_] - written_,
                      " of ", tensors_[current_].name);
    }
    file_.write(bytes);
    written_ += bytes.size();
    if (written_ < bytes_[current_]) return;
    file_.write(std::string(padded(written_) - static_cast<std::size_t>(written_), '\0'));
    ++current_;
    written_ = 0;
  }

  /// Checks that every tensor is complete. The FileWriter closes the file.
  [[gnu::cold]] void finish() const {
    if (current_ == tensors_.size()) return;
    fail<FileError>(where(tensors_[current_].name), "has ", written_, " bytes of ", bytes_[current_]);
  }

 private:
  static constexpr std::size_t padded(std::uint64_t bytes) {
    return static_cast<std::size_t>((bytes + detail::gguf_alignment - 1) / detail::gguf_alignment *
                                    detail::gguf_alignment);
  }

  std::string where(std::string_view tensor) const {
    return detail::sentence_of({file_.path(), ": tensor ", tensor, ": "});
  }

  FileWriter& file_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::uint64_t> bytes_;  // of each tensor
  std::size_t current_ = 0;           // the tensor whose turn it is
  std::uint64_t written_ = 0;         // its bytes so far
};

}  // namespace tinymoe::inline v0_1
