#pragma once
/// @file
/// Products of bfloat16 matrices on the processor's matrix unit whose results stay float32, as attention needs them.
/// The right operand is packed (amx_pack.hpp).

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/amx.hpp"
#include "tinymoe/cpu/amx_pack.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"

#if defined(TINYMOE_AMX)

namespace tinymoe::inline v0_1::detail::cpu::amx {

/// A right operand whose panels of 32 columns lie `panel_bytes` apart. A last panel of up to 16 columns may have one
/// tile a step, as pack_rows leaves it.
struct Right {
  const std::byte* data;
  Index panel_bytes;
  bool may_be_narrow;
};

/// Up to 32 rows of c = or += left right; `high` if left has two tiles of rows.
TINYMOE_TARGET_AMX inline void multiply_rows(Left left, bool high, Right right, Index first_step, Index steps,
                                             View<float> c, bool add, std::byte* scratch) {
  Ahead nothing;
  for (Index column = 0; column < c.cols; column += block_side, right.data += right.panel_bytes) {
    const View<float> to = c.middle_cols(column, std::min(block_side, c.cols - column));
    const bool wide = to.cols > tile_rows || !right.may_be_narrow;
    const auto product = high ? (wide ? multiply<2, 2> : multiply<2, 1>) : (wide ? multiply<1, 2> : multiply<1, 1>);
    const bool whole = to.rows == (high ? block_side : tile_rows) && to.cols == (wide ? block_side : tile_rows);
    const Sums sums = whole ? Sums{to.data, to.stride * Index{sizeof(float)}} : block_of_sums(scratch, 0);
    if (!whole && add) {
      std::fill_n(sums.data, block_numbers, 0.0f);
      for (Index r = 0; r < to.rows; ++r) std::copy_n(to.row(r), to.cols, sums.data + r * block_side);
    }
    product(left, right.data + first_step * (wide ? 2 : 1) * tile_bytes, steps, add ? sums : Sums{nullptr, 0}, line,
            sums, nothing);
    for (Index r = 0; r < to.rows && !whole; ++r) std::copy_n(sums.data + r * block_side, to.cols, to.row(r));
  }
}

/// c (N, M) = a right, or += it, in float32, with a (N, K). The caller has a TileUse.
TINYMOE_TARGET_AMX inline void multiply_to_float(View<const bfloat16> a, Right right, View<float> c, bool add,
                                                 std::byte* scratch) {
  assert(c.rows == a.rows);
  const Index steps = steps_of(a.cols), each = piece_of(steps, most_steps), panels = pieces_of(c.cols, block_side);
  for (Index n = 0; n < a.rows; n += block_side) {
    const Index rows = std::min(block_side, a.rows - n);
    const bool high = rows > tile_rows;
    for (Index k = 0; k < steps; k += each) {
      const Index count = std::min(each, steps - k), first = k * tile_depth;
      const auto slice = a.middle_rows(n, rows).middle_cols(first, std::min(count * tile_depth, a.cols - first));
      const Left left = left_of(slice, high ? 2 : 1, panels >= worth_a_copy, scratch);
      multiply_rows(left, high, right, k, count, c.middle_rows(n, rows), add || k > 0, scratch);
    }
  }
}

/// c (O, M) += aᵀ right, in float32, with a (N, O) and N up to 512. The caller has a TileUse.
TINYMOE_TARGET_AMX inline void add_transposed_to_float(View<const bfloat16> a, Right right, View<float> c,
                                                       std::byte* scratch) {
  const Index steps = steps_of(a.rows);
  assert(c.rows == a.cols && steps <= most_steps);
  for (Index o = 0; o < a.cols; o += block_side) {
    const Index rows = std::min(block_side, a.cols - o);
    pack_transposed(a.middle_cols(o, rows), scratch);
    multiply_rows({scratch, line, 2 * tile_bytes, tile_bytes}, true, right, 0, steps, c.middle_rows(o, rows), true,
                  scratch);
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#else

namespace tinymoe::inline v0_1::detail::cpu::amx {

// Declared alone, for what does not come to call them where AMX cannot be used.
struct TileUse {
  TileUse();
  ~TileUse();
};
struct Right {
  const std::byte* data;
  Index panel_bytes;
  bool may_be_narrow;
};
void multiply_to_float(View<const bfloat16> a, Right right, View<float> c, bool add, std::byte* scratch);
void add_transposed_to_float(View<const bfloat16> a, Right right, View<float> c, std::byte* scratch);

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#endif
