#pragma once
/// @file
/// JSON (RFC 8259) from untrusted text: a limit on depth, no duplicate keys, UTF-8 only, and errors that name the text
/// and the byte.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// How deeply objects and arrays may nest in a file; a real tokenizer.json or config.json has fewer than ten levels.
inline constexpr int json_depth_limit = 64;

/// Parses one text. It recurses once for each level of nesting, of which there are at most `depth_limit`.
class JsonParser {
 public:
  JsonParser(std::string_view text, const std::string& name, int depth_limit)
      : text_(text), name_(name), depth_limit_(depth_limit) {}

  Json parse() {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // a byte order mark, which RFC 8259 lets a reader ignore
    skip_space();
    Json value = read_value(0);
    skip_space();
    if (at_ < text_.size()) corrupt("the end");
    return value;
  }

 private:
  [[noreturn]] void corrupt(const char* expected) const {
    std::string found = "the end";
    if (at_ < text_.size()) {
      const auto byte = static_cast<unsigned char>(text_[at_]);
      const bool visible = byte > 0x20 && byte < 0x7f;
      found = visible ? std::string{'\'', text_[at_], '\''} : "the byte " + std::to_string(int{byte});
    }
    fail<FileError>(name_, ": JSON is cut or corrupt at byte ", at_ + 1, ": expected ", expected, ", found ", found);
  }

