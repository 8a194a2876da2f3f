#pragma once
/// @file
/// Attention of CpuBfloat16 on AMX, tile by tile as in cpu/attention.hpp. Logits, softmax and sums are float32;
/// probabilities and the gradients of logits are rounded to bfloat16 where they are an operand of a product.

#include <algorithm>
#include <cstddef>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/amx.hpp"
#include "tinymoe/cpu/amx_pack.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"
#include "tinymoe/cpu/amx_to_float.hpp"
#include "tinymoe/cpu/attention.hpp"
#include "tinymoe/cpu/launch.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// One thread's part in an attention, with scratch of its own.
class AmxAttention {
 public:
  /// Fewer queries than a tile of the matrix unit has rows are not worth packing keys for.
  static constexpr Index least_queries = amx::tile_rows;

  /// Elements of scratch, in whole lines of the cache.
  static Index scratch(const AttentionShape& shape) {
    return floats_of(2 * packed_rows(shape) + packed_pairs(shape) + 2 * packed_tile(shape)) + 3 * tile * shape.time +
           tile * shape.head_dim + in_lines(2 * shape.time * shape.head_dim);
  }
  static Index cache_scratch(const AttentionShape& shape) {
    return floats_of(packed_rows(shape) + packed_pairs(shape)) + 2 * tile * shape.time + tile * shape.head_dim;
  }

  /// `products`: amx::scratch_bytes.
  AmxAttention(const AttentionShape& shape, CpuInstructions row_set, std::byte* products, float* scratch)
      : shape_(shape), row_set_(row_set), products_(products), memory_(reinterpret_cast<std::byte*>(scratch)) {}

  /// Forward of one head: number `task`, counted over all sequences.
  void forward(Index task, View<const bfloat16> q, View<const bfloat16> k, View<const bfloat16> v, View<bfloat16> y,
               View<float> log_sum) {
    const AttentionHead head(shape_, task / shape_.heads, task % shape_.heads);
    const AttentionTile all{0, 0, 0, shape_.time};
    std::byte* const keys = take(packed_rows(shape_));
    std::byte* const values = take(packed_pairs(shape_));
    amx::pack_rows(head.key(k, all), keys);
    amx::pack_pairs(head.key(v, all), values);
    float* const logits = take_floats(tile * shape_.time);
    float* const result = take_floats(tile * shape_.head_dim);
    auto* const rounded = reinterpret_cast<bfloat16*>(take_floats(tile * shape_.time / 2));
    const amx::TileUse tiles;
    for_each_tile([&](const AttentionTile& at) {
      const View<float> to(logits, at.queries, at.keys);
      amx::multiply_to_float(head.query(q, at), of_rows(keys, at.first_key), to, false, products_);
      run(at.queries, kernels::TileProbabilities{shape_, at, head, to, log_sum});
      weigh(to, rounded, of_pairs(values, at.first_key, shape_.time), result, head.query(y, at));
    });
  }

  /// Queries `first` … of one head against the first `keys` rows of a cache, as AttentionTiles.
  template <class Softmax>
  void to_cache(Index number, Index first, Index keys, View<const bfloat16> q, View<const bfloat16> key,
                View<const bfloat16> value, View<bfloat16> y, const Softmax& softmax) {
    const AttentionHead head(shape_, 0, number);
    const AttentionTile at{first, std::min(tile, q.rows - first), 0, keys};
    std::byte* const packed_keys = take(packed_rows(shape_));
    std::byte* const packed_values = take(packed_pairs(shape_));
    amx::pack_rows(head.key(key, at), packed_keys);
    amx::pack_pairs(head.key(value, at), packed_values);
    const View<float> logits(take_floats(tile * shape_.time), at.queries, keys);
    float* const result = take_floats(tile * shape_.head_dim);
    auto* const rounded = reinterpret_cast<bfloat16*>(take_floats(tile * shape_.time / 2));
    const amx::TileUse tiles;
    amx::multiply_to_float(head.query(q, at), of_rows(packed_keys, 0), logits, false, products_);
    run(at.queries, softmax(first, logits));
    weigh(logits, rounded, of_pairs(packed_values, 0, keys), result, head.query(y, at));
  }

