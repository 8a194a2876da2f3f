#pragma once
/// @file
/// Which expert works on which rows: the result of a sort by expert, which grouped products and kernels read.

#include <cstdint>
#include <memory>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// Which rows belong to which expert, as kernels and products read it on the backend.
struct ExpertRows {
  const std::int32_t* offsets;  // E + 1, in the backend's memory; null: all rows are expert 0's
  Index all;                    // the rows of all experts, where `offsets` is null

  TINYMOE_EVERYWHERE Index first(Index expert) const { return offsets == nullptr ? 0 : offsets[expert]; }
  /// One past the last.
  TINYMOE_EVERYWHERE Index end(Index expert) const { return offsets == nullptr ? all : offsets[expert + 1]; }
  TINYMOE_EVERYWHERE Index count(Index expert) const { return end(expert) - first(expert); }
};

/// Where each (token, choice) pair lies once the pairs are stably sorted by expert. Pair number n·K + k is token n's
/// k-th choice; a slot is a place in the sorted order. A choice of −1 is none: its slot is −1 and it is not in `pairs`,
/// of which only the first offsets[E] elements are set.
struct SortedPairs {
  View<std::int32_t> offsets;  // (1, E + 1): expert e has slots offsets[e] … offsets[e+1] − 1
  View<std::int32_t> slots;    // (N, K): the slot of each pair
  View<std::int32_t> pairs;    // (1, S): the pair in each slot; S is the maximum

  /// Sets the number of tokens, and the most pairs that they send to experts.
  void resize(Index tokens, Index max_pairs) { slots.rows = tokens, pairs.cols = max_pairs; }
  Index tokens() const { return slots.rows; }
  Index choices() const { return slots.cols; }
  Index size() const { return pairs.cols; }
};

/// What a backend keeps of a dispatch on the host: it derives its own type, and casts to it with dynamic_cast, since a
/// dispatch may have been sorted by another backend.
struct HostRows {
  virtual ~HostRows() = default;
};

/// Sorted pairs, and what the host knows of them: `sort_by_expert` fills one, the grouped products take it. Its views
/// lie in the backend's memory. A dispatch that is made without a sort is given its number of rows. After a sort, only
/// another sort may change the offsets: the host would go on with those that it knows.
///
/// It is one type for all backends, because the type of what a layer saves depends on number types alone. A backend
/// keeps its own data in `host`, which no other code reads. Copies have the same views and share `host`.
struct Dispatch : SortedPairs {
  Index rows = 0;                  // of the sorted matrices: the taken slots if the host knows their number, else S
  std::shared_ptr<HostRows> host;  // kept by the backend that sorted the pairs

  Dispatch() = default;
  /// A dispatch for a sort to fill.
  Dispatch(View<std::int32_t> starts, View<std::int32_t> places, View<std::int32_t> order)
      : SortedPairs{starts, places, order}, rows(order.cols) {}
  /// Rows that are sorted already; tokens and choices are unknown.
  Dispatch(View<std::int32_t> starts, Index count) : SortedPairs{starts, {}, {}}, rows(count) {}
  /// All rows belong to one expert, as in a dense block. The host knows it, and nothing lies on the backend.
  static Dispatch to_one(Index count) { return {View<std::int32_t>(), count}; }

  bool is_to_one() const { return offsets.empty(); }
  Index experts() const { return is_to_one() ? 1 : offsets.cols - 1; }
  ExpertRows expert_rows() const { return {offsets.data, rows}; }
};

}  // namespace tinymoe::inline v0_1
