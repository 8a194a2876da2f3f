#pragma once
/// @file
/// Names of files and folders that are written to: links, mount points, and folders that are still to be made.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1::detail {

/// Closes a file descriptor at the end of its scope and ignores errors: only for those whose close cannot lose data.
struct Descriptor {
  int number = -1;
  explicit Descriptor(int opened) : number(opened) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

inline std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// Whether a call that looks at `path` has found it, given what it returned and errno. Throws FileError where the
/// system cannot tell: what a failing disk hides must not be taken for missing, because a program may make it anew.
inline bool has_found(int status, const std::filesystem::path& path) {
  if (status == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail<FileError>(path.string(), ": cannot be looked at: ", std::strerror(errno));
}

/// What the system tells of a path, and whether something is there. Of std::optional, two take 5 MB to compile.
template <class T>
struct Look {
  bool there = false;
  T what{};
  explicit operator bool() const { return there; }
  const T& operator*() const { return what; }
  const T* operator->() const { return &what; }
};

/// What stat tells of a path, which is of what a link leads to. Throws as `has_found`.
[[gnu::cold]] inline Look<struct stat> stat_of(const std::filesystem::path& path) {
  Look<struct stat> look;
  look.there = has_found(::stat(path.c_str(), &look.what), path);
  return look;
}

/// The same of a link itself.
[[gnu::cold]] inline Look<struct stat> lstat_of(const std::filesystem::path& path) {
  Look<struct stat> look;
  look.there = has_found(::lstat(path.c_str(), &look.what), path);
  return look;
}

/// What has a name: nothing, a regular file, a folder or something else; a link is what it leads to. Throws as
/// `has_found`.
enum class Found { nothing, file, folder, other };
[[gnu::cold]] inline Found look_at(const std::filesystem::path& path) {
  const auto found = stat_of(path);
  if (!found) return Found::nothing;
  return S_ISREG(found->st_mode) ? Found::file : S_ISDIR(found->st_mode) ? Found::folder : Found::other;
}
[[gnu::cold]] inline bool is_there(const std::filesystem::path& path) { return look_at(path) != Found::nothing; }

/// The name that is written to: without a trailing slash, and what a symbolic link points to, which need not exist.
/// Throws FileError for a link to itself, and where the system cannot tell whether it is a link.
[[gnu::cold]] inline std::filesystem::path write_target(const std::filesystem::path& path) {
  std::filesystem::path target = path.has_filename() ? path : path.parent_path();
  for (int links = 0;; ++links) {
    const auto found = lstat_of(target);
    if (!found || !S_ISLNK(found->st_mode)) return target;
    if (links == 40) fail<FileError>(path.string(), ": is a link to itself; give another path");
    std::error_code reason;
    const auto to = std::filesystem::read_symlink(target, reason);
    if (reason) fail<FileError>(target.string(), ": cannot be looked at: ", reason.message());
    target = target.parent_path() / to;
    if (!target.has_filename()) target = target.parent_path();
  }
}

/// The same as an absolute path, for what outlives a change of the current folder. Throws FileError.
[[gnu::cold]] inline std::filesystem::path absolute_target(const std::filesystem::path& path) {
  std::error_code reason;
  auto target = std::filesystem::absolute(write_target(path), reason);
  if (reason) {
    fail<FileError>(path.string(), ": the current folder cannot be found: ", reason.message(),
                    "; give an absolute path");
  }
  return target;
}

/// Whether two descriptions are of one file.
inline bool same_file(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/// Whether two paths lead to one file or folder that is there. Throws as `has_found`.
[[gnu::cold]] inline bool is_same(const std::filesystem::path& one, const std::filesystem::path& other) {
  const auto first = stat_of(one), second = stat_of(other);
  return first && second && same_file(*first, *second);
}

/// Makes a folder and those above it. Throws FileError that calls it `name`. True if the folder is new.
[[gnu::cold]] inline bool make_folder(const std::filesystem::path& folder, const std::filesystem::path& name) {
  if (folder.empty()) fail<FileError>(name.string(), ": expected the path of a folder, found none");
  if (::mkdir(folder.c_str(), 0777) == 0) return true;
  if (errno == ENOENT && folder.has_parent_path() && folder.parent_path() != folder) {
    make_folder(folder.parent_path(), name);
    if (::mkdir(folder.c_str(), 0777) == 0) return true;
  }
  const int reason = errno;
  struct stat found {};
  const bool exists = ::stat(folder.c_str(), &found) == 0;
  if (exists && S_ISDIR(found.st_mode)) return false;
  if (exists) fail<FileError>(name.string(), ": expected a folder or none, found a file: ", folder.string());
  fail<FileError>(name.string(), ": the folder ", folder.string(), " cannot be made: ", std::strerror(reason),
                  "; give another path");
}

#if defined(STATX_TYPE)
/// What statx tells of a path; as if nothing were there where the system does not have or allow statx. Throws as
/// `has_found`.
[[gnu::cold]] inline Look<struct statx> statx_of(const std::filesystem::path& path, unsigned mask) {
  Look<struct statx> look;
  const int status = ::statx(AT_FDCWD, path.c_str(), 0, mask, &look.what);
  // What does not allow statx, as a sandbox, may say so in these ways; stat, which is asked then, tells errors.
  for (const int refusal : {ENOSYS, EPERM, EACCES, EINVAL, EOPNOTSUPP}) {
    if (status != 0 && errno == refusal) return look;
  }
  look.there = has_found(status, path);
  return look;
}
#endif

/// Whether something is mounted at a path, such as a container's volume: it cannot be renamed or replaced. Throws as
/// `has_found`.
[[gnu::cold]] inline bool is_mount_point(const std::filesystem::path& path) {
#if defined(STATX_ATTR_MOUNT_ROOT)
  if (const auto found = statx_of(path, 0); found && (found->stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0) {
    return (found->stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  }
#endif
  const auto itself = stat_of(path);
  const auto above = itself ? stat_of(path / "..") : Look<struct stat>();
  return above && (itself->st_dev != above->st_dev || itself->st_ino == above->st_ino);
}

/// The entries of a folder.
[[gnu::cold]] inline std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> entries;
  std::error_code reason;
  for (std::filesystem::directory_iterator entry(folder, reason), end; !reason && entry != end;
       entry.increment(reason)) {
    entries.push_back(entry->path());
  }
  if (reason) fail<FileError>(folder.string(), ": cannot be listed: ", reason.message());
  return entries;
}

}  // namespace tinymoe::inline v0_1::detail
