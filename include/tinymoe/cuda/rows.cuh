#pragma once
/// @file
/// The row kernels on a GPU: the very functors that the CPU runs, with a warp or a block of threads for each row.
///
/// Your own kernel runs on a Cuda if a `.cu` file says
///
///     #include <tinymoe/cuda/rows.cuh>
///     TINYMOE_CUDA_KERNEL(MyKernel<tinymoe::bfloat16>);

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/vector.cuh"

/// Instantiates a row kernel for the device. The type may contain commas.
#define TINYMOE_CUDA_KERNEL(...)                                                                            \
  template void tinymoe::detail::cuda::launch<__VA_ARGS__>(tinymoe::detail::cuda::Context&, tinymoe::Index, \
                                                           const __VA_ARGS__&)

namespace tinymoe::inline v0_1::detail::cuda {

/// Threads of a block at most.
inline constexpr int block_threads = 512;

/// `size` neighbours of an array, loaded at once unless they are only written, for f to get one by one.
template <class Array, int size>
struct Neighbours;
template <class T, int size>
struct Neighbours<const T*, size> {
  Vector<T, size> elements;
  __device__ Neighbours(const T* array, Index i) : elements(*reinterpret_cast<const Vector<T, size>*>(array + i)) {}
  __device__ const T& operator[](int j) const { return elements.values[j]; }
  __device__ void store() const {}
};
template <class T, int size>
struct Neighbours<T*, size> {
  T* at;
  Vector<T, size> elements;
  __device__ Neighbours(T* array, Index i) : at(array + i), elements(*reinterpret_cast<Vector<T, size>*>(at)) {}
  __device__ T& operator[](int j) { return elements.values[j]; }
  __device__ void store() const { *reinterpret_cast<Vector<T, size>*>(at) = elements; }
};
template <class T, int size>
struct Neighbours<WriteOnly<T>, size> {
  T* at;
  Vector<T, size> elements;
  __device__ Neighbours(WriteOnly<T> array, Index i) : at(array.data + i) {}
  __device__ T& operator[](int j) { return elements.values[j]; }
  __device__ void store() const { *reinterpret_cast<Vector<T, size>*>(at) = elements; }
};

template <class Array>
using ElementOf = std::remove_cvref_t<tinymoe::detail::Element<Array>>;

/// Elements that a lane takes at once: 16 bytes of the smallest ones.
template <class... Arrays>
inline constexpr int neighbours_of = static_cast<int>(16 / std::min({sizeof(ElementOf<Arrays>)...}));

/// How many of the first n elements can be loaded like this: all whole groups of neighbours, or none.
template <int size, class... Arrays>
__device__ Index in_vectors(Index n, Arrays... arrays) {
  const auto bits = (reinterpret_cast<std::uintptr_t>(&tinymoe::detail::element(arrays, 0)) | ...);
  return bits % 16 == 0 ? n - n % size : 0;
}

/// The lanes that work on one row: a warp, or a whole block.
struct LaneGroup {
  int lane;   // of the group
  int lanes;  // warp_size, or the threads of the block

  __device__ Index rank() const { return lane; }
  __device__ Index size() const { return lanes; }

  /// f(0) … f(n − 1), neighbours on neighbouring lanes.
  template <class F>
  __device__ void each(Index n, F&& f) const {
    for (Index i = lane; i < n; i += lanes) f(i);
    barrier();
  }

  /// f(elements i of the arrays) for i < n, neighbours 16 bytes at a time on one lane.
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) __device__ void each(Index n, F&& f, Arrays... arrays) const {
    go_through(n, f, arrays...);
    barrier();
  }

  /// f(0) + … + f(n − 1): each lane's in order, then the lanes' by a fixed tree.
  template <class F>
  __device__ auto sum(Index n, F&& f) const {
    using T = std::remove_cvref_t<std::invoke_result_t<F&, Index>>;
    T total{};
    for (Index i = lane; i < n; i += lanes) total += f(i);
    return together(total, [](T a, T b) { return a + b; });
  }

