#pragma once
/// @file
/// Products with integer weights on AVX512-VNNI, whose instruction adds 64 products of an unsigned by a signed byte to
/// 16 sums. Activations are rounded to 8 bits with a scale for each group of 32, x = a · q with a = max |x| / 127. So a
/// group's product is a sum of integers times two scales. Weights are made unsigned by an offset:
///
///     Σ w x = Σ over groups of d · a · (Σ (p + offset) q − offset · Σ q)        w = d · p, p + offset ≥ 0
///
/// One row reads each weight once, straight from its block. vnni_panels.hpp has the products of more rows.

#include "tinymoe/cpu/instructions.hpp"

#ifdef TINYMOE_TARGET_AVX512

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/vectors.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

namespace vnni {

typedef std::int32_t Words __attribute__((vector_size(64)));
typedef std::uint32_t Unsigned __attribute__((vector_size(64)));
typedef std::int8_t Bytes __attribute__((vector_size(64)));
typedef float AnyFloats __attribute__((vector_size(64), aligned(4), may_alias));
typedef std::int32_t AnyWords __attribute__((vector_size(64), aligned(1), may_alias));
typedef std::int8_t Quarter __attribute__((vector_size(16)));

/// Groups whose scales are handled together.
inline constexpr Index many_groups = 16;

/// Rows of activations as integers. Rows are filled up with zeros to a multiple of `many_groups` groups.
struct Rows {
  std::int8_t* integers;  // 32 for each group
  float* scales;          // one
  std::int32_t* lanes;    // eight: −offset times the sum of four integers
  std::int32_t* groups;   // one: −offset times the sum of all
  Index stride;           // groups from one row to the next

  static constexpr std::size_t group_bytes = 32 + sizeof(float) + 8 * sizeof(std::int32_t) + sizeof(std::int32_t);
  static Index stride_of(Index cols) {
    const Index blocks = (cols + block_weights - 1) / block_weights;
    return (blocks + many_groups - 1) / many_groups * many_groups;
  }
  /// In `rows · stride_of(cols) · group_bytes` bytes of aligned memory.
  Rows(std::byte* memory, Index rows, Index cols) : stride(stride_of(cols)) {
    const auto count = static_cast<std::size_t>(rows * stride);
    integers = reinterpret_cast<std::int8_t*>(memory);
    scales = reinterpret_cast<float*>(memory + count * 32);
    lanes = reinterpret_cast<std::int32_t*>(memory + count * 36);
    groups = reinterpret_cast<std::int32_t*>(memory + count * 68);
  }
};

/// What is added to a block's integers.
template <class Block>
inline constexpr int offset = 128;
template <>
inline constexpr int offset<Q4Block> = 8;

/// sums[i] += Σ of four products of unsigned by signed bytes.
TINYMOE_INLINE TINYMOE_TARGET_VNNI void add_products(Words& sums, const Words& unsigned_bytes,
                                                     const Words& signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(signed_bytes));
}

TINYMOE_INLINE std::uint32_t largest(const Unsigned& values) {
  std::uint32_t lane[16];
  std::memcpy(lane, &values, sizeof lane);
  std::uint32_t most = 0;
  for (const std::uint32_t value : lane) most = value > most ? value : most;
  return most;
}

