/// @file
/// The stable sort of (token, choice) pairs by expert: a radix sort by CUB, or for few pairs one block that counts.

#include <cub/device/device_radix_sort.cuh>

#include <algorithm>
#include <bit>

#include "tinymoe/cuda/sort.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

namespace {

/// Experts whose counts the host is told: more are a vocabulary, whose rows no product needs.
constexpr Index most_experts = 1024;

__global__ void __launch_bounds__(1024) sort_few(View<const std::int32_t> selected, Dispatch dispatch) {
  sort_in_block(selected, dispatch);
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
__global__ void read_keys(const std::int32_t* keys, const std::int32_t* numbers, Index count, Dispatch dispatch) {
  const Index at = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  const Index experts = dispatch.offsets.cols - 1;
  if (at < count) {
    const std::int32_t pair = numbers[at];
    const bool taken = keys[at] < experts;
    dispatch.slots.data[pair] = taken ? static_cast<std::int32_t>(at) : -1;
    if (taken) dispatch.pairs.data[at] = pair;
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
    dispatch.offsets.data[at] = static_cast<std::int32_t>(low);
  }
}

unsigned blocks_of(Index threads) { return static_cast<unsigned>((threads + 255) / 256); }

/// Tells the host the offsets, some time soon.
void publish(Context& context, View<const std::int32_t> offsets) {
  const Index experts = offsets.cols - 1;
  const std::size_t bytes = static_cast<std::size_t>(offsets.cols) * sizeof(std::int32_t);
  auto entry = context.known.find(offsets.data);
  context.forget(offsets.data, bytes);
  if (entry != context.known.end() && entry->second.memory.bytes < bytes) {
    check(cudaEventSynchronize(entry->second.ready.event), "sorting by expert");  // its copy goes to that memory
    context.known.erase(entry);
    entry = context.known.end();
  }
  if (entry == context.known.end()) {
    entry = context.known.insert_or_assign(offsets.data, KnownOffsets{Pinned(bytes), Event()}).first;
  }
  KnownOffsets& known = entry->second;
  known.count = experts, known.waited = false;
  check(cudaMemcpyAsync(known.memory.data, offsets.data, bytes, cudaMemcpyDeviceToHost, context.stream),
        "copying to the host");
  check(cudaEventRecord(known.ready.event, context.stream), "marking a stream");
}

}  // namespace

void sort_by_expert(Context& context, View<const std::int32_t> selected, const Dispatch& dispatch) {
  const Index count = selected.size(), experts = dispatch.experts();
  if (count == 0) {
    return zero(context, dispatch.offsets.data, static_cast<std::size_t>(dispatch.offsets.cols) * sizeof(std::int32_t));
  }
  if (count <= most_sorted_in_block && experts <= most_experts) {
    check(start(sort_few, dim3(1), dim3(static_cast<unsigned>(std::min<Index>(1024, std::max<Index>(32, count)))), 0,
                context.stream, selected, dispatch),
          "starting a sort");
  } else {
    const int bits = std::bit_width(static_cast<unsigned>(experts));
    std::size_t temporary = 0;
    std::int32_t* none = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, temporary, none, none, none, none, static_cast<int>(count), 0, bits,
                                          context.stream),
          "planning a sort");
    const std::size_t row = round_up(static_cast<std::size_t>(count) * sizeof(std::int32_t), 256);
    auto* block = static_cast<std::byte*>(context.scratch(4 * row + temporary));
    const auto array = [&](std::size_t number) { return reinterpret_cast<std::int32_t*>(block + number * row); };
    check(start(make_keys, dim3(blocks_of(count)), dim3(256), 0, context.stream, selected,
                static_cast<std::int32_t>(experts), array(0), array(1)),
          "starting a sort");
    check(cub::DeviceRadixSort::SortPairs(block + 4 * row, temporary, array(0), array(2), array(1), array(3),
                                          static_cast<int>(count), 0, bits, context.stream),
          "sorting");
    check(start(read_keys, dim3(blocks_of(std::max(count, experts + 1))), dim3(256), 0, context.stream, array(2),
                array(3), count, dispatch),
          "starting a sort");
  }
  const auto offsets = dispatch.offsets;
  if (experts > most_experts || dispatch.size() <= few_rows || context.capturing()) {
    context.forget(offsets.data, static_cast<std::size_t>(offsets.cols) * sizeof(std::int32_t));
  } else {
    publish(context, offsets);
  }
}

namespace {
__global__ void write_offsets_of_one(std::int32_t* offsets, std::int32_t rows) {
  if (threadIdx.x == 0) offsets[0] = 0, offsets[1] = rows;
}
}  // namespace

void offsets_of_one(Context& context, View<std::int32_t> offsets, Index rows) {
  check(
      start(write_offsets_of_one, dim3(1), dim3(32), 0, context.stream, offsets.data, static_cast<std::int32_t>(rows)),
      "writing offsets");
  auto entry = context.known.find(offsets.data);
  if (entry == context.known.end()) {
    if (context.capturing()) return;  // the host can take no memory now; they stay unknown
    entry = context.known.insert_or_assign(offsets.data, KnownOffsets{Pinned(2 * sizeof(std::int32_t)), Event()}).first;
  } else if (!entry->second.waited) {  // a sort's copy may still come
    check(cudaEventSynchronize(entry->second.ready.event), "sorting by expert");
  }
  KnownOffsets& known = entry->second;
  auto* at = static_cast<std::int32_t*>(known.memory.data);
  at[0] = 0, at[1] = static_cast<std::int32_t>(rows);
  known.count = 1, known.waited = true;
}

}  // namespace tinymoe::inline v0_1::detail::cuda
