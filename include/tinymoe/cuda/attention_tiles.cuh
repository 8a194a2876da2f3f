#pragma once
/// @file
/// Causal attention on the tensor cores, for 16-bit elements and heads of up to 128 (the method of Dao 2023,
/// FlashAttention-2): tiles of queries meet tiles of keys in shared memory, the softmax is kept up to date as keys
/// come, and no logit is ever stored. Backward computes the probabilities again from their log-sums. Each result has
/// one block that adds to it in a fixed order.
///
/// Each of a block's four warps works on 16 rows of a product; `Accumulator` is its part of the result.
///
/// Over 300 lines: forward and both kernels of backward share the tiles and products above them.

#include <cstddef>
#include <cstdint>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/attention.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/vector.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

inline constexpr int tile_threads = 128;
/// Rows of a block's own tile: queries in forward and for dq, keys for dk and dv.
inline constexpr int own_rows = 64;

/// Blocks for which a multiprocessor should have registers: while one waits for memory or a barrier, others compute.
template <int D>
inline constexpr int blocks_at_once = D > 64 ? 1 : 3;

/// Shared memory that a block may have on every device of compute capability 8.0 or newer.
inline constexpr std::size_t least_shared_memory = std::size_t{99} << 10;

inline constexpr float log2_e = 1.44269504f;

/// A matrix of `Rows` x D elements in shared memory. Its rows lie 16 bytes further apart than they are long, so that
/// the eight rows that are loaded together lie in different banks.
template <class T, int Rows, int D>
struct Tile {
  static constexpr int stride = D + 8;
  static constexpr int elements = Rows * stride;
  T* data;

  /// Begins to load `rows` rows of `width` elements and sets the rest to 0. The caller goes on with commit_copies,
  /// wait_copies and a barrier.
  __device__ void load(const T* from, Index from_stride, int rows, int width, bool aligned) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (aligned) {
      for (int part = thread; part < Rows * (D / 8); part += tile_threads) {
        const int row = part / (D / 8), col = part % (D / 8) * 8;
        T* to = data + row * stride + col;
        if (row < rows && col < width) {
          copy_async(to, from + row * from_stride + col);
        } else {
          *reinterpret_cast<Vector<T>*>(to) = {};
        }
      }
      return;
    }
    for (int part = thread; part < Rows * D; part += tile_threads) {
      const int row = part / D, col = part % D;
      data[row * stride + col] = row < rows && col < width ? from[row * from_stride + col] : T(0.0f);
    }
  }

  /// Rows row … + 15, columns col … + 15 as the left operand.
  __device__ void left(std::uint32_t (&to)[4], int row, int col) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    load_matrices(to, data + (row + lane % 8 + lane / 8 % 2 * 8) * stride + col + lane / 16 * 8);
  }
  /// Rows row … + 15 as 16 columns of the right operand, whose depth are columns col … + 15: for a product with this
  /// matrix transposed.
  __device__ void right_transposed(std::uint32_t (&to)[4], int row, int col) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    load_matrices(to, data + (row + lane % 8 + lane / 16 * 8) * stride + col + lane / 8 % 2 * 8);
  }
  /// Columns col … + 15 of the right operand, whose depth are rows row … + 15: for a product with this matrix.
  __device__ void right(std::uint32_t (&to)[4], int row, int col) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    load_matrices_transposed(to, data + (row + lane % 8 + lane / 8 % 2 * 8) * stride + col + lane / 16 * 8);
  }
};

/// A warp's 16 rows and `Cols` columns of a product. With g = lane / 4 and t = lane mod 4, part[j] holds (g, 8j + 2t),
/// (g, 8j + 2t + 1), (g + 8, 8j + 2t), (g + 8, 8j + 2t + 1).
template <int Cols>
struct Accumulator {
  float part[Cols / 8][4];

  __device__ void clear() {
#pragma unroll
    for (auto& of : part) {
#pragma unroll
      for (float& value : of) value = 0;
    }
  }

  /// += a[row … + 15] b[first … + Cols − 1]ᵀ, both D wide.
  template <class T, int RowsA, int RowsB, int D>
  __device__ void add_transposed(const Tile<T, RowsA, D>& a, int row, const Tile<T, RowsB, D>& b, int first = 0) {
    static_assert(Cols <= RowsB);
#pragma unroll
    for (int k = 0; k < D; k += 16) {
      std::uint32_t left[4];
      a.left(left, row, k);
#pragma unroll
      for (int j = 0; j < Cols; j += 16) {
        std::uint32_t right[4];
        b.right_transposed(right, first + j, k);
        multiply_add<T>(part[j / 8], left, right[0], right[1]);
        multiply_add<T>(part[j / 8 + 1], left, right[2], right[3]);
      }
    }
  }

