#pragma once
/// @file
/// Writes safetensors files in one pass: the header first, then each tensor's bytes as they come.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1 {

/// The `__metadata__` of a safetensors file.
using Metadata = std::map<std::string, std::string>;

/// A tensor that a safetensors file will have.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::float32;
  std::vector<Index> shape;
};

namespace detail {

/// `[6, 256]`, for messages and headers.
[[gnu::cold]] inline std::string shape_text(std::span<const Index> shape, const char* comma = ", ") {
  std::string text = "[";
  for (const Index extent : shape) text += sentence_of({text.size() > 1 ? comma : "", extent});
  return text.append("]");
}

inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;  // bytes; the format's own

/// The bytes of a tensor, or nothing if an extent is negative or the product does not fit.
[[gnu::cold]] inline std::optional<std::uint64_t> tensor_bytes(StoredType type, std::span<const Index> shape) {
  std::uint64_t bytes = stored_type_bytes(type);
  for (const Index extent : shape) {
    if (extent < 0) return std::nullopt;
    const auto factor = static_cast<std::uint64_t>(extent);
    if (factor != 0 && bytes > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / factor) return std::nullopt;
    bytes *= factor;
  }
  return bytes;
}

}  // namespace detail

/// Writes a safetensors file whose tensors come one after the other, in pieces of any size: no tensor is copied.
///
///     write_file_atomically("model.safetensors", [&](FileWriter& file) {
///       SafetensorsWriter writer(file, {{"a.weight", StoredType::float32, {2, 3}}}, {{"format", "pt"}});
///       writer.append("a.weight", std::span<const float>(values));
///       writer.finish();
///     });
///
/// Throws FileError that names the file and the tensor: names given twice, tensors out of order or incomplete, a header
/// above the format's limit, and as FileWriter.
class SafetensorsWriter {
 public:
  /// Writes the header; the tensors follow in the order given here.
  [[gnu::cold]] SafetensorsWriter(FileWriter& file, std::vector<StoredTensor> tensors, const Metadata& metadata = {})
      : file_(file), tensors_(std::move(tensors)) {
    check_names();
    std::string header = "{";
    if (!metadata.empty()) {
      Json written = Json::object();
      for (const auto& [key, value] : metadata) written.append(key, value);
      header.append("\"__metadata__\":").append(json_text(written));
    }
    std::uint64_t offset = 0;
    for (const auto& tensor : tensors_) {
      const auto bytes = detail::tensor_bytes(tensor.type, tensor.shape);
      if (!bytes) fail<FileError>(where(tensor.name), "the shape ", detail::shape_text(tensor.shape), " is impossible");
      bytes_.push_back(*bytes);
      header +=
          detail::sentence_of({header.size() > 1 ? "," : "", json_text(tensor.name), ":{\"dtype\":\"",
                               stored_type_name(tensor.type), "\",\"shape\":", detail::shape_text(tensor.shape, ","),
                               ",\"data_offsets\":[", offset, ",", offset + *bytes, "]}"});
      offset += *bytes;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    if (header.size() > detail::safetensors_header_limit) {
      fail<FileError>(file_.path(), ": the header would have ", header.size(), " bytes, the format allows ",
                      detail::safetensors_header_limit);
    }
    file_.expect(sizeof(std::uint64_t) + header.size() + offset);
    const std::uint64_t length = header.size();
    file_.write(std::as_bytes(std::span(&length, 1)));
    file_.write(header);
    skip_complete();
  }

  /// Appends bytes, already of the stored type, to the tensor whose turn it is, which must be `name`.
  void append_bytes(std::string_view name, std::span<const std::byte> bytes) {
    if (current_ < tensors_.size() && tensors_[current_].name == name && bytes.size() <= bytes_[current_] - written_) {
      file_.write(bytes);
      written_ += bytes.size();
      return skip_complete();
    }
    if (bytes.empty()) return;  // a tensor without elements needs no turn
    if (current_ == tensors_.size()) fail<FileError>(where(name), "given after the last tensor was complete");
    fail<FileError>(where(name), "given ", bytes.size(), " bytes, expected at most ", bytes_[current_] - written_,
                    " of ", tensors_[current_].name);
  }

  /// Appends numbers to the tensor whose turn it is, which must be `name`. Floating-point numbers are converted to the
  /// stored type if it is F64, F32 or BF16 (to nearest even), 64 KiB at a time; others must be of that type.
  template <class T>
  void append(std::string_view name, std::span<const T> values) {
    const StoredType type = current_ < tensors_.size() ? tensors_[current_].type : stored_type_of<T>();
    if (type == stored_type_of<T>()) return append_bytes(name, std::as_bytes(values));
    if constexpr (!std::is_integral_v<T>) {
      if (type == StoredType::float64) return append_as<double>(name, values);
      if (type == StoredType::float32) return append_as<float>(name, values);
      if (type == StoredType::bfloat16) return append_as<bfloat16>(name, values);
    }
    if (values.empty()) return;
    fail<FileError>(where(name), "given ", stored_type_name(stored_type_of<T>()), ", expected ",
                    stored_type_name(type));
  }

  /// Checks that every tensor is complete. The FileWriter closes the file.
  [[gnu::cold]] void finish() const {
    if (current_ == tensors_.size()) return;
    fail<FileError>(where(tensors_[current_].name), "has ", written_, " bytes of ", bytes_[current_]);
  }

 private:
  std::string where(std::string_view tensor) const {
    return detail::sentence_of({file_.path(), ": tensor ", tensor, ": "});
  }

  [[gnu::cold]] void check_names() const {
    std::set<std::string_view> names;
    for (const StoredTensor& tensor : tensors_) {
      if (tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
        fail<FileError>(where(tensor.name), "the name is reserved or given twice");
      }
    }
  }

  [[gnu::cold]] std::string json_text(const Json& value) const {
    try {
      return value.dump();
    } catch (const TextError&) {
      fail<FileError>(file_.path(), ": a tensor's name or the metadata is not UTF-8 text");
    }
  }

  /// Goes to the next tensor that still lacks bytes.
  void skip_complete() {
    while (current_ < tensors_.size() && written_ == bytes_[current_]) ++current_, written_ = 0;
  }

  template <class To, class T>
  void append_as(std::string_view name, std::span<const T> values) {
    std::array<To, 65536 / sizeof(To)> block;
    while (!values.empty()) {
      const std::size_t count = std::min(block.size(), values.size());
      detail::convert_elements<T>(std::as_bytes(values).data(), block.data(), count);
      append_bytes(name, std::as_bytes(std::span(block).first(count)));
      values = values.subspan(count);
    }
  }

  FileWriter& file_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::uint64_t> bytes_;  // of each tensor
  std::size_t current_ = 0;           // the tensor whose turn it is
  std::uint64_t written_ = 0;         // its bytes so far
};

}  // namespace tinymoe::inline v0_1
