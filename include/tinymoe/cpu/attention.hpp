#pragma once
/// @file
/// Causal attention on one thread of a CPU: tiles of queries, each against the keys that it sees, by matrix products.
/// The log-sum of each row is kept and backward recomputes the probabilities, so memory is linear in T.

#include <algorithm>
#include <cmath>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/launch.hpp"
#include "tinymoe/cpu/products.hpp"

namespace tinymoe::inline v0_1 {

namespace detail::cpu {

/// Queries of one head that are worked on at once, and the keys that at least one of them sees.
struct AttentionTile {
  static constexpr Index most_queries = 64;
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

/// Where one head of one sequence lies in the matrices of queries and keys.
struct AttentionHead {
  Index first_row, number, query_col, key_col, width;

  AttentionHead(const AttentionShape& shape, Index sequence, Index head)
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
  View<T> query(View<T> q, const AttentionTile& at) const {
    return q.middle_rows(first_row + at.first_query, at.queries).middle_cols(query_col, width);
  }
  template <class T>
  View<T> key(View<T> k, const AttentionTile& at) const {
    return k.middle_rows(first_row + at.first_key, at.keys).middle_cols(key_col, width);
  }
};

}  // namespace detail::cpu

namespace kernels {

/// Logits q kᵀ of a tile become probabilities; row i is its i-th query.
struct TileProbabilities {
  AttentionShape shape;
  detail::cpu::AttentionTile at;
  detail::cpu::AttentionHead head;
  View<float> logits, log_sum;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index i) const {
    float* row = logits.row(i);
    const auto seen = at.visible(shape, i);
    const Index low = seen.low, high = seen.high, first = at.first_key;
    const float scale = static_cast<float>(shape.scale);
    const float max = scale * group.max(high - low, [=](Index s) { return row[low + s]; });
    const float total =
        group.sum(high - low, [=](Index s) { return row[low + s] = exponential(scale * row[low + s] - max); });
    group.each(low, [=](Index s) { row[s] = 0; });
    group.each(at.keys - high, [=](Index s) { row[high + s] = 0; });
    const float share = 1.0f / total;
    group.each(high - low, [=](Index s) { row[low + s] *= share; });
    if (shape.dropout.active()) {
      shape.dropout.each<float>(group, head.dropout_row(shape, at.first_query + i), shape.time, first + low,
                                first + high, [=](Index s, float factor) { row[s - first] *= factor; });
    }
    group.once([&] { log_sum(head.first_row + at.first_query + i, head.number) = max + std::log(total); });
  }
};

/// Logits of a tile become probabilities, with dropout, and the gradients of the probabilities become those of the
/// logits without their scale.
template <class T>
struct TileSlopes {
  AttentionShape shape;
  detail::cpu::AttentionTile at;
  detail::cpu::AttentionHead head;
  View<float> logits, gradient;
  View<const T> y, dy;  // the tile's rows of this head
  View<const float> log_sum;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index i) const {
    float *row = logits.row(i), *drow = gradient.row(i);
    const T *a = y.row(i), *b = dy.row(i);
    const auto seen = at.visible(shape, i);
    const Index low = seen.low, high = seen.high, first = at.first_key;
    const float denominator = log_sum(head.first_row + at.first_query + i, head.number);
    const float mean = group.sum(shape.head_dim, [=](Index c) { return float(a[c]) * float(b[c]); });
    const float scale = static_cast<float>(shape.scale);
    group.each(low, [=](Index s) { row[s] = 0, drow[s] = 0; });
    group.each(at.keys - high, [=](Index s) { row[high + s] = 0, drow[high + s] = 0; });
    if (shape.dropout.active()) {
      shape.dropout.each<float>(group, head.dropout_row(shape, at.first_query + i), shape.time, first + low,
                                first + high, [=](Index s, float factor) {
                                  const float p = exponential(scale * row[s - first] - denominator);
                                  drow[s - first] = p * (drow[s - first] * factor - mean) * scale;
                                  row[s - first] = p * factor;
                                });
      return;
    }
    group.each(high - low, [=](Index s) {
      const float p = exponential(scale * row[low + s] - denominator);
      drow[low + s] = p * (drow[low + s] - mean) * scale;
      row[low + s] = p;
    });
  }
};

/// to = from, rounded, row by row.
template <class T>
struct RoundRow {
  View<const float> from;
  View<T> to;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    group.each(
        to.cols, [](T& out, float in) { out = T(in); }, write_only(to.row(n)), from.row(n));
  }
};

}  // namespace kernels

namespace detail::cpu {

/// One thread's part in an attention of activations T, with scratch of its own.
template <class T>
class AttentionTiles {
 public:
  /// Elements of scratch: two tiles of queries against all keys, a tile of results, and the gradients of a head's keys
  /// and values.
  static Index scratch(const AttentionShape& shape) {
    return 2 * tile * shape.time + tile * shape.head_dim + 2 * shape.time * shape.head_dim;
  }
  /// Those of `to_cache`: a tile of queries, and a tile of results if it is rounded.
  static Index cache_scratch(const AttentionShape& shape) {
    return tile * shape.time + (std::is_same_v<T, float> ? 0 : tile * shape.head_dim);
  }

  AttentionTiles(const AttentionShape& shape, CpuInstructions row_set, const Tiles& tiles, const Packs<T>& packs,
                 const Packs<float>& float_packs, Panels panels, float* scratch)
      : shape_(shape),
        row_set_(row_set),
        tiles_(tiles),
        packs_(packs),
        float_packs_(float_packs),
        panels_(panels),
        scratch_(scratch) {}

