#pragma once
/// @file
/// The emulator's cub::DeviceRadixSort: a stable sort by some of the keys' bits.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#include "emulator/fibers.hpp"
#include "emulator/memory.hpp"
#include "emulator/streams.hpp"

namespace cub {

struct DeviceRadixSort {
  /// Sorts pairs by bits begin_bit … end_bit − 1 of their keys; of signed keys the top bit counts the other way, so
  /// that negative ones come first. Without `temporary` it only says how many bytes of it there must be.
  template <class Key, class Value, class Count>
  static cudaError_t SortPairs(void* temporary, std::size_t& bytes, const Key* keys_in, Key* keys_out,
                               const Value* values_in, Value* values_out, Count num_items, int begin_bit = 0,
                               int end_bit = static_cast<int>(sizeof(Key) * 8), cudaStream_t stream = nullptr) {
    static_assert(std::is_integral_v<Key> && std::is_trivially_copyable_v<Value>);
    const auto count = static_cast<std::size_t>(num_items);
    const std::size_t needed = 1024 + count * (sizeof(Key) + sizeof(Value));
    if (temporary == nullptr) {
      bytes = needed;
      return cudaSuccess;
    }
    constexpr int key_bits = static_cast<int>(sizeof(Key) * 8);
    if (bytes < needed || begin_bit < 0 || end_bit > key_bits || begin_bit > end_bit) {
      return cuda_emulator::remember(cudaErrorInvalidValue);
    }
    return cuda_emulator::remember(cuda_emulator::enqueue(stream, [=] {
      if (!cuda_emulator::is_device(temporary, needed)) cuda_emulator::stop("a sort's memory is not all on the device");
      std::memset(temporary, 0xff, needed);
      sort(keys_in, keys_out, values_in, values_out, count, begin_bit, end_bit);
    }));
  }

 private:
  template <class Key, class Value>
  static void sort(const Key* keys_in, Key* keys_out, const Value* values_in, Value* values_out, std::size_t count,
                   int begin_bit, int end_bit) {
    using Bits = std::make_unsigned_t<Key>;
    const auto rank = [=](std::size_t i) {
      Bits bits = static_cast<Bits>(keys_in[i]);
      if constexpr (std::is_signed_v<Key>) bits ^= Bits{1} << (sizeof(Key) * 8 - 1);
      const int kept = end_bit - begin_bit;
      bits = begin_bit < static_cast<int>(sizeof(Key) * 8) ? static_cast<Bits>(bits >> begin_bit) : Bits{0};
      return kept < static_cast<int>(sizeof(Key) * 8) ? static_cast<Bits>(bits & ((Bits{1} << kept) - 1)) : bits;
    };
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return rank(a) < rank(b); });
    for (std::size_t i = 0; i < count; ++i) keys_out[i] = keys_in[order[i]], values_out[i] = values_in[order[i]];
  }
};

}  // namespace cub
