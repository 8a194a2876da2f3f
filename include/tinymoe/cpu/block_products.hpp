#pragma once
/// @file
/// Forward products of the CPU with integer weights (core/block_weights.hpp): on AVX512-VNNI with activations of 8 bits
/// (cpu/vnni.hpp), elsewhere with weights that become float in the cache.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/float_kernels.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/products.hpp"
#include "tinymoe/cpu/tasks.hpp"
#include "tinymoe/cpu/team.hpp"
#include "tinymoe/cpu/vectors.hpp"
#include "tinymoe/cpu/vnni.hpp"
#include "tinymoe/cpu/vnni_panels.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// The integers of a block, side by side.
TINYMOE_INLINE const std::byte* integers_of(const Q8Block*, const std::byte* block, std::int8_t*) { return block + 2; }
TINYMOE_INLINE const std::byte* integers_of(const Q4Block*, const std::byte* block, std::int8_t* to) {
  typedef std::uint8_t Pairs __attribute__((vector_size(16)));
  Pairs pairs;
  std::memcpy(&pairs, block + 2, sizeof pairs);
  const Pairs low = (pairs & 15) - 8, high = (pairs >> 4) - 8;
  std::memcpy(to, &low, sizeof low), std::memcpy(to + 16, &high, sizeof high);
  return reinterpret_cast<const std::byte*>(to);
}

/// The weights of `count` blocks as float.
template <int lanes, class Block>
TINYMOE_INLINE void decode_blocks(const std::byte* block, Index count, float* to) {
  typedef std::int8_t Integers __attribute__((vector_size(lanes)));
  for (Index b = 0; b < count; ++b, block += Block::bytes) {
    std::int8_t copy[block_weights];
    const std::byte* from = integers_of(static_cast<const Block*>(nullptr), block, copy);
    const float scale = block_scale(block);
#pragma GCC unroll 8
    for (Index i = 0; i < block_weights; i += lanes, to += lanes) {
      Integers integers;
      std::memcpy(&integers, from + i, sizeof integers);
      store<lanes>(to, __builtin_convertvector(integers, Floats<lanes>) * scale);
    }
  }
}
using DecodeBlocks = void (*)(const std::byte* block, Index count, float* to);

template <class Block>
struct BlockDecoders {
  static void baseline(const std::byte* block, Index count, float* to) { decode_blocks<4, Block>(block, count, to); }
#ifdef TINYMOE_TARGET_AVX512
  TINYMOE_TARGET_AVX2 static void avx2(const std::byte* block, Index count, float* to) {
    decode_blocks<8, Block>(block, count, to);
  }
  TINYMOE_TARGET_AVX512 static void avx512(const std::byte* block, Index count, float* to) {
    decode_blocks<16, Block>(block, count, to);
  }
#endif
  static DecodeBlocks of([[maybe_unused]] CpuInstructions set) {
#ifdef TINYMOE_TARGET_AVX512
    if (set >= CpuInstructions::avx512) return avx512;
    if (set == CpuInstructions::avx2) return avx2;
#endif
    return baseline;
  }
};

/// The products of one backend, with their scratch memory, which grows to what the largest product needs.
class BlockProducts {
 public:
  explicit BlockProducts(CpuInstructions set) : set_(set) {}

  /// y = x wᵀ + bias for each expert's rows; `w[e]` is a BlockView.
  template <class Weights, class Biases>
  void operator()(const Team& team, View<const float> x, const Weights& w, const Biases& bias, const Dispatch& dispatch,
                  View<float> y) {
    using Block = typename decltype(w[Index{}])::Block;
    if (x.rows == 0) return;
    tasks_.clear();
    const Index blocks = BlockView<Block>::blocks(x.cols);
    for_each_expert(dispatch, [&](Index e, Index row, Index rows) { cut(team, {e, row, rows, 0, y.cols}, x.cols); });
    const Kernels kernels = kernels_of<Block>(x.cols);
    prepare(team, kernels, x);
    team.run(std::ssize(tasks_), [&](Index number, Index thread) {
      const Task& task = tasks_[static_cast<std::size_t>(number)];
      const BlockView<Block> weights = w[task.expert].middle_rows(task.col, task.cols);
      const View<const float> added =
          bias.empty() ? View<const float>() : View<const float>(bias[task.expert]).middle_cols(task.col, task.cols);
      multiply(kernels, x, task, weights.data, blocks, added, block(y, task), thread);
    });
  }

