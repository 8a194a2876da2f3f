// A device that fails, for a program that preloads this library (LD_PRELOAD, Linux): the n-th call that concerns a file
// of one folder fails, writes less than it was given, or is the last thing that the program does.
//
//   FAILING_FOLDER  the folder, an absolute path; calls on other files are left alone and not counted
//   FAILING_CALLS   which calls count, with commas between: open,write,…; empty: all that are below
//   FAILING_AT      the number of the first call that fails, from 1
//   FAILING_AS      ENOSPC, EIO, EROFS, EDQUOT, ENOMEM: the reason; short: a write takes half;
//                   kill: the program is killed instead of the call; torn: it is killed when half of a write is done,
//                   or just after another call; shrink: the file is cut to nothing just after the call; slow: nothing
//                   fails, and the call takes 10 ms more; works: nothing fails, for a list of all calls
//   FAILING_FOR     how many calls fail from there on; 1 unless given
//   FAILING_LOG     a file that gets a line for each call that fails: "write /folder/file"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

/// What the environment asks for. Made at the first call, which may come before this library's own globals are.
struct Wanted {
  std::string folder = text("FAILING_FOLDER"), as = text("FAILING_AS"), log = text("FAILING_LOG");
  std::string calls = std::string(",").append(text("FAILING_CALLS")).append(",");
  long at = number("FAILING_AT", 0), count = number("FAILING_FOR", 1);

  static std::string text(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  }
  static long number(const char* name, long otherwise) {
    const std::string value = text(name);
    return value.empty() ? otherwise : std::strtol(value.c_str(), nullptr, 10);
  }
};

const Wanted& wanted() {
  static const Wanted* made = new Wanted;  // never destroyed: files are closed at exit, too
  return *made;
}

std::string path_of(int file) {
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const auto size = ::syscall(SYS_readlink, link, path, sizeof path);
  return {path, size > 0 ? static_cast<std::size_t>(size) : 0};
}

std::string path_of(int folder, const char* path) {
  if (path == nullptr) return {};
  if (path[0] == '/') return path;
  if (folder != AT_FDCWD) return path_of(folder) + "/" + path;
  char here[4096];
  return ::syscall(SYS_getcwd, here, sizeof here) > 0 ? std::string(here) + "/" + path : std::string();
}

enum class Outcome { works, fails, is_short, is_torn, shrinks };

[[noreturn]] void die() {
  ::syscall(SYS_kill, ::getpid(), SIGKILL);
  while (true) ::pause();
}

