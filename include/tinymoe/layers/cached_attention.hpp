#pragma once
/// @file
/// Attention in inference: a KV cache holds the keys and values of past tokens; new tokens store theirs in it and
/// attend to all.
///
///     o_h = softmax(q_h k_gᵀ / sqrt(d)) v_g over the visible keys of the cache
///
/// q, o (N, H·d); k, v (N, G·d). Position s of a sequence lies in row s mod C of its part of the cache. In decoding,
/// with few queries, each head of a query is a kernel row. In prefill, with many queries of one sequence, attention is
/// matrix products.

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/position.hpp"

namespace tinymoe::inline v0_1 {

/// The keys and values of past tokens of several sequences: position s of sequence b lies in row places[b]·C + s mod C.
template <class T>
struct KvCache {
  View<T> key, value;                    // (sequences·C, G·d)
  Index capacity = 0;                    // C
  View<const std::int32_t> places = {};  // (1, B): where each sequence of the pass lies; empty: b itself

  TINYMOE_EVERYWHERE Index first_row(Index b) const {
    return (places.empty() ? b : static_cast<Index>(places.data[b])) * capacity;
  }
  /// One sequence's part.
  KvCache part(Index place) const {
    return {key.middle_rows(place * capacity, capacity), value.middle_rows(place * capacity, capacity), capacity};
  }
};

namespace kernels {

/// The keys that one query sees are one run of rows in the cache, or two where the rolling cache wraps around.
struct CacheRuns {
  Index start, first, second;  // rows start … start + first − 1, then 0 … second − 1

  TINYMOE_EVERYWHERE CacheRuns(const AttentionShape& shape, Index position, Index capacity)
      : start(shape.first_key(position) % capacity) {
    const Index count = position - shape.first_key(position) + 1, to_end = capacity - start;
    first = count < to_end ? count : to_end;
    second = count - first;
  }
};

/// Copies the keys and values of new tokens to their places in the cache.
template <class T>
struct CacheStore {
  View<const T> key, value;
  KvCache<T> cache;
  RowPositions positions;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index row = cache.first_row(n / positions.time) + positions(n) % cache.capacity;
    const auto copy = [](T& k, T& v, T new_k, T new_v) { k = new_k, v = new_v; };
    group.each(key.cols, copy, write_only(cache.key.row(row)), write_only(cache.value.row(row)), key.row(n),
               value.row(n));
  }
};

/// Rotates the heads of q and k by their positions (position.hpp), in place, then does what CacheStore does.
template <class T, class M>
struct RotateIntoCache {
  static constexpr bool compiled_once = true;
  View<T> turned;  // q and k: (N, (H + G)·d)
  CacheStore<T> store;
  Index head_dim;
  RopeAngle turn;  // of the heads' pairs
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index width = head_dim, heads = turned.cols / width, position = store.positions(n);
    const RopeAngle angle = turn;
    const Index half = angle.half;
    T* row = turned.row(n);
    group.each(half, [=](Index i) {
      M cosine, sine;
      angle.turn(position, i, cosine, sine);
      for (Index head = 0; head < heads; ++head) {
        T* low = row + head * width + i;
        turn_pair(low[0], low[half], cosine, sine);
      }
    });
    store(group, n);
  }
};

/// One query head of one new token against the cache: kernel row n·H + h.
template <class T, class M>
struct CachedAttention {
  AttentionShape shape;
  RowPositions positions;
  View<const T> query;  // (N, H·d)
  KvCache<T> cache;
  View<T> out;      // (N, H·d)
  View<M> scratch;  // C probabilities and d sums for each kernel row
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index n = part / shape.heads, head = part % shape.heads, d = shape.head_dim;
    const CacheRuns runs(shape, positions(n), cache.capacity);
    const Index first_row = cache.first_row(n / positions.time), col = head / shape.group() * d;
    const Index stride = cache.key.stride, value_stride = cache.value.stride, count = runs.first + runs.second;
    const T* q = query.row(n) + head * d;
    const T* keys = cache.key.row(first_row) + col;
    const T* values = cache.value.row(first_row) + col;
    T* to = out.row(n) + head * d;
    M* p = scratch.data + part * (cache.capacity + d);
    M* sums = p + cache.capacity;
    const auto row_of = [=](Index s) { return s < runs.first ? runs.start + s : s - runs.first; };
    for (Index s = 0; s < count; ++s) {
      const T* k = keys + row_of(s) * stride;
      const M dot = group.sum(d, [=](Index i) { return M(q[i]) * M(k[i]); });
      group.once([&] { p[s] = dot * M(shape.scale); });
    }
    const M max = M(group.max(count, [=](Index s) { return p[s]; }));
    const M total = group.sum(count, [=](Index s) { return p[s] = exponential(p[s] - max); });
    group.each(d, [=](Index i) { sums[i] = M(0); });
    for (Index s = 0; s < count; ++s) {
      const T* v = values + row_of(s) * value_stride;
      const M weight = p[s];
      group.each(d, [=](Index i) { sums[i] += weight * M(v[i]); });
    }
    group.each(d, [=](Index i) { to[i] = T(sums[i] / total); });
  }
};

