#pragma once
/// @file
/// A JSON value and how it is written. Templates are avoided, because each unit of a program would compile them.
/// Over 300 lines: it is one class.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/json_piece.hpp"
#include "tinymoe/files/json_writer.hpp"

namespace tinymoe::inline v0_1 {

/// A JSON value: null, true or false, a number, a string, an array, or an object, whose members keep their order.
///
///     Json run = {{"preset", "story"}, {"steps", 100}, {"betas", {0.9, 0.95}}, {"notes", nullptr}};
///     run["seed"] = 1337;
///
/// Braces around pairs that begin with a string are an object, all other braces an array; `Json::array` is always one.
/// Copy with parentheses: to some compilers `Json{value}` is an array of one. Asking for the content of another kind
/// throws MismatchError.
class Json {
 public:
  struct Member;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;

  Json() = default;
  Json(std::nullptr_t) {}
  template <std::integral T>
  Json(T value) {
    if constexpr (std::same_as<T, bool>) {
      kind_ = Kind::boolean, data_.boolean = value;
    } else if (std::cmp_less(value, 0)) {
      kind_ = Kind::negative, data_.negative = static_cast<std::int64_t>(value);
    } else {
      kind_ = Kind::natural, data_.natural = static_cast<std::uint64_t>(value);
    }
  }
  Json(double value) : kind_(Kind::real) { data_.real = value; }
  Json(std::string value) : kind_(Kind::string) { data_.string = new std::string(std::move(value)); }
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char* value) : Json(std::string(value)) {}
  Json(std::initializer_list<detail::JsonPiece> values);
  static Json array(std::initializer_list<detail::JsonPiece> values = {});
  static Json object();

  Json(const Json& other);
  Json(Json&& other) noexcept : kind_(std::exchange(other.kind_, Kind::null)), data_(other.data_) {}
  Json& operator=(Json other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Json();

  bool is_null() const { return kind_ == Kind::null; }
  bool is_boolean() const { return kind_ == Kind::boolean; }
  bool is_whole() const { return kind_ == Kind::negative || kind_ == Kind::natural; }
  bool is_number() const { return is_whole() || kind_ == Kind::real; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }
  /// null, boolean, number, string, array or object.
  const char* kind() const;

  bool boolean() const { return expect(is_boolean(), "a boolean"), data_.boolean; }
  double number() const;
  const std::string& string() const { return expect(is_string(), "a string"), *data_.string; }
  const Array& items() const { return expect(is_array(), "an array"), *data_.array; }
  const Object& members() const { return expect(is_object(), "an object"), *data_.object; }
  /// A whole number as a `T`; nothing if it is no whole number or is outside a `T`'s range.
  template <std::integral T>
  std::optional<T> whole() const {
    if (kind_ == Kind::natural && std::in_range<T>(data_.natural)) return static_cast<T>(data_.natural);
    if (kind_ == Kind::negative && std::in_range<T>(data_.negative)) return static_cast<T>(data_.negative);
    return std::nullopt;
  }

  /// The member of that name; nullptr if there is none or this is no object.
  const Json* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// The member of that name; null if there is none or this is no object.
  const Json& operator[](std::string_view key) const;
  /// The member of that name, which is added as null if there is none. Null becomes an object.
  Json& operator[](std::string_view key);
  /// Adds a member, whose key must be new. Null becomes an object.
  void append(std::string key, Json value);
  /// Adds an item. Null becomes an array.
  void push_back(Json value);
  /// Removes the member of that name, if there is one.
  void erase(std::string_view key);
  /// The number of items or members; 0 for other kinds.
  std::size_t size() const;
  /// Sorts the members of all objects in it by their keys. For objects of hundreds of members at most: the time grows
  /// with the square of their number.
  void sort_keys();

  /// The value as JSON: in one line, or with a line for each part, indented by `indent` spaces a level. A real number
  /// has the fewest digits that read back as the same number; null stands for one that is not finite. Throws TextError
  /// for a string that is not UTF-8.
  std::string dump(int indent = -1) const;

  /// Numbers compare by value, objects without regard to the order of their members.
  friend bool operator==(const Json& a, const Json& b) { return a.equals(b); }

 private:
  enum class Kind : std::uint8_t { null, boolean, negative, natural, real, string, array, object };
  union Data {
    bool boolean;
    std::int64_t negative;
    std::uint64_t natural = 0;
    double real;
    std::string* string;  // this and what follows is owned
    Array* array;
    Object* object;
  };

  friend class detail::JsonPiece;
  static Json of_pieces(std::span<const detail::JsonPiece> pieces);
  static Json array_of(std::span<const detail::JsonPiece> pieces);

  void expect(bool is, const char* kind) const {
    if (!is) fail<MismatchError>("JSON: expected ", kind, ", found ", this->kind());
  }
  bool equals(const Json& other) const;
  void write(std::string& text, int indent, int level) const;

  Kind kind_ = Kind::null;
  Data data_ = {};
};

/// A member of an object.
struct Json::Member {
  std::string key;
  Json value;
};

inline Json detail::JsonPiece::value() const {
  switch (kind_) {
    case Kind::boolean:
      return Json(natural_ != 0);
    case Kind::whole:
      return Json(whole_);
    case Kind::natural:
      return Json(natural_);
    case Kind::real:
      return Json(real_);
    case Kind::c_string:
      return Json(text_);
    case Kind::text:
      return Json(std::string_view(text_, size_));
    case Kind::value:
      return Json(*value_);
    case Kind::list:
      return Json::of_pieces({list_, size_});
    case Kind::null:
      break;
  }
  return Json();
}

inline Json::Json(std::initializer_list<detail::JsonPiece> values) : Json(of_pieces(values)) {}

inline Json Json::of_pieces(std::span<const detail::JsonPiece> pieces) {
  Json made = array_of(pieces);
  for (const Json& value : *made.data_.array) {
    if (!value.is_array() || value.size() != 2 || !value.items()[0].is_string()) return made;
  }
  Json pairs = object();
  for (Json& pair : *made.data_.array) {
    Array& items = *pair.data_.array;
    pairs.append(std::move(*items[0].data_.string), std::move(items[1]));
  }
  return pairs;
}

inline Json Json::array_of(std::span<const detail::JsonPiece> pieces) {
  Json made;
  made.data_.array = new Array();
  made.kind_ = Kind::array;
  for (const detail::JsonPiece& piece : pieces) made.data_.array->push_back(piece.value());
  return made;
}

inline Json Json::array(std::initializer_list<detail::JsonPiece> values) { return array_of(values); }

inline Json Json::object() {
  Json made;
  made.data_.object = new Object();
  made.kind_ = Kind::object;
  return made;
}

inline Json::Json(const Json& other) : kind_(other.kind_), data_(other.data_) {
  if (kind_ == Kind::string) data_.string = new std::string(*other.data_.string);
  if (kind_ == Kind::array) data_.array = new Array(*other.data_.array);
  if (kind_ == Kind::object) data_.object = new Object(*other.data_.object);
}

inline Json::~Json() {
  if (kind_ == Kind::string) delete data_.string;
  if (kind_ == Kind::array) delete data_.array;
  if (kind_ == Kind::object) delete data_.object;
}

inline const char* Json::kind() const {
  if (is_number()) return "number";
  if (is_string()) return "string";
  if (is_array()) return "array";
  if (is_object()) return "object";
  return is_boolean() ? "boolean" : "null";
}

inline double Json::number() const {
  expect(is_number(), "a number");
  if (kind_ == Kind::real) return data_.real;
  return kind_ == Kind::natural ? static_cast<double>(data_.natural) : static_cast<double>(data_.negative);
}

inline const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const Member& member : *data_.object) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

