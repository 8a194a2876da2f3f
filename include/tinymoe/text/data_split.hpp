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

/// A copy of the tokens first … first + count − 1, which are whole stories, with their number and bytes counted.
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

/// The first stories of a set: as many as fit into `limit` tokens, but at least one.
inline TokenData first_stories(const TokenData& data, const Tokenizer& tokenizer, Index limit) {
  if (data.size() <= limit) return data;
  Index count = limit;
  while (count > 0 && data[count - 1] != tokenizer.end_of_story()) --count;
  while (count < data.size() && (count == 0 || data[count - 1] != tokenizer.end_of_story())) ++count;
  return detail::copy_stories(data, tokenizer, 0, count);
}

/// Training and validation data from one set.
struct SplitData {
  TokenData training, validation;
};

/// Holds out the last stories for validation: about `fraction` of the tokens, at most `limit`. `tokenizer` is the one
/// that encoded the data. Throws TrainingError if the data has only one story.
inline SplitData hold_out(const TokenData& data, const Tokenizer& tokenizer, double fraction = 0.05,
                          Index limit = 500000) {
  Index first = data.size() - std::min(limit, static_cast<Index>(fraction * static_cast<double>(data.size())));
  while (first > 0 && (first == data.size() || data[first - 1] != tokenizer.end_of_story())) --first;
  if (first == 0) fail<TrainingError>("expected two stories or more, of which the last can be held out for validation");
  return {data.first(first), detail::copy_stories(data, tokenizer, first, data.size() - first)};
}

}  // namespace tinymoe::inline v0_1