/// Softmax over the cache's rows that query t sees; the others get 0.
template <class M>
struct CachedSoftmax {
  AttentionShape shape;
  Index first_position, capacity;
  View<M> logits;  // (T, rows of the cache): without the scale, then probabilities
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index t) const {
    const CacheRuns runs(shape, first_position + t, capacity);
    M* p = logits.row(t);
    M* seen = p + runs.start;
    const M scale = M(shape.scale);
    auto highest = group.max(runs.first, [=](Index s) { return seen[s]; });
    if (runs.second > 0) {
      const auto other = group.max(runs.second, [=](Index s) { return p[s]; });
      highest = highest < other ? other : highest;
    }
    const M max = M(highest);
    M total = group.sum(runs.first, [=](Index s) { return seen[s] = exponential((seen[s] - max) * scale); });
    total += group.sum(runs.second, [=](Index s) { return p[s] = exponential((p[s] - max) * scale); });
    group.each(runs.first, [=](Index s) { seen[s] = seen[s] / total; });
    group.each(runs.second, [=](Index s) { p[s] = p[s] / total; });
    // The rows between the two runs, or before and after the only one.
    const Index end = runs.start + runs.first, low = runs.second;
    group.each(runs.start - low, [=](Index s) { p[low + s] = M(0); });
    group.each(logits.cols - end, [=](Index s) { p[end + s] = M(0); });
  }
};

}  // namespace kernels

namespace detail {

/// From so many queries of one sequence on, matrix products are faster than a kernel row for each query and head.
inline constexpr Index many_queries = 8;

/// Attention of one sequence's queries to its cache.
template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
void attend_by_products(B& backend, const AttentionShape& shape, Index first_position, Input<B> q,
                        const KvCache<T>& cache, Output<B> out, MasterOutput<B> scratch) {
  const auto softmax = [&](Index first, View<M> logits) {
    return kernels::CachedSoftmax<M>{shape, first_position + first, cache.capacity, logits};
  };
  if constexpr (CacheAttentionBackend<B>) {
    backend.attend_to_cache(shape, first_position, q, cache.key, cache.value, out, softmax, scratch);
  } else {
    // Rows in which no token of this sequence was stored must not be read: they may hold anything, and 0 · NaN is NaN.
    const Index rows = std::min(cache.capacity, first_position + q.rows), d = shape.head_dim;
    assert(scratch.size() >= q.rows * rows);
    const View<M> p(scratch.data, q.rows, rows);
    for (Index head = 0; head < shape.heads; ++head) {
      const auto of_cache = [&](auto view) {
        return view.middle_rows(0, rows).middle_cols(head / shape.group() * d, d);
      };
      backend.matmul(q.middle_cols(head * d, d), of_cache(cache.key), {}, p);
      backend.launch(q.rows, softmax(0, p));
      backend.matmul_input(p, of_cache(cache.value), out.middle_cols(head * d, d), Write::overwrite);
    }
  }
}

}  // namespace detail

/// Elements of `Master` that `cached_attention` needs as scratch: for passes of one sequence of up to `longest` tokens,
/// and of up to `widest` sequences of one token each.
template <Backend B>
Index cached_attention_scratch(B& backend, AttentionShape shape, Index longest, Index widest, Index capacity) {
  using T = typename B::Scalar;
  using M = typename B::Master;
  constexpr bool own = CacheAttentionBackend<B>, products = own || std::is_same_v<T, M>;
  const Index single = products ? std::min(longest, detail::many_queries) : longest;
  const Index apart = std::max(single, widest) * shape.heads * (capacity + shape.head_dim);
  Index together = products ? longest * capacity : 0;
  if constexpr (own) {
    shape.time = capacity;
    together = static_cast<Index>(backend.cache_attention_scratch(shape));
  }
  return std::max(apart, together);
}

/// o (N, H·d) = attention of q to the cache, in which the pass's own keys and values are stored already. Where
/// sequences of `many_queries` tokens or more start at one common position it is matrix products, unless those would
/// round the logits: products of T on a backend whose Master is another type, and that is no CacheAttentionBackend.
template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
void cached_attention(B& backend, const AttentionShape& shape, const Pass& pass, Input<B> q, const KvCache<T>& cache,
                      Output<B> out, MasterOutput<B> scratch) {
  const RowPositions positions(pass);
  if constexpr (CacheAttentionBackend<B> || std::is_same_v<T, M>) {
    if (pass.time >= detail::many_queries && pass.positions.empty() && cache.places.empty()) {
      for (Index b = 0; b < pass.batch; ++b) {
        const auto own = cache.part(b);
        const auto of_sequence = [&](auto view) { return view.middle_rows(b * pass.time, pass.time); };
        detail::attend_by_products(backend, shape, pass.first_position, of_sequence(q), own, of_sequence(out), scratch);
      }
      return;
    }
  }
  assert(scratch.size() >= q.rows * shape.heads * (cache.capacity + shape.head_dim));
  backend.launch(q.rows * shape.heads, kernels::CachedAttention<T, M>{shape, positions, q, cache, out, scratch});
}

/// Runs `rotate`, which rotates q and the new keys and stores keys and values, then attends as above. It is one launch
/// where each sequence has one new token and the backend is a RotatingAttentionBackend.
template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
void rotate_and_attend(B& backend, const kernels::RotateIntoCache<T, M>& rotate, const AttentionShape& shape,
                       const Pass& pass, Input<B> q, const KvCache<T>& cache, Output<B> out, MasterOutput<B> scratch) {
  const kernels::CachedAttention<T, M> attend{shape, RowPositions(pass), q, cache, out, scratch};
  if (pass.time == 1 && detail::rotate_and_attend(backend, rotate, attend)) return;
  backend.launch(q.rows, rotate);
  cached_attention(backend, shape, pass, q, cache, out, scratch);
}

}  // namespace tinymoe::inline v0_1