  /// += p b[first … + Depth − 1], where p (16, Depth) is a warp's part of another product, rounded to T.
  template <class T, int Depth, int Rows>
  __device__ void add(const Accumulator<Depth>& p, const Tile<T, Rows, Cols>& b, int first = 0) {
    static_assert(Depth <= Rows);
#pragma unroll
    for (int k = 0; k < Depth; k += 16) {
      const auto& low = p.part[k / 8];
      const auto& high = p.part[k / 8 + 1];
      const std::uint32_t left[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]), pack<T>(high[0], high[1]),
                                     pack<T>(high[2], high[3])};
#pragma unroll
      for (int j = 0; j < Cols; j += 16) {
        std::uint32_t right[4];
        b.right(right, first + k, j);
        multiply_add<T>(part[j / 8], left, right[0], right[1]);
        multiply_add<T>(part[j / 8 + 1], left, right[2], right[3]);
      }
    }
  }

  /// Writes the rows row … + 15 that are below `rows`, `width` columns, each row times factor[0] or factor[1].
  template <class T>
  __device__ void store(T* to, Index stride, int row, int rows, int width, bool aligned, float low, float high) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + lane / 4 + 8 * half;
      if (at >= rows) continue;
      const float factor = half == 0 ? low : high;
#pragma unroll
      for (int j = 0; j < Cols / 8; ++j) {
        const int col = 8 * j + lane % 4 * 2;
        const float first = part[j][2 * half] * factor, second = part[j][2 * half + 1] * factor;
        T* place = to + at * stride + col;
        if (aligned && col < width) {
          *reinterpret_cast<std::uint32_t*>(place) = pack<T>(first, second);
        } else {
          if (col < width) place[0] = T(first);
          if (col + 1 < width) place[1] = T(second);
        }
      }
    }
  }
};

/// Calls f(element, row of the warp's 16, column, whether it is of the lower eight rows) for each element of this lane.
template <int Cols, class F>
__device__ void for_each_element(Accumulator<Cols>& of, F&& f) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int j = 0; j < Cols / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f(of.part[j][i], lane / 4 + i / 2 * 8, 8 * j + lane % 4 * 2 + i % 2, i / 2);
  }
}

/// Which part of the work a block has: blocks count parts first, then heads, then sequences.
struct BlockPlace {
  int part;
  Index head, sequence;
  __device__ BlockPlace(int parts, Index heads)
      : part(parts - 1 - static_cast<int>(blockIdx.x % static_cast<unsigned>(parts))),  // the longest first
        head(Index{blockIdx.x} / parts % heads),
        sequence(Index{blockIdx.x} / parts / heads) {}
};

/// The minimum, by value: std::min takes addresses, and a constant has none on the device.
__device__ inline int least(int a, int b) { return a < b ? a : b; }

inline __host__ __device__ int parts_of(Index time, int rows) { return static_cast<int>((time + rows - 1) / rows); }

/// The tiles' shared memory of the forward kernel, in bytes.
template <class T, int D>
constexpr std::size_t forward_shared = 3 * Tile<T, own_rows, D>::elements * sizeof(T);