inline const Json& Json::operator[](std::string_view key) const {
  static const Json null;
  const Json* found = find(key);
  return found != nullptr ? *found : null;
}

inline Json& Json::operator[](std::string_view key) {
  if (const Json* found = find(key)) return const_cast<Json&>(*found);
  append(std::string(key), nullptr);
  return data_.object->back().value;
}

inline void Json::append(std::string key, Json value) {
  if (is_null()) *this = object();
  expect(is_object(), "an object");
  data_.object->push_back({std::move(key), std::move(value)});
}

inline void Json::push_back(Json value) {
  if (is_null()) *this = array();
  expect(is_array(), "an array");
  data_.array->push_back(std::move(value));
}

inline void Json::erase(std::string_view key) {
  if (is_object()) std::erase_if(*data_.object, [&](const Member& member) { return member.key == key; });
}

inline std::size_t Json::size() const {
  if (is_array()) return data_.array->size();
  return is_object() ? data_.object->size() : 0;
}

inline void Json::sort_keys() {
  if (is_array()) {
    for (Json& item : *data_.array) item.sort_keys();
  } else if (is_object()) {
    for (Member& member : *data_.object) member.value.sort_keys();
    Object& members = *data_.object;
    for (std::size_t i = 1; i < members.size(); ++i) {
      for (std::size_t at = i; at > 0 && members[at].key < members[at - 1].key; --at) {
        members[at].key.swap(members[at - 1].key);
        std::swap(members[at].value, members[at - 1].value);
      }
    }
  }
}

inline bool Json::equals(const Json& other) const {
  if (is_number() && other.is_number()) {
    if (!is_whole() || !other.is_whole()) return number() == other.number();
    if (kind_ != other.kind_) return false;  // one is below 0, the other is not
    return kind_ == Kind::natural ? data_.natural == other.data_.natural : data_.negative == other.data_.negative;
  }
  if (kind_ != other.kind_) return false;
  if (is_boolean()) return data_.boolean == other.data_.boolean;
  if (is_string()) return *data_.string == *other.data_.string;
  if (is_array()) return *data_.array == *other.data_.array;
  if (!is_object() || size() != other.size()) return size() == other.size();
  for (const Member& member : *data_.object) {
    const Json* found = other.find(member.key);
    if (found == nullptr || *found != member.value) return false;
  }
  return true;
}

inline std::string Json::dump(int indent) const {
  std::string text;
  write(text, indent, 0);
  return text;
}

inline void Json::write(std::string& text, int indent, int level) const {
  const auto line = [&](int depth) {
    if (indent < 0) return;
    text += '\n';
    text.append(static_cast<std::size_t>(indent * depth), ' ');
  };
  if (is_null()) text += "null";
  if (is_boolean()) text += data_.boolean ? "true" : "false";
  if (kind_ == Kind::negative) text += std::to_string(data_.negative);
  if (kind_ == Kind::natural) text += std::to_string(data_.natural);
  if (kind_ == Kind::real) detail::append_json(text, data_.real);
  if (is_string()) detail::append_json(text, *data_.string);
  if (!is_array() && !is_object()) return;
  text += is_array() ? '[' : '{';
  for (std::size_t i = 0; i < size(); ++i) {
    if (i > 0) text += ',';
    line(level + 1);
    if (is_array()) {
      (*data_.array)[i].write(text, indent, level + 1);
    } else {
      const Member& member = (*data_.object)[i];
      detail::append_json(text, member.key);
      text += indent < 0 ? ":" : ": ";
      member.value.write(text, indent, level + 1);
    }
  }
  if (size() > 0) line(level);
  text += is_array() ? ']' : '}';
}

}  // namespace tinymoe::inline v0_1