  /// The next byte, or 0 at the end. No JSON has a 0 outside its strings.
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char expected) {
    if (next() != expected) return false;
    ++at_;
    return true;
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  Json read_value(int depth) {
    switch (next()) {
      case '{':
      case '[':
        if (depth >= depth_limit_) fail<FileError>(name_, ": JSON is nested deeper than ", depth_limit_, " levels");
        return next() == '{' ? read_object(depth + 1) : read_array(depth + 1);
      case '"':
        return read_string();
      case 't':
        return read_word("true"), Json(true);
      case 'f':
        return read_word("false"), Json(false);
      case 'n':
        return read_word("null"), Json();
      default:
        return read_number();
    }
  }

  void read_word(std::string_view word) {
    for (const char letter : word) {
      if (!take(letter)) corrupt("true, false or null");
    }
  }

  Json read_array(int depth) {
    Json array = Json::array();
    ++at_;
    skip_space();
    if (take(']')) return array;
    for (;;) {
      array.push_back(read_value(depth));
      skip_space();
      if (take(']')) return array;
      if (!take(',')) corrupt("',' or ']'");
      skip_space();
    }
  }

  Json read_object(int depth) {
    Json object = Json::object();
    ++at_;
    skip_space();
    if (take('}')) return object;
    for (;;) {
      if (next() != '"') corrupt("a key in quotes");
      std::string key = read_string();
      if (object.size() < few_members && object.contains(key)) twice(key);
      skip_space();
      if (!take(':')) corrupt("':'");
      skip_space();
      object.append(std::move(key), read_value(depth));
      skip_space();
      if (take('}')) break;
      if (!take(',')) corrupt("',' or '}'");
      skip_space();
    }
    if (object.size() > few_members) check_unique(object);
    return object;
  }

  [[noreturn]] void twice(std::string_view key) const {
    fail<FileError>(name_, ": JSON has the key \"", key, "\" twice in one object");
  }
  void check_unique(const Json& object) const {
    std::vector<std::string_view> keys;
    for (const auto& member : object.members()) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto found = std::adjacent_find(keys.begin(), keys.end());
    if (found != keys.end()) twice(*found);
  }

  std::string read_string() {
    std::string value;
    ++at_;
    for (;;) {
      const std::size_t from = at_;
      while (at_ < text_.size() && is_plain(text_[at_])) ++at_;
      value += text_.substr(from, at_ - from);
      if (take('"')) return value;
      if (take('\\')) {
        read_escape(value);
      } else if (at_ < text_.size() && static_cast<unsigned char>(text_[at_]) >= 0x80) {
        const DecodedCodePoint code_point = decode_utf8(text_, at_);
        if (code_point.value == invalid_code_point) corrupt("UTF-8");
        value += text_.substr(at_, code_point.length);
        at_ += code_point.length;
      } else {
        corrupt("the end of a string, in which control characters are escaped");
      }
    }
  }
  static bool is_plain(char character) {
    const auto byte = static_cast<unsigned char>(character);
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
  }

  void read_escape(std::string& value) {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (take('u')) return append_utf8(value, read_code_point());
    const auto at = at_ < text_.size() ? letters.find(text_[at_]) : std::string_view::npos;
    if (at == std::string_view::npos) corrupt("an escape");
    ++at_;
    value += meant[at];
  }
  /// The code point after a \u: four digits, or two surrogates of four digits each above U+FFFF.
  char32_t read_code_point() {
    const std::uint32_t first = read_four_digits();
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff) corrupt("a first surrogate before this second one");
    if (!take('\\') || !take('u')) corrupt("the second surrogate after a first");
    const std::uint32_t second = read_four_digits();
    if (second < 0xdc00 || second > 0xdfff) corrupt("the second surrogate after a first");
    return 0x10000u + ((first - 0xd800u) << 10) + (second - 0xdc00u);
  }
  std::uint32_t read_four_digits() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char digit = next();
      if (digit >= '0' && digit <= '9') {
        value = value * 16 + static_cast<std::uint32_t>(digit - '0');
      } else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') {
        value = value * 16 + 10 + static_cast<std::uint32_t>((digit | 0x20) - 'a');
      } else {
        corrupt("four hexadecimal digits");
      }
    }
    return value;
  }

  std::size_t skip_digits() {
    const std::size_t from = at_;
    while (next() >= '0' && next() <= '9') ++at_;
    return at_ - from;
  }
  std::string_view since(std::size_t from) const { return text_.substr(from, at_ - from); }

  Json read_number() {
    const std::size_t from = at_;
    const bool negative = take('-');
    const std::size_t digits = at_;
    if (next() == 'N' || next() == 'I') {  // as Python writes NaN and Infinity
      fail<FileError>(name_, ": JSON has a number that is not finite at byte ", from + 1, "; write a finite one");
    }
    if (!take('0') && skip_digits() == 0) corrupt(negative ? "a digit" : "a value");
    std::int64_t magnitude = text_[digits] == '0' ? 0 : static_cast<std::int64_t>(at_ - digits);  // of the first digit
    bool whole = true;
    if (take('.')) {
      const std::size_t fraction = at_;
      if (skip_digits() == 0) corrupt("a digit");
      if (magnitude == 0)
        magnitude = -static_cast<std::int64_t>(std::min(since(fraction).find_first_not_of('0'), at_ - fraction));
      whole = false;
    }
    if (take('e') || take('E')) {
      const bool minus = take('-');
      if (!minus) take('+');
      const std::size_t exponent = at_;
      if (skip_digits() == 0) corrupt("a digit");
      constexpr std::int64_t most = std::int64_t{1} << 40;
      std::int64_t value = most;  // stays where the exponent does not fit
      std::from_chars(text_.data() + exponent, text_.data() + at_, value);
      value = std::min(value, most);
      magnitude += minus ? -value : value;
      whole = false;
    }
    if (whole) {
      if (std::int64_t value = 0; negative && convert(from, value)) return value;
      if (std::uint64_t value = 0; !negative && convert(from, value)) return value;
    }
    double value = 0;
    if (!convert(from, value) || std::isinf(value)) {
      if (magnitude > 0) fail<FileError>(name_, ": JSON cannot be read: number overflow at byte ", from + 1);
      value = negative ? -0.0 : 0.0;  // too small for a double
    }
    return value;
  }
  /// Whether the number that ends here is in range.
  template <class T>
  bool convert(std::size_t from, T& value) const {
    return std::from_chars(text_.data() + from, text_.data() + at_, value).ec == std::errc();
  }

  static constexpr std::size_t few_members = 16;  // up to here a new key is compared with each; more are sorted

  std::string_view text_;
  const std::string& name_;
  int depth_limit_;
  std::size_t at_ = 0;
};

}  // namespace detail

/// The value of a JSON text; `name` says in errors where the text came from.
/// Throws FileError for text that is cut or corrupt (with the byte, counted from 1), nested deeper than `depth_limit`,
/// has a number beyond a double's, or gives a key of an object twice.
inline Json parse_json(std::string_view text, const std::string& name, int depth_limit = detail::json_depth_limit) {
  return detail::JsonParser(text, name, depth_limit).parse();
}

}  // namespace tinymoe::inline v0_1
