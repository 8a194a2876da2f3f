#pragma once
/// @file
/// Parts of a data set that are whole stories: fewer of them, and some held out for validation.

#include <algorithm>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// The first stories of a set: as many as fit into `limit` tokens, but at least one. Throws OptionError for a negative
/// limit.
inline TokenData first_stories(const TokenData& data, const Tokenizer& tokenizer, Index limit) {
  detail::check_options("first_stories", {{"limit", limit, detail::range::whole(0)}});
  if (data.size() <= limit) return data;
  Index count = limit;
  while (count > 0 && data[count - 1] != tokenizer.end_of_story()) --count;
  while (count < data.size() && (count == 0 || data[count - 1] != tokenizer.end_of_story())) ++count;
  return data.stories_between(0, count, tokenizer);
}

/// Training and validation data from one set.
struct SplitData {
  TokenData training, validation;
};

namespace detail {

/// The tokens before `first`, which begins a story, and the others.
inline SplitData split_at(const TokenData& data, const Tokenizer& tokenizer, Index first) {
  return {data.stories_between(0, first, tokenizer), data.stories_between(first, data.size() - first, tokenizer)};
}

}  // namespace detail

/// Holds out the last stories for validation: about `fraction` of the tokens, at most `limit` unless a story crosses
/// it. `tokenizer` is the one that encoded the data. Stories and bytes of both parts are counted, as if each were a
/// file of its own. Throws OptionError for a fraction that is not between 0 and 1 or a negative limit, TrainingError if
/// the data has only one story.
inline SplitData hold_out(const TokenData& data, const Tokenizer& tokenizer, double fraction = 0.05,
                          Index limit = 500000) {
  detail::check_options(
      "hold_out", {{"fraction", fraction, detail::range::from_0_to_1}, {"limit", limit, detail::range::whole(0)}});
  Index first = data.size() - std::min(limit, static_cast<Index>(fraction * static_cast<double>(data.size())));
  while (first > 0 && (first == data.size() || data[first - 1] != tokenizer.end_of_story())) --first;
  if (first == 0) fail<TrainingError>("expected two stories or more, of which the last can be held out for validation");
  return detail::split_at(data, tokenizer, first);
}

/// Holds out the last `stories` stories for validation, otherwise as `hold_out`. Throws OptionError for a number below
/// 1, TrainingError if the data has not more stories.
inline SplitData hold_out_stories(const TokenData& data, const Tokenizer& tokenizer, Index stories) {
  detail::check_options("hold_out_stories", {{"stories", stories, detail::range::whole(1)}});
  Index first = data.size(), ends = 0;
  for (; first > 0; --first) {
    if (data[first - 1] == tokenizer.end_of_story() && ends++ == stories) break;
  }
  if (first == 0) {
    fail<TrainingError>("expected more than ", stories, " stories, of which the last ", stories,
                        " are held out for validation, found ", ends);
  }
  return detail::split_at(data, tokenizer, first);
}

}  // namespace tinymoe::inline v0_1
