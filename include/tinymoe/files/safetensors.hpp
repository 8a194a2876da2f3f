#pragma once
/// @file
/// Reads safetensors files through a memory map; every field of the header is checked before it is used.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/safetensors_writer.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// A tensor in a safetensors file: its bytes live as long as the Safetensors object, at any alignment.
struct StoredTensorView {
  StoredType type = StoredType::float32;
  std::vector<Index> shape;
  std::span<const std::byte> bytes;
};

}  // namespace detail

/// How `Safetensors::read` treats numbers.
struct ReadOptions {
  bool finite = true;  ///< a weight that is infinite or not a number, after conversion, is an error
};

/// A safetensors file. The constructor checks that the header fits the file and the format's 100 MB and is JSON of the
/// right form, that types are known, shapes fit 63 bits and names are unique, and that the tensors' bytes fill the rest
/// of the file without gap or overlap. Otherwise it throws FileError that names the file and the tensor.
class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& path) : file_(path) {
    const auto bytes = file_.bytes();
    std::uint64_t length = 0;
    if (bytes.size() < sizeof length) {
      fail<FileError>(name(), ": expected a safetensors file, found ", bytes.size(), " bytes");
    }
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length > detail::safetensors_header_limit || length > bytes.size() - sizeof length) {
      fail<FileError>(name(), ": the header claims ", length, " bytes; the file has ", bytes.size(),
                      " bytes and the format allows ", detail::safetensors_header_limit);
    }
    const auto text = file_.text().substr(sizeof length, static_cast<std::size_t>(length));
    if (!text.starts_with('{')) fail<FileError>(name(), ": the header is not a JSON object");
    const auto header = parse_json(text, name(), 4);
    data_ = bytes.subspan(sizeof length + static_cast<std::size_t>(length));
    for (const auto& [key, value] : header.members()) {
      if (key == "__metadata__") {
        read_metadata(value);
      } else {
        tensors_.emplace(key, read_tensor(key, value));
        names_.push_back(key);
      }
    }
    check_tiling();
  }

  /// The tensors' names, in the order of their bytes.
  const std::vector<std::string>& names() const { return names_; }
  /// Whether there is a tensor of this name.
  bool contains(std::string_view tensor) const { return tensors_.find(tensor) != tensors_.end(); }
  /// The strings of `__metadata__`.
  const Metadata& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }

  /// A tensor's type, shape and bytes. Throws MismatchError if the file has none of this name.
  const detail::StoredTensorView& info(std::string_view tensor) const {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end()) fail<MismatchError>(name(), ": tensor ", tensor, " is missing");
    return found->second;
  }

  /// Overwrites `out` with a tensor stored as F32, F64, F16 or BF16.
  /// Throws MismatchError that names file, tensor, expected and found, if it is missing, has another shape or does not
  /// hold floating-point numbers; ShapeError if `out` does not have the shape's size; FileError for a weight that is
  /// not finite.
  void read(std::string_view tensor, std::span<const Index> shape, std::span<float> out,
            ReadOptions options = {}) const {
    read_as(tensor, shape, out, options);
  }
  void read(std::string_view tensor, std::span<const Index> shape, std::span<double> out,
            ReadOptions options = {}) const {
    read_as(tensor, shape, out, options);
  }
  void read(std::string_view tensor, std::initializer_list<Index> shape, std::span<float> out,
            ReadOptions options = {}) const {
    read_as(tensor, std::span(shape.begin(), shape.size()), out, options);
  }
  void read(std::string_view tensor, std::initializer_list<Index> shape, std::span<double> out,
            ReadOptions options = {}) const {
    read_as(tensor, std::span(shape.begin(), shape.size()), out, options);
  }

  /// The bytes of a tensor stored as U8. Throws MismatchError if it is missing or has another shape or type.
  std::span<const std::byte> bytes(std::string_view tensor, std::span<const Index> shape) const {
    const auto& found = expect_shape(tensor, shape);
    if (found.type != StoredType::uint8) {
      fail<MismatchError>(name(), ": tensor ", tensor, ": expected the type U8, found ", stored_type_name(found.type),
                          "; is it of other weights?");
    }
    return found.bytes;
  }

 private:
  std::string name() const { return file_.path().string(); }

  void read_metadata(const Json& value) {
    if (!value.is_object()) fail<FileError>(name(), ": __metadata__ is not an object of strings");
    for (const auto& [key, text] : value.members()) {
      metadata_.emplace(key, json_value<std::string>(text, key, name() + ": __metadata__"));
    }
  }

  detail::StoredTensorView read_tensor(const std::string& key, const Json& value) const {
    const std::string where = name() + ": tensor " + key;
    detail::StoredTensorView tensor;
    const auto type_name = json_field<std::string>(value, "dtype", where);
    const auto type = stored_type_named(type_name);
    if (!type) fail<FileError>(where, ": unknown dtype ", type_name);
    tensor.type = *type;
    const auto& shape = json_member(value, "shape", where);
    if (!shape.is_array()) fail<FileError>(where, ": shape is not a list");
    for (const Json& extent : shape.items()) {
      tensor.shape.push_back(json_value<Index>(extent, "shape", where));
    }
    const auto& offsets = json_member(value, "data_offsets", where);
    if (!offsets.is_array() || offsets.size() != 2) fail<FileError>(where, ": data_offsets are not two numbers");
    const auto begin = json_value<std::uint64_t>(offsets.items()[0], "data_offsets", where);
    const auto end = json_value<std::uint64_t>(offsets.items()[1], "data_offsets", where);
    if (begin > end || end > data_.size()) {
      fail<FileError>(where, ": data_offsets [", begin, ", ", end, "] lie outside the ", data_.size(),
                      " bytes of data; is the file cut?");
    }
    const auto bytes = detail::tensor_bytes(tensor.type, tensor.shape);
    if (!bytes || *bytes != end - begin) {
      fail<FileError>(where, ": ", type_name, " of shape ", detail::shape_text(tensor.shape), " does not have ",
                      end - begin, " bytes");
    }
    tensor.bytes = data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    return tensor;
  }

  /// Sorts the names by where their bytes begin. The tensors must cover the data from the first byte to the last.
  void check_tiling() {
    const auto range = [this](const std::string& tensor) {
      const auto bytes = tensors_.find(tensor)->second.bytes;
      const auto begin = static_cast<std::size_t>(bytes.data() - data_.data());
      return std::pair(begin, begin + bytes.size());
    };
    std::stable_sort(names_.begin(), names_.end(),
                     [&](const auto& one, const auto& other) { return range(one) < range(other); });
    std::size_t expected = 0;
    for (const auto& tensor : names_) {
      const auto [begin, end] = range(tensor);
      if (begin != expected) {
        fail<FileError>(name(), ": tensor ", tensor, ": ",
                        begin < expected ? "overlaps the one before" : "has a gap before it", ": begins at ", begin,
                        ", expected ", expected);
      }
      expected = end;
    }
    if (expected != data_.size()) {
      fail<FileError>(name(), ": the tensors end at byte ", expected, " of the data, which has ", data_.size());
    }
  }

  const detail::StoredTensorView& expect_shape(std::string_view tensor, std::span<const Index> shape) const {
    const auto& found = info(tensor);
    if (!std::equal(shape.begin(), shape.end(), found.shape.begin(), found.shape.end())) {
      const bool transposed = std::equal(shape.rbegin(), shape.rend(), found.shape.begin(), found.shape.end());
      fail<MismatchError>(name(), ": tensor ", tensor, ": expected the shape ", detail::shape_text(shape), ", found ",
                          detail::shape_text(found.shape),
                          transposed ? "; it is transposed, so transpose it back" : "");
    }
    return found;
  }

  template <class T>
  void read_as(std::string_view tensor, std::span<const Index> shape, std::span<T> out, ReadOptions options) const {
    const auto& found = info(tensor);
    const bool floating = detail::with_floating_type(found.type, [](auto) {});
    if (!floating) {
      fail<MismatchError>(name(), ": tensor ", tensor, ": expected floating-point numbers, found ",
                          stored_type_name(found.type), "; save it as F32, F16 or BF16, or, if it is of integer ",
                          "weights, with the \"quantization_config\" that its config.json had");
    }
    expect_shape(tensor, shape);
    if (found.bytes.size() / stored_type_bytes(found.type) != out.size()) {
      fail<ShapeError>(name(), ": tensor ", tensor, ": the shape ", detail::shape_text(shape),
                       " does not fit room for ", out.size(), " numbers");
    }
    detail::with_floating_type(found.type, [&](auto stored) {
      detail::convert_elements<decltype(stored)>(found.bytes.data(), out.data(), out.size());
    });
    if (!options.finite) return;
    const auto index = detail::first_not_finite(std::span<const T>(out));
    if (index != out.size()) {
      fail<FileError>(name(), ": tensor ", tensor, ": number ", index, " is ", out[index],
                      ", expected a finite weight");
    }
  }

  MappedFile file_;
  std::span<const std::byte> data_;  // what follows the header
  std::map<std::string, detail::StoredTensorView, std::less<>> tensors_;
  std::vector<std::string> names_;
  Metadata metadata_;
};

}  // namespace tinymoe::inline v0_1
