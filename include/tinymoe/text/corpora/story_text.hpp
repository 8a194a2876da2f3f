#pragma once
/// @file
/// What all readers of stories share: how text becomes stories.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

/// Splits text at "<|endoftext|>", drops white space around a story and empty stories, and passes one that is too long
/// in parts.
class StoryText {
 public:
  /// `path` names the text in errors.
  StoryText(std::filesystem::path path, std::size_t longest_story)
      : path_(std::move(path)), longest_(std::max<std::size_t>(longest_story, 16)) {}

  /// Calls `f(std::string_view story)` for the stories of a file, in chunks of its bytes. Throws FileError at the first
  /// byte that is not UTF-8, naming its offset.
  template <class F>
  void pass_file(ByteReader& reader, std::size_t chunk, F& f) const {
    std::string buffer;        // read and not yet passed on
    std::uint64_t offset = 0;  // of the buffer in the file
    std::size_t searched = 0;  // no marker starts in the buffer before this
    for (bool more = true; more;) {
      more = read_chunk(reader, chunk, buffer);
      if (offset == 0 && buffer.starts_with("\xef\xbb\xbf")) {
        buffer.erase(0, 3);
        offset = 3;
      }
      const std::size_t begin = pass_ended(buffer, offset, searched, f);
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

  /// Calls `f(std::string_view story)` for the stories of a text in memory. Most have one.
  template <class F>
  void pass_text(std::string_view text, F& f) const {
    pass_parts(text.substr(pass_ended(text, 0, 0, f)), 0, f);
  }

 private:
  /// Appends a chunk of the file; false at its end.
  static bool read_chunk(ByteReader& reader, std::size_t chunk, std::string& buffer) {
    const std::size_t size = buffer.size();
    buffer.resize(size + chunk);
    const std::size_t count = reader.read(std::span(buffer).subspan(size));
    buffer.resize(size + count);
    return count > 0;
  }

  /// Passes the stories that a marker ends. Returns where the rest begins.
  template <class F>
  std::size_t pass_ended(std::string_view text, std::uint64_t offset, std::size_t searched, F& f) const {
    std::size_t begin = 0;
    for (std::size_t marker; (marker = text.find(end_of_story_text, std::max(begin, searched))) != text.npos;
         begin = marker + end_of_story_text.size()) {
      pass_parts(text.substr(begin, marker - begin), offset + begin, f);
    }
    return begin;
  }

  /// Where to cut a story that is too long: after white space near the end, else between code points.
  std::size_t part_length(std::string_view text) const {
    const std::size_t space = text.find_last_of(white_space, longest_ - 1);
    if (space != std::string_view::npos && space >= longest_ / 2) return space + 1;
    std::size_t length = longest_;
    while (length > longest_ - 4 && continues_character(text[length])) --length;
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
    const std::size_t first = std::min(story.find_first_not_of(white_space), story.size());
    story = story.substr(first, story.find_last_not_of(white_space) + 1 - first);
    if (const std::size_t wrong = find_invalid_utf8(story); wrong != std::string_view::npos) {
      fail<FileError>(path_, ": expected UTF-8 text, found another byte at offset ", offset + first + wrong);
    }
    if (!story.empty()) f(story);
  }

  std::filesystem::path path_;
  std::size_t longest_ = 0;
};

}  // namespace tinymoe::inline v0_1::detail
