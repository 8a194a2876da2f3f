#pragma once
/// @file
/// Operands in the order in which AMX's tiles want them, and blocks of sums back in rows of bfloat16.
///
/// A right operand's tile holds 16 pairs of rows: word c of its row r is column c of rows 2 r and 2 r + 1. Tiles lie in
/// panels of 32 columns, one after the other: of each panel two tiles for each 32 of depth. Depth and columns are
/// padded with zeros.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu::amx {

/// The memory of pack_rows.
constexpr Index packed_rows_bytes(Index rows, Index depth) {
  return (rows + tile_rows - 1) / tile_rows * steps_of(depth) * tile_bytes;
}

/// The memory of pack_pairs.
constexpr Index packed_pairs_bytes(Index rows, Index cols) {
  return (cols + block_side - 1) / block_side * steps_of(rows) * 2 * tile_bytes;
}

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#if defined(TINYMOE_AMX)

namespace tinymoe::inline v0_1::detail::cpu::amx {

// Vectors never are parameters by value or results: their ABI would depend on the caller's instruction set.
using Words = std::uint32_t __attribute__((vector_size(64)));
using Halves = std::uint16_t __attribute__((vector_size(64)));  // bfloat16
using Pairs = std::uint64_t __attribute__((vector_size(64)));
using HalfLine = std::uint16_t __attribute__((vector_size(32)));

/// Bit i is set for i < count: which of 32 numbers a masked load or store touches.
constexpr std::uint32_t first_bits(Index count) { return count >= 32 ? ~0u : (1u << count) - 1u; }

/// Up to 32 numbers, zeros for the others; their memory is not touched.
TINYMOE_INLINE TINYMOE_TARGET_AMX void load_halves(Halves& to, const bfloat16* from, std::uint32_t mask) {
  using Line = const std::uint16_t[32];
  asm("vmovdqu16 %1, %0%{%2%}%{z%}" : "=v"(to) : "m"(*reinterpret_cast<Line*>(from)), "Yk"(mask));
}

TINYMOE_INLINE TINYMOE_TARGET_AMX void store_halves(bfloat16* to, const Halves& from, std::uint32_t mask) {
  using Line = std::uint16_t[32];
  asm("vmovdqu16 %1, %0%{%2%}" : "+m"(*reinterpret_cast<Line*>(to)) : "v"(from), "Yk"(mask));
}

/// 32 float32 rounded to nearest even.
TINYMOE_INLINE TINYMOE_TARGET_AMX void round(Halves& to, const Floats<16>& low, const Floats<16>& high) {
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(to) : "v"(high), "v"(low));
}

/// A 16 × 16 matrix of words, in place.
TINYMOE_INLINE TINYMOE_TARGET_AMX void transpose(Words (&m)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    const Words a = m[i], b = m[i + 1];
    m[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    m[i + 1] = __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
  // Four rows at a time: word s of each 128-bit lane becomes row s.
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
    const auto a = Pairs(m[i]), b = Pairs(m[i + 1]), c = Pairs(m[i + 2]), d = Pairs(m[i + 3]);
    m[i] = Words(__builtin_shufflevector(a, c, 0, 8, 2, 10, 4, 12, 6, 14));
    m[i + 1] = Words(__builtin_shufflevector(a, c, 1, 9, 3, 11, 5, 13, 7, 15));
    m[i + 2] = Words(__builtin_shufflevector(b, d, 0, 8, 2, 10, 4, 12, 6, 14));
    m[i + 3] = Words(__builtin_shufflevector(b, d, 1, 9, 3, 11, 5, 13, 7, 15));
  }
  // And the lanes of rows s, s + 4, s + 8, s + 12 in turn: lane l becomes row s + 4 l.
#pragma GCC unroll 16
  for (int s = 0; s < 4; ++s) {
    const auto a = Pairs(m[s]), b = Pairs(m[s + 4]), c = Pairs(m[s + 8]), d = Pairs(m[s + 12]);
    const Pairs ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    const Pairs ab_high = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    const Pairs cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11);
    const Pairs cd_high = __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
    m[s] = Words(__builtin_shufflevector(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13));
    m[s + 4] = Words(__builtin_shufflevector(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15));
    m[s + 8] = Words(__builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5, 8, 9, 12, 13));
    m[s + 12] = Words(__builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7, 10, 11, 14, 15));
  }
}

