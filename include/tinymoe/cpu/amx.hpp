#pragma once
/// @file
/// Products of bfloat16 matrices with float32 sums on the processor's matrix unit (AMX): each function does one task of
/// one thread. The processor must have AMX (cpu/instructions.hpp) and AVX512-BF16, which came before it.
///
/// Weights are read as they lie, row after row; only rows that many tasks share are packed, once for all of them. Every
/// sum runs over the depth in order, whatever the tasks, so their cut changes no bits. Nothing is read or written
/// outside a view. Numbers are rounded to nearest even; denormal ones count as zero, as on the matrix unit.
///
/// Blocks of 32 × 32 sums stay in four tiles for up to 512 of depth, each operand in two: an operation for each tile
/// loaded. The 32 rows of the left operand stay near while panels of the right one pass from the second-level cache;
/// its next rows are fetched meanwhile. A block's sums are rounded and written while the unit works on the next block.

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/amx_pack.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu::amx {

/// Whether this program has the products.
#if defined(TINYMOE_AMX)
inline constexpr bool compiled = true;
#else
inline constexpr bool compiled = false;
#endif

inline constexpr Index most_steps = 16;             // tiles of depth before the sums leave their registers
inline constexpr Index most_rows = 512;             // at a time, in the products whose results are bfloat16
inline constexpr Index most_columns = 256;          // of weights that are interleaved at a time
inline constexpr Index packed_budget = 512 * 1024;  // bytes of the second-level cache for a packed operand
inline constexpr Index worth_a_copy = 4;            // uses of a left operand that lies badly
inline constexpr Index block_numbers = block_side * block_side;

/// Where things lie in a thread's scratch: a copy of a left operand, the biases of a block, sums, a packed operand.
inline constexpr Index copy_bytes = block_side * most_steps * line;
inline constexpr Index sums_at = copy_bytes + block_side * line;
inline constexpr Index packed_at = sums_at + most_rows * most_columns * Index{sizeof(float)};
/// The scratch of one thread, for each of the functions; it begins at a multiple of 64 bytes.
inline constexpr Index scratch_bytes = packed_at + packed_budget;
static_assert(most_steps * tile_depth * most_columns * Index{sizeof(bfloat16)} <= packed_budget);

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#if defined(TINYMOE_AMX)

namespace tinymoe::inline v0_1::detail::cpu::amx {

constexpr Index pieces_of(Index size, Index most) { return (size + most - 1) / most; }
/// The size of each piece but the last, for as few and as equal pieces as there can be.
constexpr Index piece_of(Index size, Index most) { return pieces_of(size, pieces_of(size, most)); }

TINYMOE_INLINE Sums block_of_sums(std::byte* scratch, Index number) {
  return {reinterpret_cast<float*>(scratch + sums_at) + number * block_numbers, block_side * Index{sizeof(float)}};
}

/// A block of finished sums that is written once the matrix unit has the next block to work on.
struct Waiting {
  const float* sums = nullptr;
  View<bfloat16> to{};

  /// Two blocks are used in turn where no sums wait for more depth: the one that is free.
  TINYMOE_INLINE Index free(std::byte* scratch) const { return sums == block_of_sums(scratch, 0).data ? 1 : 0; }

  TINYMOE_TARGET_AMX void finish_transposed() {
    if (sums != nullptr) write_transposed(sums, to);
    sums = nullptr;
  }
  TINYMOE_TARGET_AMX void finish_groups(bool add) {
    if (sums != nullptr) write_groups(sums, to, add);
    sums = nullptr;
  }
};

/// forward() for up to 32 outputs. `next_w` comes after them. It may leave a block waiting.
TINYMOE_TARGET_AMX inline void forward_outputs(const std::byte* packed_x, View<const bfloat16> w,
                                               View<const bfloat16> next_w, View<const bfloat16> bias, View<bfloat16> y,
                                               std::byte* scratch, Waiting& waiting) {
  const Index depth = w.cols, steps = steps_of(depth), each = piece_of(steps, most_steps);
  const Index panels = pieces_of(y.rows, block_side);
  Sums biases{nullptr, line};
  if (!bias.empty()) {
    biases.data = reinterpret_cast<float*>(scratch + copy_bytes);
    for (Index o = 0; o < block_side; ++o) {
      reinterpret_cast<Floats<16>*>(biases.data)[o] = Floats<16>{} + (o < bias.cols ? float(bias.data[o]) : 0.0f);
    }
  }
  Ahead ahead(next_w.data, next_w.rows, depth * 2, next_w.stride * 2, steps * panels);
  for (Index k = 0; k < steps; k += each) {
    const Index count = std::min(each, steps - k), first = k * tile_depth;
    const auto slice = w.middle_cols(first, std::min(count * tile_depth, depth - first));
    const Left left = left_of(slice, 2, panels >= worth_a_copy, scratch);
    for (Index p = 0; p < panels; ++p) {
      const auto to = y.middle_rows(p * block_side, std::min(block_side, y.rows - p * block_side));
      const bool wide = to.rows > tile_rows;
      const std::byte* const right = packed_x + (2 * p * steps + (wide ? 2 : 1) * k) * tile_bytes;
      const Sums sums = block_of_sums(scratch, each == steps ? waiting.free(scratch) : p);
      const auto product = wide ? multiply<2, 2> : multiply<2, 1>;
      if (k == 0) {
        product(left, right, count, biases, 0, sums, ahead);
      } else {
        product(left, right, count, sums, line, sums, ahead);
      }
      if (k + count < steps) continue;
      waiting.finish_transposed();
      waiting = {sums.data, to};
    }
  }
  if (each < steps) waiting.finish_transposed();
}

/// y (N, O) = x (N, I) wᵀ + bias, with x from pack_rows, w (O, I), bias (1, O) or empty. It computes yᵀ = w xᵀ, so that
/// rows of w are left operands as they lie in memory. Tasks may cut the outputs, and the rows at multiples of 32.
TINYMOE_TARGET_AMX inline void forward(const std::byte* packed_x, View<const bfloat16> w, View<const bfloat16> bias,
                                       View<bfloat16> y, std::byte* scratch) {
  assert(y.cols == w.rows && (bias.empty() || bias.cols == w.rows));
  const TileUse tiles;
  const Index rows_in_cache = 2 * packed_budget / (steps_of(w.cols) * line) / block_side * block_side;
  const Index most = std::clamp(rows_in_cache, block_side, most_rows);
  for (Index n = 0; n < y.rows; n += most) {
    const auto rows = y.middle_rows(n, std::min(most, y.rows - n));
    Waiting waiting;
    for (Index o = 0; o < w.rows; o += block_side) {
      const Index outputs = std::min(block_side, w.rows - o);
      const Index next = o + outputs, next_outputs = std::min(block_side, w.rows - next);
      forward_outputs(packed_x + packed_rows_bytes(n, w.cols), w.middle_rows(o, outputs),
                      w.middle_rows(next, next_outputs), bias.empty() ? bias : bias.middle_cols(o, outputs),
                      rows.middle_cols(o, outputs), scratch, waiting);
    }
    waiting.finish_transposed();
  }
}

/// input_gradient() for at most most_rows × most_columns.
TINYMOE_TARGET_AMX inline void input_gradient_block(View<const bfloat16> dy, View<const bfloat16> w, View<bfloat16> dx,
                                                    bool add, std::byte* scratch) {
  const Index depth = w.rows, steps = steps_of(depth), each = piece_of(steps, most_steps);
  const Index panels = pieces_of(dx.rows, block_side), columns = pieces_of(dx.cols, block_side);
  Waiting waiting;
  for (Index k = 0; k < steps; k += each) {
    const Index count = std::min(each, steps - k), first = k * tile_depth;
    const Index numbers = std::min(count * tile_depth, depth - first);
    pack_pairs_in_order<ColumnOrder::by_groups>(w.middle_rows(first, numbers), scratch + packed_at);
    for (Index p = 0; p < panels; ++p) {
      const Index n = p * block_side, rows = std::min(block_side, dx.rows - n), next = n + rows;
      const bool high = rows > tile_rows;
      const auto slice = dy.middle_cols(first, numbers);
      const Left left = left_of(slice.middle_rows(n, rows), high ? 2 : 1, columns >= worth_a_copy, scratch);
      Ahead ahead(slice.data + next * slice.stride, std::min(block_side, dx.rows - next), numbers * 2, slice.stride * 2,
                  count * columns);
      for (Index c = 0; c < columns; ++c) {
        const Index column = c * block_side;
        const std::byte* const right = scratch + packed_at + c * count * 2 * tile_bytes;
        const Sums sums = block_of_sums(scratch, each == steps ? waiting.free(scratch) : p * columns + c);
        const auto product = high ? multiply<2, 2> : multiply<1, 2>;
        product(left, right, count, k == 0 ? Sums{nullptr, 0} : sums, line, sums, ahead);
        if (k + count < steps) continue;
        waiting.finish_groups(add);
        waiting = {sums.data, dx.middle_rows(n, rows).middle_cols(column, std::min(block_side, dx.cols - column))};
      }
    }
  }
  waiting.finish_groups(add);
}

/// dx (N, I) = dy (N, O) w, or += that if `add`, with w (O, I). Tasks may cut the columns I; each interleaves its own
/// columns of w, once for 512 rows.
TINYMOE_TARGET_AMX inline void input_gradient(View<const bfloat16> dy, View<const bfloat16> w, View<bfloat16> dx,
                                              bool add, std::byte* scratch) {
  assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
  const TileUse tiles;
  for (Index n = 0; n < dx.rows; n += most_rows) {
    const Index rows = std::min(most_rows, dx.rows - n);
    for (Index c = 0; c < dx.cols; c += most_columns) {
      const Index cols = std::min(most_columns, dx.cols - c);
      input_gradient_block(dy.middle_rows(n, rows), w.middle_cols(c, cols),
                           dx.middle_rows(n, rows).middle_cols(c, cols), add, scratch);
    }
  }
}

/// A block of dw += dyᵀ x, up to 32 × 32. A smaller one goes through `copy`, as tiles are whole.
TINYMOE_TARGET_AMX inline void add_to_gradient(Left dy, const std::byte* x, Index steps, View<float> dw, Sums copy,
                                               Ahead& ahead) {
  const bool whole = dw.rows == block_side && dw.cols == block_side;
  const Sums sums = whole ? Sums{dw.data, dw.stride * Index{sizeof(float)}} : copy;
  if (!whole) std::fill_n(copy.data, block_numbers, 0.0f);
  for (Index r = 0; r < dw.rows && !whole; ++r) std::copy_n(dw.row(r), dw.cols, copy.data + r * block_side);
  multiply<2, 2>(dy, x, steps, sums, line, sums, ahead);
  for (Index r = 0; r < dw.rows && !whole; ++r) std::copy_n(copy.data + r * block_side, dw.cols, dw.row(r));
}

/// dw (O, I) += dyᵀ x, float32, with dy (N, O) and x (N, I) from pack_pairs. Tasks may cut the outputs O, and the
/// columns I at multiples of 32.
TINYMOE_TARGET_AMX inline void weight_gradient(View<const bfloat16> dy, const std::byte* packed_x, View<float> dw,
                                               std::byte* scratch) {
  assert(dy.cols == dw.rows);
  constexpr Index step_bytes = 2 * tile_bytes;
  const TileUse tiles;
  const Index steps = steps_of(dy.rows), each = piece_of(steps, packed_budget / step_bytes / 2);
  const Index group = packed_budget / (each * step_bytes) * block_side;
  const auto block = [&](Index o, Index c) {
    return dw.middle_rows(o, std::min(block_side, dw.rows - o)).middle_cols(c, std::min(block_side, dw.cols - c));
  };
  for (Index first = 0; first < dw.rows; first += group) {
    const Index last = std::min(first + group, dw.rows);
    for (Index k = 0; k < steps; k += each) {
      const Index count = std::min(each, steps - k), n = k * tile_depth;
      const auto rows = dy.middle_rows(n, std::min(count * tile_depth, dy.rows - n));
      std::byte* const packed = scratch + packed_at;
      for (Index o = first; o < last; o += block_side) {
        pack_transposed(rows.middle_cols(o, std::min(block_side, last - o)),
                        packed + (o - first) / block_side * count * step_bytes);
      }
      for (Index c = 0; c < dw.cols; c += block_side) {
        const std::byte* const right = packed_x + (c / block_side * steps + k) * step_bytes;
        for (Index o = first; o < last; o += block_side) {
          const Left left{packed + (o - first) / block_side * count * step_bytes, line, step_bytes, tile_bytes};
          const bool below = o + block_side < last, beside = c + block_side < dw.cols;
          const auto next = below ? block(o + block_side, c) : beside ? block(first, c + block_side) : View<float>{};
          Ahead ahead(next.data, next.rows, next.cols * 4, next.stride * 4, count);
          add_to_gradient(left, right, count, block(o, c), block_of_sums(scratch, 0), ahead);
        }
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#else

namespace tinymoe::inline v0_1::detail::cpu::amx {

// Declared alone, for templates that do not come to call them where AMX cannot be used.
void pack_rows(View<const bfloat16> x, std::byte* to);
void pack_pairs(View<const bfloat16> x, std::byte* to);
void forward(const std::byte* packed_x, View<const bfloat16> w, View<const bfloat16> bias, View<bfloat16> y,
             std::byte* scratch);
void input_gradient(View<const bfloat16> dy, View<const bfloat16> w, View<bfloat16> dx, bool add, std::byte* scratch);
void weight_gradient(View<const bfloat16> dy, const std::byte* packed_x, View<float> dw, std::byte* scratch);

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#endif