/// Rounds one row of activations. A group with one that is not finite has the scale NaN, and so have its products.
TINYMOE_TARGET_VNNI inline void round_row(const float* x, Index cols, int offset, const Rows& to, Index row) {
  const Index first = row * to.stride;
  std::int8_t* integers = to.integers + first * block_weights;
  for (Index g = 0; g < to.stride; ++g) {
    Floats<16> low{}, high{};
    const Index there = cols - g * block_weights;
    const float* from = x + g * block_weights;
    float padded[block_weights] = {};
    if (there < block_weights) {
      for (Index i = 0; i < there; ++i) padded[i] = from[i];
      from = padded;
    }
    low = *reinterpret_cast<const AnyFloats*>(from), high = *reinterpret_cast<const AnyFloats*>(from + 16);
    const Unsigned clear = Unsigned{} + 0x7fffffffu;
    // Sizes compare as their bits do, and what is not finite is above all others.
    Unsigned size = reinterpret_cast<Unsigned>(low) & clear;
    const Unsigned other = reinterpret_cast<Unsigned>(high) & clear;
    size = size > other ? size : other;
    const std::uint32_t bits = largest(size);
    const bool finite = bits < 0x7f800000u;
    const float most = __builtin_bit_cast(float, bits), inverse = most >= 0x1p-120f && finite ? 127 / most : 0;
    to.scales[first + g] = finite ? most / 127 : __builtin_nanf("");
    // In a float of this size the last bit is worth 1: adding it rounds to nearest even.
    const Floats<16> unit = Floats<16>{} + 0x1.8p23f;
    const Words base = reinterpret_cast<Words>(unit);
    low = low * inverse + unit, high = high * inverse + unit;
    const Quarter one = __builtin_convertvector(reinterpret_cast<Words>(low) - base, Quarter);
    const Quarter two = __builtin_convertvector(reinterpret_cast<Words>(high) - base, Quarter);
    std::memcpy(integers + g * block_weights, &one, sizeof one);
    std::memcpy(integers + g * block_weights + 16, &two, sizeof two);
  }
  const Bytes all = Bytes{} + static_cast<std::int8_t>(offset);  // 128 is −128 here, and 128 to the instruction
  for (Index g = 0; g < to.stride; g += 2) {
    Words sums{};
    const Words four = *reinterpret_cast<const AnyWords*>(integers + g * block_weights);
    add_products(sums, reinterpret_cast<Words>(all), four);
    sums = -sums;
    std::int32_t* lanes = to.lanes + (first + g) * 8;
    std::memcpy(lanes, &sums, sizeof sums);
    for (Index i = 0; i < 2; ++i) {
      std::int32_t total = 0;
      for (Index lane = 0; lane < 8; ++lane) total += lanes[8 * i + lane];
      to.groups[first + g + i] = total;
    }
  }
}

/// Two blocks' integers plus their offset, or one's and zeros.
template <bool both>
TINYMOE_INLINE TINYMOE_TARGET_VNNI void load_pair(Words& to, const Q8Block*, const std::byte* one,
                                                  const std::byte* two) {
  typedef std::int32_t Half __attribute__((vector_size(32), aligned(1), may_alias));
  asm("vmovdqu64 %1, %t0" : "=v"(to) : "m"(*reinterpret_cast<const Half*>(one + 2)));
  if constexpr (both) {
    asm("vinserti64x4 $1, %1, %0, %0" : "+v"(to) : "m"(*reinterpret_cast<const Half*>(two + 2)));
  }
  to ^= reinterpret_cast<Words>(Unsigned{} + 0x80808080u);
}
template <bool both>
TINYMOE_INLINE TINYMOE_TARGET_VNNI void load_pair(Words& to, const Q4Block*, const std::byte* one,
                                                  const std::byte* two) {
  typedef std::int32_t Part __attribute__((vector_size(16), aligned(1), may_alias));
  constexpr Unsigned shifts = {0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4};
  Unsigned pairs;
  asm("vbroadcasti32x4 %1, %0" : "=v"(pairs) : "m"(*reinterpret_cast<const Part*>(one + 2)));
  if constexpr (both) {
    asm("vbroadcasti32x4 %1, %0%{%2%}"
        : "+v"(pairs)
        : "m"(*reinterpret_cast<const Part*>(two + 2)), "Yk"(static_cast<std::uint16_t>(0xff00)));
  }
  pairs = pairs >> shifts & 0x0f0f0f0fu;
  to = reinterpret_cast<Words>(pairs);
}

/// The scales of up to 16 blocks; 0 behind the last.
template <class Block>
TINYMOE_INLINE TINYMOE_TARGET_VNNI void load_scales(Floats<16>& to, const std::byte* blocks, Index count) {
  constexpr int step = static_cast<int>(Block::bytes);
  constexpr Words places = {0,        step,     2 * step,  3 * step,  4 * step,  5 * step,  6 * step,  7 * step,
                            8 * step, 9 * step, 10 * step, 11 * step, 12 * step, 13 * step, 14 * step, 15 * step};
  Words words{};
  auto mask = static_cast<std::uint16_t>((1u << count) - 1);
  asm("vpgatherdd (%2,%3,1), %0%{%1%}" : "+&v"(words), "+Yk"(mask) : "r"(blocks), "v"(places) : "memory");
  typedef std::int16_t Halves __attribute__((vector_size(32)));
  const Halves halves = __builtin_convertvector(words, Halves);
  asm("vcvtph2ps %1, %0" : "=v"(to) : "v"(halves));
}

