#pragma once
/// @file
/// How a changed text file is noticed: by all of its content.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/text/fingerprint.hpp"

namespace tinymoe::inline v0_1::detail {

/// A text file's size and the hash of all its bytes, and how stories were read from it. Names and times do not count: a
/// copy is the same text, and an edited file is another one, whatever its time.
struct TextIdentity {
  std::uint64_t bytes = 0;
  std::uint64_t hash = 0;           // XXH64
  std::uint64_t longest_story = 0;  // CorpusOptions::longest_story: longer ones are cut
  friend bool operator==(const TextIdentity&, const TextIdentity&) = default;
};

/// The identity of a file as it is now. Reads all of it. Throws FileError if it is not a regular file or cannot be
/// read.
inline TextIdentity identify_text(const std::filesystem::path& path, std::size_t longest_story) {
  // A mapped file that another process shortens would end the program.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number < 0) fail<FileError>(path, ": cannot be opened: ", std::strerror(errno));
  struct stat status {};
  if (::fstat(file.number, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail<FileError>(path, ": expected a text file");
  }
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  TextIdentity identity{.longest_story = longest_story};
  Xxh64 hash;
  for (;;) {
    const ssize_t count = ::read(file.number, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail<FileError>(path, ": cannot be read: ", std::strerror(errno));
    if (count == 0) break;
    const auto piece = std::span(buffer).first(static_cast<std::size_t>(count));
    hash.bytes(piece);
    identity.bytes += piece.size();
  }
  identity.hash = hash.value();
  return identity;
}

}  // namespace tinymoe::inline v0_1::detail
