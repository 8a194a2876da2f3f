#pragma once
/// @file
/// Which expert works on which rows: what a sort by expert gives, and what grouped products and kernels read of it.

#include <cstdint>
#include <memory>

#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// Which rows are which expert's, as kernels and products read it on the backend.
struct ExpertRows {
  const std::int32_t* offsets;  // E + 1, in the backend's memory; null: all rows are expert 0's
  Index all;                    // the rows of all experts, where `offsets` is null

  TINYMOE_EVERYWHERE Index first(Index expert) const { return offsets == nullptr ? 0 : offsets[expert]; }
  /// One past the last.
  TINYMOE_EVERYWHERE Index end(Index expert) const { return offsets == nullptr ? all : offsets[expert + 1]; }
};

/// Where each (token, choice) pair lies once the pairs are stably sorted by expert. Pair number n·K + k is token n's
/// k-th choice; a slot is a place in the sorted order. A choice of −1 is no choice: it has slot −1 and is nowhere in
/// `pairs`, whose first offsets[E] elements alone mean something.
struct SortedPairs {
  View<std::int32_t> offsets;  // (1, E + 1): expert e has slots offsets[e] … offsets[e+1] − 1
  View<std::int32_t> slots;    // (N, K): the slot of each pair
  View<std::int32_t> pairs;    // (1, S): the pair in each slot; S is the most there can be

  /// For so many tokens, which send so many pairs at most.
  void resize(Index tokens, Index max_pairs) { slots.rows = tokens, pairs.cols = max_pairs; }
  Index tokens() const { return slots.rows; }
  Index choices() const { return slots.cols; }
  Index size() const { return pairs.cols; }
};

/// Sorted pairs, and what the host knows of them: `sort_by_expert` fills one, the grouped products take it. Its views
/// lie in the backend's memory; who makes one without a sort says how many rows there are. Once it was sorted, nothing
/// but a sort may change its offsets: the host would go on with those that it knows.
///
/// It is one type for all backends, because what a layer saves is a type of numbers alone; what a backend adds lies in
/// `host`, for no other to look at. Copies have the same views and share it.
struct Dispatch : SortedPairs {
  Index rows = 0;              // of the sorted matrices: the slots that are taken where the host knows, otherwise S
  std::shared_ptr<void> host;  // what the backend that sorted the pairs keeps with them

  Dispatch() = default;
  /// What a sort is to fill.
  Dispatch(View<std::int32_t> starts, View<std::int32_t> places, View<std::int32_t> order)
      : SortedPairs{starts, places, order}, rows(order.cols) {}
  /// Rows that are sorted already; of tokens and choices nothing is said.
  Dispatch(View<std::int32_t> starts, Index count) : SortedPairs{starts, {}, {}}, rows(count) {}
  /// All rows are one expert's, as in a dense block; the host knows it and nothing lies on the backend.
  static Dispatch to_one(Index count) { return {View<std::int32_t>(), count}; }

  bool is_to_one() const { return offsets.empty(); }
  Index experts() const { return is_to_one() ? 1 : offsets.cols - 1; }
  ExpertRows expert_rows() const { return {offsets.data, rows}; }
};

}  // namespace tinymoe::inline v0_1