 private:
  /// What differs between formats, such that the rest is compiled once.
  struct Kernels {
    DecodeBlocks decode;
    std::size_t block_bytes;
    Index cols;
#ifdef TINYMOE_TARGET_AVX512
    int offset;
    void (*dots)(const std::byte* weights, Index outputs, Index blocks, const vnni::Rows& x, Index row,
                 const float* bias, float* y);
    void (*pack)(const std::byte* weights, Index outputs, Index blocks, std::byte* panel);
#endif
    Packs<float> packs;
  };
  template <class Block>
  Kernels kernels_of(Index cols) const {
    return {BlockDecoders<Block>::of(set_),
            Block::bytes,
            cols,
#ifdef TINYMOE_TARGET_AVX512
            vnni::offset<Block>,
            vnni::dot_products<Block>,
            vnni::pack_panel<Block>,
#endif
            packs_of<float>(set_)};
  }

  /// So many rows multiply weights that are decoded but not packed.
  static constexpr Index max_few_rows = 4;
  static constexpr Index decoded_outputs = one_row_outputs;

  bool vnni() const { return set_ >= CpuInstructions::vnni; }

  /// Cuts an expert's outputs into tasks by fixed rules.
  [[gnu::noinline]] void cut(const Team& team, const Task& all, Index depth) {
    constexpr Index worth = Index{1} << 17;  // weights times rows: enough to be worth a thread's while
    constexpr Index unit = 32;
    const Index units = (all.cols + unit - 1) / unit, work = all.cols * depth * all.rows;
    const Index pieces = std::clamp<Index>(std::min(work / worth, 4 * Index{team.threads()}), 1, units);
    for (Index piece = 0; piece < pieces; ++piece) {
      const Index first = units * piece / pieces * unit, end = std::min(all.cols, units * (piece + 1) / pieces * unit);
      tasks_.push_back({all.expert, all.row, all.rows, first, end - first});
    }
  }

  static std::size_t aligned(std::size_t bytes) { return round_up(bytes, memory_alignment); }

  /// Reserves the scratch memory of a product, and rounds its activations.
  [[gnu::noinline]] void prepare(const Team& team, const Kernels& kernels, View<const float> x) {
    const Index blocks = BlockView<Q8Block>::blocks(x.cols);
    std::size_t shared = 0;
    thread_bytes_ = aligned(static_cast<std::size_t>(Panels::size) * sizeof(float)) +
                    static_cast<std::size_t>(decoded_outputs * blocks * block_weights) * sizeof(float);
#ifdef TINYMOE_TARGET_AVX512
    if (vnni()) {
      shared = aligned(static_cast<std::size_t>(x.rows * vnni::Rows::stride_of(x.cols)) * vnni::Rows::group_bytes);
      thread_bytes_ = aligned(static_cast<std::size_t>(blocks) * vnni::panel_group_bytes);
    }
#endif
    const std::size_t needed = shared + thread_bytes_ * static_cast<std::size_t>(team.threads());
    if (memory_.size() < needed) memory_ = allocate_host_memory(needed);
    shared_bytes_ = shared;
#ifdef TINYMOE_TARGET_AVX512
    if (!vnni()) return;
    const vnni::Rows rounded(memory_.bytes(), x.rows, x.cols);
    constexpr Index worth = 8192;  // activations
    const Index pieces = std::clamp<Index>(x.size() / worth, 1, std::min(x.rows, 4 * Index{team.threads()}));
    team.run(pieces, [&](Index piece, Index) {
      for (Index row = x.rows * piece / pieces; row < x.rows * (piece + 1) / pieces; ++row) {
        vnni::round_row(x.row(row), x.cols, kernels.offset, rounded, row);
      }
    });
#endif
  }

