#pragma once
/// @file
/// The exceptions of the boundary: files, text, tokens, shapes and devices. Inside loops there is only `assert`.

#include <sstream>
#include <stdexcept>
#include <string>

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

/// Throws `E` with the arguments streamed into one sentence: `fail<FileError>(path, ": expected ", 8, " bytes")`.
template <class E, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw E(sentence.str());
}

namespace detail {

/// f(), whose TextErrors become FileErrors that name the file that the text came from.
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
