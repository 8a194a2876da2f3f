#pragma once
/// @file
/// Stories for a vocabulary that lacks characters.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// The stories of a source that a tokenizer can encode. A tokenizer with the 256 bytes encodes all of them, unchanged.
/// Without the bytes, white space that the vocabulary lacks, such as a line feed, becomes one space; a story with
/// another character that it lacks is left out.
template <StorySource Source>
class KnownStories {
 public:
  KnownStories(Source source, Tokenizer tokenizer) : source_(std::move(source)), tokenizer_(std::move(tokenizer)) {}

  /// Calls `f(std::string_view story)` for each story, in their order. Throws what the source throws.
  template <class F>
  void for_each_story(F&& f) const {
    std::string cleaned;
    source_.for_each_story([&](std::string_view story) {
      if (tokenizer_.knows(story)) {
        f(story);
        return;
      }
      clean(story, cleaned);
      if (tokenizer_.knows(cleaned)) f(std::string_view(cleaned));
    });
  }

 private:
  void clean(std::string_view story, std::string& cleaned) const {
    cleaned.clear();
    while (!story.empty()) {
      const std::size_t word = std::min(story.find_first_of(detail::white_space), story.size());
      cleaned += story.substr(0, word);
      story.remove_prefix(word);
      const std::size_t space = std::min(story.find_first_not_of(detail::white_space), story.size());
      const std::string_view run = story.substr(0, space);
      if (tokenizer_.knows(run)) {
        cleaned += run;
      } else {
        cleaned += ' ';
      }
      story.remove_prefix(space);
    }
  }

  Source source_;
  Tokenizer tokenizer_;
};

}  // namespace tinymoe::inline v0_1
