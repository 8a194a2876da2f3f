#pragma once
/// @file
/// The CPU backend, in float32 and bfloat16: products, attention and row kernels for several instruction sets in one
/// binary (cpu/), on threads of its own.
///
/// The same inputs give the same bits for any number of threads: work is cut into tasks, each result is computed by one
/// task, and nothing is added atomically. Threads take tasks as they come.
///
/// Over 300 lines: each operation stands beside how it is cut into tasks.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/host.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/threads.hpp"
#include "tinymoe/cpu/amx_attention.hpp"
#include "tinymoe/cpu/amx_products.hpp"
#include "tinymoe/cpu/attention.hpp"
#include "tinymoe/cpu/block_products.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/launch.hpp"
#include "tinymoe/cpu/products.hpp"
#include "tinymoe/cpu/tasks.hpp"
#include "tinymoe/cpu/team.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// A single matrix where products expect a bank.
template <class T>
struct OneMatrix {
  View<T> matrix;
  View<T> operator[](Index) const { return matrix; }
  bool empty() const { return matrix.empty(); }
};

}  // namespace detail

/// Options of a CPU backend.
struct CpuOptions {
  int threads = 0;                                   // 0: as many as there are cores for this process
  std::optional<CpuInstructions> instructions = {};  // empty: what TINYMOE_CPU says, or the best
};

