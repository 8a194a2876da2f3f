#pragma once
/// @file
/// A text file of stories, each ended by "<|endoftext|>", read in chunks: the file may be larger than memory.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

/// How a `TextCorpus` reads.
struct CorpusOptions {
  std::size_t chunk = std::size_t{1} << 20;  // bytes read at a time
  std::size_t longest_story = std::size_t{4}
                              << 20;  // a longer one is passed in parts, cut at white space if it has any
};

/// The stories of a UTF-8 text file, split at "<|endoftext|>". White space around a story, empty stories, and a byte
/// order mark are dropped; all else is passed byte for byte. The last story needs no marker.
/// Memory is bounded by the options, whatever the file holds.
class TextCorpus {
 public:
  /// Throws FileError if there is no such regular file, or it cannot be opened.
  explicit TextCorpus(std::filesystem::path path, CorpusOptions options = {}) : path_(std::move(path)) {
    chunk_ = std::max<std::size_t>(options.chunk, 1);
    longest_ = std::max<std::size_t>(options.longest_story, 16);
    const detail::Descriptor file(open());
    struct stat status {};
    if (::fstat(file.number, &status) != 0 || !S_ISREG(status.st_mode)) {
      fail<FileError>(path_, ": expected a text file");
    }
  }

  /// Calls `f(std::string_view story)` for each story, in their order.
  /// Throws FileError if the file cannot be read, or at the first byte that is not UTF-8, naming its offset.
  template <class F>
  void for_each_story(F&& f) const {
    const detail::Descriptor file(open());
    std::string buffer;        // read and not yet passed on
    std::uint64_t offset = 0;  // of the buffer in the file
    std::size_t searched = 0;  // no marker starts in the buffer before this
    for (bool more = true; more;) {
      more = read_chunk(file.number, buffer);
      if (offset == 0 && buffer.starts_with("\xef\xbb\xbf")) {
        buffer.erase(0, 3);
        offset = 3;
      }
      std::size_t begin = 0;
      for (std::size_t marker;
           (marker = buffer.find(end_of_story_text, std::max(begin, searched))) != std::string::npos;
           begin = marker + end_of_story_text.size()) {
        pass_parts(std::string_view(buffer).substr(begin, marker - begin), offset + begin, f);
      }
      buffer.erase(0, begin);
      offset += begin;
      while (buffer.size() > longest_ + end_of_story_text.size()) {
        const std::size_t part = part_length(buffer);
        pass(std::string_view(buffer).substr(0, part), offset, f);
        buffer.erase(0, part);
        offset += part;
      }
      searched = buffer.size() - std::min(buffer.size(), end_of_story_text.size() - 1);
    }
    pass_parts(buffer, offset, f);
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  int open() const {
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) fail<FileError>(path_, ": cannot be opened: ", std::strerror(errno));
    return file;
  }

  /// Appends a chunk of the file; false at its end.
  bool read_chunk(int file, std::string& buffer) const {
    const std::size_t size = buffer.size();
    buffer.resize(size + chunk_);
    ssize_t count = 0;
    do {
      count = ::read(file, buffer.data() + size, chunk_);
    } while (count < 0 && errno == EINTR);
    if (count < 0) fail<FileError>(path_, ": cannot be read: ", std::strerror(errno));
    buffer.resize(size + static_cast<std::size_t>(count));
    return count > 0;
  }

  /// Where to cut a story that is too long: after white space near the end, else between code points.
  std::size_t part_length(std::string_view text) const {
    const std::size_t space = text.find_last_of(detail::white_space, longest_ - 1);
    if (space != std::string_view::npos && space >= longest_ / 2) return space + 1;
    std::size_t length = longest_;
    while (length > longest_ - 4 && detail::continues_character(text[length])) --length;
    return length;
  }

  template <class F>
  void pass_parts(std::string_view story, std::uint64_t offset, F& f) const {
    while (story.size() > longest_) {
      const std::size_t part = part_length(story);
      pass(story.substr(0, part), offset, f);
      story.remove_prefix(part);
      offset += part;
    }
    pass(story, offset, f);
  }

  template <class F>
  void pass(std::string_view story, std::uint64_t offset, F& f) const {
    const std::size_t first = std::min(story.find_first_not_of(detail::white_space), story.size());
    story = story.substr(first, story.find_last_not_of(detail::white_space) + 1 - first);
    if (const std::size_t wrong = find_invalid_utf8(story); wrong != std::string_view::npos) {
      fail<FileError>(path_, ": expected UTF-8 text, found another byte at offset ", offset + first + wrong);
    }
    if (!story.empty()) f(story);
  }

  std::filesystem::path path_;
  std::size_t chunk_ = 0, longest_ = 0;
};

static_assert(StorySource<TextCorpus>);

}  // namespace tinymoe::inline v0_1
