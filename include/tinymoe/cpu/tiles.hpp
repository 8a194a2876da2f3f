#pragma once
/// @file
/// The innermost loops of matrix products: a tile of the result stays in registers while packed operands stream past.

#include <algorithm>
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

/// out (rows, cols) = a b, where a lies as it is stored, rows `stride` apart, and b is packed. `next` is where the left
/// operand of the next tile lies: it is fetched meanwhile.
using RowTile = void (*)(Index depth, const float* a, Index stride, const float* b, float* out, const float* next);

/// The same chains of multiply-adds as multiply_tile.
template <int lanes, int rows, int vectors>
TINYMOE_INLINE void multiply_row_tile(Index depth, const float* a, Index stride, const float* b, float* out,
                                      const float* next) {
  using V = Floats<lanes>;
  V sum[std::size_t{rows}][std::size_t{vectors}];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[r][v] = V{};
  }
  // A line of 16 numbers of the next tile each time: row after row of it, and its last line again while the sums of a
  // narrow set take longer.
  const Index lines = (depth + rows - 1) / rows;
  for (Index first = 0; first < depth; first += lines, next += stride) {
    const Index last = std::min(depth, first + lines);
    const float *ahead = next, *const end = next + depth - 1;
    for (Index k = first; k < last; ++k) {
      __builtin_prefetch(ahead);
      ahead = std::min(ahead + 16, end);
      V right[std::size_t{vectors}];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) right[v] = *reinterpret_cast<const V*>(b + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        V left;
        broadcast<lanes>(left, a + r * stride);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[r][v] += left * right[v];
      }
      ++a, b += vectors * lanes;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) *reinterpret_cast<V*>(out + (r * vectors + v) * lanes) = sum[r][v];
  }
}

/// c[j, 0 … count − 1] = tile[first … first + count − 1, j], or += it, for the first `lines` columns of a tile, whose
/// rows are `width` wide.
using WriteTransposed = void (*)(const float* tile, Index width, Index first, Index count, Index lines, float* c,
                                 Index stride, bool add);

template <int lanes, int rows>
TINYMOE_INLINE void write_transposed(const float* tile, Index width, Index first, Index count, Index lines, float* c,
                                     Index stride, bool add) {
  using V = Floats<lanes>;
  for (Index line = 0; line < lines; line += lanes) {
    V square[std::size_t{lanes}];
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r) {
      if (r < rows) {
        square[r] = *reinterpret_cast<const V*>(tile + r * width + line);
      } else {
        square[r] = V{};
      }
    }
    transpose<lanes>(square);
    alignas(64) float columns[std::size_t{lanes}][std::size_t{lanes}];
#pragma GCC unroll 16
    for (int j = 0; j < lanes; ++j) *reinterpret_cast<V*>(columns[j]) = square[j];
    const Index here = std::min<Index>(lanes, lines - line);
    for (Index j = 0; j < here; ++j) {
      float* const to = c + (line + j) * stride;
      if (count == rows) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) to[r] = add ? to[r] + columns[j][r] : columns[j][r];
      } else {
        for (Index r = 0; r < count; ++r) to[r] = add ? to[r] + columns[j][first + r] : columns[j][first + r];
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
