#pragma once
/// @file
/// A folder of files, such as a checkpoint, that is replaced as a whole or not at all.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <concepts>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// `NAME.old`: it holds the last good folder during a replacement if the file system cannot exchange two names.
inline std::filesystem::path old_name(const std::filesystem::path& path) { return path.string() + ".old"; }

inline void rename_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    fail<FileError>(to.string(), ": ", from.string(), " cannot be renamed to it: ", std::strerror(errno));
  }
}

/// Exchanges two names in one step; false where the system or the file system cannot.
inline bool exchange_names(const std::filesystem::path& one, const std::filesystem::path& other) {
#if defined(SYS_renameat2)
  constexpr unsigned rename_exchange = 2;  // linux/fs.h
  return ::syscall(SYS_renameat2, AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), rename_exchange) == 0;
#else
  static_cast<void>(one), static_cast<void>(other);
  return false;
#endif
}

/// Replaces a folder by renames alone: between the two, `NAME.old` is the good one.
inline void replace_by_renames(const std::filesystem::path& partial, const std::filesystem::path& target) {
  const auto old = old_name(target);
  std::error_code ignored;
  std::filesystem::remove_all(old, ignored);  // the folder itself stands, so this is from an older replacement
  rename_folder(target, old);
  if (::rename(partial.c_str(), target.c_str()) != 0) {
    const int reason = errno;
    ::rename(old.c_str(), target.c_str());
    fail<FileError>(target.string(), ": cannot be replaced: ", std::strerror(reason));
  }
  synchronise_path(folder_of(target));
  std::filesystem::remove_all(old, ignored);
}

/// Whether a file of the old folder is not ours to delete: notes, a README, a licence.
inline bool is_foreign(const std::filesystem::path& file) {
  return file.extension() != ".safetensors" && file.extension() != ".json" &&
         file.filename().string().find(".partial-") == std::string::npos;
}

}  // namespace detail

/// The folder to load from: `path`. It is `path.old` after a crash in the middle of a replacement, if the file system
/// cannot exchange two names. Throws FileError if there is neither.
inline std::filesystem::path resolve_folder(const std::filesystem::path& path) {
  const auto named = path.has_filename() ? path : path.parent_path();
  std::error_code ignored;
  if (std::filesystem::is_directory(named, ignored)) return named;
  if (std::filesystem::exists(named, ignored)) fail<FileError>(path.string(), ": expected a folder, found a file");
  if (std::filesystem::is_directory(detail::old_name(named), ignored)) return detail::old_name(named);
  fail<FileError>(path.string(), ": there is no such folder");
}

/// A folder written under `NAME.partial-<pid>`; `commit` syncs it and puts it in the place of NAME.
///
///     AtomicFolder folder("checkpoint");
///     folder.write("config.json", [&](FileWriter& file) { file.write(text); });
///     folder.commit();
///
/// At any moment, a crash included, `resolve_folder(NAME)` is the whole old folder or the whole new one. Files of the
/// old one that are not .json or .safetensors (notes, a README) are kept. A folder that holds folders is refused: a
/// mistyped path must not delete a project. Without `commit` the destructor removes the partial folder; those of killed
/// runs go at the next commit. Throws FileError that names the path and the reason.
class AtomicFolder {
 public:
  /// Makes the partial folder, and the folders above it if they are missing.
  explicit AtomicFolder(const std::filesystem::path& destination) : target_(detail::rename_target(destination)) {
    std::error_code reason;
    std::filesystem::create_directories(detail::folder_of(target_), reason);
    check_target();
    for (int attempt = 0;; ++attempt) {
      partial_ = detail::partial_name(target_, attempt);
      if (::mkdir(partial_.c_str(), 0777) == 0) break;
      if (errno != EEXIST) fail<FileError>(partial_.string(), ": cannot be created: ", std::strerror(errno));
    }
    lock_ = ::open(partial_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (lock_ >= 0) static_cast<void>(::flock(lock_, LOCK_EX | LOCK_NB));  // without locks the pid protects it
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    std::error_code ignored;
    if (!committed_) std::filesystem::remove_all(partial_, ignored);
    if (lock_ >= 0) ::close(lock_);
  }

  /// Where the files are until `commit`.
  const std::filesystem::path& path() const { return partial_; }
  std::filesystem::path operator/(const std::string& name) const { return partial_ / name; }

  /// Writes one file of the folder: `writer(FileWriter&)` fills it.
  template <std::invocable<FileWriter&> Writer>
  void write(const std::string& name, Writer&& writer) {
    FileWriter file(partial_ / name);
    std::forward<Writer>(writer)(file);
    if (!file.finished()) file.finish();
  }

  /// Puts the folder in its place. Call it once.
  void commit() {
    if (committed_) fail<FileError>(target_.string(), ": was committed before");
    check_target();
    std::error_code ignored;
    const bool replaces = std::filesystem::exists(target_, ignored);
    if (replaces) keep_foreign_files();
    for (const auto& entry : detail::entries_of(partial_)) detail::synchronise_path(entry);
    detail::synchronise_path(partial_);
    if (!replaces) {
      detail::rename_folder(partial_, target_);
    } else if (!detail::exchange_names(partial_, target_)) {
      detail::replace_by_renames(partial_, target_);
    }
    committed_ = true;
    detail::synchronise_path(detail::folder_of(target_));
    std::filesystem::remove_all(partial_, ignored);  // after an exchange, the old folder
    std::filesystem::remove_all(detail::old_name(target_), ignored);
    detail::remove_stale_partials(target_);
  }

 private:
  void check_target() const {
    std::error_code ignored;
    if (!std::filesystem::exists(target_, ignored)) return;
    if (!std::filesystem::is_directory(target_, ignored)) {
      fail<FileError>(target_.string(), ": expected a folder or none, found a file");
    }
    for (const auto& entry : detail::entries_of(target_)) {
      if (std::filesystem::is_directory(std::filesystem::symlink_status(entry, ignored))) {
        fail<FileError>(target_.string(), ": holds the folder ", entry.filename().string(),
                        "; only a folder of files can be replaced");
      }
    }
  }

  void keep_foreign_files() const {
    for (const auto& entry : detail::entries_of(target_)) {
      const auto kept = partial_ / entry.filename();
      std::error_code reason;
      if (!detail::is_foreign(entry) || std::filesystem::exists(kept, reason)) continue;
      std::filesystem::create_hard_link(entry, kept, reason);
      if (reason) std::filesystem::copy(entry, kept, std::filesystem::copy_options::copy_symlinks, reason);
      if (reason) fail<FileError>(entry.string(), ": cannot be kept: ", reason.message());
    }
  }

  std::filesystem::path target_, partial_;
  int lock_ = -1;
  bool committed_ = false;
};

}  // namespace tinymoe::inline v0_1
