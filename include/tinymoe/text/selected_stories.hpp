#pragma once
/// @file
/// A part of the stories of a source: shuffled, then some skipped, then so many taken.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/random_permutation.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/text_identity.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The order of shuffled stories.
inline constexpr RandomSite story_order{4};
}  // namespace random_site

/// Which stories to use, in this order of steps: all are shuffled, the first `skip` are left out, and the next `count`
/// are taken.
struct StorySelection {
  std::optional<std::uint64_t> shuffle_seed = {};  // none: in their own order
  Index skip = 0;
  std::optional<Index> count = {};  // none: all that are left

  bool is_all() const { return !shuffle_seed && skip == 0 && !count; }
};

/// A part of the stories of a source. It depends on the source and the selection alone, on every machine. Without
/// shuffling, the source is read up to the last story that is taken. With it, the source is read once to count its
/// stories and once more for each `memory` bytes that are taken, which are held in memory meanwhile, with eight bytes
/// for each story of the source.
template <StorySource Source>
class SelectedStories {
 public:
  static constexpr std::size_t default_memory = std::size_t{512} << 20;

  /// Throws OptionError for a negative skip or a count below 1.
  SelectedStories(Source source, StorySelection selection, std::size_t memory = default_memory)
      : source_(std::move(source)), selection_(selection), memory_(memory) {
    detail::check_options("SelectedStories", {{"skip", selection.skip, detail::range::whole(0)},
                                              {"count", selection.count.value_or(1), detail::range::whole(1)}});
  }

  /// Calls `f(std::string_view story)` for each story of the part. Throws TextError if the source has fewer stories
  /// than are skipped and taken, or other ones when it is read again, and what the source throws.
  template <class F>
  void for_each_story(F&& f) const {
    if (selection_.is_all()) {
      source_.for_each_story(f);
    } else if (selection_.shuffle_seed) {
      pass_shuffled(f);
    } else {
      pass_in_order(f);
    }
  }

  std::string name() const requires IdentifiedStories<Source> { return source_.name(); }
  /// What tells these stories from others: the source's identity and the selection.
  detail::TextIdentity identity() const requires IdentifiedStories<Source> {
    auto identity = source_.identity();
    if (selection_.is_all()) return identity;
    detail::IdentityHash hash;
    hash.text("selected stories 1");
    hash.identity(identity);
    hash.number(selection_.shuffle_seed ? 1 : 0);
    hash.number(selection_.shuffle_seed.value_or(0));
    hash.number(static_cast<std::uint64_t>(selection_.skip));
    hash.number(static_cast<std::uint64_t>(selection_.count.value_or(0)));
    identity.hash = hash.value();
    return identity;
  }

 private:
  struct Enough {};  // thrown through the source, which has no other way to stop

  /// Throws TextError unless a source of `stories` stories has all that are asked for.
  [[gnu::cold]] void expect_stories(Index stories) const {
    const Index count = selection_.count.value_or(1);
    if (stories > selection_.skip && stories - selection_.skip >= count) return;
    std::string sentence = "expected " + std::to_string(count) + " stories" + (selection_.count ? "" : " or more");
    if (selection_.skip > 0) sentence += " behind the first " + std::to_string(selection_.skip);
    sentence += ", found " + std::to_string(std::max<Index>(stories - selection_.skip, 0));
    if (selection_.skip > 0) sentence += "; there are " + std::to_string(stories) + " in all";
    fail<TextError>(sentence);
  }

  template <class F>
  void pass_in_order(F& f) const {
    Index seen = 0;
    try {
      source_.for_each_story([&](std::string_view story) {
        if (seen++ < selection_.skip) return;
        f(story);
        if (selection_.count && seen - selection_.skip == *selection_.count) throw Enough();
      });
    } catch (const Enough&) {
    }
    expect_stories(seen);
  }

  template <class F>
  void pass_shuffled(F& f) const {
    std::vector<std::size_t> sizes;
    source_.for_each_story([&](std::string_view story) { sizes.push_back(story.size()); });
    const auto stories = static_cast<Index>(sizes.size());
    expect_stories(stories);
    const RandomStream stream(Seed{*selection_.shuffle_seed}, 0, random_site::story_order);
    const detail::RandomPermutation order(stream, sizes.size());
    const Index end = selection_.skip + selection_.count.value_or(stories - selection_.skip);
    for (Index first = selection_.skip; first < end;) {
      std::vector<std::pair<std::size_t, std::size_t>> wanted;  // a story's number in the source, and its place here
      for (std::size_t bytes = 0; first < end && (wanted.empty() || bytes < memory_); ++first) {
        const auto story = static_cast<std::size_t>(order(static_cast<std::uint64_t>(first)));
        wanted.emplace_back(story, wanted.size());
        bytes += sizes[story];
      }
      for (const std::string& story : take(wanted)) f(std::string_view(story));
    }
  }

  /// The wanted stories of the source, in the order of their places.
  std::vector<std::string> take(std::vector<std::pair<std::size_t, std::size_t>>& wanted) const {
    std::vector<std::string> taken(wanted.size());
    std::sort(wanted.begin(), wanted.end());
    auto next = wanted.begin();
    std::size_t number = 0;
    try {
      source_.for_each_story([&](std::string_view story) {
        if (number++ != next->first) return;
        taken[next->second] = story;
        if (++next == wanted.end()) throw Enough();
      });
    } catch (const Enough&) {
    }
    if (next != wanted.end()) fail<TextError>("the stories were changed while they were being read");
    return taken;
  }

  Source source_;
  StorySelection selection_;
  std::size_t memory_ = 0;
};

}  // namespace tinymoe::inline v0_1
