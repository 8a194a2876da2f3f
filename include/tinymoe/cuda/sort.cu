/// @file
/// The stable sort of (token, choice) pairs by expert: a radix sort by CUB, or for few pairs one block that counts.

#include <cub/device/device_radix_sort.cuh>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/sort.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

namespace {

/// The host gets the counts of up to this many experts. More are a vocabulary, for which no product is computed.
constexpr Index most_experts = 1024;

__global__ void __launch_bounds__(1024) sort_few(View<const std::int32_t> selected, SortedPairs sorted) {
  sort_in_block(selected, sorted);
}

/// Keys that put the pairs without an expert last, and the pairs' numbers.
__global__ void make_keys(View<const std::int32_t> selected, std::int32_t experts, std::int32_t* keys,
                          std::int32_t* numbers) {
  const Index pair = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (pair >= selected.size()) return;
  const std::int32_t expert = selected.data[pair];
  keys[pair] = expert < 0 ? experts : expert;
  numbers[pair] = static_cast<std::int32_t>(pair);
}

/// From the sorted keys: each pair's slot, and where each expert begins.
__global__ void read_keys(const std::int32_t* keys, const std::int32_t* numbers, Index count, SortedPairs sorted) {
  const Index at = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  const Index experts = sorted.offsets.cols - 1;
  if (at < count) {
    const std::int32_t pair = numbers[at];
    const bool taken = keys[at] < experts;
    sorted.slots.data[pair] = taken ? static_cast<std::int32_t>(at) : -1;
    if (taken) sorted.pairs.data[at] = pair;
  }
  if (at <= experts) {  // the first key that is not below `at`
    Index low = 0, high = count;
    while (low < high) {
      const Index middle = (low + high) / 2;
      if (keys[middle] < at) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    sorted.offsets.data[at] = static_cast<std::int32_t>(low);
  }
}

unsigned blocks_of(Index threads) { return static_cast<unsigned>((threads + 255) / 256); }

/// Starts the copy of the offsets to the host, which waits for it when it first needs them. Not while work is recorded.
void send_offsets(Context& context, Dispatch& dispatch) {
  const std::size_t bytes = static_cast<std::size_t>(dispatch.offsets.cols) * sizeof(std::int32_t);
  HostOffsets* kept = host_offsets_of(dispatch);
  if (kept == nullptr || kept->memory.bytes < bytes) {
    auto made = std::make_shared<HostOffsets>(bytes);
    kept = made.get();
    dispatch.host = std::move(made);
  }
  HostOffsets& host = *kept;
  check(cudaMemcpyAsync(host.memory.data, dispatch.offsets.data, bytes, cudaMemcpyDeviceToHost, context.stream),
        "copying to the host");
  check(cudaEventRecord(host.ready.event, context.stream), "marking a stream");
  host.known = true, host.arrived = false;
}

}  // namespace

void sort_by_expert(Context& context, View<const std::int32_t> selected, Dispatch& dispatch) {
  const Index count = selected.size(), experts = dispatch.experts();
  const SortedPairs& sorted = dispatch;
  dispatch.rows = dispatch.size();
  forget_offsets(dispatch);
  if (count == 0) {
    return zero(context, dispatch.offsets.data, static_cast<std::size_t>(dispatch.offsets.cols) * sizeof(std::int32_t));
  }
  if (count <= most_sorted_in_block && experts <= most_experts) {
    check(start(sort_few, dim3(1), dim3(static_cast<unsigned>(std::min<Index>(1024, std::max<Index>(32, count)))), 0,
                context.stream, selected, sorted),
          "starting a sort");
  } else {
    const int bits = std::bit_width(static_cast<unsigned>(experts));
    std::size_t temporary = 0;
    std::int32_t* none = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, temporary, none, none, none, none, static_cast<int>(count), 0, bits,
                                          context.stream),
          "planning a sort");
    const std::size_t row = detail::round_up(static_cast<std::size_t>(count) * sizeof(std::int32_t), 256);
    auto* block = static_cast<std::byte*>(context.scratch(4 * row + temporary));
    const auto array = [&](std::size_t number) { return reinterpret_cast<std::int32_t*>(block + number * row); };
    check(start(make_keys, dim3(blocks_of(count)), dim3(256), 0, context.stream, selected,
                static_cast<std::int32_t>(experts), array(0), array(1)),
          "starting a sort");
    check(cub::DeviceRadixSort::SortPairs(block + 4 * row, temporary, array(0), array(2), array(1), array(3),
                                          static_cast<int>(count), 0, bits, context.stream),
          "sorting");
    check(start(read_keys, dim3(blocks_of(std::max(count, experts + 1))), dim3(256), 0, context.stream, array(2),
                array(3), count, sorted),
          "starting a sort");
  }
  if (experts <= most_experts && dispatch.size() > max_gemv_bank_rows && !context.capturing()) {
    send_offsets(context, dispatch);
  }
}

}  // namespace tinymoe::inline v0_1::detail::cuda
