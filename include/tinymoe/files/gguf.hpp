#pragma once
/// @file
/// Reads GGUF files through a memory map. A file's counts, lengths and offsets are claims: each is checked against the
/// file before anything is read or allocated by it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/gguf_types.hpp"
#include "tinymoe/files/gguf_values.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"

namespace tinymoe::inline v0_1 {

/// A GGUF file of version 2 or 3. The constructor checks that every claim of the header fits the file, that names are
/// unique, and that the tensors are of a type that tinymoe reads, lie in the file, aligned, and do not overlap.
/// Otherwise it throws FileError that names the file and the key or tensor.
class Gguf {
 public:
  [[gnu::cold]] explicit Gguf(const std::filesystem::path& path) : file_(path), rest_(file_.bytes()) {
    if (!file_.text().starts_with("GGUF"))
      fail<FileError>(name(), ": expected a GGUF file, found another kind of file");
    rest_ = rest_.subspan(4);
    const auto version = take<std::uint32_t>("the version");
    if (version == 1) {
      fail<FileError>(name(),
                      ": is GGUF of version 1, which tinymoe does not read; convert the model again with a "
                      "newer llama.cpp");
    }
    if (version < detail::gguf_oldest_version || version > detail::gguf_version) {
      const bool swapped = (version & 0xffffu) == 0;
      fail<FileError>(name(), ": is GGUF of version ", version,
                      swapped ? ", so its bytes are in the order of another "
                                "machine"
                              : "",
                      "; tinymoe reads versions 2 and 3");
    }
    const auto tensors = take<std::uint64_t>("the number of tensors");
    const auto keys = take<std::uint64_t>("the number of keys");
    // At least a name's length, a type and a value; a name's length, dimensions, a type and an offset.
    constexpr std::size_t least_key = 13, least_tensor = 24;
    if (keys > rest_.size() / least_key || tensors > rest_.size() / least_tensor) {
      fail<FileError>(name(), ": claims ", keys, " keys and ", tensors, " tensors, which its ", file_.size(),
                      " bytes cannot hold; is the file cut?");
    }
    for (std::uint64_t i = 0; i < keys; ++i) read_key(i);
    const std::uint64_t alignment = read_alignment();
    std::vector<std::pair<std::string_view, std::uint64_t>> offsets;
    for (std::uint64_t i = 0; i < tensors; ++i) read_tensor(i, offsets);
    const std::uint64_t header = file_.size() - rest_.size(), begin = (header + alignment - 1) / alignment * alignment;
    place_tensors(offsets, begin, alignment);
  }

  const std::filesystem::path& path() const { return file_.path(); }
  std::string name() const { return file_.path().string(); }

  /// The tensors' names, in the order of the header.
  const std::vector<std::string_view>& names() const { return names_; }
  /// A tensor; nullptr if the file has none of this name.
  const detail::GgufTensorView* tensor(std::string_view tensor) const {
    const auto found = tensors_.find(tensor);
    return found != tensors_.end() ? &found->second : nullptr;
  }

  /// The keys of the metadata, sorted.
  std::vector<std::string_view> keys() const {
    std::vector<std::string_view> keys;
    for (const auto& [key, value] : metadata_) keys.push_back(key);
    return keys;
  }
  bool contains(std::string_view key) const { return metadata_.contains(key); }
  /// A number, a boolean or a string as JSON; null where there is no such key, and for an array.
  [[gnu::cold]] Json value(std::string_view key) const {
    const detail::GgufValue* found = find(key);
    if (found == nullptr || found->array) return {};
    return found->kind == detail::GgufKind::string ? Json(found->text()) : found->item(0);
  }
  /// The strings of an array, which live as long as this object. Throws FileError if there are none.
  [[gnu::cold]] std::vector<std::string_view> strings(std::string_view key) const {
    const detail::GgufValue* found = find(key);
    if (found == nullptr || !found->array || found->kind != detail::GgufKind::string)
      refuse_kind(key, "an array of strings");
    std::vector<std::string_view> strings;
    auto bytes = found->bytes;
    for (std::uint64_t i = 0; i < found->count; ++i) {
      std::uint64_t length = 0;  // it was checked
      std::memcpy(&length, bytes.data(), sizeof length);
      const auto text = bytes.subspan(sizeof length, static_cast<std::size_t>(length));
      strings.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
      bytes = bytes.subspan(sizeof length + text.size());
    }
    return strings;
  }
  /// The numbers of an array. Throws FileError if there are none.
  [[gnu::cold]] std::vector<double> numbers(std::string_view key) const {
    const detail::GgufValue* found = find(key);
    if (found == nullptr || !found->array || found->kind == detail::GgufKind::string)
      refuse_kind(key, "an array of numbers");
    std::vector<double> numbers;
    for (std::uint64_t i = 0; i < found->count; ++i) {
      const Json item = found->item(i);
      numbers.push_back(item.is_boolean() ? double(item.boolean()) : item.number());
    }
    return numbers;
  }

