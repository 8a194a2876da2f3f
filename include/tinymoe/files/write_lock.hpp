#pragma once
/// @file
/// Locks on what a process writes. The operating system gives a lock back when its process ends, however it ends, so a
/// lock that nobody holds is a dead process's, whatever its number was and in whichever container it ran.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1 {

/// What a lock is held for. `once`: one replacement; it waits for that of another process. `run`: a run; it is refused
/// at once where another run writes, in this process too. `ahead`: a program holds it for a run that will start later.
enum class WriteUse { once, ahead, run };

namespace detail {

/// Whether an open file is still the one of that name: it may have been removed while its lock was waited for.
[[gnu::cold]] inline bool is_named(int descriptor, const std::filesystem::path& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(descriptor, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && same_file(opened, named);
}

enum class LockResult { taken, held, unsupported, failed };

[[gnu::cold]] inline LockResult try_lock(int descriptor) {
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return LockResult::held;
    for (const int unsupported : {ENOLCK, ENOSYS, EINVAL, EOPNOTSUPP, ENOTSUP}) {
      if (errno == unsupported) return LockResult::unsupported;
    }
    if (errno != EINTR) return LockResult::failed;
  }
  return LockResult::taken;
}

/// Opens a file to lock it: for writing where one may, since NFS locks no other file.
[[gnu::cold]] inline int open_to_lock(const std::filesystem::path& path) {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
  const int opened = ::open(path.c_str(), O_RDWR | flags);
  return opened >= 0 ? opened : ::open(path.c_str(), O_RDONLY | flags);
}

/// f() while this process holds the lock of a file or folder that nobody else holds: who makes such a file sees that it
/// goes. Not where somebody holds it, or the file system has no locks, so that nobody knows.
template <class F>
[[gnu::cold]] void if_nobody_locks(const std::filesystem::path& path, F&& f) {
  const Descriptor opened(open_to_lock(path));
  if (opened.number >= 0 && try_lock(opened.number) == LockResult::taken && is_named(opened.number, path)) f();
}

/// Whether it is worth waiting for a lock's holder: false if nobody holds it, if there is no such file, and where the
/// file system has no locks.
[[gnu::cold]] inline bool may_be_locked(const std::filesystem::path& path) {
  const Descriptor opened(open_to_lock(path));
  if (opened.number < 0) return errno != ENOENT;
  const auto result = try_lock(opened.number);
  // A lock whose holder has just removed it may have a successor.
  return result == LockResult::held || (result == LockResult::taken && !is_named(opened.number, path));
}

/// How many numbers, with a dash between them, stand behind `NAME.partial-` in a file's name; 0: it is another name.
[[gnu::cold]] inline int partial_numbers(std::string_view file, const std::string& name) {
  const std::string prefix = name + ".partial-";
  if (!file.starts_with(prefix)) return 0;
  int numbers = 0;
  for (file.remove_prefix(prefix.size());; file.remove_prefix(1)) {
    const std::size_t digits = std::min(file.find_first_not_of("0123456789"), file.size());
    if (digits == 0) return 0;
    ++numbers;
    file.remove_prefix(digits);
    if (file.empty()) return numbers;
    if (file[0] != '-') return 0;
  }
}

/// Removes the files that killed processes left beside `path`: `NAME.partial-NUMBER-NUMBER`. Others are somebody
/// else's. A folder that cannot be listed stays as it is.
[[gnu::cold]] inline void remove_left_partials(const std::filesystem::path& path) {
  std::error_code ignored, unreadable;
  for (std::filesystem::directory_iterator entry(folder_of(path), unreadable), end; !unreadable && entry != end;
       entry.increment(unreadable)) {
    const auto& one = entry->path();
    const bool partial = partial_numbers(one.filename().string(), path.filename().string()) == 2;
    const auto type = std::filesystem::symlink_status(one, ignored).type();
    if (partial && type == std::filesystem::file_type::regular) if_nobody_locks(one, [&] { ::unlink(one.c_str()); });
  }
}

/// One locked name of this process. Its file has the lock; a folder's file is in it, another's beside it.
struct HeldLock {
  struct stat folder {};
  std::filesystem::path file;
  int descriptor = -1;
  int holders = 1;
  bool run = false;
  bool prepared = false;  // see WriteLock::prepared
};

struct HeldLocks {
  std::mutex mutex;
  std::list<HeldLock> list;
};

/// Global, since the operating system's lock is held by a process, whichever of its objects took it.
[[gnu::cold]] inline HeldLocks& held_locks() {
  static HeldLocks locks;
  return locks;
}

/// Who holds a lock, for a message: the first line of its file.
[[gnu::cold]] inline std::string holder_of(const std::filesystem::path& file) {
  char text[256];
  const Descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  const auto size = opened.number < 0 ? 0 : ::read(opened.number, text, sizeof text);
  std::string_view line(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  line = line.substr(0, line.find('\n'));
  return line.empty() ? "" : " (" + std::string(line) + ")";
}

[[gnu::cold]] inline void name_holder(int descriptor) {
  char host[128] = "?";
  ::gethostname(host, sizeof host - 1);
  const std::string text = "process " + std::to_string(::getpid()) + " on host " + host + "\n";
  // Only a message needs it.
  if (::ftruncate(descriptor, 0) == 0) static_cast<void>(!::write(descriptor, text.data(), text.size()));
}

}  // namespace detail

/// A lock on a folder or file that this process writes to, held until destruction. Other processes that use this class
/// are refused or wait meanwhile. Within a process it can be taken again, but by one run only.
///
/// The lock is a file: `FOLDER/.tinymoe.lock` or `.FILE.lock` beside the file. It is removed at the end; one that a
/// killed process left is no obstacle. On a file system without locks nothing is held, and `supported()` is false.
class WriteLock {
 public:
  /// Waits at most `patience` milliseconds for another process. Throws FileError if that is not enough, if the file
  /// cannot be made, and at once for a second run of this process. `name` is what messages call it.
  [[gnu::cold]] WriteLock(const std::filesystem::path& file, const std::filesystem::path& name, WriteUse use,
                          int patience)
      : use_(use) {
    constexpr int pause = 20;
    while (!take(file, name)) {
      if (patience <= 0) refuse(name, detail::holder_of(file));
      ::usleep(pause * 1000);
      patience -= pause;
    }
  }
  WriteLock(WriteLock&& other) noexcept
      : held_(std::exchange(other.held_, nullptr)), use_(other.use_), supported_(other.supported_) {}
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;
  [[gnu::cold]] ~WriteLock() {
    if (held_ == nullptr) return;
    auto& locks = detail::held_locks();
    const std::lock_guard guard(locks.mutex);
    if (use_ == WriteUse::run) held_->run = false;
    if (--held_->holders > 0) return;
    ::unlink(held_->file.c_str());
    ::close(held_->descriptor);
    locks.list.remove_if([this](const detail::HeldLock& one) { return &one == held_; });
  }

