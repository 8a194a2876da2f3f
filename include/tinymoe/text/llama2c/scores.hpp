#pragma once
/// @file
/// The scores of tokens that give Llama 2's kind its merges, for files that have scores and no merges.

#include <cstddef>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"

namespace tinymoe::inline v0_1::detail {

/// Those of a token's merges, whose ranks are all the same. Throws TextError where the merges do not follow from scores.
[[gnu::cold]] inline std::vector<float> llama2c_scores(const Llama2cParts& parts) {
  std::vector<float> scores(parts.vocabulary.size(), 0.0f);
  std::vector<bool> merged(scores.size());
  const auto refuse = [] {
    fail<TextError>("the tokenizer's merges do not follow from scores of its tokens, which the file would have");
  };
  for (const RankedMerge& merge : parts.merges) {
    const auto at = static_cast<std::size_t>(merge.result);
    const float score = -static_cast<float>(merge.rank);
    if (merged[at] && scores[at] != score) refuse();
    scores[at] = score;
    merged[at] = true;
  }
  if (scored_merges(parts.vocabulary, scores) != parts.merges) refuse();
  return scores;
}

}  // namespace tinymoe::inline v0_1::detail