 private:
  const detail::GgufValue* find(std::string_view key) const {
    const auto found = metadata_.find(key);
    return found != metadata_.end() ? &found->second : nullptr;
  }

  [[noreturn, gnu::cold]] void refuse_kind(std::string_view key, const char* expected) const {
    fail<FileError>(name(), ": key ", key, contains(key) ? ": expected " : " is missing; expected ", expected);
  }

  [[noreturn, gnu::cold]] void refuse_cut(std::string_view what, std::uint64_t bytes) const {
    fail<FileError>(name(), ": ", what, " needs ", bytes, " bytes where the file has ", rest_.size(),
                    " left; is the file cut?");
  }

  /// The next bytes. `what` is what they are, for messages.
  std::span<const std::byte> take_bytes(std::uint64_t count, std::string_view what) {
    if (count > rest_.size()) refuse_cut(what, count);
    const auto bytes = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(bytes.size());
    return bytes;
  }
  template <class T>
  T take(std::string_view what) {
    T value;
    std::memcpy(&value, take_bytes(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> take_string(std::string_view what) { return take_bytes(take<std::uint64_t>(what), what); }
  std::string_view take_name(const char* what, std::uint64_t number) {
    const std::string of = detail::sentence_of({what, number});
    const auto bytes = take_string(of);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (text.empty()) fail<FileError>(name(), ": the name of ", of, " is empty");
    // A message shows it.
    if (std::any_of(text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; })) {
      fail<FileError>(name(), ": the name of ", of, " is not printable ASCII");
    }
    return text;
  }

  detail::GgufKind take_kind(std::string_view key) {
    const auto kind = take<std::uint32_t>(key);
    if (kind >= std::size(detail::gguf_kind_facts)) {
      fail<FileError>(name(), ": key ", key, " has a value of the unknown type ", kind);
    }
    return static_cast<detail::GgufKind>(kind);
  }

  [[gnu::cold]] void read_key(std::uint64_t number) {
    const std::string_view key = take_name("key ", number);
    detail::GgufValue value;
    value.kind = take_kind(key);
    if (value.kind == detail::GgufKind::array) {
      value.array = true;
      value.kind = take_kind(key);
      value.count = take<std::uint64_t>(key);
      if (value.kind == detail::GgufKind::array) {
        fail<FileError>(name(), ": key ", key, " is an array of arrays, which tinymoe does not read");
      }
    }
    const std::size_t each = detail::gguf_kind_facts[static_cast<std::size_t>(value.kind)].bytes;
    if (each == 0 && value.array) {
      const auto begin = rest_;
      if (value.count > rest_.size() / sizeof(std::uint64_t)) refuse_cut(key, value.count);
      for (std::uint64_t i = 0; i < value.count; ++i) take_string(key);
      value.bytes = begin.first(begin.size() - rest_.size());
    } else if (each == 0) {
      value.bytes = take_string(key);
    } else {
      if (value.count > rest_.size() / each) refuse_cut(key, value.count);
      value.bytes = take_bytes(value.count * each, key);
    }
    if (value.kind == detail::GgufKind::boolean) {
      for (const std::byte byte : value.bytes) {
        if (byte > std::byte{1}) fail<FileError>(name(), ": key ", key, " has a boolean that is neither 0 nor 1");
      }
    }
    if (value.kind == detail::GgufKind::string && !value.array &&
        find_invalid_utf8(value.text()) != std::string_view::npos) {
      fail<FileError>(name(), ": key ", key, " has a string that is not UTF-8");
    }
    if (!metadata_.emplace(key, value).second) fail<FileError>(name(), ": key ", key, " is there twice");
  }

  [[gnu::cold]] std::uint64_t read_alignment() const {
    constexpr std::string_view key = "general.alignment";
    if (!contains(key)) return detail::gguf_alignment;
    const auto alignment = value(key).whole<std::uint32_t>();
    if (!alignment || *alignment == 0 || (*alignment & (*alignment - 1)) != 0) {
      fail<FileError>(name(), ": key ", key, ": expected a power of two");
    }
    return *alignment;
  }

  [[gnu::cold]] void read_tensor(std::uint64_t number,
                                 std::vector<std::pair<std::string_view, std::uint64_t>>& offsets) {
    const std::string_view tensor = take_name("tensor ", number);
    const std::string where = detail::sentence_of({name(), ": tensor ", tensor});
    detail::GgufTensorView view;
    const auto dimensions = take<std::uint32_t>(tensor);
    if (dimensions == 0 || dimensions > detail::gguf_most_dimensions) {
      fail<FileError>(where, ": expected 1 to ", detail::gguf_most_dimensions, " dimensions, found ", dimensions);
    }
    std::uint64_t elements = 1;
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    for (std::uint32_t d = 0; d < dimensions; ++d) {
      const auto extent = take<std::uint64_t>(tensor);
      if (extent == 0 || extent > most / elements) fail<FileError>(where, " has an extent of ", extent);
      elements *= extent;
      view.shape.push_back(static_cast<Index>(extent));
    }
    const auto type = take<std::uint32_t>(tensor);
    const bool known = type < std::size(detail::gguf_type_facts);
    if (!known || detail::gguf_type_facts[type].bytes == 0) {
      fail<FileError>(where, " is of the type ",
                      known ? std::string(detail::gguf_type_facts[type].name) : std::to_string(type),
                      ", which tinymoe does not read; convert the model to F32, F16, BF16, Q8_0, Q4_0 or Q4_K_M");
    }
    view.type = static_cast<GgufType>(type);
    const auto& facts = detail::gguf_facts(view.type);
    if (static_cast<std::uint64_t>(view.shape[0]) % facts.elements != 0) {
      fail<FileError>(where, " has rows of ", view.shape[0], " elements, which are no whole blocks of ", facts.name);
    }
    offsets.emplace_back(tensor, take<std::uint64_t>(tensor));
    const std::uint64_t blocks = elements / facts.elements;
    if (blocks > file_.size() / facts.bytes) {
      fail<FileError>(where, " has ", blocks, " times ", facts.bytes, " bytes, more than the file; is the file cut?");
    }
    // Its length; where it lies is known when the header has ended.
    view.bytes = file_.bytes().first(static_cast<std::size_t>(blocks) * facts.bytes);
    if (!tensors_.emplace(tensor, std::move(view)).second) fail<FileError>(where, " is there twice");
    names_.push_back(tensor);
  }

  [[gnu::cold]] void place_tensors(std::vector<std::pair<std::string_view, std::uint64_t>>& offsets,
                                   std::uint64_t begin, std::uint64_t alignment) {
    for (const auto& [tensor, offset] : offsets) {
      auto& view = tensors_.find(tensor)->second;
      const std::string where = detail::sentence_of({name(), ": tensor ", tensor});
      if (offset % alignment != 0) {
        fail<FileError>(where, " lies at ", offset, ", which is no multiple of the alignment ", alignment);
      }
      if (begin > file_.size() || offset > file_.size() - begin || view.bytes.size() > file_.size() - begin - offset) {
        fail<FileError>(where, " of ", view.bytes.size(), " bytes lies at ", offset, " behind the header, outside the ",
                        file_.size(), " bytes of the file; is the file cut?");
      }
      view.bytes = file_.bytes().subspan(static_cast<std::size_t>(begin + offset), view.bytes.size());
    }
    std::sort(offsets.begin(), offsets.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    for (std::size_t i = 1; i < offsets.size(); ++i) {
      const auto& [before, offset] = offsets[i - 1];
      if (offset + tensors_.find(before)->second.bytes.size() <= offsets[i].second) continue;
      fail<FileError>(name(), ": tensor ", offsets[i].first, " overlaps the tensor ", before);
    }
  }

  MappedFile file_;
  std::span<const std::byte> rest_;  // of the header, while it is read
  std::map<std::string_view, detail::GgufValue> metadata_;
  std::map<std::string_view, detail::GgufTensorView> tensors_;
  std::vector<std::string_view> names_;
};

}  // namespace tinymoe::inline v0_1
