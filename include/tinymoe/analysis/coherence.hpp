#pragma once
/// @file
/// Plain measures of how a story hangs together: how much of it is new, and whether it keeps its names. English is
/// assumed, as in token_kinds.hpp.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/analysis/token_kinds.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// Counts over stories.
///
/// Four-grams are four successive words of a story, without regard to capitals and punctuation. Distinct ones are
/// counted over all stories together (distinct-n, Li et al. 2016): only as many stories of like length compare.
///
/// A name is a word that has a capital from A to Z inside a sentence and stands nowhere in its story without.
/// `late_names` are the different names in the second half of each story's words, `kept_names` those of them that its
/// first half has too. A story that confuses its children loses names. One that brings a new child late loses one as
/// well, so real stories stay below 1.
struct Coherence {
  Index stories = 0, words = 0;
  Index four_grams = 0, distinct_four_grams = 0;
  Index late_names = 0, kept_names = 0;

  /// Distinct four-grams over all; NaN if there is none.
  double distinct_share() const { return share(distinct_four_grams, four_grams); }
  /// Kept names over late ones; NaN if there is none.
  double kept_share() const { return share(kept_names, late_names); }

 private:
  static double share(Index some, Index all) {
    return all > 0 ? double(some) / double(all) : std::numeric_limits<double>::quiet_NaN();
  }
};

/// Counts stories one by one.
class CoherenceCounter {
 public:
  [[gnu::cold]] void add(std::string_view story) {
    const std::vector<Word> words = words_of(story);
    ++counts_.stories;
    counts_.words += std::ssize(words);
    for (std::size_t i = 0; i + 4 <= words.size(); ++i) {
      std::string four;
      for (std::size_t j = i; j < i + 4; ++j) (four += words[j].text) += ' ';
      ++counts_.four_grams;
      seen_.insert(std::move(four));
    }
    counts_.distinct_four_grams = std::ssize(seen_);
    count_names(words);
  }

  const Coherence& counts() const { return counts_; }

 private:
  struct Word {
    std::string text;    // in lower case, without 's
    bool capital, name;  // name: a capital inside a sentence
  };

  static std::vector<Word> words_of(std::string_view story) {
    const detail::ReadText text(story);
    std::vector<Word> words;
    for (std::size_t i = 0; i < story.size();) {
      if (!text.is_letter(i)) {
        ++i;
        continue;
      }
      const std::size_t first = i;
      while (text.is_letter(i)) ++i;
      Word word{std::string(story.substr(first, i - first)), story[first] >= 'A' && story[first] <= 'Z',
                text.word(first) == TokenKind::name};
      for (char& c : word.text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      for (const std::string_view owns : {"'s", "\xE2\x80\x99s"}) {
        if (word.text.ends_with(owns)) word.text.resize(word.text.size() - owns.size());
      }
      words.push_back(std::move(word));
    }
    return words;
  }

  void count_names(const std::vector<Word>& words) {
    struct Use {
      bool name = false, small = false, early = false, late = false;
    };
    std::map<std::string_view, Use> uses;
    for (std::size_t i = 0; i < words.size(); ++i) {
      Use& use = uses[words[i].text];
      use.name = use.name || words[i].name;
      use.small = use.small || !words[i].capital;
      (i < words.size() / 2 ? use.early : use.late) = true;
    }
    for (const auto& [text, use] : uses) {
      if (!use.name || use.small || !use.late) continue;
      ++counts_.late_names;
      if (use.early) ++counts_.kept_names;
    }
  }

  Coherence counts_;
  std::set<std::string> seen_;
};

}  // namespace tinymoe::inline v0_1
