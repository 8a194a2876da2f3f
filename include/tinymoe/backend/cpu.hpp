#pragma once
/// @file
/// The CPU backend, float32: Eigen for matrix products, vectorised row kernels, OpenMP for threads.
///
/// The same inputs and number of threads give the same bits: work is cut by fixed rules and nothing is added
/// atomically.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <memory>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/cpu_attention.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/gemm.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/host.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// Runs models on the host's cores. One object serves one model at a time: its threads have scratch memory of their
/// own.
class Cpu : public detail::HostBackend {
 public:
  using Scalar = float;
  using Master = float;

  /// `threads` = 0 takes as many as OpenMP offers (OMP_NUM_THREADS, or the cores); without OpenMP there is one.
  /// Throws OptionError for a number below 0 or above 4096.
  explicit Cpu(int threads = 0) : threads_(threads > 0 && has_openmp ? threads : default_threads()) {
    detail::check_options("Cpu", {{"threads", threads, detail::range::whole(0, detail::max_threads)}});
    packing_ = std::make_unique<detail::Packing[]>(static_cast<std::size_t>(threads_));
  }

  static constexpr const char* name() { return "cpu"; }
  int threads() const { return threads_; }

  template <RowKernel Kernel>
  [[gnu::noinline]] void launch(Index rows, const Kernel& kernel) const {
    const auto run = [this, rows, &kernel](Index thread) {
      const Index end = rows * (thread + 1) / threads_;
      for (Index row = rows * thread / threads_; row < end; ++row) kernel(SerialGroup{}, row);
    };
    if (rows > 1) return in_parallel(run);
    if (rows == 1) kernel(SerialGroup{}, 0);
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

  /// Threads share the rows of every expert's gradient, so that an expert with many tokens keeps no thread waiting.
  void grouped_matmul_weight(View<const float> dy, View<const float> x, const Dispatch& dispatch, Bank<float> dw) {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols && dispatch.experts() == dw.count);
    in_parallel([&](Index thread) {
      for_each_expert(dispatch, 0, x.rows, [&](Index e, Index row, Index rows) {
        weight_gradient(dy.middle_rows(row, rows), x.middle_rows(row, rows), dw[e], thread);
      });
    });
  }

  Index attention_scratch(const AttentionShape& shape) const {
    return threads_ * detail::AttentionTiles::scratch(shape);
  }

  /// Threads share the heads of the sequences.
  void attention_forward(const AttentionShape& shape, View<const float> q, View<const float> k, View<const float> v,
                         View<float> y, View<float> log_sum, View<float> scratch) {
    in_parallel([&](Index thread) {
      const auto tiles = attention_tiles(shape, scratch, thread);
      for (Index task = thread; task < shape.batch * shape.heads; task += threads_) {
        tiles.forward(task, q, k, v, y, log_sum);
      }
    });
  }

  /// Threads share the key-value heads of the sequences.
  void attention_backward(const AttentionShape& shape, View<const float> q, View<const float> k, View<const float> v,
                          View<const float> y, View<const float> log_sum, View<const float> dy, View<float> dq,
                          View<float> dk, View<float> dv, View<float> scratch) {
    in_parallel([&](Index thread) {
      const auto tiles = attention_tiles(shape, scratch, thread);
      for (Index task = thread; task < shape.batch * shape.kv_heads; task += threads_) {
        tiles.backward(task, q, k, v, y, log_sum, dy, dq, dk, dv);
      }
    });
  }

 private:
#ifdef _OPENMP
  static constexpr bool has_openmp = true;
  /// What OMP_NUM_THREADS asks for may be far more than the system can start, which would end the process.
  static int default_threads() { return std::min(omp_get_max_threads(), std::max(256, omp_get_num_procs())); }
#else
  static constexpr bool has_openmp = false;
  static int default_threads() { return 1; }
#endif
  static constexpr SerialGroup group{};
  static constexpr Index max_gemv_rows = 4;  // up to here a product reads weights at memory speed
  static constexpr Index many_rows = 48;     // for each thread: from here they share rows, not columns

  struct Share {
    Index first, count;
  };
  /// The part of `size` that thread number `thread` takes, in multiples of 16 if that leaves no thread idle.
  Share share(Index size, Index thread) const {
    const Index unit = size >= 32 * threads_ ? 16 : 1, units = (size + unit - 1) / unit;
    const Index first = std::min(size, units * thread / threads_ * unit);
    return {first, std::min(size, units * (thread + 1) / threads_ * unit) - first};
  }

  /// run(f, thread) on each thread. It is no template, so that a kernel has no parallel region of its own, which each
  /// program would compile.
  [[gnu::noinline]] void on_threads(const void* f, void (*run)(const void* f, Index thread)) const {
#ifdef _OPENMP
    if (threads_ > 1) {
#pragma omp parallel num_threads(threads_)
      for (Index thread = omp_get_thread_num(); thread < threads_; thread += omp_get_num_threads()) run(f, thread);
      return;
    }
#endif
    run(f, 0);
  }

  /// f(thread) on each thread.
  template <class F>
  void in_parallel(const F& f) const {
    on_threads(&f, [](const void* of, Index thread) { (*static_cast<const F*>(of))(thread); });
  }

  detail::Packing& packing(Index thread) { return packing_[static_cast<std::size_t>(thread)]; }

  detail::AttentionTiles attention_tiles(const AttentionShape& shape, View<float> scratch, Index thread) {
    return {shape, scratch.data + thread * detail::AttentionTiles::scratch(shape), packing(thread)};
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
      detail::fill_zero(y);
    } else {
      for (Index n = 0; n < y.rows; ++n) std::copy_n(bias.data, y.cols, y.row(n));
    }
    detail::gemm<detail::Use::plain, detail::Use::transposed>(1.0f, x, w, y, packing(thread));
  }

  void input_gradient(View<const float> dy, View<const float> w, View<float> dx, Write write, Index thread) {
    if (write == Write::overwrite) detail::fill_zero(dx);
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
      const Index low = std::max(rows.first(e), first), high = std::min(rows.end(e), first + count);
      if (low < high) f(e, low, high - low);
    }
  }

  int threads_;
  std::unique_ptr<detail::Packing[]> packing_;
};

static_assert(Backend<Cpu>);

}  // namespace tinymoe::inline v0_1
