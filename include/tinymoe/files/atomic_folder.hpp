#pragma once
/// @file
/// A folder of files, such as a checkpoint, whose files are replaced together or not at all.
///
/// The folder itself stays: it may be a mount point (a container's volume), a symbolic link's target or the current
/// folder, and hold other files and folders, which nobody touches. New files are written in FOLDER/.tinymoe.partial-N.
/// When all are on the disk, it is renamed to FOLDER/.tinymoe.new; from here on the new files count. Then each
/// is linked into FOLDER over the old one, and .tinymoe.new goes. After a crash between the two, `resolve_folder` gives
/// .tinymoe.new, and the next process that writes ends the work.
/// Over 300 lines: writing, clearing and reading are one protocol, which is understood together.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/write_lock.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

inline constexpr const char* folder_lock_name = ".tinymoe.lock";
inline constexpr const char* new_files_name = ".tinymoe.new";
inline constexpr const char* partial_files_prefix = ".tinymoe.partial-";

/// Which file had a name: zeros if none did.
struct FileIdentity {
  ::dev_t device = 0;
  ::ino_t number = 0;
  ::time_t seconds = 0;  // a number may be used again, but then for a later file
  long nanoseconds = 0;

  [[gnu::cold]] explicit FileIdentity(const std::filesystem::path& path) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) return;
    device = found.st_dev, number = found.st_ino;
#if defined(__APPLE__)
    seconds = found.st_mtimespec.tv_sec, nanoseconds = found.st_mtimespec.tv_nsec;
#else
    seconds = found.st_mtim.tv_sec, nanoseconds = found.st_mtim.tv_nsec;
#endif
  }
  bool operator==(const FileIdentity&) const = default;
};

/// A folder that is removed again if it was made and nothing was put in it.
class MadeFolder {
 public:
  MadeFolder(std::filesystem::path folder, const std::filesystem::path& name)
      : folder_(std::move(folder)), made_(make_folder(folder_, name)) {}
  MadeFolder(const MadeFolder&) = delete;
  ~MadeFolder() {
    if (made_) ::rmdir(folder_.c_str());  // only if it is empty
  }

 private:
  std::filesystem::path folder_;
  bool made_;
};

/// Gives `file` a second name, which may be taken by a file; by a copy where the file system has no links.
[[gnu::cold]] inline void place_file(const std::filesystem::path& file, const std::filesystem::path& to) {
  const auto source = stat_of(file);
  if (!source) fail<FileError>(file.string(), ": is gone");
  if (const auto found = lstat_of(to); found && same_file(*source, *found)) return;  // placed before a crash
  const auto partial = folder_of(to) / (partial_files_prefix + to.filename().string());
  ::unlink(partial.c_str());
  if (::link(file.c_str(), partial.c_str()) != 0) {
    std::error_code reason;
    std::filesystem::copy_file(file, partial, reason);
    if (reason) fail<FileError>(to.string(), ": cannot be written: ", reason.message());
    synchronise_path(partial);
  }
  if (::rename(partial.c_str(), to.c_str()) != 0) {
    const int reason = errno;
    ::unlink(partial.c_str());
    fail<FileError>(to.string(), ": cannot be replaced: ", std::strerror(reason));
  }
}

/// Whether there is a FOLDER/.tinymoe.new. Throws FileError where the system cannot tell, and for one that is no
/// folder: a link may lead to files of somebody else's.
[[gnu::cold]] inline bool has_new_files(const std::filesystem::path& folder) {
  const auto fresh = folder / new_files_name;
  const auto found = lstat_of(fresh);
  if (!found) return false;
  if (!S_ISDIR(found->st_mode)) fail<FileError>(fresh.string(), ": expected a folder or none; remove it");
  return true;
}

/// Whether a folder has a file of this name that counts: after a crash in the middle of a replacement it is that in
/// .tinymoe.new. Throws FileError where the system cannot tell.
[[gnu::cold]] inline bool folder_has(const std::filesystem::path& folder, std::string_view file) {
  for (;;) {
    const bool fresh = has_new_files(folder);
    if (is_there(fresh ? folder / new_files_name / file : folder / file)) return true;
    if (fresh == has_new_files(folder)) return false;  // else another process has put new files in place meanwhile
  }
}

