#pragma once
/// @file
/// Operands of products are packed: cut into panels of a tile's rows or columns, whose elements lie in the order in
/// which the tile reads them, as float whatever their type was.

#include <algorithm>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// to[k·width + j] = element k of line j, or 0 where there is no such line; `depth` · width elements, and up to
/// `pack_slack` that are garbage behind them. Lines lie `stride` apart. `width` is at most a vector's lanes or a
/// multiple of them.
template <class T>
using Pack = void (*)(const T* from, Index stride, Index lines, Index depth, Index width, float* to);

inline constexpr Index pack_slack = 16;

/// Lines are rows of memory: from[j·stride + k]. Squares are transposed in registers.
template <int lanes, class T>
TINYMOE_INLINE void pack_rows_of(const T* from, Index stride, Index lines, Index depth, Index width, float* to) {
  using V = Floats<lanes>;
  for (Index first = 0; first < width; first += lanes) {
    const Index here = std::clamp<Index>(lines - first, 0, lanes);
    for (Index k = 0; k < depth; k += lanes) {
      const Index wide = std::min<Index>(lanes, depth - k);
      const T* corner = from + first * stride + k;
      V square[lanes];
#pragma GCC unroll 16
      for (int j = 0; j < lanes; ++j) {
        if (j >= here) {
          square[j] = V{};
        } else if (wide == lanes) {
          load<lanes>(square[j], corner + j * stride);
        } else {
          T line[lanes] = {};
          for (Index i = 0; i < wide; ++i) line[i] = corner[j * stride + i];
          load<lanes>(square[j], line);
        }
      }
      transpose<lanes>(square);
      // In rising order: what a store writes beyond a narrow panel's width, the next one overwrites.
      float* out = to + k * width + first;
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        if (i < wide) store<lanes>(out + i * width, square[i]);
      }
    }
  }
}

/// Lines are columns of memory: from[k·stride + j].
template <int lanes, class T>
TINYMOE_INLINE void pack_columns_of(const T* from, Index stride, Index lines, Index depth, Index width, float* to) {
  constexpr int half = lanes / 2;
  const Index there = std::min(lines, width), whole = there / lanes * lanes, rest = there - whole;
  for (Index k = 0; k < depth; ++k, from += stride, to += width) {
    for (Index j = 0; j < whole; j += lanes) {
      Floats<lanes> part;
      load<lanes>(part, from + j);
      store<lanes>(to + j, part);
    }
    if (rest >= half) {  // two halves, which may overlap
      Floats<half> part, last;
      load<half>(part, from + whole);
      load<half>(last, from + there - half);
      store<half>(to + whole, part);
      store<half>(to + there - half, last);
    } else {
      for (Index j = whole; j < there; ++j) to[j] = static_cast<float>(from[j]);
    }
    for (Index j = there; j < width; ++j) to[j] = 0;
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