  /// The same of f(elements i of the arrays).
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) __device__ auto sum(Index n, F&& f, Arrays... arrays) const {
    using T = std::remove_cvref_t<std::invoke_result_t<F&, tinymoe::detail::Element<Arrays>...>>;
    T total{};
    const auto add = [&](auto&&... elements) { total += f(elements...); };
    go_through(n, add, arrays...);
    return together(total, [](T a, T b) { return a + b; });
  }

  /// The maximum of f(0) … f(n − 1); n > 0.
  template <class F>
  __device__ auto max(Index n, F&& f) const {
    auto maximum = f(lane < n ? Index{lane} : Index{0});
    for (Index i = Index{lane} + lanes; i < n; i += lanes) {
      const auto value = f(i);
      maximum = value > maximum ? value : maximum;
    }
    using T = decltype(maximum);
    return together(maximum, [](T a, T b) { return a > b ? a : b; });
  }

  /// f() on one lane; the others wait.
  template <class F>
  __device__ void once(F&& f) const {
    if (lane == 0) f();
    barrier();
  }

 private:
  __device__ void barrier() const {
    if (lanes > warp_size) {
      sync_block();
    } else {
      sync_warp();
    }
  }

  /// f(elements i of the arrays) for this lane's i < n.
  template <class F, class... Arrays>
  __device__ void go_through(Index n, F&& f, Arrays... arrays) const {
    constexpr int size = neighbours_of<Arrays...>;
    const Index whole = in_vectors<size>(n, arrays...);
    for (Index i = Index{lane} * size; i < whole; i += Index{lanes} * size) {
      at_once<size>(f, Neighbours<Arrays, size>(arrays, i)...);
    }
    for (Index i = whole + lane; i < n; i += lanes) f(tinymoe::detail::element(arrays, i)...);
  }
  template <int size, class F, class... Parts>
  __device__ static void at_once(F& f, Parts... parts) {
#pragma unroll
    for (int j = 0; j < size; ++j) f(parts[j]...);
    (parts.store(), ...);
  }

  template <class T>
  __device__ static T exchange(T value, int mask) {
    return shuffle_xor(value, mask);
  }
  template <class T>
  __device__ static detail::Two<T> exchange(detail::Two<T> value, int mask) {
    return {shuffle_xor(value.first, mask), shuffle_xor(value.second, mask)};
  }

  template <class T, class Join>
  __device__ T together(T value, Join join) const {
    for (int mask = warp_size / 2; mask > 0; mask /= 2) value = join(value, exchange(value, mask));
    if (lanes > warp_size) {
      T* of_warps = static_shared<T, block_threads / warp_size, LaneGroup>();
      if (lane % warp_size == 0) of_warps[lane / warp_size] = value;
      sync_block();
      value = of_warps[0];
      for (int warp = 1; warp < lanes / warp_size; ++warp) value = join(value, of_warps[warp]);
    }
    barrier();  // what the lanes wrote while they added is seen by all after, and the shared memory is free again
    return value;
  }
};

/// block.x lanes for each row, block.y rows at once in each block.
template <class Kernel>
__global__ void __launch_bounds__(block_threads, 1) run_rows(const Kernel kernel, Index rows) {
  follow();
  const LaneGroup group{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
  const Index step = Index{gridDim.x} * blockDim.y;
  for (Index row = Index{blockIdx.x} * blockDim.y + threadIdx.y; row < rows; row += step) kernel(group, row);
}

/// A warp for each row if there are enough rows to keep the device busy. If there are few, a block of as many warps as
/// have work. If rows are long, a wide block, or a narrower one if there are many rows, so that a multiprocessor has
/// several blocks.
template <class Kernel>
void launch_rows(Context& context, Index rows, const Kernel& kernel) {
  const Index device = context.multiprocessors;
  constexpr Index busy = 24;                // warps that keep a multiprocessor busy
  constexpr Index block_warps = 8;          // of a block whose warps have rows of their own
  Index warps = block_threads / warp_size;  // for a row
  if constexpr (LongRowKernel<Kernel>) {
    if (rows > device) warps /= 2;
  } else {
    Index useful = 4;
    if constexpr (SizedRowKernel<Kernel>) useful = kernel.row_elements() / (8 * warp_size);
    warps = std::clamp<Index>(busy * device / rows, 1, std::clamp<Index>(useful, 1, warps));
  }
  const bool alone = warps == 1;
  const dim3 threads = alone ? dim3(warp_size, block_warps) : dim3(static_cast<unsigned>(warps * warp_size));
  const Index needed = alone ? (rows + block_warps - 1) / block_warps : rows;
  const auto blocks = static_cast<unsigned>(std::min<Index>(needed, 64 * device));
  const bool early = context.starts_early(run_rows<Kernel>);
  check(start_next(early, run_rows<Kernel>, dim3(blocks), threads, 0, context.stream, kernel, rows),
        "starting a kernel");
}

template <class Kernel>
void launch(Context& context, Index rows, const Kernel& kernel) {
  launch_rows(context, rows, kernel);
}

}  // namespace tinymoe::inline v0_1::detail::cuda
