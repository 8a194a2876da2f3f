#pragma once
// Raw files for the tests of hostile input, and the message of an exception.

#include <sys/resource.h>
#include <unistd.h>

#include <concepts>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/sanitizers.hpp"

inline std::filesystem::path write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The bytes of a value as they lie in memory.
template <class T>
std::string bytes_of(const T& value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

/// The message of the `E` that `f` throws, or a failed test.
template <class E, std::invocable F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  FAIL("expected an exception");
  return {};
}

/// Checks that `f` throws an `E` whose message has every part.
template <class E, std::invocable F, class... Parts>
void check_message(F&& f, const Parts&... parts) {
  const std::string message = message_of<E>(std::forward<F>(f));
  for (const std::string& part : {std::string(parts)...}) {
    INFO("expected \"" << part << "\" in: " << message);
    CHECK(message.find(part) != std::string::npos);
  }
}

inline std::size_t entries_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

/// While it lives, no file can grow past a size: writing fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

/// While it lives, the process gets at most so many more bytes of memory than it has.
class MemoryLimit {
 public:
  /// Whether it can be used: a sanitizer's own memory is limited, too, and it ends the program without.
#if defined(__linux__)
  static constexpr bool works = !TINYMOE_TEST_SANITIZED;
#else
  static constexpr bool works = false;
#endif

  explicit MemoryLimit(std::size_t more) {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    getrlimit(RLIMIT_AS, &before_);
    const rlimit limit{pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + more, before_.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
  }
  MemoryLimit(const MemoryLimit&) = delete;
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};
