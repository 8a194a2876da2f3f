#pragma once
/// @file
/// What stands in the braces of a `Json`.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace tinymoe::inline v0_1 {

class Json;

namespace detail {

/// A value in the braces of a `Json`. It is a view, without code for ownership or exceptions, since each program
/// compiles its lists. It must not outlive the expression in which it stands.
class JsonPiece {
 public:
  JsonPiece() = default;
  JsonPiece(std::nullptr_t) {}
  JsonPiece(bool value) : kind_(Kind::boolean), natural_(value) {}
  template <std::signed_integral T>
  JsonPiece(T value) : kind_(Kind::whole), whole_(value) {}
  template <std::unsigned_integral T>
  JsonPiece(T value) : kind_(Kind::natural), natural_(value) {}
  JsonPiece(double value) : kind_(Kind::real), real_(value) {}
  JsonPiece(const char* text) : kind_(Kind::c_string), text_(text) {}
  JsonPiece(std::string_view text) : kind_(Kind::text), text_(text.data()), size_(text.size()) {}
  JsonPiece(const std::string& text) : JsonPiece(std::string_view(text)) {}
  JsonPiece(const Json& value) : kind_(Kind::value), value_(&value) {}
  JsonPiece(std::initializer_list<JsonPiece> list) : kind_(Kind::list), size_(list.size()) { list_ = list.begin(); }

  /// The value, which owns what it holds.
  Json value() const;

 private:
  enum class Kind : std::uint8_t { null, boolean, whole, natural, real, c_string, text, value, list };

  Kind kind_ = Kind::null;
  union {
    std::int64_t whole_ = 0;
    std::uint64_t natural_;
    double real_;
    const char* text_;
    const Json* value_;
    const JsonPiece* list_;
  };
  std::size_t size_ = 0;  // of a text or a list
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
