#pragma once
/// @file
/// Stories without a download: an endless corpus of small children's stories, each a pure function of (seed, index).
///
/// In the spirit of TinyStories (Eldan and Li 2023), in few and simple words; the prose is this project's own. A model
/// that learns them has to keep track of who (names and pronouns), what (a red ball stays red, a torn kite is mended
/// with tape), where (what was put down near the willow is found there) and how many (six plums are three for each).
/// Reading order:
///
///     grammar    the patterns of the prose, and how they become a story
///     cast       people, places, weather
///     plots      what happens

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <ostream>
#include <string>
#include <string_view>

#include "tinymoe/core/random.hpp"
#include "tinymoe/text/stories/cast.hpp"
#include "tinymoe/text/stories/grammar.hpp"
#include "tinymoe/text/stories/plots.hpp"
#include "tinymoe/text/story_source.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

inline constexpr std::ptrdiff_t longest_story = 220;  // in words

inline std::ptrdiff_t count_words(std::string_view tidy) {
  return 1 + std::count_if(tidy.begin(), tidy.end(), [](char c) { return c == ' ' || c == '\n'; });
}

/// Overwrites `text` with a story; `scene` must be fresh and then says who and what is in it.
/// Returns the plot, and leaves in `dice` how many equally likely stories this was one of.
inline const Plot& tell_story(Scene& scene, Dice& dice, std::string& text) {
  cast_scene(scene, dice);
  const Plot& plot = plots[dice.below(std::size(plots))];
  scene.set_any_row(plot.table, dice);
  scene.set_any_row(plot.second_table, dice);
  const double outcomes = dice.outcomes();
  do {  // about one story in a hundred is too long and is made again
    dice.disregard_since(outcomes);
    text.clear();
    scene.expand(story_opening, dice, text);
    if (plot.friend_matters) scene.expand(friend_opening, dice, text);
    text += "\n\n";
    scene.expand(plot.text, dice, text);
    if (plot.ends_by_day) scene.expand(story_closing, dice, text);
    tidy_blanks(text);
  } while (count_words(text) > longest_story);
  return plot;
}

/// Overwrites `text` with story number `index`. Returns how many equally likely stories it was one of.
[[gnu::noinline]] inline double tell_story(Seed seed, std::uint64_t index, std::string& text) {
  Scene scene;
  Dice dice(seed, index);
  tell_story(scene, dice, text);
  return dice.outcomes();
}

}  // namespace detail

/// Story number `index`: 80 to 220 words of printable ASCII, each paragraph a line, with no line break at the end.
inline std::string make_story(Seed seed, std::uint64_t index) {
  std::string text;
  detail::tell_story(seed, index, text);
  return text;
}

/// The bits of choice in a story, -log2 of the probability of how it came about (some 90). Their mean is an upper bound
/// of the corpus's entropy per story: a model that knew the grammar would need no more to predict it.
inline double story_bits(Seed seed, std::uint64_t index) {
  std::string text;
  return std::log2(detail::tell_story(seed, index, text));
}

/// `count` stories from number `first` on, as a source. Sources with disjoint ranges or different seeds share no story;
/// the chance that two stories are equal is far below one in a billion.
struct EmbeddedStories {
  std::uint64_t count = 0;
  Seed seed{};
  std::uint64_t first = 0;

  /// Calls `f(std::string_view story)` for each; the view is good until `f` returns.
  template <class F>
  void for_each_story(F&& f) const {
    std::string story;
    for (std::uint64_t i = 0; i < count; ++i) {
      detail::tell_story(seed, first + i, story);
      f(std::string_view(story));
    }
  }

  /// All stories in one text, each followed by a line `<|endoftext|>`, as in the files of TinyStories.
  std::string text() const {
    std::string all;
    for_each_story([&](std::string_view story) { all.append(story).append(end_of_story); });
    return all;
  }

  /// Writes what `text()` returns, a story at a time.
  void write(std::ostream& out) const {
    for_each_story([&](std::string_view story) { out << story << end_of_story; });
  }

 private:
  static constexpr std::string_view end_of_story = "\n<|endoftext|>\n";
};
static_assert(StorySource<EmbeddedStories>);

}  // namespace tinymoe::inline v0_1
