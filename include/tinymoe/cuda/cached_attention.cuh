#pragma once
/// @file
/// Attention of few new tokens to a KV cache. In decoding it takes most of the time besides the products. A block of
/// threads for each head reads the keys and then the values, 16 bytes at a time. If a sequence has one new token, the
/// block also rotates its query and key, and the key is stored beside that.

#include <cstddef>
#include <type_traits>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/layers/cached_attention.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

inline constexpr int cached_threads = 256;
/// The widest head that a block rotates.
inline constexpr Index widest_rotated = 256;
/// Probabilities that a block keeps in shared memory; longer rows are in scratch.
inline constexpr Index most_shared_keys = 8192;

/// Stands in for rotation if the heads are rotated and stored already.
struct AlreadyRotated {};

/// One head of one new token; all heads begin at multiples of 16 bytes and have such lengths.
template <class T, class Rotate>
__global__ void __launch_bounds__(cached_threads, 1)
    cached_attention_block(const kernels::CachedAttention<T, float> p, const Rotate rotate, bool shares_memory) {
  follow();
  constexpr bool rotates = !std::is_same_v<Rotate, AlreadyRotated>;
  using V = Vector<T>;
  const Index part = blockIdx.x, n = part / p.shape.heads, head = part % p.shape.heads, width = p.shape.head_dim;
  const Index kv_head = head / p.shape.group(), col = kv_head * width, position = p.positions(n);
  const kernels::CacheRuns runs(p.shape, position, p.cache.capacity);
  const Index first_row = p.cache.first_row(n / p.positions.time);
  const T* query = p.query.row(n) + head * width;
  const T* keys = p.cache.key.row(first_row) + col;
  const T* values = p.cache.value.row(first_row) + col;
  const Index key_stride = p.cache.key.stride, value_stride = p.cache.value.stride, count = runs.first + runs.second;
  float* probability = shares_memory ? dynamic_shared<float>() : p.scratch.data + part * (p.cache.capacity + width);
  const auto row_of = [=](Index s) { return s < runs.first ? runs.start + s : s - runs.first; };
  const LaneGroup group{static_cast<int>(threadIdx.x), cached_threads};
  const float scale = static_cast<float>(p.shape.scale);

  // The new token's own key and value, which the last row of the cache still lacks.
  const T *new_key = nullptr, *new_value = nullptr;
  if constexpr (rotates) {
    struct Place;
    T* rotated = static_shared<T, 2 * static_cast<int>(widest_rotated), Place>();  // the query, then the key
    const Index half = rotate.turn.half;
    const T* key = rotate.store.key.row(n) + col;
    new_value = rotate.store.value.row(n) + col;
    group.each(half, [=, angle = rotate.turn](Index i) {
      float cosine, sine;
      angle.turn(position, i, cosine, sine);
      const auto turn = [=](const T* from, T* to) {
        T low = from[i], high = from[half + i];
        kernels::turn_pair(low, high, cosine, sine);
        to[i] = low, to[half + i] = high;
      };
      turn(query, rotated);
      turn(key, rotated + widest_rotated);
    });
    if (2 * half < width) {  // the rest of a head is not rotated
      group.each(width - 2 * half, [=](Index i) {
        rotated[2 * half + i] = query[2 * half + i], rotated[widest_rotated + 2 * half + i] = key[2 * half + i];
      });
    }
    query = rotated, new_key = rotated + widest_rotated;
    if (head % p.shape.group() == 0) {
      const Index row = first_row + position % p.cache.capacity;
      T *to_key = rotate.store.cache.key.row(row) + col, *to_value = rotate.store.cache.value.row(row) + col;
      group.each(width, [=](Index i) { to_key[i] = new_key[i], to_value[i] = new_value[i]; });
    }
  }
  const auto is_new = [=](Index s) { return rotates && s == count - 1; };

  group.each(count, [=](Index s) {
    const T* key = is_new(s) ? new_key : keys + row_of(s) * key_stride;
    float dot = 0;
#pragma unroll 4
    for (Index i = 0; i < width; i += V::size) {
      const V a = *reinterpret_cast<const V*>(query + i), b = *reinterpret_cast<const V*>(key + i);
#pragma unroll
      for (int j = 0; j < V::size; ++j) dot += float(a.values[j]) * float(b.values[j]);
    }
    probability[s] = dot * scale;
  });
  const float maximum = group.max(count, [=](Index s) { return probability[s]; });
  const float total = group.sum(count, [=](Index s) { return probability[s] = expf(probability[s] - maximum); });

  // Vectors of columns are divided among the threads; threads that are left over divide the keys.
  struct Sums;
  float* sums = static_shared<float, cached_threads * V::size, Sums>();
  const int vectors = static_cast<int>(width) / V::size, shares = cached_threads / vectors;
  const int vector = group.lane % vectors, share = group.lane / vectors;
  float sum[V::size] = {};
  if (share < shares) {
#pragma unroll 4
    for (Index s = share; s < count; s += shares) {
      const T* row = is_new(s) ? new_value : values + row_of(s) * value_stride;
      const V value = *reinterpret_cast<const V*>(row + vector * V::size);
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

template <class T, class Rotate>
void start_cached_attention(Context& context, Index rows, const kernels::CachedAttention<T, float>& p,
                            const Rotate& rotate) {
  const bool shares_memory = p.cache.capacity <= most_shared_keys;
  const std::size_t bytes = shares_memory ? static_cast<std::size_t>(p.cache.capacity) * sizeof(float) : 0;
  const auto kernel = cached_attention_block<T, Rotate>;
  check(start_next(context.starts_early(kernel), kernel, dim3(static_cast<unsigned>(rows)), dim3(cached_threads), bytes,
                   context.stream, p, rotate, shares_memory),
        "starting attention");
}

/// Whether the block can work on these heads.
template <class T>
bool suits_block(const kernels::CachedAttention<T, float>& p) {
  return rows_aligned<T>(p.shape.head_dim, p.query, p.cache.key, p.cache.value) &&
         p.shape.head_dim / Vector<T>::size <= cached_threads;
}

template <class T>
void launch_cached_attention(Context& context, Index rows, const kernels::CachedAttention<T, float>& p) {
  if (!suits_block(p)) return launch_rows(context, rows, p);
  start_cached_attention(context, rows, p, AlreadyRotated{});
}

template <class T>
bool launch_rotated_attention(Context& context, const kernels::RotateIntoCache<T, float>& rotate,
                              const kernels::CachedAttention<T, float>& p) {
  const bool suits = suits_block(p) && p.shape.head_dim <= widest_rotated && rows_aligned<T>(0, rotate.store.value);
  if (suits && p.query.rows > 0) start_cached_attention(context, p.query.rows * p.shape.heads, p, rotate);
  return suits;
}

}  // namespace tinymoe::inline v0_1::detail::cuda