/// Puts the files of FOLDER/.tinymoe.new in place and removes those of `owned` that it lacks. It can be repeated after
/// a crash at any moment.
[[gnu::cold]] inline void place_new_files(const std::filesystem::path& folder,
                                          std::span<const std::string_view> owned) {
  const auto fresh = folder / new_files_name;
  const auto files = entries_of(fresh);
  for (const auto& file : files) place_file(file, folder / file.filename());
  for (const std::string_view name : owned) {
    const bool is_new = std::ranges::any_of(files, [&](const auto& file) { return file.filename() == name; });
    if (!is_new && ::unlink((folder / name).c_str()) != 0 && errno != ENOENT) {
      fail<FileError>((folder / name).string(), ": cannot be removed: ", std::strerror(errno));
    }
  }
  synchronise_path(folder);
  // Renamed first: what is being removed must not be taken for a whole folder.
  std::filesystem::path gone;
  for (int n = 0;; ++n) {
    gone = folder / (std::string(partial_files_prefix) + "old" + std::to_string(n));
    if (::rename(fresh.c_str(), gone.c_str()) == 0) break;
    if (errno != EEXIST && errno != ENOTEMPTY) {
      fail<FileError>(fresh.string(), ": cannot be renamed: ", std::strerror(errno));
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(gone, ignored);
}

/// Held while a thread clears a folder or puts files in place. Global, since the threads of a process share its locks.
[[gnu::cold]] inline std::mutex& replacing() {
  static std::mutex mutex;
  return mutex;
}

/// Removes the folders that killed processes left beside `folder` when a save still wrote there: `NAME.partial-NUMBER`,
/// with nothing in it but owned files.
[[gnu::cold]] inline void remove_left_folders(const std::filesystem::path& folder,
                                              std::span<const std::string_view> owned) {
  std::error_code ignored, unreadable;
  for (std::filesystem::directory_iterator entry(folder_of(folder), unreadable), end; !unreadable && entry != end;
       entry.increment(unreadable)) {
    const auto& one = entry->path();
    if (partial_numbers(one.filename().string(), folder.filename().string()) != 1 || entry->is_symlink(ignored) ||
        !entry->is_directory(ignored)) {
      continue;
    }
    if_nobody_locks(one, [&] {
      std::error_code unlisted;
      bool ours = true;
      for (std::filesystem::directory_iterator file(one, unlisted); !unlisted && file != end;
           file.increment(unlisted)) {
        ours = ours && std::ranges::find(owned, file->path().filename().string()) != owned.end();
      }
      if (ours && !unlisted) std::filesystem::remove_all(one, ignored);
    });
  }
}

}  // namespace detail

/// The folder to load from: `path`, or `path/.tinymoe.new` after a crash in the middle of a replacement. Waits while
/// another process is putting new files in place. Throws FileError if there is no such folder.
[[gnu::cold]] inline std::filesystem::path resolve_folder(const std::filesystem::path& path) {
  const auto named = path.has_filename() ? path : path.parent_path();
  using detail::Found;
  const Found found = detail::look_at(named);
  if (found == Found::file || found == Found::other)
    fail<FileError>(path.string(), ": expected a folder, found a file");
  if (found == Found::nothing) fail<FileError>(path.string(), ": there is no such folder");
  for (int wait = 0; wait < 5000 && detail::has_new_files(named); ++wait) {
    if (!detail::may_be_locked(named / detail::folder_lock_name)) break;
    ::usleep(1000);
  }
  return detail::has_new_files(named) ? named / detail::new_files_name : named;
}

namespace detail {

/// Opens files of a folder such that all are of one replacement: `open(folder)`, and again if another process has put
/// new files in place meanwhile. `file` is one that each replacement writes. What `open` returns must not read by name
/// later. Throws what `resolve_folder` and `open` throw.
template <std::invocable<const std::filesystem::path&> Open>
auto open_together(const std::filesystem::path& path, std::string_view file, Open&& open) {
  // In this order: a replacement that began before the folder was looked at has ended by then, and one that begins
  // later is found by its file or by its folder of new files.
  constexpr int attempts = 100;
  const auto named = write_target(path) / file;
  for (int attempt = 1;; ++attempt) {
    const FileIdentity before(named);
    const auto folder = resolve_folder(path);
    const auto changed = [&] { return resolve_folder(path) != folder || FileIdentity(named) != before; };
    try {
      auto opened = open(folder);
      if (attempt == attempts || !changed()) return opened;
    } catch (const Error&) {
      if (attempt == attempts || !changed()) throw;
    }
  }
}

}  // namespace detail

/// A folder that this process may write to, and no other meanwhile: see WriteLock. It is made if it is missing, and
/// what a killed process left in it is brought to an end or removed.
///
///     const FolderLock lock("runs/story", {}, WriteUse::run);
///
class FolderLock {
 public:
  /// `owned` are names of files that belong together, such as a checkpoint's; the first is always among them. Throws
  /// FileError if the folder cannot be written, if another process writes to it, and if it holds one of the other names
  /// without the first: that file is somebody else's.
  [[gnu::cold]] explicit FolderLock(const std::filesystem::path& path, std::span<const std::string_view> owned = {},
                                    WriteUse use = WriteUse::once)
      : folder_(target_of(path)),
        made_(folder_, path),
        lock_(folder_ / detail::folder_lock_name, path, use, use == WriteUse::once ? patience : glance) {
    const std::lock_guard guard(detail::replacing());
    if (lock_.prepared()) return;
    // First: of a first replacement, a crash may have left a part of the files in place.
    if (detail::has_new_files(folder_)) detail::place_new_files(folder_, owned);
    check_owned(path, owned);
    lock_.prepared() = true;
    if (!lock_.supported()) return;
    std::error_code ignored;
    for (const auto& entry : detail::entries_of(folder_)) {
      if (!entry.filename().string().starts_with(detail::partial_files_prefix)) continue;
      std::filesystem::remove_all(entry, ignored);
    }
    detail::remove_left_folders(folder_, owned);
  }

  const std::filesystem::path& folder() const { return folder_; }
  /// Whether the file system has locks. Without them a second run is not refused.
  bool supported() const { return lock_.supported(); }

 private:
  static constexpr int patience = 5000;  // ms; a checkpoint of another process is written in less
  static constexpr int glance = 100;     // ms; resolve_folder holds a lock for a moment to see whether it is held

  /// Absolute: the program may change its folder.
  [[gnu::cold]] static std::filesystem::path target_of(const std::filesystem::path& path) {
    if (path.empty()) fail<FileError>("expected the path of a folder to write to, found none");
    auto target = detail::absolute_target(path);
    if (target == target.root_path()) fail<FileError>(path.string(), ": is no folder for a model; give one in it");
    return target;
  }

  [[gnu::cold]] void check_owned(const std::filesystem::path& path, std::span<const std::string_view> owned) const {
    for (const std::string_view name : owned) {
      const auto found = detail::look_at(folder_ / name);
      if (found != detail::Found::nothing && found != detail::Found::file) {
        fail<FileError>(path.string(), ": holds a ", name, " that is not a file; give another folder");
      }
      if (detail::is_mount_point(folder_ / name)) {
        fail<FileError>(path.string(), ": ", name, " in it is a mount point, which no file can replace; mount the ",
                        "folder instead");
      }
    }
    if (owned.empty() || detail::is_there(folder_ / owned.front())) return;
    for (const std::string_view name : owned) {
      if (!detail::is_there(folder_ / name)) continue;
      fail<FileError>(path.string(), ": holds a ", name, " without ", owned.front(),
                      ", which is not replaced; give another folder");
    }
  }

  std::filesystem::path folder_;
  detail::MadeFolder made_;  // after the lock in destruction
  WriteLock lock_;
};

/// New files for a folder; `commit` puts all of them in place of the old ones.
///
///     AtomicFolder folder("checkpoint");
///     folder.write("config.json", [&](FileWriter& file) { file.write(text); });
///     folder.commit();
///
/// At any moment, a crash included, `resolve_folder(NAME)` has all the old files or all the new ones. Without `commit`
/// the destructor removes the new ones. Other processes cannot write to the folder meanwhile; threads of this process
/// can, and the files of the last `commit` stay. Throws FileError that names the path and the reason.
class AtomicFolder {
 public:
  /// Makes the folder, and those above it, if they are missing. For `owned`, see FolderLock; those that are not written
  /// are removed by `commit`.
  [[gnu::cold]] explicit AtomicFolder(const std::filesystem::path& path, std::span<const std::string_view> owned = {})
      : lock_(path, owned), owned_(owned) {
    for (int n = 0;; ++n) {
      partial_ = lock_.folder() / (detail::partial_files_prefix + std::to_string(n));
      if (::mkdir(partial_.c_str(), 0777) == 0) break;
      if (errno != EEXIST) fail<FileError>(path.string(), ": cannot be written: ", std::strerror(errno));
    }
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  [[gnu::cold]] ~AtomicFolder() {
    std::error_code ignored;
    if (!committed_) std::filesystem::remove_all(partial_, ignored);
  }

  /// Where the files are after `commit`.
  const std::filesystem::path& target() const { return lock_.folder(); }
  /// Where the files are until `commit`.
  const std::filesystem::path& path() const { return partial_; }
  std::filesystem::path operator/(const std::string& name) const { return partial_ / name; }

  /// Writes one file of the folder: `writer(FileWriter&)` fills it.
  template <std::invocable<FileWriter&> Writer>
  [[gnu::cold]] void write(const std::string& name, Writer&& writer) {
    FileWriter file(partial_ / name);
    std::forward<Writer>(writer)(file);
    if (!file.finished()) file.finish();
  }

  /// Puts the files in their place. Call it once.
  [[gnu::cold]] void commit() {
    const auto& folder = lock_.folder();
    if (committed_) fail<FileError>(folder.string(), ": was committed before");
    for (const auto& entry : detail::entries_of(partial_)) detail::synchronise_path(entry);
    detail::synchronise_path(partial_);
    const std::lock_guard guard(detail::replacing());
    const auto fresh = folder / detail::new_files_name;
    if (detail::has_new_files(folder)) detail::place_new_files(folder, owned_);  // a commit that failed
    if (::rename(partial_.c_str(), fresh.c_str()) != 0) {
      fail<FileError>(folder.string(), ": cannot be replaced: ", std::strerror(errno));
    }
    committed_ = true;
    detail::synchronise_path(folder);
    detail::place_new_files(folder, owned_);
  }

 private:
  FolderLock lock_;
  std::span<const std::string_view> owned_;
  std::filesystem::path partial_;
  bool committed_ = false;
};

}  // namespace tinymoe::inline v0_1
