#pragma once
/// @file
/// Attention of few new tokens to a cache, the greater part of the time that writing a story takes beside the products:
/// a block of threads for each head, which reads the keys and then the values 16 bytes at a time.

#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/layers/cached_attention.hpp"

namespace tinymoe::detail::cuda {

inline constexpr int cached_threads = 128;

/// One head of one new token; all heads begin at multiples of 16 bytes and are as long.
template <class T>
__global__ void __launch_bounds__(cached_threads, 1)
    cached_attention_block(const kernels::CachedAttention<T, float> p) {
  using V = Vector<T>;
  const Index part = blockIdx.x, n = part / p.shape.heads, head = part % p.shape.heads, width = p.shape.head_dim;
  const kernels::CacheRuns runs(p.shape, p.positions(n), p.cache.capacity);
  const Index first_row = p.cache.first_row(n / p.positions.time), col = head / p.shape.group() * width;
  const T* query = p.query.row(n) + head * width;
  const T* keys = p.cache.key.row(first_row) + col;
  const T* values = p.cache.value.row(first_row) + col;
  const Index key_stride = p.cache.key.stride, value_stride = p.cache.value.stride, count = runs.first + runs.second;
  float* probability = p.scratch.data + part * (p.cache.capacity + width);
  const auto row_of = [=](Index s) { return s < runs.first ? runs.start + s : s - runs.first; };
  const LaneGroup group{static_cast<int>(threadIdx.x), cached_threads};
  const float scale = static_cast<float>(p.shape.scale);

  group.each(count, [=](Index s) {
    const T* key = keys + row_of(s) * key_stride;
    float dot = 0;
    for (Index i = 0; i < width; i += V::size) {
      const V a = *reinterpret_cast<const V*>(query + i), b = *reinterpret_cast<const V*>(key + i);
#pragma unroll
      for (int j = 0; j < V::size; ++j) dot += float(a.values[j]) * float(b.values[j]);
    }
    probability[s] = dot * scale;
  });
  const float greatest = group.max(count, [=](Index s) { return probability[s]; });
  const float total = group.sum(count, [=](Index s) { return probability[s] = expf(probability[s] - greatest); });

  // Threads share the columns out by vectors, and what is left of them shares the keys out.
  struct Place;
  float* sums = static_shared<float, cached_threads * V::size, Place>();
  const int vectors = static_cast<int>(width) / V::size, shares = cached_threads / vectors;
  const int vector = group.lane % vectors, share = group.lane / vectors;
  float sum[V::size] = {};
  if (share < shares) {
    for (Index s = share; s < count; s += shares) {
      const V value = *reinterpret_cast<const V*>(values + row_of(s) * value_stride + vector * V::size);
      const float weight = probability[s];
#pragma unroll
      for (int j = 0; j < V::size; ++j) sum[j] += weight * float(value.values[j]);
    }
#pragma unroll
    for (int j = 0; j < V::size; ++j) sums[share * width + vector * V::size + j] = sum[j];
  }
  sync_block();
  T* out = p.out.row(n) + head * width;
  group.each(width, [=](Index i) {
    float all = 0;
    for (int other = 0; other < shares; ++other) all += sums[other * width + i];
    out[i] = T(all / total);
  });
}

template <class T>
void launch_cached_attention(Context& context, Index rows, const kernels::CachedAttention<T, float>& p) {
  const Index vectors = p.shape.head_dim / Vector<T>::size;
  const bool aligned = rows_aligned<T>(p.shape.head_dim, p.query, p.cache.key, p.cache.value);
  if (!aligned || vectors > cached_threads) return launch_rows(context, rows, p);
  check(start(cached_attention_block<T>, dim3(static_cast<unsigned>(rows)), dim3(cached_threads), 0, context.stream, p),
        "starting attention");
}

}  // namespace tinymoe::detail::cuda
