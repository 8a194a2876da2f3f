#pragma once
/// @file
/// The two row kernels over the vocabulary, in a form for the device: their rows are long or very uneven.

#include <cstddef>
#include <type_traits>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/layers/embedding.hpp"
#include "tinymoe/layers/loss.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

/// A Vector of one element.
template <class T>
struct One {
  static constexpr int size = 1;
  T values[1];
};

/// The loss of one row and its logits' gradient. A row is read once into shared memory and written once; the functor
/// would read it three times and write it twice. `aligned`: rows begin at multiples of 16 bytes and have such lengths.
template <class T, bool aligned>
__global__ void __launch_bounds__(block_threads, 1) cross_entropy_block(const kernels::CrossEntropy<T, float> p) {
  using Part = std::conditional_t<aligned, Vector<T>, One<T>>;
  constexpr int step = Part::size;
  const Index n = blockIdx.x, width = p.logits.cols;
  T *row = p.logits.row(n), *kept = dynamic_shared<T>();
  const LaneGroup group{static_cast<int>(threadIdx.x), block_threads};
  const Token target = p.targets.data[n];
  // f(first element) for each `step` of them; each is the same thread's every time, so that no barrier is needed.
  const auto each_part = [=](auto&& f) {
    for (Index i = Index{group.lane} * step; i < width; i += Index{block_threads} * step) f(i);
  };
  if (target < 0) {
    each_part([&](Index i) { *reinterpret_cast<Part*>(row + i) = {}; });
    group.once([&] { p.losses.data[n] = 0; });
    return;
  }
  float most = -INFINITY;
  each_part([&](Index i) {
    const Part part = *reinterpret_cast<const Part*>(row + i);
    *reinterpret_cast<Part*>(kept + i) = part;
#pragma unroll
    for (int j = 0; j < step; ++j) most = fmaxf(most, float(part.values[j]));
  });
  const float maximum = group.max(block_threads, [=](Index) { return most; });
  float part_total = 0;
  each_part([&](Index i) {
    const Part part = *reinterpret_cast<const Part*>(kept + i);
#pragma unroll
    for (int j = 0; j < step; ++j) part_total += exponential(float(part.values[j]) - maximum);
  });
  const float total = group.sum(block_threads, [=](Index) { return part_total; });
  const float picked = float(kept[target]);  // the sum's barrier has come
  if (p.scale != 0) {
    const float factor = p.scale / total;
    each_part([&](Index i) {
      Part part = *reinterpret_cast<const Part*>(kept + i);
#pragma unroll
      for (int j = 0; j < step; ++j) {
        const float of = exponential(float(part.values[j]) - maximum) * factor;
        part.values[j] = T(i + j == target ? of - p.scale : of);
      }
      *reinterpret_cast<Part*>(row + i) = part;
    });
  }
  group.once([&] { p.losses.data[n] = maximum + logf(total) - picked; });
}

template <class T>
void launch_cross_entropy(Context& context, Index rows, const kernels::CrossEntropy<T, float>& p) {
  const auto bytes = static_cast<std::size_t>(p.logits.cols) * sizeof(T);
  constexpr std::size_t beside = 256;  // what the reductions take of a block's shared memory, and more
  if (bytes + beside > context.shared_bytes) return launch_rows(context, rows, p);
  const bool aligned = rows_aligned<T>(p.logits.cols, p.logits);
  const auto kernel = aligned ? cross_entropy_block<T, true> : cross_entropy_block<T, false>;
  if (bytes > std::size_t{48} << 10) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "taking shared memory");
  }
  check(start(kernel, dim3(static_cast<unsigned>(rows)), dim3(block_threads), bytes, context.stream, p),
        "starting the cross-entropy");
}

inline constexpr int embedding_warps = 8;
/// Columns of a block: two for each lane, which is a line of memory for 16-bit elements.
inline constexpr int embedding_columns = 2 * warp_size;

/// 64 columns of the gradient of one token's vector: its rows of dx are shared out among the warps, whose sums are
/// added in order. One warp would take milliseconds for the most frequent token.
template <class T>
__global__ void __launch_bounds__(embedding_warps* warp_size, 1)
    embedding_backward_block(const kernels::EmbeddingBackward<T, float> p) {
  struct Place;
  const Index token = blockIdx.x, first = p.offsets.data[token], last = p.offsets.data[token + 1];
  if (first == last) return;
  const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
  const Index col = Index{blockIdx.y} * embedding_columns + lane;
  const bool low = col < p.dx.cols, high = col + warp_size < p.dx.cols;
  float total[2] = {0, 0};
#pragma unroll 4
  for (Index at = first + warp; at < last; at += embedding_warps) {
    const T* from = p.dx.data + Index{p.rows.data[at]} * p.dx.stride + col;
    if (low) total[0] += float(from[0]);
    if (high) total[1] += float(from[warp_size]);
  }
  float* sums = static_shared<float, embedding_warps * embedding_columns, Place>();
  sums[warp * embedding_columns + lane] = total[0];
  sums[warp * embedding_columns + warp_size + lane] = total[1];
  sync_block();
  const int own = static_cast<int>(threadIdx.x);
  const Index to = Index{blockIdx.y} * embedding_columns + own;
  if (own >= embedding_columns || to >= p.dx.cols) return;
  float sum = 0;
  for (int other = 0; other < embedding_warps; ++other) sum += sums[other * embedding_columns + own];
  p.dweight.row(token)[to] += sum;
}

template <class T>
void launch_embedding_backward(Context& context, Index rows, const kernels::EmbeddingBackward<T, float>& p) {
  const auto blocks = static_cast<unsigned>((p.dx.cols + embedding_columns - 1) / embedding_columns);
  check(start(embedding_backward_block<T>, dim3(static_cast<unsigned>(rows), blocks), dim3(embedding_warps * warp_size),
              0, context.stream, p),
        "starting the embedding's gradient");
}

}  // namespace tinymoe::inline v0_1::detail::cuda
