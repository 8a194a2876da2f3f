#pragma once
/// @file
/// How an edited text file is noticed.

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/fingerprint.hpp"

namespace tinymoe::inline v0_1::detail {

/// A text file's size, its time of modification, and a hash of its first and last megabyte.
struct TextIdentity {
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;  // nanoseconds since 1970
  std::uint64_t hash = 0;
  friend bool operator==(const TextIdentity&, const TextIdentity&) = default;
};

/// The identity of a file as it is now. Throws FileError if it is not a regular file or cannot be opened.
inline TextIdentity identify_text(const std::filesystem::path& path) {
  const MappedFile file(path);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail<FileError>(path.string(), ": cannot be read: ", std::strerror(errno));
  const std::size_t part = std::min<std::size_t>(file.size(), std::size_t{1} << 20);
  Fnv1a hash;
  hash.text(file.text().substr(0, part));
  hash.text(file.text().substr(file.size() - part));
  return {file.size(), status.st_mtim.tv_sec * std::int64_t{1000000000} + status.st_mtim.tv_nsec, hash.value()};
}

}  // namespace tinymoe::inline v0_1::detail
