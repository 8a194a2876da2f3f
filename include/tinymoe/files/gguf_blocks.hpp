#pragma once
/// @file
/// The block formats of other programs' GGUF files, as ggml lays them out (ggml-common.h): one trait for each, with the
/// number of weights in a block, its bytes, and the value of one weight. tinymoe reads them as numbers. Q8_0 and Q4_0,
/// which it computes with, are in core/block_weights.hpp.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1::detail {

/// A half-precision number at a byte of a block.
inline float gguf_half(const std::byte* at) {
  StoredHalf half{};
  std::memcpy(&half, at, sizeof half);
  return half;
}

/// `count` bits from bit `from` on, at most those of a byte.
inline int gguf_bits(std::byte byte, std::size_t from, int count) {
  return static_cast<int>(static_cast<unsigned>(byte) >> from & ((1u << static_cast<unsigned>(count)) - 1u));
}

/// Blocks of 32 weights of 4 bits or, with `high_bits`, 5: the scale, perhaps a minimum, perhaps the fifth bits of all
/// of them, and 16 bytes whose low halves are the first 16 weights.
template <bool has_minimum, bool high_bits>
struct GgufSmallBlock {
  static constexpr std::size_t elements = 32, high_at = has_minimum ? 4 : 2, low_at = high_at + (high_bits ? 4 : 0);
  static constexpr std::size_t bytes = low_at + 16;

  static float value(const std::byte* block, std::size_t i) {
    int integer = gguf_bits(block[low_at + i % 16], i < 16 ? 0 : 4, 4);
    if (high_bits) integer += 16 * gguf_bits(block[high_at + i / 8], i % 8, 1);
    const float scale = gguf_half(block);
    if (has_minimum) return scale * static_cast<float>(integer) + gguf_half(block + 2);
    return scale * static_cast<float>(integer - (high_bits ? 16 : 8));
  }
};
using Q4_1Block = GgufSmallBlock<true, false>;
using Q5_0Block = GgufSmallBlock<false, true>;
using Q5_1Block = GgufSmallBlock<true, true>;

/// What the formats named K have in common: 256 weights, in groups whose scales are integers times a scale of the
/// block.
struct GgufLargeBlock {
  static constexpr std::size_t elements = 256;

  /// Weight i lies in one of two halves, in one of its four quarters of 32.
  static constexpr std::size_t half(std::size_t i) { return i / 128; }
  static constexpr std::size_t quarter(std::size_t i) { return i % 128 / 32; }
};

/// 16 scales and minima of 4 bits, 256 weights of 2, the scale of each kind.
struct Q2KBlock : GgufLargeBlock {
  static constexpr std::size_t low_at = 16, scale_at = 80, bytes = 84;

  static float value(const std::byte* block, std::size_t i) {
    const std::byte group = block[i / 16];
    const int integer = gguf_bits(block[low_at + half(i) * 32 + i % 32], 2 * quarter(i), 2);
    const float scale = gguf_half(block + scale_at) * static_cast<float>(gguf_bits(group, 0, 4));
    const float minimum = gguf_half(block + scale_at + 2) * static_cast<float>(gguf_bits(group, 4, 4));
    return scale * static_cast<float>(integer) - minimum;
  }
};

/// 256 third bits, 256 weights of 2 bits, 16 scales of 6, the scale of these.
struct Q3KBlock : GgufLargeBlock {
  static constexpr std::size_t low_at = 32, group_at = 96, scale_at = 108, bytes = 110;

  static float value(const std::byte* block, std::size_t i) {
    const int third = gguf_bits(block[i % 32], 4 * half(i) + quarter(i), 1);
    const int integer = gguf_bits(block[low_at + half(i) * 32 + i % 32], 2 * quarter(i), 2) + 4 * third - 4;
    const std::byte* groups = block + group_at;
    const std::size_t group = i / 16;
    const int low = gguf_bits(groups[group % 8], group < 8 ? 0 : 4, 4);
    const int high = gguf_bits(groups[8 + group % 4], 2 * (group / 4), 2);
    return gguf_half(block + scale_at) * static_cast<float>(low + 16 * high - 32) * static_cast<float>(integer);
  }
};

/// The scale and the minimum of weight i in Q4_K and Q5_K, which have 8 of each, of 6 bits, in 12 bytes behind those of
/// the block.
struct GgufGroupScale {
  float scale, minimum;

  GgufGroupScale(const std::byte* block, std::size_t i) {
    const std::byte* groups = block + 4;
    const std::size_t group = i / 32;
    int factor, offset;
    if (group < 4) {
      factor = gguf_bits(groups[group], 0, 6);
      offset = gguf_bits(groups[group + 4], 0, 6);
    } else {
      factor = gguf_bits(groups[group + 4], 0, 4) + 16 * gguf_bits(groups[group - 4], 6, 2);
      offset = gguf_bits(groups[group + 4], 4, 4) + 16 * gguf_bits(groups[group], 6, 2);
    }
    scale = gguf_half(block) * static_cast<float>(factor);
    minimum = gguf_half(block + 2) * static_cast<float>(offset);
  }
};

/// The scales and 256 weights of 4 bits.
struct Q4KBlock : GgufLargeBlock {
  static constexpr std::size_t low_at = 16, bytes = low_at + 128;

  /// Weights of 32 bytes are 64: the low halves, then the high ones.
  static int integer(const std::byte* low, std::size_t i) {
    return gguf_bits(low[i / 64 * 32 + i % 32], i % 64 < 32 ? 0 : 4, 4);
  }
  static float value(const std::byte* block, std::size_t i) {
    const GgufGroupScale group(block, i);
    return group.scale * static_cast<float>(integer(block + low_at, i)) - group.minimum;
  }
};

/// The scales, 256 fifth bits, 256 weights of 4 bits.
struct Q5KBlock : GgufLargeBlock {
  static constexpr std::size_t high_at = 16, low_at = high_at + 32, bytes = low_at + 128;

  static float value(const std::byte* block, std::size_t i) {
    const GgufGroupScale group(block, i);
    const int integer = Q4KBlock::integer(block + low_at, i) + 16 * gguf_bits(block[high_at + i % 32], i / 32, 1);
    return group.scale * static_cast<float>(integer) - group.minimum;
  }
};

/// 256 weights of 4 bits, 2 more bits of each, 16 signed scales, the scale of these.
struct Q6KBlock : GgufLargeBlock {
  static constexpr std::size_t high_at = 128, group_at = 192, scale_at = 208, bytes = 210;

  static float value(const std::byte* block, std::size_t i) {
    const int low = gguf_bits(block[half(i) * 64 + i % 64], quarter(i) < 2 ? 0 : 4, 4);
    const int high = gguf_bits(block[high_at + half(i) * 32 + i % 32], 2 * quarter(i), 2);
    const auto group = static_cast<std::int8_t>(block[group_at + i / 16]);
    return gguf_half(block + scale_at) * static_cast<float>(group) * static_cast<float>(low + 16 * high - 32);
  }
};

}  // namespace tinymoe::inline v0_1::detail
