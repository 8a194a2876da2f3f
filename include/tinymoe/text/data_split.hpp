#pragma once
/// @file
/// Parts of a data set that are whole stories: fewer of them, and some held out for validation.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// A copy of the tokens first … first + count − 1, which are whole stories, and how much text they stand for.
inline TokenData copy_stories(const TokenData& data, const Tokenizer& tokenizer, Index first, Index count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  data.copy(first, tokens);
  Index bytes = 0, stories = 0;
  for (const Token token : tokens) {
    const bool ends = token == tokenizer.end_of_story();
    stories += ends ? 1 : 0;
    bytes += ends ? 0 : std::ssize(tokenizer.bytes(token));
  }
  return TokenData::from_tokens(tokens, data.vocabulary_size(), bytes, stories);
}

}  // namespace detail

/// The first stories of a set, `most` tokens or fewer but at least one story; all of a set that is no larger.
inline TokenData first_stories(const TokenData& data, const Tokenizer& tokenizer, Index most) {
  if (data.size() <= most) return data;
  Index count = most;
  while (count > 0 && data[count - 1] != tokenizer.end_of_story()) --count;
  while (count < data.size() && (count == 0 || data[count - 1] != tokenizer.end_of_story())) ++count;
  return detail::copy_stories(data, tokenizer, 0, count);
}

/// Training and validation data from one set.
struct SplitData {
  TokenData training, validation;
};

/// Holds out the last stories: about `fraction` of the tokens, but at most `most`. The tokenizer is the data's own.
/// Throws TrainingError if the data has only one story.
inline SplitData hold_out(const TokenData& data, const Tokenizer& tokenizer, double fraction = 0.05,
                          Index most = 500000) {
  Index first = data.size() - std::min(most, static_cast<Index>(fraction * static_cast<double>(data.size())));
  while (first > 0 && (first == data.size() || data[first - 1] != tokenizer.end_of_story())) --first;
  if (first == 0) fail<TrainingError>("expected two stories or more, of which the last can be held out for validation");
  return {data.first(first), detail::copy_stories(data, tokenizer, first, data.size() - first)};
}

}  // namespace tinymoe::inline v0_1
