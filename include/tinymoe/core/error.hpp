#pragma once
/// @file
/// The exceptions of the boundary: files, text, tokens, shapes and devices. Inside loops there is only `assert`.

#include <charconv>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

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

/// A piece of a sentence: a text or a number. A real number gets six significant digits. A stream would do the same,
/// but its instantiation for each sentence was a tenth of a program's compile time.
class SentencePiece {
 public:
  SentencePiece(std::string_view text) : text_(text) {}
  SentencePiece(const char* text) : text_(text) {}
  SentencePiece(const std::string& text) : text_(text) {}
  SentencePiece(char character) : digits_{character}, length_(1) {}
  SentencePiece(std::floating_point auto number) {
    keep(std::to_chars(std::begin(digits_), std::end(digits_), static_cast<double>(number), std::chars_format::general,
                       6)
             .ptr);
  }
  SentencePiece(std::integral auto number) {
    if constexpr (std::same_as<decltype(number), bool>) {
      digits_[0] = number ? '1' : '0', length_ = 1;
    } else {
      keep(std::to_chars(std::begin(digits_), std::end(digits_), number).ptr);
    }
  }
  std::string_view text() const { return length_ > 0 ? std::string_view(digits_, length_) : text_; }

 private:
  void keep(const char* end) { length_ = static_cast<std::size_t>(end - digits_); }

  std::string_view text_;
  char digits_[24];
  std::size_t length_ = 0;  // of the digits; 0: it is a text
};

inline std::string sentence_of(std::initializer_list<SentencePiece> pieces) {
  std::string sentence;
  for (const SentencePiece& piece : pieces) sentence += piece.text();
  return sentence;
}

}  // namespace detail

/// Throws `E` with one sentence made of the arguments, which are texts and numbers:
/// `fail<FileError>(path.string(), ": expected ", 8, " bytes")`.
template <class E, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw E(detail::sentence_of({detail::SentencePiece(parts)...}));
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
