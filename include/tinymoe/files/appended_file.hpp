#pragma once
/// @file
/// A file that grows while a program runs, as a log does.

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1::detail {

/// Each piece is written at once, so that a killed program loses at most the end of the last one.
class AppendedFile {
 public:
  /// `flags`: 0 for a file that is there; O_CREAT | O_EXCL for one that is not. `path` is absolute, because a program
  /// may change its folder. Throws FileError.
  [[gnu::cold]] explicit AppendedFile(std::filesystem::path path, int flags = 0)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0666)) {
    check(file_.number < 0 ? errno : 0);
  }

  /// Throws FileError that gives the reason.
  void append(std::string_view bytes) { check(write_all(file_.number, std::as_bytes(std::span(bytes)))); }

  const std::filesystem::path& path() const { return path_; }

 private:
  void check(int reason) const {
    if (reason != 0) fail<FileError>(path_.string(), ": cannot be written: ", std::strerror(reason));
  }

  std::filesystem::path path_;
  Descriptor file_;
};

}  // namespace tinymoe::inline v0_1::detail
