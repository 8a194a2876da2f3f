#pragma once
/// @file
/// The stable sort of few (token, choice) pairs by expert, as a part of a block's work.

#include <cstdint>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

/// Up to this many pairs one block sorts, in one launch.
inline constexpr Index most_sorted_in_block = 1024;

/// The host no longer knows the offsets of a dispatch, because a kernel sorts it.
inline void forget_offsets(const Dispatch& dispatch) {
  if (HostOffsets* host = host_offsets_of(dispatch); host != nullptr) host->known = false;
}

/// By all threads of a block: a pair's slot is the number of pairs before it in the order of (expert, number).
__device__ inline void sort_in_block(View<const std::int32_t> selected, const SortedPairs& sorted) {
  struct Place;
  std::int32_t* expert_of = static_shared<std::int32_t, most_sorted_in_block, Place>();
  const int count = static_cast<int>(selected.size()), own = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  for (int pair = own; pair < count; pair += threads) expert_of[pair] = selected.data[pair];
  sync_block();
  for (int pair = own; pair < count; pair += threads) {
    const std::int32_t expert = expert_of[pair];
    std::int32_t slot = -1;
    if (expert >= 0) {
      slot = 0;
      for (int other = 0; other < count; ++other) {
        const std::int32_t e = expert_of[other];
        slot += e >= 0 && (e < expert || (e == expert && other < pair)) ? 1 : 0;
      }
      sorted.pairs.data[slot] = pair;
    }
    sorted.slots.data[pair] = slot;
  }
  for (Index e = own; e < sorted.offsets.cols; e += threads) {
    std::int32_t before = 0;
    for (int other = 0; other < count; ++other) before += expert_of[other] >= 0 && expert_of[other] < e ? 1 : 0;
    sorted.offsets.data[e] = before;
  }
}

}  // namespace tinymoe::inline v0_1::detail::cuda
