#pragma once
/// @file
/// The products of CpuBfloat16 on AMX by all threads: what they pack first, and how the products are cut into tasks.

#include <algorithm>
#include <cstddef>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/amx.hpp"
#include "tinymoe/cpu/float_kernels.hpp"
#include "tinymoe/cpu/products.hpp"
#include "tinymoe/cpu/tasks.hpp"
#include "tinymoe/cpu/team.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// The products, for banks of weights or single matrices, as in BasicCpu. What is packed grows to what has been needed.
class AmxProducts {
 public:
  explicit AmxProducts(int threads)
      : tasks_(threads), scratch_(allocate_host_memory(static_cast<std::size_t>(threads * amx::scratch_bytes))) {}

  /// y = x wᵀ + bias for each expert's rows. An expert's packed rows begin at a tile of their own.
  template <class Weights, class Biases>
  void forward(const Team& team, const Dots<bfloat16, bfloat16>& dots, View<const bfloat16> x, const Weights& w,
               const Biases& bias, const Dispatch& dispatch, View<bfloat16> y) {
    const ExpertRows all = dispatch.expert_rows();
    const auto place = [&](const Task& at) {
      const Index first = all.first(at.expert), start = (first / amx::tile_rows + at.expert) * amx::tile_rows;
      return packed_.bytes() + amx::packed_rows_bytes(start + at.row - first, x.cols);
    };
    tasks_.clear();
    for_each_expert(dispatch, [&](Index e, Index row, Index rows) {
      if (rows > max_few_rows) tasks_.cut({64, x.cols, 64, x.cols, amx::block_side, 1}, 1, {e, row, rows, 0, x.cols});
    });
    if (!tasks_.empty()) reserve(amx::packed_rows_bytes(x.rows + dispatch.experts() * amx::tile_rows, x.cols));
    tasks_.run(team, [&](const Task& at, Index) { amx::pack_rows(block(x, at), place(at)); });
    tasks_.clear();
    for_each_expert(dispatch, [&](Index e, Index row, Index rows) {
      const Task whole{e, row, rows, 0, y.cols};
      if (rows <= max_few_rows) return tasks_.cut_outputs(whole, x.cols);
      tasks_.cut(sizes, dispatch.rows, whole);
    });
    tasks_.run(team, [&](const Task& at, Index thread) {
      const View<const bfloat16> weights = w[at.expert],
                                 added = bias.empty() ? View<const bfloat16>() : bias[at.expert];
      if (all.count(at.expert) <= max_few_rows) {
        return multiply_few_rows(dots, x.middle_rows(at.row, at.rows), weights, added, y.middle_rows(at.row, at.rows),
                                 at.col, at.cols);
      }
      amx::forward(place(at), weights.middle_rows(at.col, at.cols),
                   added.empty() ? added : added.middle_cols(at.col, at.cols), block(y, at), scratch(thread));
    });
  }

  /// dx = dy w, or += that if `add`, for each expert's rows.
  template <class Weights>
  void input_gradient(const Team& team, View<const bfloat16> dy, const Weights& w, const Dispatch& dispatch,
                      View<bfloat16> dx, bool add) {
    tasks_.clear();
    for_each_expert(dispatch, [&](Index e, Index row, Index rows) {
      tasks_.cut(sizes, dispatch.rows, {e, row, rows, 0, dx.cols});
    });
    tasks_.run(team, [&](const Task& at, Index thread) {
      amx::input_gradient(dy.middle_rows(at.row, at.rows), w[at.expert].middle_cols(at.col, at.cols), block(dx, at),
                          add, scratch(thread));
    });
  }

  /// dw += dyᵀ x for each expert's rows.
  template <class Gradients>
  void weight_gradient(const Team& team, View<const bfloat16> dy, View<const bfloat16> x, const Dispatch& dispatch,
                       const Gradients& dw) {
    const ExpertRows all = dispatch.expert_rows();
    const auto rows_of_expert = [&](View<const bfloat16> a, const Task& at) {
      return a.middle_rows(all.first(at.expert), all.end(at.expert) - all.first(at.expert));
    };
    const auto place = [&](const Task& at) {
      const Index first = all.first(at.expert), start = (first / amx::tile_depth + at.expert) * amx::tile_depth;
      return packed_.bytes() + amx::packed_pairs_bytes(start, x.cols) +
             amx::packed_pairs_bytes(all.end(at.expert) - first, at.col);
    };
    tasks_.clear();
    for_each_expert(dispatch, [&](Index e, Index, Index) {
      tasks_.cut({1, 128, 1, 128, 1, amx::block_side}, 1, {e, 0, 1, 0, x.cols});
    });
    reserve(amx::packed_pairs_bytes(x.rows + dispatch.experts() * amx::tile_depth, x.cols));
    tasks_.run(team, [&](const Task& at, Index) {
      amx::pack_pairs(rows_of_expert(x, at).middle_cols(at.col, at.cols), place(at));
    });
    tasks_.clear();
    for_each_expert(dispatch, [&](Index e, Index, Index) {
      tasks_.cut({256, x.cols, 64, x.cols, amx::block_side, 1}, dy.cols * dispatch.experts(),
                 {e, 0, dy.cols, 0, x.cols});
    });
    tasks_.run(team, [&](const Task& at, Index thread) {
      amx::weight_gradient(rows_of_expert(dy, at).middle_cols(at.row, at.rows), place(at), block(dw[at.expert], at),
                           scratch(thread));
    });
  }

  /// amx::scratch_bytes of a thread.
  std::byte* scratch(Index thread) const { return scratch_.bytes() + thread * amx::scratch_bytes; }

 private:
  static constexpr Index max_few_rows = 3;  // up to so many rows of an expert are dot products
  static constexpr TaskSizes sizes{512, 512, 512, 64, amx::block_side, amx::block_side};

  void reserve(Index bytes) {
    const auto size = static_cast<std::size_t>(bytes);
    if (packed_.size() < size) packed_ = allocate_host_memory(size);
  }
  Tasks tasks_;
  Memory scratch_, packed_;
};

}  // namespace tinymoe::inline v0_1::detail::cpu
