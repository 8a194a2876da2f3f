#pragma once
/// @file
/// The innermost loops of matrix products: a tile of the result stays in registers while packed operands stream past.

#include <cstddef>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// c (rows, cols) = a b, or c += a b. Packed: a[k·rows + r], b[k·cols + j], k < depth. Rows of c lie `stride` apart.
using Tile = void (*)(Index depth, const float* a, const float* b, float* c, Index stride, bool add);

/// The same for one shape; `vectors` of `lanes` columns. Each element is one chain of multiply-adds in the order of k,
/// so its bits do not depend on its place in a tile.
template <int lanes, int rows, int vectors>
TINYMOE_INLINE void multiply_tile(Index depth, const float* a, const float* b, float* c, Index stride, bool add) {
  using V = Floats<lanes>;
  V sum[std::size_t{rows}][std::size_t{vectors}];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sum[r][v] = V{};
      __builtin_prefetch(c + r * stride + v * lanes, 1);  // it comes while the sums are formed
    }
  }
  for (Index k = 0; k < depth; ++k) {
    V right[std::size_t{vectors}];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) right[v] = *reinterpret_cast<const V*>(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      V left;
      broadcast<lanes>(left, a + r);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += left * right[v];
    }
    a += rows, b += vectors * lanes;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      float* const to = c + r * stride + v * lanes;
      if (add) {
        V before;
        load<lanes>(before, to);
        sum[r][v] += before;
      }
      store<lanes>(to, sum[r][v]);
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