  /// Backward of one key-value head, number `task`, counted over all sequences: one thread sums its gradient.
  void backward(Index task, View<const bfloat16> q, View<const bfloat16> k, View<const bfloat16> v,
                View<const bfloat16> y, View<const float> log_sum, View<const bfloat16> dy, View<bfloat16> dq,
                View<bfloat16> dk, View<bfloat16> dv) {
    const Index sequence = task / shape_.kv_heads, kv = task % shape_.kv_heads, d = shape_.head_dim;
    const AttentionHead first_head(shape_, sequence, kv * shape_.group());
    const AttentionTile all{0, 0, 0, shape_.time};
    std::byte* const key_rows = take(packed_rows(shape_));
    std::byte* const value_rows = take(packed_rows(shape_));
    std::byte* const key_pairs = take(packed_pairs(shape_));
    std::byte* const queries = take(packed_tile(shape_));
    std::byte* const slopes_of_results = take(packed_tile(shape_));
    amx::pack_rows(first_head.key(k, all), key_rows);
    amx::pack_rows(first_head.key(v, all), value_rows);
    amx::pack_pairs(first_head.key(k, all), key_pairs);
    float* const logits = take_floats(tile * shape_.time);
    float* const gradient = take_floats(tile * shape_.time);
    auto* const rounded_probabilities = reinterpret_cast<bfloat16*>(take_floats(tile * shape_.time / 2));
    auto* const rounded_slopes = reinterpret_cast<bfloat16*>(take_floats(tile * shape_.time / 2));
    float* const result = take_floats(tile * d);
    float* const sums = take_floats(2 * shape_.time * d);
    const View<float> dkey(sums, shape_.time, d), dvalue(sums + shape_.time * d, shape_.time, d);
    std::fill_n(sums, 2 * shape_.time * d, 0.0f);
    const amx::TileUse tiles;
    for (Index h = kv * shape_.group(); h < (kv + 1) * shape_.group(); ++h) {
      const AttentionHead head(shape_, sequence, h);
      for_each_tile([&](const AttentionTile& at) {
        const View<float> to(logits, at.queries, at.keys), slopes(gradient, at.queries, at.keys);
        const View<const bfloat16> query = head.query(q, at), out = head.query(y, at), dout = head.query(dy, at);
        amx::multiply_to_float(query, of_rows(key_rows, at.first_key), to, false, products_);
        amx::multiply_to_float(dout, of_rows(value_rows, at.first_key), slopes, false, products_);
        run(at.queries, kernels::TileSlopes<bfloat16>{shape_, at, head, to, slopes, out, dout, log_sum});
        weigh(slopes, rounded_slopes, of_pairs(key_pairs, at.first_key, shape_.time), result, head.query(dq, at));
        round(to, rounded_probabilities);
        amx::pack_pairs(query, queries);
        amx::pack_pairs(dout, slopes_of_results);
        const auto own = [&](View<float> sum) { return sum.middle_rows(at.first_key, at.keys); };
        amx::add_transposed_to_float({rounded_slopes, at.queries, at.keys}, of_pairs(queries, 0, at.queries), own(dkey),
                                     products_);
        amx::add_transposed_to_float({rounded_probabilities, at.queries, at.keys},
                                     of_pairs(slopes_of_results, 0, at.queries), own(dvalue), products_);
      });
    }
    run(shape_.time, kernels::RoundRow<bfloat16>{dkey, first_head.key(dk, all)});
    run(shape_.time, kernels::RoundRow<bfloat16>{dvalue, first_head.key(dv, all)});
  }

 private:
  static constexpr Index tile = AttentionTile::most_queries;

  /// Bytes of a head's keys or values as right operands, and of a tile's queries.
  static Index packed_rows(const AttentionShape& shape) { return amx::packed_rows_bytes(shape.time, shape.head_dim); }
  static Index packed_pairs(const AttentionShape& shape) { return amx::packed_pairs_bytes(shape.time, shape.head_dim); }
  static Index packed_tile(const AttentionShape& shape) { return amx::packed_pairs_bytes(tile, shape.head_dim); }
  static Index in_lines(Index floats) { return (floats + 15) / 16 * 16; }
  static Index floats_of(Index bytes) { return bytes / Index{sizeof(float)}; }

  /// The next part of the scratch memory.
  std::byte* take(Index bytes) {
    std::byte* const taken = memory_;
    memory_ += bytes;
    return taken;
  }
  float* take_floats(Index count) { return reinterpret_cast<float*>(take(count * Index{sizeof(float)})); }

  /// Packed rows from `first` on, a multiple of 32.
  amx::Right of_rows(const std::byte* packed, Index first) const {
    return {packed + amx::packed_rows_bytes(first, shape_.head_dim),
            amx::packed_rows_bytes(amx::block_side, shape_.head_dim), true};
  }
  /// A depth of packed pairs from `first` on, a multiple of 32, of `rows`.
  static amx::Right of_pairs(const std::byte* packed, Index first, Index rows) {
    return {packed + amx::packed_pairs_bytes(first, amx::block_side), amx::packed_pairs_bytes(rows, amx::block_side),
            false};
  }

  /// Tiles whose first key is a multiple of 32, where a panel begins. A query sees the same keys.
  template <class F>
  void for_each_tile(F f) const {
    for (Index first = 0; first < shape_.time; first += tile) {
      const Index queries = std::min(tile, shape_.time - first),
                  first_key = shape_.first_key(first) / amx::block_side * amx::block_side;
      f(AttentionTile{first, queries, first_key, first + queries - first_key});
    }
  }

  void round(View<const float> from, bfloat16* to) const {
    run(from.rows, kernels::RoundRow<bfloat16>{from, {to, from.rows, from.cols}});
  }
  /// out = weights times a right operand, both rounded; `rounded` and `sums` are scratch.
  void weigh(View<const float> weights, bfloat16* rounded, amx::Right right, float* sums, View<bfloat16> out) const {
    round(weights, rounded);
    const View<float> result(sums, out.rows, out.cols);
    amx::multiply_to_float({rounded, weights.rows, weights.cols}, right, result, false, products_);
    run(out.rows, kernels::RoundRow<bfloat16>{result, out});
  }

  template <class Kernel>
  void run(Index count, const Kernel& kernel) const {
    run_rows(row_set_, kernel, 0, count);
  }

  AttentionShape shape_;
  CpuInstructions row_set_;
  std::byte* products_;
  std::byte* memory_;  // from here on it is free
};

}  // namespace tinymoe::inline v0_1::detail::cpu