  [[gnu::noinline]] void multiply(const Kernels& kernels, View<const float> x, const Task& task,
                                  const std::byte* weights, Index blocks, View<const float> bias, View<float> y,
                                  Index thread) const {
    std::byte* const own = memory_.bytes() + shared_bytes_ + thread_bytes_ * static_cast<std::size_t>(thread);
    const std::size_t row_bytes = static_cast<std::size_t>(blocks) * kernels.block_bytes;
#ifdef TINYMOE_TARGET_AVX512
    if (vnni()) {
      const vnni::Rows rounded(memory_.bytes(), x.rows, x.cols);
      for (Index o = 0; o < y.cols; o += vnni::panel_outputs) {
        const Index outputs = std::min(vnni::panel_outputs, y.cols - o);
        const std::byte* from = weights + static_cast<std::size_t>(o) * row_bytes;
        const View<const float> added = bias.empty() ? bias : bias.middle_cols(o, outputs);
        if (y.rows == 1) {
          kernels.dots(from, outputs, blocks, rounded, task.row, added.data, y.data + o);
        } else {
          kernels.pack(from, outputs, blocks, own);
          vnni::multiply_panel(own, blocks, rounded, task.row, added, y.middle_cols(o, outputs));
        }
      }
      return;
    }
#endif
    const View<const float> rows = x.middle_rows(task.row, task.rows);
    float* const floats = reinterpret_cast<float*>(own);
    if (task.rows <= max_few_rows) {
      const Dots<float, float> dots = dots_of<float, float>(set_);
      float* const decoded = floats + aligned(static_cast<std::size_t>(Panels::size) * sizeof(float)) / sizeof(float);
      const Index width = blocks * block_weights;
      for (Index o = 0; o < y.cols; o += decoded_outputs) {
        const Index outputs = std::min(decoded_outputs, y.cols - o);
        for (Index i = 0; i < outputs; ++i) {
          kernels.decode(weights + static_cast<std::size_t>(o + i) * row_bytes, blocks, decoded + i * width);
        }
        multiply_few_rows(dots, rows, View<const float>(decoded, outputs, x.cols, width),
                          bias.empty() ? bias : bias.middle_cols(o, outputs), y.middle_cols(o, outputs), 0, outputs);
      }
      return;
    }
    for (Index n = 0; n < y.rows && !bias.empty(); ++n) std::copy_n(bias.data, y.cols, y.row(n));
    Panels(floats).multiply(tiles_of(set_), rows_of(rows, kernels.packs),
                            lines_of(kernels, weights, static_cast<Index>(row_bytes), y.cols), y, !bias.empty());
  }

  /// Rows of blocks as lines of a product.
  static Operand lines_of(const Kernels& kernels, const std::byte* weights, Index row_bytes, Index rows) {
    return {weights,
            row_bytes,
            rows,
            kernels.cols,
            [](const Operand& from, Index first, Index lines, Index k, Index depth, Index width, float* to) {
              // Depths of panels are multiples of a block's, but for the last.
              constexpr Index lines_at_once = 32;
              const auto& own = *static_cast<const Kernels*>(from.packs);
              alignas(64) float decoded[lines_at_once * Panels::max_depth];
              const Index blocks = (depth + block_weights - 1) / block_weights, wide = blocks * block_weights;
              for (Index line = 0; line < lines; ++line) {
                own.decode(static_cast<const std::byte*>(from.data) + (first + line) * from.stride +
                               static_cast<std::size_t>(k / block_weights) * own.block_bytes,
                           blocks, decoded + line * wide);
              }
              own.packs.rows(decoded, wide, lines, depth, width, to);
            },
            &kernels};
  }
  static_assert(Panels::max_depth % block_weights == 0);

  CpuInstructions set_;
  std::vector<Task> tasks_;
  Memory memory_;  // the rounded activations, then each thread's
  std::size_t shared_bytes_ = 0, thread_bytes_ = 0;
};

}  // namespace tinymoe::inline v0_1::detail::cpu