/// Whether this call is one that fails; then errno is set.
Outcome outcome(const char* call, const std::string& path) {
  static std::atomic<long> calls = 0;
  const Wanted& w = wanted();
  if (w.folder.empty() || !path.starts_with(w.folder)) return Outcome::works;
  if (w.calls.size() > 2 && w.calls.find(std::string(",").append(call).append(",")) == w.calls.npos)
    return Outcome::works;
  const long n = ++calls;
  if (w.at <= 0 || n < w.at || n - w.at >= w.count) return Outcome::works;
  const std::string line = std::string(call) + " " + path + "\n";
  const auto log = ::syscall(SYS_openat, AT_FDCWD, w.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (log >= 0) {
    static_cast<void>(!::syscall(SYS_write, log, line.data(), line.size()));
    ::syscall(SYS_close, log);
  }
  if (w.as == "works") return Outcome::works;
  if (w.as == "slow") return ::usleep(10'000), Outcome::works;
  if (w.as == "kill") die();
  if (w.as == "torn") return Outcome::is_torn;
  if (w.as == "shrink") return Outcome::shrinks;
  if (w.as == "short") return std::string_view(call) == "write" ? Outcome::is_short : Outcome::works;
  // EROFS would be an answer of access, so it fails with EIO.
  errno = w.as == "ENOSPC"                                        ? ENOSPC
          : w.as == "EROFS" && std::string_view(call) != "access" ? EROFS
          : w.as == "EDQUOT"                                      ? EDQUOT
          : w.as == "ENOMEM"                                      ? ENOMEM
                                                                  : EIO;
  return Outcome::fails;
}

/// `work()`, unless this is a call that fails.
template <class Result, class Work>
Result attempt(const char* call, const std::string& path, Result failure, Work work) {
  const int before = errno;
  const Outcome what = outcome(call, path);
  if (what == Outcome::fails) return failure;
  errno = before;
  const Result result = work();
  if (what == Outcome::is_torn) die();
  if (what == Outcome::shrinks) ::syscall(SYS_truncate, path.c_str(), 0L);
  return result;
}

/// `work(size)` writes to a file; half of it, or nothing, where this is a call that fails.
template <class Work>
ssize_t attempt_write(int file, size_t size, Work work) {
  const int before = errno;
  const Outcome what = outcome("write", path_of(file));
  if (what == Outcome::fails) return -1;
  errno = before;
  const ssize_t written = work(what == Outcome::works ? size : (size + 1) / 2);
  if (what == Outcome::is_torn) die();
  return written;
}

template <class F>
F next(const char* name, F) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

#define NEXT(function) (next(#function, &::function))

extern "C" {

#define OPENS(function, types, folder, arguments)                                      \
  int function types {                                                                 \
    va_list more;                                                                      \
    va_start(more, flags);                                                             \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;    \
    va_end(more);                                                                      \
    static const auto real = NEXT(function);                                           \
    return attempt("open", path_of(folder, path), -1, [&] { return real arguments; }); \
  }
OPENS(open, (const char* path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPENS(open64, (const char* path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPENS(openat, (int folder, const char* path, int flags, ...), folder, (folder, path, flags, mode))
OPENS(openat64, (int folder, const char* path, int flags, ...), folder, (folder, path, flags, mode))

FILE* fopen(const char* path, const char* mode) {
  static const auto real = NEXT(fopen);
  return attempt<FILE*>("open", path_of(AT_FDCWD, path), nullptr, [&] { return real(path, mode); });
}
FILE* fopen64(const char* path, const char* mode) {
  static const auto real = NEXT(fopen64);
  return attempt<FILE*>("open", path_of(AT_FDCWD, path), nullptr, [&] { return real(path, mode); });
}
DIR* opendir(const char* path) {
  static const auto real = NEXT(opendir);
  return attempt<DIR*>("opendir", path_of(AT_FDCWD, path), nullptr, [&] { return real(path); });
}
/// No name and no error are the end of a folder: errno stays as it was.
dirent* readdir(DIR* folder) {
  static const auto real = NEXT(readdir);
  return attempt<dirent*>("opendir", path_of(::dirfd(folder)), nullptr, [&] { return real(folder); });
}
dirent64* readdir64(DIR* folder) {
  static const auto real = NEXT(readdir64);
  return attempt<dirent64*>("opendir", path_of(::dirfd(folder)), nullptr, [&] { return real(folder); });
}

ssize_t write(int file, const void* bytes, size_t size) {
  static const auto real = NEXT(write);
  return attempt_write(file, size, [&](size_t part) { return real(file, bytes, part); });
}
ssize_t writev(int file, const iovec* pieces, int count) {
  static const auto real = NEXT(writev);
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += pieces[i].iov_len;
  return attempt_write(file, size, [&](size_t part) {
    // A part is of the first piece.
    return part == size ? real(file, pieces, count)
                        : ::syscall(SYS_write, file, pieces[0].iov_base, std::min(part, pieces[0].iov_len));
  });
}
// The copies of files that the kernel makes.
ssize_t sendfile(int to, int from, off_t* at, size_t size) noexcept {
  static const auto real = NEXT(sendfile);
  return attempt_write(to, size, [&](size_t part) { return real(to, from, at, part); });
}
ssize_t sendfile64(int to, int from, off64_t* at, size_t size) noexcept {
  static const auto real = NEXT(sendfile64);
  return attempt_write(to, size, [&](size_t part) { return real(to, from, at, part); });
}
ssize_t copy_file_range(int from, off64_t* at, int to, off64_t* to_at, size_t size, unsigned flags) {
  static const auto real = NEXT(copy_file_range);
  return attempt_write(to, size, [&](size_t part) { return real(from, at, to, to_at, part, flags); });
}

#define FAILS(call, result, failure, function, types, path, arguments)           \
  result function types {                                                        \
    static const auto real = NEXT(function);                                     \
    return attempt<result>(call, path, failure, [&] { return real arguments; }); \
  }
FAILS("read", ssize_t, -1, read, (int file, void* to, size_t size), path_of(file), (file, to, size))
FAILS("read", ssize_t, -1, readv, (int file, const iovec* to, int count), path_of(file), (file, to, count))
FAILS("read", ssize_t, -1, pread, (int file, void* to, size_t size, off_t at), path_of(file), (file, to, size, at))
FAILS("fsync", int, -1, fsync, (int file), path_of(file), (file))
FAILS("fsync", int, -1, fdatasync, (int file), path_of(file), (file))
FAILS("truncate", int, -1, ftruncate, (int file, off_t size) noexcept, path_of(file), (file, size))
FAILS("truncate", int, -1, ftruncate64, (int file, off64_t size) noexcept, path_of(file), (file, size))
FAILS("truncate", int, -1, truncate, (const char* path, off_t size) noexcept, path_of(AT_FDCWD, path), (path, size))
FAILS("truncate", int, -1, truncate64, (const char* path, off64_t size) noexcept, path_of(AT_FDCWD, path), (path, size))
FAILS("rename", int, -1, rename, (const char* from, const char* to) noexcept, path_of(AT_FDCWD, to), (from, to))
FAILS("link", int, -1, link, (const char* from, const char* to) noexcept, path_of(AT_FDCWD, to), (from, to))
FAILS("unlink", int, -1, unlink, (const char* path) noexcept, path_of(AT_FDCWD, path), (path))
FAILS("unlink", int, -1, unlinkat, (int folder, const char* path, int flags) noexcept, path_of(folder, path),
      (folder, path, flags))
FAILS("unlink", int, -1, rmdir, (const char* path) noexcept, path_of(AT_FDCWD, path), (path))
FAILS("unlink", int, -1, remove, (const char* path) noexcept, path_of(AT_FDCWD, path), (path))
FAILS("mkdir", int, -1, mkdir, (const char* path, mode_t mode) noexcept, path_of(AT_FDCWD, path), (path, mode))
FAILS("lock", int, -1, flock, (int file, int how) noexcept, path_of(file), (file, how))
FAILS("stat", int, -1, fstat, (int file, struct stat* to) noexcept, path_of(file), (file, to))
FAILS("stat", int, -1, stat, (const char* path, struct stat* to) noexcept, path_of(AT_FDCWD, path), (path, to))
FAILS("stat", int, -1, lstat, (const char* path, struct stat* to) noexcept, path_of(AT_FDCWD, path), (path, to))
FAILS("stat", int, -1, statx, (int folder, const char* path, int flags, unsigned mask, struct statx* to) noexcept,
      path_of(folder, path), (folder, path, flags, mask, to))
FAILS("stat", ssize_t, -1, readlink, (const char* path, char* to, size_t size) noexcept, path_of(AT_FDCWD, path),
      (path, to, size))
FAILS("access", int, -1, access, (const char* path, int how) noexcept, path_of(AT_FDCWD, path), (path, how))
FAILS("mmap", void*, MAP_FAILED, mmap,
      (void* at, size_t size, int protection, int flags, int file, off_t from) noexcept,
      file < 0 ? std::string() : path_of(file), (at, size, protection, flags, file, from))
FAILS("mmap", void*, MAP_FAILED, mmap64,
      (void* at, size_t size, int protection, int flags, int file, off64_t from) noexcept,
      file < 0 ? std::string() : path_of(file), (at, size, protection, flags, file, from))

/// As the kernel does it: the number is free whatever close says.
int close(int file) {
  static const auto real = NEXT(close);
  const int before = errno;
  const Outcome what = outcome("close", path_of(file));
  const int reason = errno;
  errno = before;
  const int status = real(file);
  if (what == Outcome::is_torn) die();
  if (what != Outcome::fails) return status;
  errno = reason;
  return -1;
}

}  // extern "C"
