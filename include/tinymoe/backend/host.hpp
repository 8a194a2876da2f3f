#pragma once
/// @file
/// What backends of the host share: memory, copies and the sort by expert.

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1::detail {

/// Base of the backends that compute on the host.
class HostBackend {
 public:
  /// Zeroed memory, in huge pages if the system has them. Each step reads a model's weights from end to end, and with
  /// small pages address translation would take much of that time. Throws DeviceError if there is not enough.
  Memory allocate(std::size_t bytes) const { return bytes == 0 ? Memory() : allocate_host_memory(bytes); }

  void copy_to_device(void* to, const void* from, std::size_t bytes) const { copy(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes) const { copy(to, from, bytes); }
  void zero(void* to, std::size_t bytes) const {
    if (bytes != 0) std::memset(to, 0, bytes);
  }

  /// Stable counting sort: within an expert, pairs keep the order of their tokens; −1 is left out.
  void sort_by_expert(View<const std::int32_t> selected, Dispatch& dispatch) const {
    assert(selected.rows == dispatch.tokens() && selected.cols == dispatch.choices() && selected.contiguous());
    const Index experts = dispatch.experts();
    std::int32_t* offsets = dispatch.offsets.data;
    std::memset(offsets, 0, static_cast<std::size_t>(experts + 1) * sizeof(std::int32_t));
    for (Index pair = 0; pair < selected.size(); ++pair) {
      if (selected.data[pair] >= 0) ++offsets[selected.data[pair] + 1];
    }
    for (Index e = 0; e < experts; ++e) offsets[e + 1] += offsets[e];
    // Each pair takes its expert's next slot; that moves offsets[e] up to offsets[e + 1], so they are moved back after.
    assert(offsets[experts] <= dispatch.size());
    for (Index pair = 0; pair < selected.size(); ++pair) {
      if (selected.data[pair] < 0) {
        dispatch.slots.data[pair] = -1;
        continue;
      }
      const std::int32_t slot = offsets[selected.data[pair]]++;
      dispatch.slots.data[pair] = slot;
      dispatch.pairs.data[slot] = static_cast<std::int32_t>(pair);
    }
    for (Index e = experts; e > 0; --e) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
    dispatch.rows = offsets[experts];
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(to, from, bytes);
  }
};

}  // namespace tinymoe::inline v0_1::detail
