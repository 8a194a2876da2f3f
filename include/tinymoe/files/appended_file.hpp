#pragma once
/// @file
/// A file that grows while a program runs, as a log does.

#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1::detail {

/// Each piece is written at once, so that a killed program loses at most the end of the last one. What cannot be
/// written is tried again before the next piece and at the end, because a run whose log fails saves its state: then a
/// resumed run does not write that piece once more.
class AppendedFile {
 public:
  /// `flags`: 0 for a file that is there; O_CREAT | O_EXCL for one that is not. `path` is absolute, because a program
  /// may change its folder. Throws FileError.
  [[gnu::cold]] explicit AppendedFile(std::filesystem::path path, int flags = 0)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0666)) {
    check(file_.number < 0 ? errno : 0);
  }

  AppendedFile(const AppendedFile&) = delete;
  [[gnu::cold]] ~AppendedFile() {
    std::span<const std::byte> left = left_;
    static_cast<void>(write_all(file_.number, left));  // what failed was told
  }

  /// Throws FileError that gives the reason.
  void append(std::string_view piece) {
    std::span<const std::byte> bytes = std::as_bytes(std::span(piece));
    if (!left_.empty()) {
      left_.insert(left_.end(), bytes.begin(), bytes.end());
      bytes = left_;
    }
    const int reason = write_all(file_.number, bytes);
    left_ = std::vector<std::byte>(bytes.begin(), bytes.end());
    check(reason);
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  void check(int reason) const {
    if (reason != 0) fail<FileError>(path_.string(), ": cannot be written: ", std::strerror(reason));
  }

  std::filesystem::path path_;
  Descriptor file_;
  std::vector<std::byte> left_;  // what could not be written
};

}  // namespace tinymoe::inline v0_1::detail