/// Runs models on the host's cores, with activations of type T: float or bfloat16. Sums, gradients and the weights that
/// are trained are float. One object serves one model at a time: its threads have scratch memory of their own.
template <class T>
class BasicCpu : public detail::HostBackend {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bfloat16>,
                "tinymoe::BasicCpu: activations are float or bfloat16");

 public:
  using Scalar = T;
  using Master = float;

  /// `threads` = 0 takes as many as OMP_NUM_THREADS says, or the cores.
  /// Throws OptionError for a number below 0 or above 4096, and for instructions that the processor does not have.
  explicit BasicCpu(int threads = 0) : BasicCpu(CpuOptions{.threads = threads}) {}
  explicit BasicCpu(const CpuOptions& options)
      : BasicCpu(checked_threads(options.threads), detail::cpu::chosen(options.instructions, rounds)) {}

 protected:
  /// For a set that is not asked for here whether it can be used: tests execute AMX's instructions by themselves.
  BasicCpu(int threads, CpuInstructions set)
      : team_(threads),
        set_(set),
        row_set_(detail::cpu::set_of_rows(set_)),
        tiles_(detail::cpu::tiles_of(set_)),
        packs_(detail::cpu::packs_of<T>(set_)),
        float_packs_(detail::cpu::packs_of<float>(set_)),
        dots_(detail::cpu::dots_of<T, T>(set_)),
        block_products_(set_),
        memory_(allocate(static_cast<std::size_t>(team_.threads()) * thread_floats * sizeof(float))),
        tasks_(team_.threads()) {
    if (has_amx_products && set_ == CpuInstructions::amx) on_amx_.emplace(team_.threads());
    const auto most = on_amx_ ? CpuInstructions::amx : rounds ? CpuInstructions::avx512 : CpuInstructions::vnni;
    name_ = detail::cpu::cpu_name_of(std::min(set_, most), row_set_);
  }

 public:
  /// "cpu, AVX-512 VNNI": the widest instructions that its products use, of float32 those with integer weights, and
  /// those of row kernels where they are others.
  const char* name() const { return name_.c_str(); }
  int threads() const { return team_.threads(); }
  /// The set that was chosen, of which not every type of number uses all.
  CpuInstructions instructions() const { return set_; }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    detail::cpu::launch_rows(team_, rows, detail::cpu::elements_of_row(kernel), &kernel,
                             detail::cpu::row_runner<Kernel>(row_set_));
  }

  void matmul(View<const T> x, View<const T> w, View<const T> bias, View<T> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    const detail::OneMatrix<const T> weights{w}, biases{bias};
    forward(x, weights, biases, Dispatch::to_one(x.rows), y);
  }

  void matmul_input(View<const T> dy, View<const T> w, View<T> dx, Write write) {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
    input_gradient(dy, detail::OneMatrix<const T>{w}, Dispatch::to_one(dy.rows), dx, write);
  }

  void matmul_weight(View<const T> dy, View<const T> x, View<float> dw) {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols);
    weight_gradient(dy, x, Dispatch::to_one(dy.rows), detail::OneMatrix<float>{dw});
  }

  void grouped_matmul(View<const T> x, Bank<const T> w, Bank<const T> bias, const Dispatch& dispatch, View<T> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows && dispatch.experts() == w.count);
    forward(x, w, bias, dispatch, y);
  }

  /// The same with integer weights. On AVX512-VNNI activations are rounded to 8 bits, with a scale for 32 of them.
  template <class Block>
  requires std::is_same_v<T, float>
  void matmul(View<const T> x, const detail::BlockView<Block>& w, View<const T> bias, View<T> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    const detail::BlockBank<Block> one{w.data, 0, 1, w.rows, w.cols};
    block_products_(team_, x, one, detail::OneMatrix<const T>{bias}, Dispatch::to_one(x.rows), y);
  }
  template <class Block>
  requires std::is_same_v<T, float>
  void grouped_matmul(View<const T> x, const detail::BlockBank<Block>& w, Bank<const T> bias, const Dispatch& dispatch,
                      View<T> y) {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows && dispatch.experts() == w.count);
    block_products_(team_, x, w, bias, dispatch, y);
  }

  void grouped_matmul_input(View<const T> dy, Bank<const T> w, const Dispatch& dispatch, View<T> dx) {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols && dispatch.experts() == w.count);
    input_gradient(dy, w, dispatch, dx, Write::overwrite);
  }

  void grouped_matmul_weight(View<const T> dy, View<const T> x, const Dispatch& dispatch, Bank<float> dw) {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols && dispatch.experts() == dw.count);
    weight_gradient(dy, x, dispatch, dw);
  }

  Index attention_scratch(const AttentionShape& shape) const {
    if (on_amx_) return scratch_elements<T>(detail::cpu::AmxAttention::scratch(shape));
    return scratch_elements<T>(detail::cpu::AttentionTiles<T>::scratch(shape));
  }
  Index cache_attention_scratch(const AttentionShape& shape) const {
    return scratch_elements<float>(cache_floats(shape));
  }

  /// A task is a head of a sequence.
  void attention_forward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v, View<T> y,
                         View<float> log_sum, View<T> scratch) {
    team_.run(shape.batch * shape.heads, [&](Index task, Index thread) {
      if constexpr (has_amx_products) {
        if (on_amx_) return amx_attention(shape, scratch.data, thread).forward(task, q, k, v, y, log_sum);
      }
      attention_tiles(shape, scratch.data, thread, detail::cpu::AttentionTiles<T>::scratch(shape))
          .forward(task, q, k, v, y, log_sum);
    });
  }

  /// A task is a key-value head of a sequence.
  void attention_backward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v,
                          View<const T> y, View<const float> log_sum, View<const T> dy, View<T> dq, View<T> dk,
                          View<T> dv, View<T> scratch) {
    team_.run(shape.batch * shape.kv_heads, [&](Index task, Index thread) {
      if constexpr (has_amx_products) {
        if (on_amx_) {
          return amx_attention(shape, scratch.data, thread).backward(task, q, k, v, y, log_sum, dy, dq, dk, dv);
        }
      }
      attention_tiles(shape, scratch.data, thread, detail::cpu::AttentionTiles<T>::scratch(shape))
          .backward(task, q, k, v, y, log_sum, dy, dq, dk, dv);
    });
  }

  /// A task is some queries of a head; the last ones see the most keys and come first.
  template <class Softmax>
  void attend_to_cache(const AttentionShape& shape, Index first_position, View<const T> q, View<const T> key,
                       View<const T> value, View<T> y, const Softmax& softmax, View<float> scratch) {
    constexpr Index height = detail::cpu::AttentionTile::most_queries;
    AttentionShape of_cache = shape;
    of_cache.time = key.rows;
    const Index tiles = (q.rows + height - 1) / height;
    team_.run(tiles * shape.heads, [&](Index task, Index thread) {
      const Index first = (tiles - 1 - task / shape.heads) * height;
      const Index seen = std::min(key.rows, first_position + std::min(first + height, q.rows));
      if constexpr (has_amx_products) {
        if (on_amx_ && q.rows - first >= detail::cpu::AmxAttention::least_queries) {
          return amx_attention(of_cache, scratch.data, thread, true)
              .to_cache(task % shape.heads, first, seen, q, key, value, y, softmax);
        }
      }
      attention_tiles(of_cache, scratch.data, thread, cache_floats(of_cache))
          .to_cache(task % shape.heads, first, seen, q, key, value, y, softmax);
    });
  }

 private:
  using Panels = detail::cpu::Panels;
  using Task = detail::cpu::Task;
  static constexpr bool rounds = !std::is_same_v<T, float>;
  static constexpr Index max_task_rows = 2 * Panels::max_rows;
  static constexpr Index thread_floats = Panels::size + (rounds ? max_task_rows * Panels::max_cols : 0);
  /// Up to so many rows of an expert are dot products, which is faster than packing them. An expert's rows decide and
  /// not a task's, which depend on the number of threads.
  static constexpr Index max_few_rows = 8;
  static constexpr bool has_amx_products = rounds && detail::cpu::amx::compiled;

  Panels panels(Index thread) const { return Panels(memory_.template as<float>().data + thread * thread_floats); }

  /// Elements of type S in which each thread has so many floats; they may begin anywhere.
  template <class S>
  Index scratch_elements(Index floats) const {
    const auto bytes = static_cast<std::size_t>(threads() * floats) * sizeof(float);
    return static_cast<Index>((bytes + memory_alignment) / sizeof(S));
  }

  /// What each thread has of the scratch memory of a cache's attention.
  Index cache_floats(const AttentionShape& shape) const {
    const Index of_tiles = detail::cpu::AttentionTiles<T>::cache_scratch(shape);
    return on_amx_ ? std::max(of_tiles, detail::cpu::AmxAttention::cache_scratch(shape)) : of_tiles;
  }

  detail::cpu::AmxAttention amx_attention(const AttentionShape& shape, void* scratch, Index thread,
                                          bool of_cache = false) const {
    const Index floats = of_cache ? cache_floats(shape) : detail::cpu::AmxAttention::scratch(shape);
    return {shape, row_set_, on_amx_->scratch(thread), aligned_floats(scratch) + thread * floats};
  }

  /// On a thread's part of the scratch memory, in which each has so many floats.
  detail::cpu::AttentionTiles<T> attention_tiles(const AttentionShape& shape, void* scratch, Index thread,
                                                 Index floats) const {
    return {shape, row_set_, tiles_, packs_, float_packs_, panels(thread), aligned_floats(scratch) + thread * floats};
  }
  static float* aligned_floats(void* scratch) {
    return reinterpret_cast<float*>(detail::round_up(reinterpret_cast<std::uintptr_t>(scratch), memory_alignment));
  }

  /// y = x wᵀ + bias for each expert's rows.
  template <class Weights, class Biases>
  void forward(View<const T> x, const Weights& w, const Biases& bias, const Dispatch& dispatch, View<T> y) {
    if constexpr (has_amx_products) {
      if (on_amx_) return on_amx_->forward(team_, dots_, x, w, bias, dispatch, y);
    }
    tasks_.clear();
    detail::cpu::for_each_expert(dispatch, [&](Index e, Index row, Index rows) {
      const Task whole{e, row, rows, 0, y.cols};
      if (rows <= max_few_rows) return tasks_.cut_outputs(whole, x.cols);
      tasks_.cut(Panels::reads_rows(tiles_, w[e], rows) ? sizes_by_rows() : sizes(), dispatch.rows, whole);
    });
    const ExpertRows of_experts = dispatch.expert_rows();
    tasks_.run(team_, [&](const Task& at, Index thread) {
      const View<const T> from = x.middle_rows(at.row, at.rows),
                          added = bias.empty() ? View<const T>() : bias[at.expert];
      const auto weights = w[at.expert];
      if (of_experts.count(at.expert) <= max_few_rows) {
        return detail::cpu::multiply_few_rows(dots_, from, View<const T>(weights), added,
                                              y.middle_rows(at.row, at.rows), at.col, at.cols);
      }
      const View<const T> some = weights.middle_rows(at.col, at.cols),
                          bias_of_some = added.empty() ? added : added.middle_cols(at.col, at.cols);
      if constexpr (!rounds) {
        if (Panels::reads_rows(tiles_, some, at.rows)) {
          const View<T> to = block(y, at);
          for (Index n = 0; n < to.rows && !added.empty(); ++n) std::copy_n(bias_of_some.data, to.cols, to.row(n));
          return panels(thread).multiply_by_rows(tiles_, rows_of(from, packs_), some, to, !added.empty());
        }
      }
      write(panels(thread), rows_of(from, packs_), rows_of(some, packs_), bias_of_some, block(y, at), Write::overwrite,
            thread);
    });
  }

  /// dx = dy w, or dx += dy w, for each expert's rows.
  template <class Weights>
  void input_gradient(View<const T> dy, const Weights& w, const Dispatch& dispatch, View<T> dx, Write how) {
    if constexpr (has_amx_products) {
      if (on_amx_) return on_amx_->input_gradient(team_, dy, w, dispatch, dx, how == Write::accumulate);
    }
    tasks_.clear();
    detail::cpu::for_each_expert(dispatch, [&](Index e, Index row, Index rows) {
      tasks_.cut(sizes(), dispatch.rows, {e, row, rows, 0, dx.cols});
    });
    tasks_.run(team_, [&](const Task& at, Index thread) {
      write(panels(thread), rows_of(dy.middle_rows(at.row, at.rows), packs_),
            columns_of(View<const T>(w[at.expert].middle_cols(at.col, at.cols)), packs_), {}, block(dx, at), how,
            thread);
    });
  }

  /// dw += dyᵀ x for each expert's rows.
  template <class Gradients>
  void weight_gradient(View<const T> dy, View<const T> x, const Dispatch& dispatch, const Gradients& dw) {
    if constexpr (has_amx_products) {
      if (on_amx_) return on_amx_->weight_gradient(team_, dy, x, dispatch, dw);
    }
    tasks_.clear();
    const ExpertRows rows = dispatch.expert_rows();
    detail::cpu::for_each_expert(dispatch, [&](Index e, Index, Index) {
      tasks_.cut(sizes(), dy.cols * dispatch.experts(), {e, 0, dy.cols, 0, x.cols});
    });
    tasks_.run(team_, [&](const Task& at, Index thread) {
      const Index first = rows.first(at.expert), count = rows.end(at.expert) - first;
      panels(thread).multiply(tiles_, columns_of(dy.middle_rows(first, count).middle_cols(at.row, at.rows), packs_),
                              columns_of(x.middle_rows(first, count).middle_cols(at.col, at.cols), packs_),
                              block(dw[at.expert], at), true);
    });
  }

  /// c = a bᵀ + bias, or c += a bᵀ, rounded to T.
  void write(const Panels& panels, const detail::cpu::Operand& a, const detail::cpu::Operand& b, View<const T> bias,
             View<T> c, Write how, Index thread) const {
    View<float> sums;
    if constexpr (rounds) {
      sums = View<float>(memory_.template as<float>().data + thread * thread_floats + Panels::size, c.rows, c.cols);
    } else {
      sums = c;
    }
    const bool add = how == Write::accumulate || !bias.empty();
    if (how == Write::accumulate ? rounds : !bias.empty()) {
      for (Index n = 0; n < c.rows; ++n) {
        const T* const from = how == Write::accumulate ? c.row(n) : bias.data;
        std::transform(from, from + c.cols, sums.row(n), [](T value) { return static_cast<float>(value); });
      }
    }
    panels.multiply(tiles_, a, b, sums, add);
    if constexpr (rounds) detail::cpu::run_rows(row_set_, kernels::RoundRow<T>{sums, c}, 0, c.rows);
  }

  detail::cpu::TaskSizes sizes() const { return {max_task_rows, Panels::max_cols, 42, 64, tiles_.rows, tiles_.cols}; }
  /// Of products that read these weights where they lie.
  detail::cpu::TaskSizes sizes_by_rows() const {
    return {max_task_rows, 36 * tiles_.rows, 32, 4 * tiles_.rows, tiles_.cols, tiles_.rows};
  }

  static int checked_threads(int threads) {
    detail::check_options("Cpu", {{"threads", threads, detail::range::whole(0, detail::max_threads)}});
    return threads > 0 ? threads : detail::default_threads();
  }

  detail::cpu::Team team_;
  CpuInstructions set_, row_set_;
  detail::cpu::Tiles tiles_;
  detail::cpu::Packs<T> packs_;
  detail::cpu::Packs<float> float_packs_;
  detail::cpu::Dots<T, T> dots_;
  detail::cpu::BlockProducts block_products_;
  Memory memory_;  // of the threads
  detail::cpu::Tasks tasks_;
  std::optional<detail::cpu::AmxProducts> on_amx_;
  std::string name_;
};

/// The CPU in float32.
using Cpu = BasicCpu<float>;
/// The CPU in bfloat16, with float32 masters.
using CpuBfloat16 = BasicCpu<bfloat16>;
static_assert(Backend<Cpu> && Backend<CpuBfloat16>);
static_assert(MultipliesBy<Cpu, Int8> && MultipliesBy<Cpu, Int4>);
static_assert(CacheAttentionBackend<Cpu> && CacheAttentionBackend<CpuBfloat16>);

}  // namespace tinymoe::inline v0_1
