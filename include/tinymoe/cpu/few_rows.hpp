#pragma once
/// @file
/// Products of few rows: dot products that read each weight once, straight from where it lies.

#include <algorithm>
#include <cstddef>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// Outputs of one row, and outputs and rows of several, that are computed at once: their weights stream side by side.
inline constexpr int one_row_outputs = 8, square_outputs = 4;

/// y[r·outputs + o] = Σ_k x[r·x_stride + k] w[o·w_stride + k]. The order of a sum depends on the depth alone.
template <int lanes, int rows, int outputs, class T, class W>
TINYMOE_INLINE void dot_products_of(Index depth, const T* x, Index x_stride, const W* w, Index w_stride, float* y) {
  using V = Floats<lanes>;
  constexpr int sums = rows * outputs, groups = (sums + lanes - 1) / lanes;
  V sum[std::size_t{groups * lanes}];
#pragma GCC unroll 16
  for (int i = 0; i < groups * lanes; ++i) sum[i] = V{};
  const Index whole = depth / lanes * lanes;
  for (Index k = 0; k < whole; k += lanes) {
    V left[std::size_t{rows}];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) load<lanes>(left[r], x + r * x_stride + k);
#pragma GCC unroll 8
    for (int o = 0; o < outputs; ++o) {
      V right;
      load<lanes>(right, w + o * w_stride + k);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) sum[r * outputs + o] += left[r] * right;
    }
  }
  if (const Index rest = depth - whole; rest > 0) {
    T padded_x[std::size_t{rows}][std::size_t{lanes}] = {};
    for (int r = 0; r < rows; ++r) std::copy_n(x + r * x_stride + whole, rest, padded_x[r]);
    for (int o = 0; o < outputs; ++o) {
      W padded_w[std::size_t{lanes}] = {};
      std::copy_n(w + o * w_stride + whole, rest, padded_w);
      V right;
      load<lanes>(right, padded_w);
      for (int r = 0; r < rows; ++r) {
        V left;
        load<lanes>(left, padded_x[r]);
        sum[r * outputs + o] += left * right;
      }
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) {
    V* const square = sum + g * lanes;
    transpose<lanes>(square);
#pragma GCC unroll 16
    for (int i = 1; i < lanes; ++i) square[0] += square[i];
    float totals[std::size_t{lanes}];
    store<lanes>(totals, square[0]);
    for (int i = 0; i < lanes && g * lanes + i < sums; ++i) y[g * lanes + i] = totals[i];
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
