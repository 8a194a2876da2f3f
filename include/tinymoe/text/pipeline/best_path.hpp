#pragma once
/// @file
/// Unigram language models: the pieces of a text whose scores add up to the most (Kudo 2018, section 3.2), by the
/// Viterbi algorithm.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string_view>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/pipeline/prefix_finder.hpp"

namespace tinymoe::inline v0_1::detail {

/// What the best path up to some byte ends with. `Sum` rounds as the package whose results are wanted: double or float.
template <class Sum>
struct PathEnd {
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  Sum score = 0;
  std::size_t begin = none;
  Token token = -1;
};

/// How far below the worst piece an unknown character is.
inline constexpr float unknown_penalty = 10.0f;

/// Fills `ends` for each byte of a text, and one more. `piece(number, bytes)` gives the token and the score of a piece
/// of the finder, `character(at)` the bytes of the one there. A character that is no piece has `unknown`. Where the sum
/// is above `most`, all begin again from zero.
template <class Sum, class Piece, class Character>
void find_best_path(std::string_view text, const PrefixFinder& pieces, Sum unknown_score, Token unknown, Sum most,
                    Piece&& piece, Character&& character, std::vector<PathEnd<Sum>>& ends) {
  ends.assign(text.size() + 1, {});
  std::size_t last = 0;  // the furthest that has been reached
  const auto reach = [&](std::size_t begin, std::size_t end, Token token, Sum score) {
    last = std::max(last, end);
    PathEnd<Sum>& path = ends[end];
    if (path.begin != PathEnd<Sum>::none && !(score > path.score)) return;
    path = {score, begin, token};
  };
  for (std::size_t at = 0; at < text.size();) {
    if (const Sum before = ends[at].score; before > most || before < -most) {
      for (std::size_t i = at; i <= last; ++i) {
        if (i == at || ends[i].begin != PathEnd<Sum>::none) ends[i].score -= before;
      }
    }
    const Sum before = ends[at].score;
    const std::size_t length = character(at);
    bool known = false;  // the character by itself
    pieces.for_each(text.substr(at), [&](std::size_t number) {
      const std::size_t bytes = pieces[number].size();
      const auto [token, score] = piece(number, bytes);
      reach(at, at + bytes, token, score + before);
      known = known || bytes == length;
      return true;
    });
    if (!known) reach(at, at + length, unknown, unknown_score + before);
    at += length;
  }
}

/// Calls f(begin, end, token) for the pieces of the best path, the last one first.
template <class Sum, class F>
void for_each_back(const std::vector<PathEnd<Sum>>& ends, F&& f) {
  for (std::size_t end = ends.size() - 1; end > 0; end = ends[end].begin) f(ends[end].begin, end, ends[end].token);
}

}  // namespace tinymoe::inline v0_1::detail
