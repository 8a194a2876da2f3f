#pragma once
/// @file
/// The merges of a byte-pair encoding (Sennrich et al. 2016), and their application to one piece of text.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Two neighbouring tokens that become one.
struct Merge {
  Token left = 0, right = 0;
  friend bool operator==(const Merge&, const Merge&) = default;
};

/// Two tokens as one word, for hash tables and comparisons: ordered by left, then by right.
constexpr std::uint64_t pair_key(Token left, Token right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

/// Finds the rank and the result of a pair.
class MergeTable {
 public:
  static constexpr std::uint32_t no_rank = std::numeric_limits<std::uint32_t>::max();

  struct Entry {
    std::uint64_t key = no_key;
    std::uint32_t rank = no_rank;  // merges of smaller rank come first
    Token result = 0;
  };

  explicit MergeTable(std::size_t merges = 0) : entries_(std::bit_ceil(std::max<std::size_t>(2, merges * 2))) {
    shift_ = 64 - std::countr_zero(entries_.size());
  }

  /// Adds a merge; false if the pair has one already. The constructor sets the most that there can be.
  bool insert(Merge pair, std::uint32_t rank, Token result) {
    Entry& entry = entries_[probe(pair_key(pair.left, pair.right))];
    if (entry.key != no_key) return false;
    entry = {pair_key(pair.left, pair.right), rank, result};
    return true;
  }

  /// The merge of a pair; its rank is `no_rank` if there is none.
  const Entry& find(Token left, Token right) const { return entries_[probe(pair_key(left, right))]; }

 private:
  static constexpr std::uint64_t no_key = std::numeric_limits<std::uint64_t>::max();

  std::size_t probe(std::uint64_t key) const {
    std::size_t at = (key * 0x9e3779b97f4a7c15u) >> shift_;
    while (entries_[at].key != key && entries_[at].key != no_key) at = (at + 1) & (entries_.size() - 1);
    return at;
  }

  std::vector<Entry> entries_;  // at most half full
  int shift_ = 0;
};

/// Applies merges to one piece: always to the pair of the smallest rank, and to the leftmost of equal ones. Holds the
/// scratch that long pieces need, so one object belongs to one thread.
class PieceMerger {
 public:
  /// Merges the tokens of one piece in place. Throws TextError beyond 2^31 - 1 tokens.
  void operator()(const MergeTable& merges, std::vector<Token>& tokens) {
    if (tokens.size() <= short_piece) return merge_short(merges, tokens);
    expect_length(tokens);
    merge_long(merges, tokens, [] { return false; });
  }

  /// The same with dropout (Provilkov, Emelianenko and Voita 2020), as the package tokenizers does it: a pair for which
  /// `drops()` is true, drawn each time that its turn comes, waits until another one's turn has come.
  template <class Drops>
  void operator()(const MergeTable& merges, std::vector<Token>& tokens, Drops&& drops) {
    expect_length(tokens);
    if (!tokens.empty()) merge_long(merges, tokens, drops);
  }

 private:
  static constexpr std::size_t short_piece = 48;  // up to here scanning all pairs again is faster than a heap
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  static void expect_length(const std::vector<Token>& tokens) {
    if (tokens.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      fail<TextError>("expected pieces of at most 2147483647 bytes, found one of ", tokens.size());
    }
  }

  static void merge_short(const MergeTable& merges, std::vector<Token>& tokens) {
    std::array<MergeTable::Entry, short_piece> pairs;  // pairs[i] is the merge of tokens i and i + 1
    std::size_t size = tokens.size();
    for (std::size_t i = 0; i + 1 < size; ++i) pairs[i] = merges.find(tokens[i], tokens[i + 1]);
    while (size > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < size; ++i) {
        if (pairs[i].rank < pairs[best].rank) best = i;
      }
      if (pairs[best].rank == MergeTable::no_rank) break;
      tokens[best] = pairs[best].result;
      --size;
      for (std::size_t i = best + 1; i < size; ++i) tokens[i] = tokens[i + 1];
      for (std::size_t i = best + 1; i + 1 < size; ++i) pairs[i] = pairs[i + 1];
      if (best > 0) pairs[best - 1] = merges.find(tokens[best - 1], tokens[best]);
      if (best + 1 < size) pairs[best] = merges.find(tokens[best], tokens[best + 1]);
    }
    tokens.resize(size);
  }

  /// A linked list of tokens and a heap of candidate pairs: n log n for any piece.
  template <class Drops>
  void merge_long(const MergeTable& merges, std::vector<Token>& tokens, const Drops& drops) {
    const auto size = static_cast<std::uint32_t>(tokens.size());
    next_.resize(size);
    previous_.resize(size);
    ranks_.resize(size);
    heap_.clear();
    dropped_.clear();
    const auto rank_at = [&](std::uint32_t at) {
      return next_[at] == none ? MergeTable::no_rank : merges.find(tokens[at], tokens[next_[at]]).rank;
    };
    for (std::uint32_t i = 0; i < size; ++i) {
      next_[i] = i + 1 < size ? i + 1 : none;
      previous_[i] = i > 0 ? i - 1 : none;
      ranks_[i] = rank_at(i);
      if (ranks_[i] != MergeTable::no_rank) heap_.push_back(candidate(ranks_[i], i));
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto push = [&](std::uint64_t pair) {
      heap_.push_back(pair);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    };
    const auto refresh = [&](std::uint32_t at) {
      ranks_[at] = rank_at(at);
      if (ranks_[at] != MergeTable::no_rank) push(candidate(ranks_[at], at));
    };
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const auto rank = static_cast<std::uint32_t>(heap_.back() >> 32), at = static_cast<std::uint32_t>(heap_.back());
      heap_.pop_back();
      if (drops()) {
        dropped_.push_back(candidate(rank, at));
        continue;
      }
      for (const std::uint64_t pair : dropped_) push(pair);
      dropped_.clear();
      if (ranks_[at] != rank) continue;  // a neighbour's merge has changed or removed this pair
      const std::uint32_t removed = next_[at];
      tokens[at] = merges.find(tokens[at], tokens[removed]).result;
      next_[at] = next_[removed];
      if (next_[at] != none) previous_[next_[at]] = at;
      ranks_[removed] = MergeTable::no_rank;
      refresh(at);
      if (previous_[at] != none) refresh(previous_[at]);
    }
    std::size_t kept = 0;
    for (std::uint32_t at = 0; at != none; at = next_[at]) tokens[kept++] = tokens[at];
    tokens.resize(kept);
  }

  /// Ordered by rank, then by position.
  static std::uint64_t candidate(std::uint32_t rank, std::uint32_t at) {
    return (static_cast<std::uint64_t>(rank) << 32) | at;
  }

  std::vector<std::uint32_t> next_, previous_, ranks_;
  std::vector<std::uint64_t> heap_, dropped_;
};

}  // namespace detail
}  // namespace tinymoe::inline v0_1