/// y and the log-sums of 64 queries of one head.
template <class T, int D>
__global__ void __launch_bounds__(tile_threads, blocks_at_once<D>) forward_tiles(const AttentionForward<T> p) {
  using QueryTile = Tile<T, own_rows, D>;
  T* shared = dynamic_shared<T>();
  const QueryTile query{shared}, key{shared + QueryTile::elements}, value{shared + 2 * QueryTile::elements};
  const int time = static_cast<int>(p.shape.time), width = static_cast<int>(p.shape.head_dim);
  const BlockPlace place(parts_of(time, own_rows), p.shape.heads);
  const Index first_row = place.sequence * time, group = place.head / p.shape.group();
  const int begin = place.part * own_rows, queries = least(own_rows, time - begin);
  const int row = static_cast<int>(threadIdx.x) / warp_size * 16, lane = static_cast<int>(threadIdx.x) % warp_size;
  const T* k = p.k.data + first_row * p.k.stride + group * width;
  const T* v = p.v.data + first_row * p.v.stride + group * width;
  const auto load_keys = [&](int at) {
    key.load(k + at * p.k.stride, p.k.stride, time - at, width, p.aligned);
    commit_copies();
  };
  const auto load_values = [&](int at) {
    value.load(v + at * p.v.stride, p.v.stride, time - at, width, p.aligned);
    commit_copies();
  };

  const int first_tile = static_cast<int>(p.shape.first_key(begin)) / own_rows * own_rows;
  query.load(p.q.data + (first_row + begin) * p.q.stride + place.head * width, p.q.stride, queries, width, p.aligned);
  load_keys(first_tile);
  load_values(first_tile);

  Accumulator<D> out;
  out.clear();
  // Of rows g and g + 8: the maximum of the logits so far, in powers of two, and this lane's part of the denominator.
  float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  const float scale = static_cast<float>(p.shape.scale) * log2_e;
  const int last_tile = begin;  // the one of the queries themselves
  for (int at = first_tile; at <= last_tile; at += own_rows) {
    wait_copies<1>();  // all but the values
    sync_block();
    Accumulator<own_rows> logits;
    logits.clear();
    logits.add_transposed(query, row, key);
    sync_block();  // no thread reads the keys any more
    if (at < last_tile) {
      load_keys(at + own_rows);
    } else {
      commit_copies();  // an empty group, so that there are always two
    }

    float most[2] = {-INFINITY, -INFINITY};
    for_each_element(logits, [&](float& logit, int i, int j, int half) {
      const int t = begin + row + i, s = at + j;
      const bool visible = s <= t && s >= static_cast<int>(p.shape.first_key(t));
      logit = visible ? logit * scale : -INFINITY;
      most[half] = fmaxf(most[half], logit);
    });
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // four lanes hold a row
      most[half] = fmaxf(most[half], shuffle_xor(most[half], 1));
      most[half] = fmaxf(most[half], shuffle_xor(most[half], 2));
      const float next = fmaxf(maximum[half], most[half]);
      shrink[half] = next == -INFINITY ? 1.0f : exp2f(maximum[half] - next);
      maximum[half] = next;
      total[half] *= shrink[half];
    }
    for_each_element(logits, [&](float& logit, int i, int j, int half) {
      float probability = maximum[half] == -INFINITY ? 0.0f : exp2f(logit - maximum[half]);
      total[half] += probability;
      if (p.shape.dropout.active())
        probability *= attention_factor(p, place.sequence, place.head, begin + row + i, at + j);
      logit = probability;
    });
    for_each_element(out, [&](float& value_of, int, int, int half) { value_of *= shrink[half]; });

    wait_copies<1>();  // the values are here, the next keys on their way
    sync_block();
    out.add(logits, value);
    sync_block();
    if (at < last_tile) {
      load_values(at + own_rows);
    } else {
      commit_copies();
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += shuffle_xor(total[half], 1);
    total[half] += shuffle_xor(total[half], 2);
    const int i = row + lane / 4 + 8 * half;
    if (p.log_sum.data != nullptr && lane % 4 == 0 && i < queries) {
      p.log_sum.row(first_row + begin + i)[place.head] = maximum[half] / log2_e + logf(total[half]);
    }
  }
  out.store(p.y.data + (first_row + begin) * p.y.stride + place.head * width, p.y.stride, row, queries, width,
            p.aligned, 1.0f / total[0], 1.0f / total[1]);
}

/// Queries that the kernel of dk and dv loads at once, and keys that the kernel of dq does. Fewer are worked on at
/// once, to save registers.
inline constexpr int queries_loaded = 32, keys_loaded = 32, worked_on = 16;

template <class T, int D>
constexpr std::size_t keys_shared = (2 * Tile<T, own_rows, D>::elements + 4 * Tile<T, queries_loaded, D>::elements) *
                                        sizeof(T) +
                                    4 * queries_loaded * sizeof(float);