  /// Forward of one head: number `task`, counted over all sequences.
  void forward(Index task, View<const T> q, View<const T> k, View<const T> v, View<T> y, View<float> log_sum) const {
    const AttentionHead head(shape_, task / shape_.heads, task % shape_.heads);
    for_each_tile([&](const AttentionTile& at) {
      const View<float> logits(this->logits(), at.queries, at.keys);
      multiply(rows(head.query(q, at)), rows(head.key(k, at)), logits, false);
      run(at.queries, kernels::TileProbabilities{shape_, at, head, logits, log_sum});
      write(rows(View<const float>(logits)), columns(head.key(v, at)), head.query(y, at));
    });
  }

  /// Queries `first` … of one head, up to `most_queries`, against the first `keys` rows of a cache, which has
  /// `shape.time` of them. `softmax(first, logits)` is the kernel that makes probabilities of these queries' logits.
  template <class Softmax>
  void to_cache(Index number, Index first, Index keys, View<const T> q, View<const T> key, View<const T> value,
                View<T> y, const Softmax& softmax) const {
    const AttentionHead head(shape_, 0, number);
    const AttentionTile at{first, std::min(tile, q.rows - first), 0, keys};
    const View<float> logits(this->logits(), at.queries, keys);
    multiply(rows(head.query(q, at)), rows(head.key(key, at)), logits, false);
    run(at.queries, softmax(first, logits));
    write(rows(View<const float>(logits)), columns(head.key(value, at)), head.query(y, at));
  }

  /// Backward of one key-value head, number `task`, counted over all sequences: one thread sums its gradient.
  /// Recomputes each tile's probabilities from the log-sums.
  void backward(Index task, View<const T> q, View<const T> k, View<const T> v, View<const T> y,
                View<const float> log_sum, View<const T> dy, View<T> dq, View<T> dk, View<T> dv) const {
    const Index sequence = task / shape_.kv_heads, kv = task % shape_.kv_heads, d = shape_.head_dim;
    const View<float> dkey(keys(), shape_.time, d), dvalue(keys() + shape_.time * d, shape_.time, d);
    std::fill_n(keys(), 2 * shape_.time * d, 0.0f);
    for (Index h = kv * shape_.group(); h < (kv + 1) * shape_.group(); ++h) {
      const AttentionHead head(shape_, sequence, h);
      for_each_tile([&](const AttentionTile& at) {
        const View<float> logits(this->logits(), at.queries, at.keys), gradient(this->gradient(), at.queries, at.keys);
        const View<const float> probabilities = logits, slopes = gradient;
        const View<const T> out = head.query(y, at), dout = head.query(dy, at);
        multiply(rows(head.query(q, at)), rows(head.key(k, at)), logits, false);
        multiply(rows(dout), rows(head.key(v, at)), gradient, false);
        run(at.queries, kernels::TileSlopes<T>{shape_, at, head, logits, gradient, out, dout, log_sum});
        write(rows(slopes), columns(head.key(k, at)), head.query(dq, at));
        multiply(columns(slopes), columns(head.query(q, at)), dkey.middle_rows(at.first_key, at.keys), true);
        multiply(columns(probabilities), columns(dout), dvalue.middle_rows(at.first_key, at.keys), true);
      });
    }
    const auto own = [&](View<T> all) {
      return all.middle_rows(sequence * shape_.time, shape_.time).middle_cols(kv * d, d);
    };
    run(shape_.time, kernels::RoundRow<T>{dkey, own(dk)});
    run(shape_.time, kernels::RoundRow<T>{dvalue, own(dv)});
  }

 private:
  static constexpr Index tile = AttentionTile::most_queries;

  // The parts of the scratch memory; attention to a cache has the first two.
  float* logits() const { return scratch_; }
  float* result() const { return logits() + tile * shape_.time; }
  float* gradient() const { return result() + tile * shape_.head_dim; }
  float* keys() const { return gradient() + tile * shape_.time; }  // of the keys, then of the values

  template <class F>
  void for_each_tile(F f) const {
    for (Index first = 0; first < shape_.time; first += tile) {
      const Index queries = std::min(tile, shape_.time - first), first_key = shape_.first_key(first);
      f(AttentionTile{first, queries, first_key, first + queries - first_key});
    }
  }
  template <class Kernel>
  void run(Index count, const Kernel& kernel) const {
    run_rows(row_set_, kernel, 0, count);
  }

  Operand rows(View<const T> a) const { return rows_of(a, packs_); }
  Operand columns(View<const T> a) const { return columns_of(a, packs_); }
  Operand rows(View<const float> a) const requires(!std::is_same_v<T, float>) { return rows_of(a, float_packs_); }
  Operand columns(View<const float> a) const requires(!std::is_same_v<T, float>) { return columns_of(a, float_packs_); }

  void multiply(const Operand& a, const Operand& b, View<float> c, bool add) const {
    panels_.multiply(tiles_, a, b, c, add);
  }
  /// c = a bᵀ, rounded to T; up to a tile of rows.
  void write(const Operand& a, const Operand& b, View<T> c) const {
    if constexpr (std::is_same_v<T, float>) {
      multiply(a, b, c, false);
    } else {
      const View<float> result(this->result(), c.rows, c.cols);
      multiply(a, b, result, false);
      run(c.rows, kernels::RoundRow<T>{result, c});
    }
  }

  AttentionShape shape_;
  CpuInstructions row_set_;
  const Tiles& tiles_;
  const Packs<T>& packs_;
  const Packs<float>& float_packs_;
  Panels panels_;
  float* scratch_;
};

}  // namespace detail::cpu

}  // namespace tinymoe::inline v0_1
