#pragma once
/// @file
/// The exceptions of the boundary: files, text, tokens, shapes and devices. Inside loops there is only `assert`.

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// Base of every exception that tinymoe throws; `what()` is one sentence that names the thing, what was expected and
/// what was found.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file that is missing, cut, corrupt, hostile or cannot be written.
class FileError : public Error {
 public:
  using Error::Error;
};

/// Text, a tokenizer or a token id that cannot be used.
class TextError : public Error {
 public:
  using Error::Error;
};

/// Shapes or sizes that do not fit each other or the model.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// Weights, a tokenizer or a configuration of another architecture.
class MismatchError : public Error {
 public:
  using Error::Error;
};

/// A run-time option outside its range.
class OptionError : public Error {
 public:
  using Error::Error;
};

/// Training that cannot go on: a loss that is not a number, a data set shorter than one batch.
class TrainingError : public Error {
 public:
  using Error::Error;
};

/// A device that is missing or that reports a failure.
class DeviceError : public Error {
 public:
  using Error::Error;
};

namespace detail {

/// A piece of a sentence: a text, a path or a number. A real number gets six significant digits. It only notes what it
/// was given, in two words, since one is made wherever something can fail, and that costs each program compile time.
class SentencePiece {
 public:
  SentencePiece(std::string_view text) : text_(text.data()), size_(static_cast<std::ptrdiff_t>(text.size())) {}
  SentencePiece(const char* text) : text_(text), size_(c_string) {}
  SentencePiece(const std::string& text) : SentencePiece(std::string_view(text)) {}
  SentencePiece(const std::filesystem::path& path) : path_(&path), size_(path_name) {}
  SentencePiece(char one) : natural_(static_cast<unsigned char>(one)), size_(character) {}
  SentencePiece(std::floating_point auto number) : real_(static_cast<double>(number)), size_(real) {}
  SentencePiece(std::signed_integral auto number) : whole_(number), size_(whole) {}
  SentencePiece(std::unsigned_integral auto number) : natural_(number), size_(natural) {}

  void append_to(std::string& sentence) const {
    char digits[32];
    const auto until = [&](std::to_chars_result end) { sentence.append(digits, end.ptr); };
    switch (size_) {
      case c_string:
        sentence += text_;
        break;
      case path_name:
        sentence += path_->string();
        break;
      case character:
        sentence += static_cast<char>(natural_);
        break;
      case whole:
        until(std::to_chars(digits, std::end(digits), whole_));
        break;
      case natural:
        until(std::to_chars(digits, std::end(digits), natural_));
        break;
      case real:
        until(std::to_chars(digits, std::end(digits), real_, std::chars_format::general, 6));
        break;
      default:
        sentence.append(text_, static_cast<std::size_t>(size_));
    }
  }

 private:
  enum Kind : std::ptrdiff_t { c_string = -6, path_name, character, whole, natural, real };
  union {
    const char* text_;
    const std::filesystem::path* path_;
    std::int64_t whole_;
    std::uint64_t natural_;
    double real_;
  };
  std::ptrdiff_t size_;  // of a text, or a `Kind`
};

[[gnu::noinline]] inline std::string sentence_of(std::initializer_list<SentencePiece> pieces) {
  std::string sentence;
  for (const SentencePiece& piece : pieces) piece.append_to(sentence);
  return sentence;
}

/// A sentence on one line. What it quotes may come from a file and have control characters, which a terminal would obey:
/// each stands there as its number, <0x1B>.
[[gnu::noinline, gnu::cold]] inline std::string on_one_line(const std::string& sentence) {
  constexpr char digits[] = "0123456789ABCDEF";
  std::string line;
  for (std::size_t i = 0; i < sentence.size(); ++i) {
    const auto byte = static_cast<unsigned char>(sentence[i]);
    const unsigned next = i + 1 < sentence.size() ? static_cast<unsigned char>(sentence[i + 1]) : 0;
    const bool wide = byte == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F in UTF-8
    if (byte >= ' ' && byte != 0x7f && !wide) {
      line += sentence[i];
      continue;
    }
    const unsigned code = wide ? next : byte;
    line.append("<0x").append({digits[code / 16], digits[code % 16], '>'});
    i += wide ? 1 : 0;
  }
  return line;
}

/// One function for each kind of error, however many sentences there are.
template <class E>
[[noreturn, gnu::noinline, gnu::cold]] void throw_sentence(std::initializer_list<SentencePiece> pieces) {
  throw E(on_one_line(sentence_of(pieces)));
}

}  // namespace detail

/// Throws `E` with one sentence made of the arguments, which are texts, paths and numbers:
/// `fail<FileError>(path, ": expected ", 8, " bytes")`.
template <class E, class... Parts>
[[noreturn]] TINYMOE_INLINE void fail(const Parts&... parts) {
  detail::throw_sentence<E>({detail::SentencePiece(parts)...});
}

namespace detail {

/// Calls f(). A TextError becomes a FileError that names the file.
template <class F>
auto naming_file(const std::string& file, F&& f) {
  try {
    return f();
  } catch (const TextError& error) {
    fail<FileError>(file, ": ", error.what());
  }
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
