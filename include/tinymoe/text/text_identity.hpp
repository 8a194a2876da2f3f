#pragma once
/// @file
/// How a changed text file is noticed: by all of its content.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/story_source.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

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
  FileReader file(path, "a text file");
  constexpr std::size_t chunk = std::size_t{1} << 20;
  const auto memory = std::make_unique_for_overwrite<char[]>(chunk);  // zeros would be most of the time of a small file
  const std::span<char> buffer(memory.get(), chunk);
  TextIdentity identity{.longest_story = longest_story};
  Xxh64 hash;
  while (const std::size_t count = file.read(buffer)) {
    hash.bytes(std::as_bytes(std::span(buffer).first(count)));
    identity.bytes += count;
  }
  identity.hash = hash.value();
  return identity;
}

/// The identity of stories that depend on more than the bytes of one text: of several files, or of a part.
class IdentityHash {
 public:
  void text(std::string_view value) {
    number(value.size());
    hash_.bytes(std::as_bytes(std::span(value)));
  }
  void number(std::uint64_t value) { hash_.bytes(std::as_bytes(std::span(&value, 1))); }
  void identity(const TextIdentity& value) {
    for (const std::uint64_t part : {value.bytes, value.hash, value.longest_story}) number(part);
  }
  std::uint64_t value() const { return hash_.value(); }

 private:
  Xxh64 hash_;
};

}  // namespace detail

/// Stories whose change can be told: `identity()` is computed anew at each call, and `name()` is what errors call them.
template <class S>
concept IdentifiedStories = StorySource<S> && requires(const S& stories) {
  { stories.identity() } -> std::same_as<detail::TextIdentity>;
  { stories.name() } -> std::convertible_to<std::string>;
};

}  // namespace tinymoe::inline v0_1
