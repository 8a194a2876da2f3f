#pragma once
/// @file
/// Operands of products are packed: cut into panels of a tile's rows or columns, whose elements lie in the order in
/// which the tile reads them, as float whatever their type was.

#include <algorithm>
#include <cstddef>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// Panels of `width` lines: element k of line j of a panel goes to to[k·width + j], or 0 where there is no such line.
/// A panel has `depth` · width elements and the next one follows. Up to `pack_slack` elements behind the last are
/// garbage. Lines lie `stride` apart. `width` is at most a vector's lanes or a multiple of them.
template <class T>
using Pack = void (*)(const T* from, Index stride, Index lines, Index depth, Index width, float* to);

inline constexpr Index pack_slack = 16;

/// Lines are rows of memory: from[j·stride + k]. Squares are transposed in registers.
template <int lanes, class T>
TINYMOE_INLINE void pack_rows_of(const T* from, Index stride, Index lines, Index depth, Index width, float* to) {
  using V = Floats<lanes>;
  for (Index panel = 0; panel < lines; panel += width) {
    for (Index first = 0; first < width; first += lanes) {
      const Index here = std::clamp<Index>(lines - panel - first, 0, lanes);
      for (Index k = 0; k < depth; k += lanes) {
        const Index wide = std::min<Index>(lanes, depth - k);
        const T* corner = from + (panel + first) * stride + k;
        V square[std::size_t{lanes}];
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) {
          if (j >= here) {
            square[j] = V{};
          } else if (wide == lanes) {
            load<lanes>(square[j], corner + j * stride);
          } else {
            T line[std::size_t{lanes}] = {};
            for (Index i = 0; i < wide; ++i) line[i] = corner[j * stride + i];
            load<lanes>(square[j], line);
          }
        }
        transpose<lanes>(square);
        // In rising order: what a store writes beyond a narrow panel's width, the next one overwrites.
        float* out = to + panel * depth + k * width + first;
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          if (i < wide) store<lanes>(out + i * width, square[i]);
        }
      }
    }
  }
}

/// Lines are columns of memory: from[k·stride + j].
template <int lanes, class T>
TINYMOE_INLINE void pack_columns_of(const T* from, Index stride, Index lines, Index depth, Index width, float* to) {
  // Few rows of memory at a time, each through all panels: they are read in the order in which they lie.
  constexpr Index half = lanes / 2, together = 8;
  for (Index first = 0; first < depth; first += together) {
    const Index last = std::min(depth, first + together);
    for (Index panel = 0; panel < lines; panel += width) {
      const Index there = std::min(lines - panel, width), whole = there / lanes * lanes, rest = there - whole;
      for (Index k = first; k < last; ++k) {
        const T* row = from + k * stride + panel;
        float* out = to + panel * depth + k * width;
        for (Index j = 0; j < whole; j += lanes) {
          Floats<lanes> part;
          load<lanes>(part, row + j);
          store<lanes>(out + j, part);
        }
        if (rest >= half) {  // two halves, which may overlap
          Floats<half> part, end;
          load<half>(part, row + whole);
          load<half>(end, row + there - half);
          store<half>(out + whole, part);
          store<half>(out + there - half, end);
        } else {
          for (Index j = whole; j < there; ++j) out[j] = static_cast<float>(row[j]);
        }
        for (Index j = there; j < width; ++j) out[j] = 0;
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
