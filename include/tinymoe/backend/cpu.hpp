#pragma once
/// @file
/// The CPU backend, float32: Eigen for matrix products, vectorised row kernels, OpenMP for threads.
///
/// The same inputs and number of threads give the same bits: work is cut by fixed rules and nothing is added
/// atomically.

#include <algorithm>
#include <memory>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "tinymoe/backend/gemm.hpp"
#include "tinymoe/backend/host.hpp"

namespace tinymoe::inline v0_1 {

/// Runs models on the host's cores. One object serves one model at a time: its threads have scratch memory of their
/// own.
class Cpu : public detail::HostBackend {
 public:
  using Scalar = float;
  using Master = float;

  /// `threads` = 0 takes as many as OpenMP offers (OMP_NUM_THREADS, or the cores); without OpenMP there is one.
  explicit Cpu(int threads = 0) : threads_(threads > 0 && has_openmp ? threads : default_threads()) {
    packing_ = std::make_unique<detail::Packing[]>(static_cast<std::size_t>(threads_));
  }

  static constexpr const char* name() { return "cpu"; }
  int threads() const { return threads_; }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows > 1)
    for (Index row = 0; row < rows; ++row) kernel(SerialGroup{}, row);
  }

  /// Threads share the rows of y, or its columns where there are few rows; one to four rows are dot products, which
  /// read the weights once at the memory's speed.
  void matmul(View<const float> x, View<const float> w, View<const float> bias, View<float> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    in_parallel([&](Index thread) {
      if (x.rows <= max_gemv_rows) {
        const auto [first, count] = share(w.rows, thread);
        dot_products(x, w, bias, y, first, count);
      } else if (x.rows >= many_rows * threads_) {
        const auto [first, count] = share(x.rows, thread);
        product(x.middle_rows(first, count), w, bias, y.middle_rows(first, count), thread);
      } else {
        const auto [first, count] = share(w.rows, thread);
        product(x, w.middle_rows(first, count), bias.empty() ? bias : bias.middle_cols(first, count),
                y.middle_cols(first, count), thread);
      }
    });
  }

  void matmul_input(View<const float> dy, View<const float> w, View<float> dx, Write write) {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
    in_parallel([&](Index thread) {
      const auto [first, count] = share(dx.rows, thread);
      input_gradient(dy.middle_rows(first, count), w, dx.middle_rows(first, count), write, thread);
    });
  }

  void matmul_weight(View<const float> dy, View<const float> x, View<float> dw) {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols);
    in_parallel([&](Index thread) { weight_gradient(dy, x, dw, thread); });
  }

  /// Threads share the sorted rows evenly, whichever experts they belong to.
  void grouped_matmul(View<const float> x, Bank<const float> w, Bank<const float> bias, const Dispatch& dispatch,
                      View<float> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows && dispatch.experts() == w.count);
    const auto bias_of = [&](Index e) { return bias.empty() ? View<const float>{} : bias[e]; };
    in_parallel([&](Index thread) {
      const bool by_rows = x.rows > max_gemv_rows * threads_;
      const auto [first, count] = by_rows ? share(x.rows, thread) : Share{0, x.rows};
      for_each_expert(dispatch, first, count, [&](Index e, Index row, Index rows) {
        const auto from = x.middle_rows(row, rows);
        const auto to = y.middle_rows(row, rows);
        if (by_rows) return product(from, w[e], bias_of(e), to, thread);
        const auto [first_output, outputs] = share(w.rows, thread);
        dot_products(from, w[e], bias_of(e), to, first_output, outputs);
      });
    });
  }

  void grouped_matmul_input(View<const float> dy, Bank<const float> w, const Dispatch& dispatch, View<float> dx) {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols && dispatch.experts() == w.count);
    in_parallel([&](Index thread) {
      const auto [first, count] = share(dx.rows, thread);
      for_each_expert(dispatch, first, count, [&](Index e, Index row, Index rows) {
        input_gradient(dy.middle_rows(row, rows), w[e], dx.middle_rows(row, rows), Write::overwrite, thread);
      });
    });
  }

  /// Threads share the rows of every expert's gradient, so that an expert with many tokens holds none of them up.
  void grouped_matmul_weight(View<const float> dy, View<const float> x, const Dispatch& dispatch, Bank<float> dw) {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols && dispatch.experts() == dw.count);
    in_parallel([&](Index thread) {
      for_each_expert(dispatch, 0, x.rows, [&](Index e, Index row, Index rows) {
        weight_gradient(dy.middle_rows(row, rows), x.middle_rows(row, rows), dw[e], thread);
      });
    });
  }

  /// Two tiles of `tile` queries against all keys, for each thread: linear in T.
  Index attention_scratch(const AttentionShape& shape) const { return threads_ * 2 * tile * shape.time; }

  /// Works through tiles of queries, each against the keys that it sees; a task is one head of one sequence.
  void attention_forward(const AttentionShape& shape, View<const float> q, View<const float> k, View<const float> v,
                         View<float> y, View<float> log_sum, View<float> scratch) {
    in_parallel([&](Index thread) {
      float* p = scratch.data + thread * 2 * tile * shape.time;
      for (Index task = thread; task < shape.batch * shape.heads; task += threads_) {
        const Head head(shape, task / shape.heads, task % shape.heads);
        for_each_tile(shape, [&](const Tile& at) {
          const View<float> logits = scaled_logits(shape, head, at, q, k, p, thread);
          const auto out = head.query(y, at);
          for (Index i = 0; i < at.queries; ++i) {
            float* row = logits.row(i);
            const auto seen = at.visible(shape, i);
            const Index low = seen.low, high = seen.high;
            const float greatest = group.max(high - low, [=](Index s) { return row[low + s]; });
            const float total =
                group.sum(high - low, [=](Index s) { return row[low + s] = exponential(row[low + s] - greatest); });
            std::fill(row, row + low, 0.0f);
            std::fill(row + high, row + at.keys, 0.0f);
            const float scale = 1.0f / total;
            group.each(high - low, [=](Index s) { row[low + s] *= scale; });
            if (shape.dropout.active()) {
              const Index first = at.first_key;
              shape.dropout.each<float>(group, head.dropout_row(shape, at.first_query + i), shape.time, first + low,
                                        first + high, [=](Index s, float factor) { row[s - first] *= factor; });
            }
            log_sum(head.first_row + at.first_query + i, head.number) = greatest + std::log(total);
            std::fill(out.row(i), out.row(i) + shape.head_dim, 0.0f);
          }
          detail::gemm<detail::Use::plain, detail::Use::plain>(1.0f, logits, head.key(v, at), out, packing(thread));
        });
      }
    });
  }

  /// Recomputes each tile's probabilities from the log-sums; a task is one key-value head of one sequence, so that its
  /// gradient is summed by one thread.
  void attention_backward(const AttentionShape& shape, View<const float> q, View<const float> k, View<const float> v,
                          View<const float> y, View<const float> log_sum, View<const float> dy, View<float> dq,
                          View<float> dk, View<float> dv, View<float> scratch) {
    using detail::Use;
    in_parallel([&](Index thread) {
      float* p = scratch.data + thread * 2 * tile * shape.time;
      float* dp = p + tile * shape.time;
      for (Index task = thread; task < shape.batch * shape.kv_heads; task += threads_) {
        const Index sequence = task / shape.kv_heads, kv = task % shape.kv_heads;
        for (const auto& gradient : {dk, dv}) {
          fill_zero(
              gradient.middle_rows(sequence * shape.time, shape.time).middle_cols(kv * shape.head_dim, shape.head_dim));
        }
        for (Index h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h) {
          const Head head(shape, sequence, h);
          for_each_tile(shape, [&](const Tile& at) {
            const View<float> probabilities = scaled_logits(shape, head, at, q, k, p, thread);
            const View<float> gradient(dp, at.queries, at.keys);
            const auto out = head.query(y, at), dout = head.query(dy, at);
            fill_zero(gradient);
            detail::gemm<Use::plain, Use::transposed>(1.0f, dout, head.key(v, at), gradient, packing(thread));
            for (Index i = 0; i < at.queries; ++i) {
              float* row = probabilities.row(i);
              float* drow = gradient.row(i);
              const float *a = out.row(i), *b = dout.row(i);
              const auto seen = at.visible(shape, i);
              const Index low = seen.low, high = seen.high;
              const float denominator = log_sum(head.first_row + at.first_query + i, h);
              const float mean = group.sum(shape.head_dim, [=](Index c) { return a[c] * b[c]; });
              const float scale = static_cast<float>(shape.scale);
              std::fill(row, row + low, 0.0f), std::fill(row + high, row + at.keys, 0.0f);
              std::fill(drow, drow + low, 0.0f), std::fill(drow + high, drow + at.keys, 0.0f);
              if (shape.dropout.active()) {
                const Index first = at.first_key;
                shape.dropout.each<float>(group, head.dropout_row(shape, at.first_query + i), shape.time, first + low,
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
            detail::gemm<Use::plain, Use::plain>(1.0f, gradient, head.key(k, at), head.query(dq, at), packing(thread));
            detail::gemm<Use::transposed, Use::plain>(1.0f, gradient, head.query(q, at), head.key(dk, at),
                                                      packing(thread));
            detail::gemm<Use::transposed, Use::plain>(1.0f, probabilities, dout, head.key(dv, at), packing(thread));
          });
        }
      }
    });
  }

 private:
#ifdef _OPENMP
  static constexpr bool has_openmp = true;
  static int default_threads() { return omp_get_max_threads(); }
#else
  static constexpr bool has_openmp = false;
  static int default_threads() { return 1; }
#endif
  static constexpr SerialGroup group{};
  static constexpr Index max_gemv_rows = 4;  // up to here a product reads weights at memory speed
  static constexpr Index many_rows = 48;     // from here, a thread, rows are shared rather than columns
  static constexpr Index tile = 64;          // queries that attention works on at once

  struct Share {
    Index first, count;
  };
  /// Thread number `thread`'s share of `size`, in multiples of 16 where that leaves all busy.
  Share share(Index size, Index thread) const {
    const Index unit = size >= 32 * threads_ ? 16 : 1, units = (size + unit - 1) / unit;
    const Index first = std::min(size, units * thread / threads_ * unit);
    return {first, std::min(size, units * (thread + 1) / threads_ * unit) - first};
  }

  template <class F>
  void in_parallel(F&& f) const {
#ifdef _OPENMP
    if (threads_ > 1) {
#pragma omp parallel num_threads(threads_)
      for (Index thread = omp_get_thread_num(); thread < threads_; thread += omp_get_num_threads()) f(thread);
      return;
    }
#endif
    f(Index{0});
  }

  detail::Packing& packing(Index thread) { return packing_[static_cast<std::size_t>(thread)]; }

  static void fill_zero(View<float> y) {
    for (Index n = 0; n < y.rows; ++n) std::fill(y.row(n), y.row(n) + y.cols, 0.0f);
  }

  /// y[:, first …] for `count` outputs, one dot product each; four rows of the weights stream side by side.
  static void dot_products(View<const float> x, View<const float> w, View<const float> bias, View<float> y, Index first,
                           Index count) {
    const Index depth = x.cols, last = first + count;
    for (Index o = first; o < last;) {
      const Index together = last - o >= 4 ? 4 : 1;
      for (Index n = 0; n < x.rows; ++n) {
        const float* a = x.row(n);
        if (together == 4) {
          const float *w0 = w.row(o), *w1 = w.row(o + 1), *w2 = w.row(o + 2), *w3 = w.row(o + 3);
          float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
          for (Index i = 0; i < depth; ++i) {
            s0 += a[i] * w0[i], s1 += a[i] * w1[i], s2 += a[i] * w2[i], s3 += a[i] * w3[i];
          }
          y(n, o) = s0, y(n, o + 1) = s1, y(n, o + 2) = s2, y(n, o + 3) = s3;
        } else {
          const float* w0 = w.row(o);
          y(n, o) = group.sum(depth, [=](Index i) { return a[i] * w0[i]; });
        }
        if (!bias.empty()) {
          for (Index j = o; j < o + together; ++j) y(n, j) += bias.data[j];
        }
      }
      o += together;
    }
  }

  void product(View<const float> x, View<const float> w, View<const float> bias, View<float> y, Index thread) {
    if (bias.empty()) {
      fill_zero(y);
    } else {
      for (Index n = 0; n < y.rows; ++n) std::copy_n(bias.data, y.cols, y.row(n));
    }
    detail::gemm<detail::Use::plain, detail::Use::transposed>(1.0f, x, w, y, packing(thread));
  }

  void input_gradient(View<const float> dy, View<const float> w, View<float> dx, Write write, Index thread) {
    if (write == Write::overwrite) fill_zero(dx);
    detail::gemm<detail::Use::plain, detail::Use::plain>(1.0f, dy, w, dx, packing(thread));
  }

  /// This thread's rows of dw.
  void weight_gradient(View<const float> dy, View<const float> x, View<float> dw, Index thread) {
    const auto [first, count] = share(dw.rows, thread);
    detail::gemm<detail::Use::transposed, detail::Use::plain>(1.0f, dy.middle_cols(first, count), x,
                                                              dw.middle_rows(first, count), packing(thread));
  }

  /// f(expert, first row, rows) for the part of each expert's rows that lies in [first, first + count).
  template <class F>
  static void for_each_expert(const Dispatch& dispatch, Index first, Index count, F f) {
    const ExpertRows rows = dispatch.expert_rows();
    for (Index e = 0; e < dispatch.experts(); ++e) {
      const Index low = std::max(rows.first(e), first), high = std::min(rows.last(e), first + count);
      if (low < high) f(e, low, high - low);
    }
  }

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
  static void for_each_tile(const AttentionShape& shape, F f) {
    for (Index first = 0; first < shape.time; first += tile) {
      const Index queries = std::min(tile, shape.time - first), first_key = shape.first_key(first);
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

  /// scale · q kᵀ of one tile, written to `memory`.
  View<float> scaled_logits(const AttentionShape& shape, const Head& head, const Tile& at, View<const float> q,
                            View<const float> k, float* memory, Index thread) {
    const View<float> logits(memory, at.queries, at.keys);
    fill_zero(logits);
    detail::gemm<detail::Use::plain, detail::Use::transposed>(static_cast<float>(shape.scale), head.query(q, at),
                                                              head.key(k, at), logits, packing(thread));
    return logits;
  }

  int threads_;
  std::unique_ptr<detail::Packing[]> packing_;
};

static_assert(Backend<Cpu>);

}  // namespace tinymoe::inline v0_1
