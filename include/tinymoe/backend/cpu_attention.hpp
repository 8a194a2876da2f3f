#pragma once
/// @file
/// Causal attention on one thread of a CPU: tiles of queries, each against the keys that it sees, by matrix products.
/// The log-sum of each row is kept and backward recomputes the probabilities, so memory is linear in T.

#include <algorithm>
#include <cmath>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/gemm.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1::detail {

/// y = 0.
inline void fill_zero(View<float> y) {
  for (Index n = 0; n < y.rows; ++n) std::fill(y.row(n), y.row(n) + y.cols, 0.0f);
}

/// One thread's part in an attention, with scratch and packing memory of its own.
class AttentionTiles {
 public:
  /// Elements of scratch: two tiles of queries against all keys.
  static Index scratch(const AttentionShape& shape) { return 2 * tile * shape.time; }

  AttentionTiles(const AttentionShape& shape, float* scratch, Packing& packing)
      : shape_(shape), scratch_(scratch), packing_(&packing) {}

  /// Forward of one head: number `task`, counted over all sequences.
  void forward(Index task, View<const float> q, View<const float> k, View<const float> v, View<float> y,
               View<float> log_sum) const {
    const Head head(shape_, task / shape_.heads, task % shape_.heads);
    for_each_tile([&](const Tile& at) {
      const View<float> logits = scaled_logits(head, at, q, k);
      const auto out = head.query(y, at);
      for (Index i = 0; i < at.queries; ++i) {
        float* row = logits.row(i);
        const auto seen = at.visible(shape_, i);
        const Index low = seen.low, high = seen.high;
        const float maximum = group.max(high - low, [=](Index s) { return row[low + s]; });
        const float total =
            group.sum(high - low, [=](Index s) { return row[low + s] = exponential(row[low + s] - maximum); });
        std::fill(row, row + low, 0.0f);
        std::fill(row + high, row + at.keys, 0.0f);
        const float scale = 1.0f / total;
        group.each(high - low, [=](Index s) { row[low + s] *= scale; });
        if (shape_.dropout.active()) {
          const Index first = at.first_key;
          shape_.dropout.each<float>(group, head.dropout_row(shape_, at.first_query + i), shape_.time, first + low,
                                     first + high, [=](Index s, float factor) { row[s - first] *= factor; });
        }
        log_sum(head.first_row + at.first_query + i, head.number) = maximum + std::log(total);
        std::fill(out.row(i), out.row(i) + shape_.head_dim, 0.0f);
      }
      gemm<Use::plain, Use::plain>(1.0f, logits, head.key(v, at), out, *packing_);
    });
  }