/// dk and dv of 64 keys of one key-value head, from all queries that see them, of all heads that share it. Products are
/// transposed, keys by queries, so that their results are the left operands of the next ones. Queries and their
/// gradients are double-buffered: the next ones load while these are worked on.
template <class T, int D>
__global__ void __launch_bounds__(tile_threads, blocks_at_once<D>) backward_keys(const AttentionBackward<T> p) {
  constexpr int together = queries_loaded;
  using KeyTile = Tile<T, own_rows, D>;
  using QueryTile = Tile<T, together, D>;
  T* shared = dynamic_shared<T>();
  const KeyTile key{shared}, value{shared + KeyTile::elements};
  T* const places = shared + 2 * KeyTile::elements;
  float* const numbers = reinterpret_cast<float*>(places + 4 * QueryTile::elements);
  const auto query_at = [=](int step) { return QueryTile{places + step % 2 * 2 * QueryTile::elements}; };
  const auto gradient_at = [=](int step) { return QueryTile{places + (step % 2 * 2 + 1) * QueryTile::elements}; };

  const int time = static_cast<int>(p.shape.time), width = static_cast<int>(p.shape.head_dim);
  const BlockPlace place(parts_of(time, own_rows), p.shape.kv_heads);
  const Index first_row = place.sequence * time;
  // The earliest keys are seen by the most queries: they come first, so count from the other end.
  const int begin = (parts_of(time, own_rows) - 1 - place.part) * own_rows, keys = least(own_rows, time - begin);
  const int row = static_cast<int>(threadIdx.x) / warp_size * 16, lane = static_cast<int>(threadIdx.x) % warp_size;
  key.load(p.k.data + (first_row + begin) * p.k.stride + place.head * width, p.k.stride, keys, width, p.aligned);
  value.load(p.v.data + (first_row + begin) * p.v.stride + place.head * width, p.v.stride, keys, width, p.aligned);
  commit_copies();

  Accumulator<D> dk, dv;
  dk.clear(), dv.clear();
  const float scale = static_cast<float>(p.shape.scale);
  const int last = p.shape.window > 0 && begin + keys - 1 + p.shape.window < time
                       ? begin + keys - 1 + static_cast<int>(p.shape.window)
                       : time;  // past the last query that sees one of the keys
  // Steps go through the queries of one head, then of the next.
  const int tiles = (last - begin + together - 1) / together, steps = tiles * static_cast<int>(p.shape.group());
  const auto head_of = [=](int step) { return place.head * p.shape.group() + step / tiles; };
  const auto first_of = [=](int step) { return begin + step % tiles * together; };
  const int own = static_cast<int>(threadIdx.x);
  float own_log_sum = 0, own_delta = 0;  // of the query that this thread brings, if it is below `together`
  const auto load = [&](int step) {
    const Index head = head_of(step), from = first_row + first_of(step);
    const int queries = least(together, time - first_of(step));
    query_at(step).load(p.q.data + from * p.q.stride + head * width, p.q.stride, queries, width, p.aligned);
    gradient_at(step).load(p.dy.data + from * p.dy.stride + head * width, p.dy.stride, queries, width, p.aligned);
    commit_copies();
    if (own >= together) return;
    own_log_sum = own < queries ? p.log_sum.row(from + own)[head] * log2_e : 0.0f;
    own_delta = own < queries ? p.delta[(from + own) * p.shape.heads + head] : 0.0f;
  };
  load(0);
  for (int step = 0; step < steps; ++step) {
    const QueryTile query = query_at(step), gradient = gradient_at(step);
    float *log_sums = numbers + step % 2 * 2 * together, *deltas = log_sums + together;
    if (own < together) log_sums[own] = own_log_sum, deltas[own] = own_delta;
    if (step + 1 < steps) {
      load(step + 1);
    } else {
      commit_copies();  // an empty group, so that one is always pending
    }
    wait_copies<1>();
    sync_block();
    const int at = first_of(step);
#pragma unroll 1
    for (int first = 0; first < together; first += worked_on) {
      if (at + first + worked_on <= begin + row) continue;  // none of these sees a key of this warp's
      Accumulator<worked_on> probability, slope;
      probability.clear(), slope.clear();
      probability.add_transposed(key, row, query, first);
      slope.add_transposed(value, row, gradient, first);
#pragma unroll
      for (int j = 0; j < worked_on / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int s = begin + row + lane / 4 + i / 2 * 8, q = first + 8 * j + lane % 4 * 2 + i % 2, t = at + q;
          const bool visible = t < time && s <= t && s >= static_cast<int>(p.shape.first_key(t));
          float& of = probability.part[j][i];
          of = visible ? exp2f(of * scale * log2_e - log_sums[q]) : 0.0f;
          const float factor =
              p.shape.dropout.active() && visible ? attention_factor(p, place.sequence, head_of(step), t, s) : 1.0f;
          slope.part[j][i] = of * (slope.part[j][i] * factor - deltas[q]) * scale;
          of *= factor;
        }
      }
      dv.add(probability, gradient, first);
      dk.add(slope, query, first);
    }
    sync_block();  // no thread reads this buffer any more
  }
  const Index to = first_row + begin;
  dk.store(p.dk.data + to * p.dk.stride + place.head * width, p.dk.stride, row, keys, width, p.aligned, 1.0f, 1.0f);
  dv.store(p.dv.data + to * p.dv.stride + place.head * width, p.dv.stride, row, keys, width, p.aligned, 1.0f, 1.0f);
}

