#pragma once
/// @file
/// Writing that a crash cannot spoil: a file appears whole under its name, or the old one stays. For the files of a
/// folder see atomic_folder.hpp.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/write_lock.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Waits until a file or the entries of a folder are on the disk.
[[gnu::cold]] inline void synchronise(int descriptor, const std::filesystem::path& path) {
  // EINVAL and ENOTSUP: devices and file systems that have nothing to wait for.
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail<FileError>(path.string(), ": cannot be written to disk: ", std::strerror(errno));
  }
}

[[gnu::cold]] inline void synchronise_path(const std::filesystem::path& path) {
  const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (opened.number < 0 && errno == EACCES) return;  // one may write to a folder, and not read it
  if (opened.number < 0) fail<FileError>(path.string(), ": cannot be opened: ", std::strerror(errno));
  synchronise(opened.number, path);
}

/// Writes all bytes. Returns 0, or the reason (errno) why not; `bytes` are those that are left then.
[[gnu::cold]] inline int write_all(int descriptor, std::span<const std::byte>& bytes) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB at a time, macOS refuses more.
    const auto written = ::write(descriptor, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace detail

/// A file that is written from its start, buffered, with every status checked.
/// Throws FileError that names the file, the bytes that were needed and the reason (a full disk, a limit, a quota).
class FileWriter {
 public:
  /// Creates the file or empties an existing one; with `exclusive`, an existing one is an error.
  [[gnu::cold]] explicit FileWriter(std::filesystem::path path, bool exclusive = false) : path_(std::move(path)) {
    const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (exclusive ? O_EXCL : O_TRUNC);
    descriptor_ = ::open(path_.c_str(), flags, 0666);
    if (descriptor_ < 0) fail<FileError>(path_.string(), ": cannot be created: ", std::strerror(errno));
    buffer_.reserve(buffer_size);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  /// Without `finish` the file stays incomplete.
  ~FileWriter() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  /// Tells how large the file will be, for the error of a full disk.
  void expect(std::uint64_t bytes) { expected_ = bytes; }

  /// Appends bytes; large ones go straight to the file, uncopied.
  void write(std::span<const std::byte> bytes) {
    size_ += bytes.size();
    if (buffer_.size() + bytes.size() > buffer_size) flush();
    if (bytes.size() >= buffer_size) return write_through(bytes);
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  /// Appends text.
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// Waits until all is on the disk, and closes the file. Nothing can be written after it.
  [[gnu::cold]] void finish() {
    flush();
    detail::synchronise(descriptor_, path_);
    if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
      fail<FileError>(path_.string(), ": cannot be closed: ", std::strerror(errno));
    }
  }

  bool finished() const { return descriptor_ < 0; }
  std::uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  static constexpr std::size_t buffer_size = 1 << 16;

  [[gnu::cold]] void flush() {
    write_through(buffer_);
    buffer_.clear();
  }

  void write_through(std::span<const std::byte> bytes) {
    if (!bytes.empty() && descriptor_ < 0) fail<FileError>(path_.string(), ": written to after it was finished");
    if (const int reason = detail::write_all(descriptor_, bytes); reason != 0) report(reason);
  }

  [[noreturn]] void report(int reason) const {
    std::error_code unknown;
    const auto space = std::filesystem::space(detail::folder_of(path_), unknown);
    std::string available;
    if ((reason == ENOSPC || reason == EDQUOT) && !unknown) {
      available = "; the file system has " + std::to_string(space.available) + " free";
    }
    fail<FileError>(path_.string(), ": cannot be written: ", std::strerror(reason), " (needs ",
                    std::max(size_, expected_), " bytes", available, ")");
  }

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::vector<std::byte> buffer_;
  std::uint64_t size_ = 0, expected_ = 0;
};

namespace detail {

/// A file under a temporary name beside its target, locked while it is written, so that others can tell it from one
/// that a killed process left.
class PartialFile {
 public:
  /// Throws FileError if the target cannot be replaced by a file: it is no regular file or cannot be renamed to.
  [[gnu::cold]] explicit PartialFile(const std::filesystem::path& path) : target_(write_target(path)) {
    if (!target_.has_filename()) fail<FileError>(path.string(), ": expected the path of a file");
    if (const auto found = look_at(target_); found != Found::nothing && found != Found::file) {
      fail<FileError>(path.string(), ": expected a regular file or none");
    }
    if (is_mount_point(target_)) {
      fail<FileError>(path.string(), ": is a mount point, which no file can replace; mount the folder around it");
    }
    constexpr int attempts = 100;
    for (int attempt = 1; attempt <= attempts; ++attempt) {
      if (open(attempt == attempts)) return;
    }
    fail<FileError>(path.string(), ": cannot be written: ", partial_.string(), " exists; remove it");
  }
  PartialFile(const PartialFile&) = delete;
  ~PartialFile() {
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }

  FileWriter& writer() { return *writer_; }

  [[gnu::cold]] void put_in_place(const std::filesystem::path& path) {
    if (!writer_->finished()) writer_->finish();
    if (::rename(partial_.c_str(), target_.c_str()) != 0) {
      fail<FileError>(path.string(), ": cannot be replaced: ", std::strerror(errno));
    }
    partial_.clear();
    synchronise_path(folder_of(target_));
    remove_left_partials(target_);
  }

 private:
  /// False if the name is taken, or was until a moment ago. The `last` attempt does without a lock: the file system
  /// may have none that can be trusted.
  [[gnu::cold]] bool open(bool last) {
    static std::atomic<unsigned> files = 0;  // threads must not take one name
    partial_ = target_.string() + ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(++files);
    std::error_code ignored;
    if (std::filesystem::exists(std::filesystem::symlink_status(partial_, ignored))) return false;
    writer_.emplace(partial_, true);
    lock_.emplace(open_to_lock(partial_));
    // A process that clears the folder may hold it for a moment, and will remove it.
    const LockResult result = lock_->number >= 0 ? try_lock(lock_->number) : LockResult::held;
    if (result == LockResult::failed) {
      const int reason = errno;
      ::unlink(partial_.c_str());
      fail<FileError>(target_.string(), ": cannot be locked: ", std::strerror(reason));
    }
    const bool locked = result != LockResult::held && is_named(lock_->number, partial_);
    if (!locked && !last) ::unlink(partial_.c_str());
    return locked || last;
  }

  std::filesystem::path target_, partial_;
  std::optional<FileWriter> writer_;
  std::optional<Descriptor> lock_;
};

}  // namespace detail

/// Writes a file under a temporary name beside `path`, lets `writer(FileWriter&)` fill it, waits until it is on the
/// disk and renames it: `path` is the old file or the new one at any moment, and the old one after an exception. Of a
/// symbolic link, the file that it points to is replaced. Throws FileError if it cannot be written; what `writer`
/// throws goes through.
template <std::invocable<FileWriter&> Writer>
void write_file_atomically(const std::filesystem::path& path, Writer&& writer) {
  detail::PartialFile file(path);
  std::forward<Writer>(writer)(file.writer());
  file.put_in_place(path);
}

/// Throws FileError if `write_file_atomically` could not write `path`, for a program that works long before it writes.
/// Makes the folders above it.
[[gnu::cold]] inline void expect_writable(const std::filesystem::path& path) {
  const auto folder = detail::folder_of(detail::write_target(path));
  detail::make_folder(folder, path);
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail<FileError>(path.string(), ": cannot be written: ", std::strerror(errno), "; give another path");
  }
  const detail::PartialFile probe(path);
}

}  // namespace tinymoe::inline v0_1
