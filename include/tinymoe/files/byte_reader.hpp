#pragma once
/// @file
/// A file as a stream of bytes, in bounded memory, for files that are larger than memory or compressed.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1 {

/// Bytes in their order, from a file or made of one.
class ByteReader {
 public:
  ByteReader() = default;
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  virtual ~ByteReader() = default;

  /// Overwrites the beginning of `to`, which is not empty, with the next bytes. Returns their number, which is 0 at the
  /// end alone. Throws FileError.
  virtual std::size_t read(std::span<char> to) = 0;
};

/// The bytes of a regular file.
class FileReader final : public ByteReader {
 public:
  /// Throws FileError if the file cannot be opened, or is not regular, and then calls it what it was `expected` to be.
  explicit FileReader(std::filesystem::path path, const char* expected = "a regular file")
      : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (file_.number < 0) fail<FileError>(path_, ": cannot be opened: ", std::strerror(errno));
    struct stat status {};
    if (::fstat(file_.number, &status) != 0 || !S_ISREG(status.st_mode)) {
      fail<FileError>(path_, ": expected ", expected);
    }
  }

  std::size_t read(std::span<char> to) override {
    for (;;) {
      const ssize_t count = ::read(file_.number, to.data(), to.size());
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) fail<FileError>(path_, ": cannot be read: ", std::strerror(errno));
    }
  }

 private:
  std::filesystem::path path_;
  detail::Descriptor file_;
};

namespace detail {

/// The bytes of another reader, the first of which have been read to look at them.
class PeekedReader final : public ByteReader {
 public:
  explicit PeekedReader(std::unique_ptr<ByteReader> reader) : reader_(std::move(reader)) {
    while (held_ < sizeof first_) {
      const std::size_t count = reader_->read(std::span(first_).subspan(held_));
      if (count == 0) break;
      held_ += count;
    }
  }

  /// The first bytes: four, or all of a shorter file.
  std::string_view first() const { return {first_, held_}; }

  std::size_t read(std::span<char> to) override {
    if (passed_ == held_) return reader_->read(to);
    const std::size_t count = std::min(to.size(), held_ - passed_);
    std::copy_n(first_ + passed_, count, to.begin());
    passed_ += count;
    return count;
  }

 private:
  std::unique_ptr<ByteReader> reader_;
  char first_[4] = {};
  std::size_t held_ = 0, passed_ = 0;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
