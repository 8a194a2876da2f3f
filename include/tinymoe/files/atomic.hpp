#pragma once
/// @file
/// Writing that a crash cannot spoil: a file or a folder appears whole under its name, or the old one stays.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Closes a file descriptor at the end of its scope and ignores errors: only for those whose close cannot lose data.
struct Descriptor {
  int number = -1;
  explicit Descriptor(int opened) : number(opened) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

/// Waits until a file or the entries of a folder are on the disk.
inline void synchronise(int descriptor, const std::filesystem::path& path) {
  // EINVAL and ENOTSUP: devices and file systems that have nothing to wait for.
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail<FileError>(path.string(), ": cannot be written to disk: ", std::strerror(errno));
  }
}

inline void synchronise_path(const std::filesystem::path& path) {
  const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (opened.number < 0) fail<FileError>(path.string(), ": cannot be opened: ", std::strerror(errno));
  synchronise(opened.number, path);
}

inline std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// The entries of a folder.
inline std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> entries;
  std::error_code reason;
  for (std::filesystem::directory_iterator entry(folder, reason), end; !reason && entry != end;
       entry.increment(reason)) {
    entries.push_back(entry->path());
  }
  if (reason) fail<FileError>(folder.string(), ": cannot be listed: ", reason.message());
  return entries;
}

/// The name that a rename should replace: without a trailing slash, and what a symbolic link points to.
inline std::filesystem::path rename_target(const std::filesystem::path& path) {
  std::filesystem::path target = path.has_filename() ? path : path.parent_path();
  std::error_code ignored;
  if (std::filesystem::is_symlink(target, ignored) || target.filename() == "." || target.filename() == "..") {
    target = std::filesystem::weakly_canonical(target, ignored);
  }
  if (!target.has_filename()) fail<FileError>(path.string(), ": expected the path of a file or folder");
  return target;
}

/// `NAME.partial-<pid>`, then `NAME.partial-<pid>-<attempt>`.
inline std::filesystem::path partial_name(const std::filesystem::path& path, int attempt) {
  std::string name = path.string() + ".partial-" + std::to_string(::getpid());
  if (attempt > 0) name.append("-").append(std::to_string(attempt));
  return name;
}

/// Whether `path` is a leftover partial file or folder: its process has ended, and nobody holds its lock if it is a
/// folder. The lock protects a run in another container, whose process numbers mean nothing here.
inline bool is_stale_partial(const std::filesystem::path& path, std::string_view prefix) {
  const std::string name = path.filename().string();
  if (!name.starts_with(prefix)) return false;
  int process = 0;
  const auto parsed = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), process);
  if (parsed.ec != std::errc() || process <= 0 || (::kill(process, 0) == 0 || errno != ESRCH)) return false;
  const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  return opened.number < 0 || ::flock(opened.number, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

/// Removes the partial files and folders that killed runs left beside `path`.
inline void remove_stale_partials(const std::filesystem::path& path) {
  const std::string prefix = path.filename().string() + ".partial-";
  std::error_code ignored;
  for (const auto& entry : entries_of(folder_of(path))) {
    if (is_stale_partial(entry, prefix)) std::filesystem::remove_all(entry, ignored);
  }
}

}  // namespace detail

/// A file that is written from its start, buffered, with every status checked.
/// Throws FileError that names the file, the bytes that were needed and the reason (a full disk, a limit, a quota).
class FileWriter {
 public:
  /// Creates the file or empties an existing one; with `exclusive`, an existing one is an error.
  explicit FileWriter(std::filesystem::path path, bool exclusive = false) : path_(std::move(path)) {
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
  void finish() {
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

  void flush() {
    write_through(buffer_);
    buffer_.clear();
  }

  void write_through(std::span<const std::byte> bytes) {
    if (!bytes.empty() && descriptor_ < 0) fail<FileError>(path_.string(), ": written to after it was finished");
    while (!bytes.empty()) {
      // Linux writes at most 2 GiB at a time, macOS refuses more.
      const auto written = ::write(descriptor_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) report(written < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
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

/// Writes a file under a temporary name beside `path`, lets `writer(FileWriter&)` fill it, waits until it is on the
/// disk and renames it: `path` is the old file or the new one at any moment, and the old one after an exception.
/// Throws FileError if it cannot be written; what `writer` throws goes through.
template <std::invocable<FileWriter&> Writer>
void write_file_atomically(const std::filesystem::path& path, Writer&& writer) {
  const auto target = detail::rename_target(path);
  std::error_code ignored;
  if (std::filesystem::exists(target, ignored) && !std::filesystem::is_regular_file(target, ignored)) {
    fail<FileError>(path.string(), ": expected a regular file or none");
  }
  int attempt = 0;
  while (std::filesystem::exists(detail::partial_name(target, attempt), ignored)) ++attempt;
  const auto partial = detail::partial_name(target, attempt);
  FileWriter file(partial, true);
  try {
    std::forward<Writer>(writer)(file);
    if (!file.finished()) file.finish();
    if (::rename(partial.c_str(), target.c_str()) != 0) {
      fail<FileError>(path.string(), ": cannot be replaced: ", std::strerror(errno));
    }
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
  detail::synchronise_path(detail::folder_of(target));
  detail::remove_stale_partials(target);
}

}  // namespace tinymoe::inline v0_1