  /// Set by the one of this process's holders that has cleared what killed processes left. Shared by all of them.
  bool& prepared() { return held_->prepared; }
  /// Whether the file system has locks.
  bool supported() const { return supported_; }

 private:
  /// Takes the lock; false if another process holds it.
  [[gnu::cold]] bool take(const std::filesystem::path& file, const std::filesystem::path& name) {
    auto& locks = detail::held_locks();
    const std::lock_guard guard(locks.mutex);
    struct stat folder {};
    if (::stat(detail::folder_of(file).c_str(), &folder) != 0) {
      refuse_to_write(name);
    }
    for (auto& one : locks.list) {
      if (!detail::same_file(one.folder, folder) || one.file.filename() != file.filename()) continue;
      if (use_ == WriteUse::run && one.run) refuse(name, " (in this process)");
      one.run = one.run || use_ == WriteUse::run;
      ++one.holders;
      held_ = &one;
      return true;
    }
    for (int attempt = 1;; ++attempt) {
      detail::Descriptor opened(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
      const bool foreign = opened.number < 0 && errno == EACCES;
      if (foreign) opened.number = open_foreign(file, name);
      if (opened.number < 0 && foreign && attempt < attempts) continue;
      if (opened.number < 0) refuse_to_write(name);
      const auto result = detail::try_lock(opened.number);
      if (result == detail::LockResult::held) return false;
      if (result == detail::LockResult::failed) refuse_to_write(name);
      // Its last holder has just removed it, or the file system gives a file other numbers each time.
      const bool named = detail::is_named(opened.number, file);
      const bool replace = foreign && named && ::unlink(file.c_str()) == 0;
      if (!named) detail::lstat_of(file);  // throws where the system cannot tell
      if ((!named || replace) && attempt < attempts) continue;
      supported_ = result == detail::LockResult::taken && named;
      detail::name_holder(opened.number);
      held_ = &locks.list.emplace_back(detail::HeldLock{folder, file, opened.number, 1, use_ == WriteUse::run});
      opened.number = -1;  // the list's now
      return true;
    }
  }

  /// Opens a lock's file that this user may not write to: a killed process of another user may have left it. Throws
  /// FileError if it cannot be told whether its lock is held, or if nothing can be written beside it. Negative if it
  /// has just been removed.
  [[gnu::cold]] static int open_foreign(const std::filesystem::path& file, const std::filesystem::path& name) {
    if (::access(detail::folder_of(file).c_str(), W_OK | X_OK) != 0) refuse_to_write(name);
    const int opened = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (opened >= 0) {
      const auto result = detail::try_lock(opened);  // NFS locks no file that is opened for reading
      if (result == detail::LockResult::taken || result == detail::LockResult::held) return opened;
    }
    if (opened < 0 && errno == ENOENT) return opened;
    if (opened >= 0) ::close(opened);
    fail<FileError>(name.string(), ": another user's ", file.string(),
                    " cannot be opened; remove it if no run writes there, or give another path");
  }

  [[noreturn]] static void refuse_to_write(const std::filesystem::path& name) {
    fail<FileError>(name.string(), ": cannot be written: ", std::strerror(errno), "; give another path");
  }

  [[noreturn]] static void refuse(const std::filesystem::path& name, const std::string& holder) {
    fail<FileError>(name.string(), ": another run writes to it", holder, "; wait until it ends, or give another path");
  }

  static constexpr int attempts = 100;

  detail::HeldLock* held_ = nullptr;
  WriteUse use_ = WriteUse::once;
  bool supported_ = true;
};

/// A lock on a file for the length of a run. Makes the folders above it. Throws FileError, as WriteLock.
[[gnu::cold]] inline WriteLock lock_file(const std::filesystem::path& path) {
  const auto target = detail::absolute_target(path), folder = detail::folder_of(target);
  detail::make_folder(folder, path);
  return {folder / ("." + target.filename().string() + ".lock"), path, WriteUse::run, 0};
}

}  // namespace tinymoe::inline v0_1