  /// Backward of one key-value head, number `task`, counted over all sequences: one thread sums its gradient.
  /// Recomputes each tile's probabilities from the log-sums.
  void backward(Index task, View<const float> q, View<const float> k, View<const float> v, View<const float> y,
                View<const float> log_sum, View<const float> dy, View<float> dq, View<float> dk, View<float> dv) const {
    const Index sequence = task / shape_.kv_heads, kv = task % shape_.kv_heads;
    for (const auto& gradient : {dk, dv}) {
      fill_zero(
          gradient.middle_rows(sequence * shape_.time, shape_.time).middle_cols(kv * shape_.head_dim, shape_.head_dim));
    }
    for (Index h = kv * shape_.group(); h < (kv + 1) * shape_.group(); ++h) {
      const Head head(shape_, sequence, h);
      for_each_tile([&](const Tile& at) {
        const View<float> probabilities = scaled_logits(head, at, q, k);
        const View<float> gradient(scratch_ + tile * shape_.time, at.queries, at.keys);
        const auto out = head.query(y, at), dout = head.query(dy, at);
        fill_zero(gradient);
        gemm<Use::plain, Use::transposed>(1.0f, dout, head.key(v, at), gradient, *packing_);
        for (Index i = 0; i < at.queries; ++i) {
          float* row = probabilities.row(i);
          float* drow = gradient.row(i);
          const float *a = out.row(i), *b = dout.row(i);
          const auto seen = at.visible(shape_, i);
          const Index low = seen.low, high = seen.high;
          const float denominator = log_sum(head.first_row + at.first_query + i, h);
          const float mean = group.sum(shape_.head_dim, [=](Index c) { return a[c] * b[c]; });
          const float scale = static_cast<float>(shape_.scale);
          std::fill(row, row + low, 0.0f), std::fill(row + high, row + at.keys, 0.0f);
          std::fill(drow, drow + low, 0.0f), std::fill(drow + high, drow + at.keys, 0.0f);
          if (shape_.dropout.active()) {
            const Index first = at.first_key;
            shape_.dropout.each<float>(group, head.dropout_row(shape_, at.first_query + i), shape_.time, first + low,
                                       first + high, [=](Index s, float factor) {
                                         const float p = exponential(row[s - first] - denominator);
                                         drow[s - first] = p * (drow[s - first] * factor - mean) * scale;
                                         row[s - first] = p * factor;
                                       });
            continue;
          }
          group.each(high - low, [=](Index s) {
            row[low + s] = exponential(row[low + s] - denominator);
            drow[low + s] = row[low + s] * (drow[low + s] - mean) * scale;
          });
        }
        fill_zero(head.query(dq, at));
        gemm<Use::plain, Use::plain>(1.0f, gradient, head.key(k, at), head.query(dq, at), *packing_);
        gemm<Use::transposed, Use::plain>(1.0f, gradient, head.query(q, at), head.key(dk, at), *packing_);
        gemm<Use::transposed, Use::plain>(1.0f, probabilities, dout, head.key(dv, at), *packing_);
      });
    }
  }

 private:
  static constexpr SerialGroup group{};
  static constexpr Index tile = 64;  // queries that are worked on at once

  /// Queries first_query … of one head, and the keys that at least one of them sees.
  struct Tile {
    Index first_query, queries, first_key, keys;

    struct Range {
      Index low, high;
    };
    /// The keys of the tile, low … high − 1, that its i-th query sees.
    Range visible(const AttentionShape& shape, Index i) const {
      const Index t = first_query + i;
      return {shape.first_key(t) - first_key, t + 1 - first_key};
    }
  };

  template <class F>
  void for_each_tile(F f) const {
    for (Index first = 0; first < shape_.time; first += tile) {
      const Index queries = std::min(tile, shape_.time - first), first_key = shape_.first_key(first);
      f(Tile{first, queries, first_key, first + queries - first_key});
    }
  }

  /// Where one head of one sequence lies in the matrices of queries and keys.
  struct Head {
    Index first_row, number, query_col, key_col, width;

    Head(const AttentionShape& shape, Index sequence, Index head)
        : first_row(sequence * shape.time),
          number(head),
          query_col(head * shape.head_dim),
          key_col(head / shape.group() * shape.head_dim),
          width(shape.head_dim) {}

    /// The row of dropout's mask for position t of this head.
    Index dropout_row(const AttentionShape& shape, Index t) const {
      return (first_row / shape.time * shape.heads + number) * shape.time + t;
    }

    template <class T>
    View<T> query(View<T> q, const Tile& at) const {
      return q.middle_rows(first_row + at.first_query, at.queries).middle_cols(query_col, width);
    }
    template <class T>
    View<T> key(View<T> k, const Tile& at) const {
      return k.middle_rows(first_row + at.first_key, at.keys).middle_cols(key_col, width);
    }
  };

  /// scale · q kᵀ of one tile, written to the first half of the scratch.
  View<float> scaled_logits(const Head& head, const Tile& at, View<const float> q, View<const float> k) const {
    const View<float> logits(scratch_, at.queries, at.keys);
    fill_zero(logits);
    gemm<Use::plain, Use::transposed>(static_cast<float>(shape_.scale), head.query(q, at), head.key(k, at), logits,
                                      *packing_);
    return logits;
  }

  AttentionShape shape_;
  float* scratch_;
  Packing* packing_;
};

}  // namespace tinymoe::inline v0_1::detail
