#pragma once
/// @file
/// As much of protobuf's wire format (developers.google.com/protocol-buffers/docs/encoding) as sentencepiece's files
/// have. The bytes are untrusted, so all of it is checked; nothing is allocated.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1::detail {

/// One field of a message.
struct ProtobufField {
  enum class Kind : std::uint8_t { number = 0, eight_bytes = 1, bytes = 2, four_bytes = 5 };

  std::uint32_t id = 0;
  Kind kind = Kind::number;
  std::uint64_t number = 0;  // of number, eight_bytes and four_bytes
  std::string_view bytes;    // of bytes: a string or a message
  std::size_t at = 0;        // where the field begins in the file
};

/// The fields of a message, one after the other.
class ProtobufReader {
 public:
  /// Reads `message`, which begins at byte `at` of the file. Errors are FileErrors that name `file` and the byte.
  ProtobufReader(std::string_view message, std::size_t at, const std::string& file)
      : rest_(message), at_(at), file_(&file) {}
  /// The message that is the value of a field.
  ProtobufReader(const ProtobufReader& reader, const ProtobufField& field)
      : ProtobufReader(field.bytes, reader.at_ - field.bytes.size(), *reader.file_) {}

  /// Reads the next field; false at the end.
  bool next(ProtobufField& field) {
    if (rest_.empty()) return false;
    field = {};
    field.at = at_;
    const std::uint64_t tag = varint("a field");
    const std::uint64_t kind = tag & 7u;
    if (tag >> 3 == 0 || tag >> 32 != 0) refuse(field.at, "expected the number of a field, found ", tag >> 3);
    field.id = static_cast<std::uint32_t>(tag >> 3);
    field.kind = static_cast<ProtobufField::Kind>(kind);
    switch (kind) {
      case 0:
        field.number = varint("a number");
        return true;
      case 1:
      case 5:
        field.number = fixed(kind == 1 ? 8 : 4);
        return true;
      case 2: {
        const std::uint64_t size = varint("a length");
        if (size > rest_.size()) refuse(field.at, "a field of ", size, " bytes where ", rest_.size(), " are left");
        field.bytes = rest_.substr(0, size);
        take(field.bytes.size());
        return true;
      }
      default:
        refuse(field.at, "expected a field, found one of the unknown type ", kind);
    }
  }

  /// Throws FileError unless the field is of this kind.
  void expect(const ProtobufField& field, ProtobufField::Kind kind) const {
    if (field.kind == kind) return;
    refuse(field.at, "field ", field.id, " is of the type ", static_cast<int>(field.kind), ", expected ",
           static_cast<int>(kind));
  }
  template <class... What>
  [[noreturn, gnu::cold]] void refuse(std::size_t at, const What&... what) const {
    fail<FileError>(*file_, ": byte ", at, ": ", what...);
  }

 private:
  void take(std::size_t bytes) {
    rest_.remove_prefix(bytes);
    at_ += bytes;
  }
  std::uint64_t varint(const char* name) {
    const std::size_t begin = at_;
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) refuse(begin, "is cut within ", name);
      const auto byte = static_cast<unsigned char>(rest_[0]);
      take(1);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    refuse(begin, "expected ", name, " of at most ten bytes, found more");
  }
  std::uint64_t fixed(std::size_t bytes) {
    if (rest_.size() < bytes) refuse(at_, "is cut within a number of ", bytes, " bytes");
    std::uint64_t value = 0;
    for (std::size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(rest_[i]);
    take(bytes);
    return value;
  }

  std::string_view rest_;
  std::size_t at_;
  const std::string* file_;
};

/// A message that is being written.
class ProtobufWriter {
 public:
  void number(std::uint32_t id, std::uint64_t value) {
    varint(std::uint64_t{id} << 3);
    varint(value);
  }
  void bytes(std::uint32_t id, std::string_view value) {
    varint(std::uint64_t{id} << 3 | 2u);
    varint(value.size());
    text_ += value;
  }
  void real(std::uint32_t id, float value) {
    varint(std::uint64_t{id} << 3 | 5u);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) {
      text_.push_back(static_cast<char>(static_cast<unsigned char>(bits >> shift & 0xffu)));
    }
  }
  const std::string& text() const { return text_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_.push_back(static_cast<char>(static_cast<unsigned char>(value | 0x80u)));
    text_.push_back(static_cast<char>(static_cast<unsigned char>(value)));
  }

  std::string text_;
};

}  // namespace tinymoe::inline v0_1::detail