template <class T, int D>
constexpr std::size_t queries_shared = (2 * Tile<T, own_rows, D>::elements + 4 * Tile<T, keys_loaded, D>::elements) *
                                       sizeof(T);

/// dq of 64 queries of one head. Keys and values are double-buffered, as queries are above.
template <class T, int D>
__global__ void __launch_bounds__(tile_threads, blocks_at_once<D>) backward_queries(const AttentionBackward<T> p) {
  using QueryTile = Tile<T, own_rows, D>;
  using KeyTile = Tile<T, keys_loaded, D>;
  T* shared = dynamic_shared<T>();
  const QueryTile query{shared}, gradient{shared + QueryTile::elements};
  T* const places = shared + 2 * QueryTile::elements;
  const auto key_in = [=](int place) { return KeyTile{places + 2 * place * KeyTile::elements}; };
  const auto value_in = [=](int place) { return KeyTile{places + (2 * place + 1) * KeyTile::elements}; };
  const int time = static_cast<int>(p.shape.time), width = static_cast<int>(p.shape.head_dim);
  const BlockPlace place(parts_of(time, own_rows), p.shape.heads);
  const Index first_row = place.sequence * time, group = place.head / p.shape.group();
  const int begin = place.part * own_rows, queries = least(own_rows, time - begin);
  const int row = static_cast<int>(threadIdx.x) / warp_size * 16, lane = static_cast<int>(threadIdx.x) % warp_size;
  const Index from = first_row + begin;
  query.load(p.q.data + from * p.q.stride + place.head * width, p.q.stride, queries, width, p.aligned);
  gradient.load(p.dy.data + from * p.dy.stride + place.head * width, p.dy.stride, queries, width, p.aligned);
  float log_sum[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + lane / 4 + 8 * half;
    log_sum[half] = i < queries ? p.log_sum.row(from + i)[place.head] * log2_e : 0.0f;
    delta[half] = i < queries ? p.delta[(from + i) * p.shape.heads + place.head] : 0.0f;
  }

  Accumulator<D> dq;
  dq.clear();
  const float scale = static_cast<float>(p.shape.scale);
  const auto load = [&](int at, int to) {
    const Index of = first_row + at;
    key_in(to).load(p.k.data + of * p.k.stride + group * width, p.k.stride, time - at, width, p.aligned);
    value_in(to).load(p.v.data + of * p.v.stride + group * width, p.v.stride, time - at, width, p.aligned);
    commit_copies();
  };
  const int end = begin + queries;  // no query sees a key from here on
  int at = static_cast<int>(p.shape.first_key(begin)) / keys_loaded * keys_loaded;
  load(at, 0);
  for (int in = 0; at < end; at += keys_loaded, in = 1 - in) {
    const KeyTile key = key_in(in), value = value_in(in);
    if (at + keys_loaded < end) {
      load(at + keys_loaded, 1 - in);
    } else {
      commit_copies();  // as above
    }
    wait_copies<1>();
    sync_block();
#pragma unroll 1
    for (int first = 0; first < keys_loaded; first += worked_on) {
      if (at + first >= begin + row + 16) break;  // no query of this warp's sees one of these
      Accumulator<worked_on> probability, slope;
      probability.clear(), slope.clear();
      probability.add_transposed(query, row, key, first);
      slope.add_transposed(gradient, row, value, first);
#pragma unroll
      for (int j = 0; j < worked_on / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int t = begin + row + lane / 4 + i / 2 * 8, s = at + first + 8 * j + lane % 4 * 2 + i % 2;
          const bool visible = t < time && s <= t && s >= static_cast<int>(p.shape.first_key(t));
          const float of_key = visible ? exp2f(probability.part[j][i] * scale * log2_e - log_sum[i / 2]) : 0.0f;
          const float factor =
              p.shape.dropout.active() && visible ? attention_factor(p, place.sequence, place.head, t, s) : 1.0f;
          slope.part[j][i] = of_key * (slope.part[j][i] * factor - delta[i / 2]) * scale;
        }
      }
      dq.add(slope, key, first);
    }
    sync_block();  // no thread reads this buffer any more
  }
  dq.store(p.dq.data + from * p.dq.stride + place.head * width, p.dq.stride, row, queries, width, p.aligned, 1.0f,
           1.0f);
}

template <class T, int D>
inline constexpr bool shared_memory_fits = forward_shared<T, D> <= least_shared_memory&& keys_shared<T, D> <=
                                           least_shared_memory&& queries_shared<T, D> <= least_shared_memory;
static_assert(shared_memory_fits<bfloat16, 128>);

}  // namespace tinymoe::inline v0_1::detail::cuda
