#pragma once
/// @file
/// Rotary positions, 16 bytes at a time: a head's half is too short for the lanes of a warp, so heads share them.

#include <algorithm>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/layers/position.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

inline constexpr int rotate_threads = 256;

/// Neighbouring pairs that a thread rotates.
template <class T>
inline constexpr int rotated_pairs = Vector<T>::size;

/// A thread for neighbouring pairs of one head of one row. Numbers are 32-bit: divisions of 64 bits would cost more
/// than the rotation.
template <class T>
__global__ void __launch_bounds__(rotate_threads)
    rotate_vectors(const kernels::Rotate<T, float> p, unsigned count, unsigned of_head, unsigned of_row) {
  using V = Vector<T>;
  using F = Vector<float, V::size>;
  const Index half = p.table.cols / 2;
  for (unsigned at = blockIdx.x * rotate_threads + threadIdx.x; at < count; at += gridDim.x * rotate_threads) {
    const unsigned n = at / of_row, in_row = at % of_row, head = in_row / of_head;
    const Index i = Index{in_row % of_head} * V::size;
    T* low = p.x.row(n) + head * p.head_dim + i;
    const float* table = p.table.row(n % static_cast<unsigned>(p.table.rows)) + i;
    V a = *reinterpret_cast<const V*>(low), b = *reinterpret_cast<const V*>(low + half);
    const F cosine = *reinterpret_cast<const F*>(table), sine = *reinterpret_cast<const F*>(table + half);
#pragma unroll
    for (int j = 0; j < V::size; ++j) {
      kernels::turn_pair(a.values[j], b.values[j], cosine.values[j], p.direction * sine.values[j]);
    }
    *reinterpret_cast<V*>(low) = a;
    *reinterpret_cast<V*>(low + half) = b;
  }
}

template <class T>
void launch_rotate(Context& context, Index rows, const kernels::Rotate<T, float>& p) {
  constexpr Index most = Index{1} << 31;
  const Index half = p.table.cols / 2, of_head = half / rotated_pairs<T>, of_row = p.x.cols / p.head_dim * of_head;
  const Index count = rows * of_row;

  if (!rows_aligned<T>(half, p.x) || p.head_dim % rotated_pairs<T> != 0 || !rows_aligned<float>(half, p.table) ||
      count >= most) {
    return launch_rows(context, rows, p);
  }
  const Index blocks = std::min<Index>((count + rotate_threads - 1) / rotate_threads, 64 * context.multiprocessors);
  check(start(rotate_vectors<T>, dim3(static_cast<unsigned>(blocks)), dim3(rotate_threads), 0, context.stream, p,
              static_cast<unsigned>(count), static_cast<unsigned>(of_head), static_cast<unsigned>(of_row)),
        "starting a rotation");
}

}  // namespace tinymoe::inline v0_1::detail::cuda
