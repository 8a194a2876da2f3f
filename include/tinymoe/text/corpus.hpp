#pragma once
/// @file
/// A text file of stories, each ended by "<|endoftext|>", read in chunks: the file may be larger than memory. For other
/// forms of stories see story_files.hpp.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>

#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/text/corpora/story_text.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/text_identity.hpp"

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
  explicit TextCorpus(std::filesystem::path path, CorpusOptions options = {})
      : path_(std::move(path)), options_(options) {
    static_cast<void>(FileReader(path_, expected));
  }

  /// Calls `f(std::string_view story)` for each story, in their order.
  /// Throws FileError if the file cannot be read, or at the first byte that is not UTF-8, naming its offset.
  template <class F>
  void for_each_story(F&& f) const {
    FileReader file(path_, expected);
    const detail::StoryText text(path_, options_.longest_story);
    text.pass_file(file, std::max<std::size_t>(options_.chunk, 1), f);
  }

  const std::filesystem::path& path() const { return path_; }

  /// What errors call the stories.
  std::string name() const { return path_.string(); }
  /// What tells these stories from others. Reads the whole file. Throws FileError.
  detail::TextIdentity identity() const { return detail::identify_text(path_, options_.longest_story); }

 private:
  static constexpr const char* expected = "a text file";

  std::filesystem::path path_;
  CorpusOptions options_;
};

static_assert(IdentifiedStories<TextCorpus>);

}  // namespace tinymoe::inline v0_1