/// The pairs (a, b) of columns 0–3 of each group of eight, and of columns 4–7.
TINYMOE_INLINE TINYMOE_TARGET_AMX void interleave_low(Halves& to, const Halves& a, const Halves& b) {
  to = __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 8, 40, 9, 41, 10, 42, 11, 43, 16, 48, 17, 49, 18, 50,
                               19, 51, 24, 56, 25, 57, 26, 58, 27, 59);
}
TINYMOE_INLINE TINYMOE_TARGET_AMX void interleave_high(Halves& to, const Halves& a, const Halves& b) {
  to = __builtin_shufflevector(a, b, 4, 36, 5, 37, 6, 38, 7, 39, 12, 44, 13, 45, 14, 46, 15, 47, 20, 52, 21, 53, 22, 54,
                               23, 55, 28, 60, 29, 61, 30, 62, 31, 63);
}

/// Groups of four numbers: 0 4 1 5 2 6 3 7, so that interleave_low and _high of such rows give columns 0–15 and 16–31.
TINYMOE_INLINE TINYMOE_TARGET_AMX void spread_groups(Halves& v) {
  v = Halves(__builtin_shufflevector(Pairs(v), Pairs(v), 0, 4, 1, 5, 2, 6, 3, 7));
}
/// Its reverse.
TINYMOE_INLINE TINYMOE_TARGET_AMX void gather_groups(Halves& v) {
  v = Halves(__builtin_shufflevector(Pairs(v), Pairs(v), 0, 2, 4, 6, 1, 3, 5, 7));
}

/// xᵀ as a right operand: x's rows (N, I) are its columns. The last panel has one tile a step if that is enough. Rows
/// from a multiple of 32 on lie at packed_rows_bytes(first, depth) and may be packed by themselves.
TINYMOE_TARGET_AMX inline void pack_rows(View<const bfloat16> x, std::byte* to) {
  for (Index n = 0; n < x.rows; n += block_side) {
    const Index tiles = x.rows - n > tile_rows ? 2 : 1;
    for (Index k = 0; k < x.cols; k += tile_depth) {
      const auto mask = first_bits(x.cols - k);
      for (Index t = 0; t < tiles; ++t, to += tile_bytes) {
        const Index first = n + t * tile_rows, rows = std::min(tile_rows, x.rows - first);
        const bfloat16* const from = x.data + first * x.stride + k;
        Words m[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) {
          Halves halves;
          load_halves(halves, r < rows ? from + r * x.stride : from, r < rows ? mask : 0);
          m[r] = Words(halves);
        }
        transpose(m);
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) reinterpret_cast<Words*>(to)[r] = m[r];
      }
    }
  }
}

/// The order of the columns in a panel's two tiles: as they are, or 0–3, 8–11, 16–19, 24–27 in the first and the others
/// in the second, which costs half as many instructions.
enum class ColumnOrder { plain, by_groups };

/// x (N, I) as a right operand of depth N. Columns from a multiple of 32 on lie at packed_pairs_bytes(rows, first) and
/// may be packed by themselves.
template <ColumnOrder order>
TINYMOE_TARGET_AMX inline void pack_pairs_in_order(View<const bfloat16> x, std::byte* to) {
  constexpr Index far = 16;  // rows: far enough ahead for memory's latency
  const Index steps = steps_of(x.rows), panel = steps * 2 * tile_bytes;
  // Along the rows, as they lie in memory.
  for (Index pair = 0; pair < steps * tile_rows; ++pair) {
    const Index row = 2 * pair;
    const bfloat16* const a = x.data + (row < x.rows ? row : 0) * x.stride;
    const bfloat16* const b = x.data + (row + 1 < x.rows ? row + 1 : 0) * x.stride;
    const Index ahead = row + far + 1 < x.rows ? far * x.stride : 0;
    std::byte* at = to + pair / tile_rows * 2 * tile_bytes + pair % tile_rows * line;
    for (Index c = 0; c < x.cols; c += block_side, at += panel) {
      __builtin_prefetch(a + c + ahead, 0, 2);
      __builtin_prefetch(b + c + ahead, 0, 2);
      const auto mask = first_bits(x.cols - c);
      Halves even, odd, low, high;
      load_halves(even, a + c, row < x.rows ? mask : 0);
      load_halves(odd, b + c, row + 1 < x.rows ? mask : 0);
      if constexpr (order == ColumnOrder::plain) spread_groups(even), spread_groups(odd);
      interleave_low(low, even, odd);
      interleave_high(high, even, odd);
      *reinterpret_cast<Halves*>(at) = low;
      *reinterpret_cast<Halves*>(at + tile_bytes) = high;
    }
  }
}

TINYMOE_TARGET_AMX inline void pack_pairs(View<const bfloat16> x, std::byte* to) {
  pack_pairs_in_order<ColumnOrder::plain>(x, to);
}

