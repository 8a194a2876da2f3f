#pragma once
/// @file
/// Byte-pair encoding as sentencepiece does it: two neighbours that together are a piece become one, always those of
/// the best score.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1::detail {

/// Scratch of one thread.
class SentencePieceMerger {
 public:
  /// What a string is as a piece; `Pieces` gives it for each string by `operator()`.
  struct Found {
    bool is_piece = false, unused = false;
    float score = 0;
  };

  /// Calls f(string) for the pieces and the unknown characters of a text. `length(text)` gives the bytes of the first
  /// character or symbol, and whether nothing merges with it. Throws TextError beyond 2^31 bytes.
  template <class Pieces, class Length, class F>
  void operator()(std::string_view text, const Pieces& pieces, const Length& length, F&& f) {
    if (text.size() > 0x7fffffff) {
      fail<TextError>("expected a text of at most 2147483647 bytes, found one of ", text.size());
    }
    text_ = text;
    symbols_.clear();
    candidates_.clear();
    halves_.clear();
    for (std::uint32_t at = 0; at < text.size();) {
      const auto [bytes, frozen] = length(text.substr(at));
      const auto number = static_cast<std::uint32_t>(symbols_.size());
      symbols_.push_back({at, static_cast<std::uint32_t>(bytes), number == 0 ? none : number - 1, number + 1, frozen});
      at += static_cast<std::uint32_t>(bytes);
    }
    if (symbols_.empty()) return;
    symbols_.back().next = none;
    for (std::uint32_t i = 0; i + 1 < symbols_.size(); ++i) consider(pieces, i, i + 1);
    while (!candidates_.empty()) {
      std::pop_heap(candidates_.begin(), candidates_.end());
      const Candidate best = candidates_.back();
      candidates_.pop_back();
      Symbol& left = symbols_[best.left];
      Symbol& right = symbols_[best.right];
      if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != best.bytes) continue;
      left.bytes = best.bytes;
      left.next = right.next;
      if (right.next != none) symbols_[right.next].previous = best.left;
      right.bytes = 0;
      consider(pieces, left.previous, best.left);
      consider(pieces, best.left, left.next);
    }
    for (std::uint32_t i = 0; i != none; i = symbols_[i].next) cut_unused(pieces, string_of(symbols_[i]), 0, f);
  }

 private:
  static constexpr std::uint32_t none = 0xffffffff;
  static constexpr int deepest = 100;  // cuts within cuts, as in the package

  struct Symbol {
    std::uint32_t begin = 0, bytes = 0, previous = none, next = none;
    bool frozen = false;
  };
  struct Candidate {
    float score = 0;
    std::uint32_t left = 0, right = 0, bytes = 0;
    /// Whether the other one is better.
    friend bool operator<(const Candidate& a, const Candidate& b) {
      return a.score < b.score || (a.score == b.score && a.left > b.left);
    }
  };

  std::string_view string_of(const Symbol& symbol) const { return text_.substr(symbol.begin, symbol.bytes); }

  template <class Pieces>
  void consider(const Pieces& pieces, std::uint32_t left, std::uint32_t right) {
    if (left == none || right == none || symbols_[left].frozen || symbols_[right].frozen) return;
    const std::uint32_t bytes = symbols_[left].bytes + symbols_[right].bytes;
    const std::string_view both = text_.substr(symbols_[left].begin, bytes);
    const Found found = pieces(both);
    if (!found.is_piece) return;
    candidates_.push_back({found.score, left, right, bytes});
    std::push_heap(candidates_.begin(), candidates_.end());
    if (found.unused) halves_[both] = symbols_[left].bytes;
  }

  /// An unused piece becomes what it was merged of.
  template <class Pieces, class F>
  void cut_unused(const Pieces& pieces, std::string_view string, int depth, F&& f) {
    const auto half =
        halves_.empty() || depth > deepest || !pieces(string).unused ? halves_.end() : halves_.find(string);
    if (half == halves_.end()) return f(string, depth > deepest);
    const std::size_t cut = half->second;
    cut_unused(pieces, string.substr(0, cut), depth + 1, f);
    cut_unused(pieces, string.substr(cut), depth + 1, f);
  }

  std::string_view text_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;                           // a heap
  std::unordered_map<std::string_view, std::uint32_t> halves_;  // where unused pieces were merged
};

}  // namespace tinymoe::inline v0_1::detail