inline constexpr struct alignas(64) PairLanes {
  std::int32_t lanes[8][16];
  constexpr PairLanes() : lanes() {
    for (int pair = 0; pair < 8; ++pair) {
      for (int lane = 0; lane < 16; ++lane) lanes[pair][lane] = 2 * pair + lane / 8;
    }
  }
} pair_lanes;

/// sum = the sum of 16 lanes, in halves.
TINYMOE_INLINE void add_lanes(float& sum, Floats<16>& values) {
  values += __builtin_shufflevector(values, values, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  values += __builtin_shufflevector(values, values, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  values += __builtin_shufflevector(values, values, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  values += __builtin_shufflevector(values, values, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  sum = values[0];
}

/// Bytes ahead of a block that are fetched from memory with it: at 2048 two cores read 23 GB/s of 8-bit weights where
/// the processor alone fetched 19.
inline constexpr std::size_t fetched_ahead = 2048;

/// Two groups of a row of weights times those of a row of activations, added to 16 partial sums.
template <class Block, bool both>
TINYMOE_INLINE TINYMOE_TARGET_VNNI void add_pair(Floats<16>& total, const std::byte* blocks, const Floats<16>& scales,
                                                 Index pair, const std::int8_t* integers, const std::int32_t* lanes) {
  __builtin_prefetch(blocks + fetched_ahead);
  Words weights, sums = *reinterpret_cast<const AnyWords*>(lanes);
  load_pair<both>(weights, static_cast<const Block*>(nullptr), blocks, blocks + Block::bytes);
  const Words activations = *reinterpret_cast<const AnyWords*>(integers);
  add_products(sums, weights, activations);
  Floats<16> scale;
  asm("vpermps %2, %1, %0" : "=v"(scale) : "v"(*reinterpret_cast<const Words*>(pair_lanes.lanes[pair])), "v"(scales));
  total += __builtin_convertvector(sums, Floats<16>) * scale;
}

/// y[o] = the product of output o's weights and one row of activations, for `outputs` rows of weights.
template <class Block>
TINYMOE_TARGET_VNNI inline void dot_products(const std::byte* weights, Index outputs, Index blocks, const Rows& x,
                                             Index row, const float* bias, float* y) {
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * Block::bytes;
  const Index start = row * x.stride;
  for (Index o = 0; o < outputs; ++o, weights += row_bytes) {
    Floats<16> total{}, other{};
    for (Index first = 0; first < blocks; first += many_groups) {
      const Index count = std::min(many_groups, blocks - first);
      const std::byte* at = weights + static_cast<std::size_t>(first) * Block::bytes;
      const std::int8_t* integers = x.integers + (start + first) * block_weights;
      const std::int32_t* lanes = x.lanes + (start + first) * 8;
      Floats<16> scales;
      load_scales<Block>(scales, at, count);
      scales *= *reinterpret_cast<const AnyFloats*>(x.scales + start + first);
      if (count == many_groups) {
#pragma GCC unroll 8
        for (Index pair = 0; pair < 8; pair += 2) {
          add_pair<Block, true>(total, at, scales, pair, integers, lanes);
          add_pair<Block, true>(other, at + 2 * Block::bytes, scales, pair + 1, integers + 64, lanes + 16);
          at += 4 * Block::bytes, integers += 128, lanes += 32;
        }
        continue;
      }
      for (Index pair = 0; pair < count / 2; ++pair) {
        add_pair<Block, true>(total, at, scales, pair, integers, lanes);
        at += 2 * Block::bytes, integers += 64, lanes += 16;
      }
      if (count % 2 != 0) add_pair<Block, false>(other, at, scales, count / 2, integers, lanes);
    }
    total += other;
    float sum;
    add_lanes(sum, total);
    y[o] = bias == nullptr ? sum : sum + bias[o];
  }
}

}  // namespace vnni

}  // namespace tinymoe::inline v0_1::detail::cpu

#endif