/// dyᵀ as a left operand, for up to 32 columns of dy (N, O): of each step the tiles of outputs 0–15 and 16–31.
TINYMOE_TARGET_AMX inline void pack_transposed(View<const bfloat16> dy, std::byte* to) {
  const auto mask = first_bits(dy.cols);
  for (Index n = 0; n < dy.rows; n += tile_depth, to += 2 * tile_bytes) {
    for (int half = 0; half < 2; ++half) {
      Words m[16];
#pragma GCC unroll 16
      for (int p = 0; p < 16; ++p) {
        const Index row = n + 2 * p;
        const bfloat16* const from = dy.data + (row < dy.rows ? row : n) * dy.stride;
        Halves even, odd, pairs;
        load_halves(even, from, row < dy.rows ? mask : 0);
        load_halves(odd, row + 1 < dy.rows ? from + dy.stride : from, row + 1 < dy.rows ? mask : 0);
        if (half == 0) {
          interleave_low(pairs, even, odd);
        } else {
          interleave_high(pairs, even, odd);
        }
        m[p] = Words(pairs);
      }
      transpose(m);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        const Index column = i / 4 * 8 + i % 4 + 4 * half;
        *reinterpret_cast<Words*>(to + column * line) = m[i];
      }
    }
  }
}

/// Up to 32 rows as a left operand: where they lie, if there are `tiles` full tiles of them, else copied to `copy` with
/// zeros for what is missing. They are copied too if `reused` and so many bytes apart that they would share few places
/// of the first-level cache.
TINYMOE_TARGET_AMX inline Left left_of(View<const bfloat16> x, Index tiles, bool reused, std::byte* copy) {
  constexpr Index crowded = 2048;
  const Index rows = tiles * tile_rows, stride = x.stride * Index{sizeof(bfloat16)};
  const bool whole = x.rows == rows && x.cols % tile_depth == 0;
  if (whole && !(reused && stride % crowded == 0)) {
    return {reinterpret_cast<const std::byte*>(x.data), stride, line, tile_rows * stride};
  }
  const Index copy_stride = steps_of(x.cols) * line;
  std::byte* at = copy;
  for (Index r = 0; r < rows; ++r) {
    const bfloat16* const from = x.data + (r < x.rows ? r : 0) * x.stride;
    for (Index k = 0; k < x.cols; k += tile_depth, at += line) {
      load_halves(*reinterpret_cast<Halves*>(at), from + k, r < x.rows ? first_bits(x.cols - k) : 0);
    }
  }
  return {copy, copy_stride, line, tile_rows * copy_stride};
}

/// y (N, O) from a block of the sums of yᵀ, up to 32 × 32, rounded.
TINYMOE_TARGET_AMX inline void write_transposed(const float* sums, View<bfloat16> y) {
  const auto mask = first_bits(y.cols);
  const auto* const in = reinterpret_cast<const Floats<16>*>(sums);
  for (Index half = 0; half * tile_rows < y.rows; ++half) {
    Words m[16];
#pragma GCC unroll 16
    for (int p = 0; p < 16; ++p) {
      Halves outputs;  // two of them, for 16 rows each
      round(outputs, in[4 * p + half], in[4 * p + 2 + half]);
      m[p] = Words(__builtin_shufflevector(outputs, outputs, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                           24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
    transpose(m);
    bfloat16* const to = y.data + half * tile_rows * y.stride;
    const Index rows = y.rows - half * tile_rows;
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      if (r < rows) store_halves(to + r * y.stride, Halves(m[r]), mask);
    }
  }
}

/// dx = or += a block of sums, up to 32 × 32, whose columns are ordered by groups.
TINYMOE_TARGET_AMX inline void write_groups(const float* sums, View<bfloat16> dx, bool add) {
  const auto mask = first_bits(dx.cols);
  const auto* in = reinterpret_cast<const Floats<16>*>(sums);
  for (Index r = 0; r < dx.rows; ++r, in += 2) {
    bfloat16* const to = dx.data + r * dx.stride;
    Floats<16> low = in[0], high = in[1];
    Halves out;
    if (add) {
      load_halves(out, to, mask);
      gather_groups(out);
      const HalfLine first = __builtin_shufflevector(out, out, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      const HalfLine second =
          __builtin_shufflevector(out, out, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
      low += Floats<16>(__builtin_convertvector(first, Words) << 16);
      high += Floats<16>(__builtin_convertvector(second, Words) << 16);
    }
    round(out, low, high);
    spread_groups(out);
    store_halves(to, out, mask);
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#endif
