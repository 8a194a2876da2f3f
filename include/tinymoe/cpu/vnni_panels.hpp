#pragma once
/// @file
/// Products of two rows and more with integer weights on AVX512-VNNI (vnni.hpp): 32 outputs at a time are packed as a
/// panel, which stays in the cache while all rows meet it.

#include "tinymoe/cpu/vnni.hpp"

#ifdef TINYMOE_TARGET_AVX512

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu::vnni {

/// The outputs of a panel, and the rows of activations that meet it at once.
inline constexpr Index panel_outputs = 32, panel_rows = 6;
/// A panel's bytes for each group: 32 integers and a scale of each output.
inline constexpr std::size_t panel_group_bytes = panel_outputs * (32 + sizeof(float));

template <int distance>
TINYMOE_INLINE void exchange(Words& a, Words& b) {
  // Squares of 8 × 8 words in each half of the vectors.
  if constexpr (distance == 1) {
    const Words low = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    b = __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    a = low;
  } else if constexpr (distance == 2) {
    const Words low = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    b = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    a = low;
  } else {
    const Words low = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    b = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    a = low;
  }
}
template <int distance>
TINYMOE_INLINE void exchange_all(Words* rows) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if ((i & distance) == 0) exchange<distance>(rows[i], rows[i + distance]);
  }
}

/// Packs 32 rows of weights (fewer: the last one again): for each group the scales, then, of each half of the outputs
/// and each four integers, those of 16 outputs side by side. The next panel's weights, which follow in memory, are
/// fetched meanwhile: the processor by itself does not follow 32 rows at once, and took twice as long.
template <class Block>
TINYMOE_TARGET_VNNI inline void pack_panel(const std::byte* weights, Index outputs, Index blocks, std::byte* panel) {
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * Block::bytes;
  constexpr std::size_t fetched = panel_outputs * Block::bytes;  // the share of a group
  const std::byte* next = weights + panel_outputs * row_bytes;
  for (Index b = 0; b < blocks; ++b, panel += panel_group_bytes, next += fetched) {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < fetched; i += 64) __builtin_prefetch(next + i);
    const std::byte* from = weights + static_cast<std::size_t>(b) * Block::bytes;
    std::uint16_t halves[panel_outputs];
    for (Index half = 0; half < 2; ++half) {
      Words rows[8];  // row i: outputs i and i + 8
#pragma GCC unroll 8
      for (Index i = 0; i < 8; ++i) {
        const Index low = half * 16 + i, high = low + 8;
        const std::byte* const one = from + static_cast<std::size_t>(std::min(low, outputs - 1)) * row_bytes;
        const std::byte* const two = from + static_cast<std::size_t>(std::min(high, outputs - 1)) * row_bytes;
        std::memcpy(halves + low, one, sizeof(std::uint16_t));
        std::memcpy(halves + high, two, sizeof(std::uint16_t));
        load_pair<true>(rows[i], static_cast<const Block*>(nullptr), one, two);
      }
      exchange_all<1>(rows), exchange_all<2>(rows), exchange_all<4>(rows);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        std::memcpy(panel + panel_outputs * sizeof(float) + static_cast<std::size_t>(half * 8 + i) * 64, &rows[i], 64);
      }
    }
    typedef std::uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
    Floats<16> low, high;
    asm("vcvtph2ps %1, %0" : "=v"(low) : "m"(*reinterpret_cast<const Halves*>(halves)));
    asm("vcvtph2ps %1, %0" : "=v"(high) : "m"(*reinterpret_cast<const Halves*>(halves + 16)));
    std::memcpy(panel, &low, 64), std::memcpy(panel + 64, &high, 64);
  }
}

/// One tile of results: some rows of activations, which may repeat, times a panel.
template <int count>
TINYMOE_TARGET_VNNI inline void multiply_panel_rows(const std::byte* panel, Index blocks, const Rows& x,
                                                    const Index* const rows, float* y) {
  Floats<16> total[std::size_t{count}][2];
#pragma GCC unroll 6
  for (int r = 0; r < count; ++r) total[r][0] = Floats<16>{}, total[r][1] = Floats<16>{};
  const std::int8_t* integers[std::size_t{count}];
  const float* scales[std::size_t{count}];
  const std::int32_t* groups[std::size_t{count}];
#pragma GCC unroll 6
  for (int r = 0; r < count; ++r) {
    const Index first = rows[r] * x.stride;
    integers[r] = x.integers + first * block_weights, scales[r] = x.scales + first, groups[r] = x.groups + first;
  }
  for (Index b = 0; b < blocks; ++b, panel += panel_group_bytes) {
    Words sums[std::size_t{count}][2];
#pragma GCC unroll 6
    for (int r = 0; r < count; ++r) sums[r][0] = sums[r][1] = Words{} + groups[r][b];
    const std::byte* weights = panel + panel_outputs * sizeof(float);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k, weights += 64) {
      const Words low = *reinterpret_cast<const AnyWords*>(weights);
      const Words high = *reinterpret_cast<const AnyWords*>(weights + 8 * 64);
#pragma GCC unroll 6
      for (int r = 0; r < count; ++r) {
        Words four;
        asm("vpbroadcastd %1, %0"
            : "=v"(four)
            : "m"(*reinterpret_cast<const std::int32_t*>(integers[r] + b * block_weights + 4 * k)));
        add_products(sums[r][0], low, four);
        add_products(sums[r][1], high, four);
      }
    }
    const Floats<16> low = *reinterpret_cast<const AnyFloats*>(panel),
                     high = *reinterpret_cast<const AnyFloats*>(panel + 64);
#pragma GCC unroll 6
    for (int r = 0; r < count; ++r) {
      const float scale = scales[r][b];
      total[r][0] += __builtin_convertvector(sums[r][0], Floats<16>) * (low * scale);
      total[r][1] += __builtin_convertvector(sums[r][1], Floats<16>) * (high * scale);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < count; ++r) {
    std::memcpy(y + r * panel_outputs, &total[r][0], 64);
    std::memcpy(y + r * panel_outputs + 16, &total[r][1], 64);
  }
}

/// y (rows, outputs), outputs up to 32, = a panel times rows first … of x, plus the bias.
inline void multiply_panel(const std::byte* panel, Index blocks, const Rows& x, Index first, View<const float> bias,
                           View<float> y) {
  alignas(64) float tile[panel_rows * panel_outputs];
  for (Index n = 0; n < y.rows; n += panel_rows) {
    const Index there = std::min(panel_rows, y.rows - n);
    Index rows[panel_rows];
    for (Index r = 0; r < panel_rows; ++r) rows[r] = first + n + std::min(r, there - 1);
    (there > 4   ? multiply_panel_rows<panel_rows>
     : there > 2 ? multiply_panel_rows<4>
                 : multiply_panel_rows<2>)(panel, blocks, x, rows, tile);
    for (Index r = 0; r < there; ++r) {
      const float* from = tile + r * panel_outputs;
      float* to = y.row(n + r);
      if (bias.empty()) {
        std::copy_n(from, y.cols, to);
      } else {
        for (Index o = 0; o < y.cols; ++o) to[o] = from[o] + bias.data[o];
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu::vnni

#endif
