#pragma once
/// @file
/// Where stories come from: a file (corpus.hpp), a list in memory, or a function that makes the i-th story.

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {
/// The white space that separates words and may surround a story.
inline constexpr std::string_view white_space = " \t\n\v\f\r";
}  // namespace detail

/// Anything that can pass its stories, one after the other, to a callable: the same stories at every call.
/// A story is a text without a marker of its end; the view is valid during the call only.
template <class S>
concept StorySource = requires(const S& source, void (*visit)(std::string_view)) {
  source.for_each_story(visit);
};

/// Stories in memory, in one buffer.
class StoryList {
 public:
  StoryList() = default;
  StoryList(std::initializer_list<std::string_view> stories) {
    for (const std::string_view story : stories) add(story);
  }

  void add(std::string_view story) {
    text_.append(story);
    ends_.push_back(text_.size());
  }

  template <class F>
  void for_each_story(F&& f) const {
    std::size_t begin = 0;
    for (const std::size_t end : ends_) {
      f(std::string_view(text_).substr(begin, end - begin));
      begin = end;
    }
  }

  Index size() const { return static_cast<Index>(ends_.size()); }
  /// Bytes of all stories together.
  std::size_t bytes() const { return text_.size(); }

 private:
  std::string text_;
  std::vector<std::size_t> ends_;
};

/// The stories 0 to `count - 1` of a function, made as they are asked for: `GeneratedStories(1000, [](Index i) {…})`.
template <std::invocable<Index> Make>
requires std::convertible_to<std::invoke_result_t<const Make&, Index>, std::string>
class GeneratedStories {
 public:
  GeneratedStories(Index count, Make make) : count_(count), make_(std::move(make)) {}

  template <class F>
  void for_each_story(F&& f) const {
    for (Index i = 0; i < count_; ++i) {
      const std::string story = make_(i);
      f(std::string_view(story));
    }
  }

  Index size() const { return count_; }

 private:
  Index count_ = 0;
  Make make_;
};

namespace detail {

/// Calls `f(StoryList&&)` with the stories in blocks of about a megabyte, for threads to share.
template <StorySource Stories, class F>
void for_each_block(const Stories& stories, F&& f) {
  constexpr std::size_t block_size = std::size_t{1} << 20;
  StoryList block;
  stories.for_each_story([&](std::string_view story) {
    block.add(story);
    if (block.bytes() >= block_size) f(std::exchange(block, StoryList()));
  });
  if (block.size() > 0) f(std::move(block));
}

}  // namespace detail

static_assert(StorySource<StoryList> && StorySource<GeneratedStories<std::string (*)(Index)>>);

}  // namespace tinymoe::inline v0_1
