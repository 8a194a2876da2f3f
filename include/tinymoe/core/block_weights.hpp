#pragma once
/// @file
/// Integer weights for inference: `Int8` and `Int4`, a quarter and an eighth of float32's bytes. Rows are cut into
/// groups of 32 weights, w = d · q, with one float16 scale d a group: bit for bit the blocks of GGUF's Q8_0 and Q4_0.
///
///     Q8_0, 34 bytes: d, then 32 bytes q            q from −127 to 127, d = max |w| / 127
///     Q4_0, 18 bytes: d, then 16 bytes with q + 8   q from −8 to 7, d = −(the w of largest size) / 8;
///                                                   byte i has weight i below and weight i + 16 above
///
/// A model of them has no masters, so nothing trains it. Its last group of a row is filled up with zeros.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"

namespace tinymoe::inline v0_1 {

/// Weights of 8 bits, 8.5 with their scales: `Model<Arch, Cpu, Int8>`. Routers, norms and biases stay in float.
struct Int8 {};
/// Weights of 4 bits, 4.5 with their scales. Routers, norms and biases stay in float.
struct Int4 {};

namespace detail {

/// Weights that share a scale.
inline constexpr Index block_weights = 32;

/// The scale at the start of a block.
TINYMOE_EVERYWHERE inline float16 block_scale(const std::byte* block) {
  float16 scale;
  std::memcpy(&scale, block, sizeof scale);
  return scale;
}

/// 1/d, and 0 where that is infinite: all weights of such a group are 0 to a float16's scale.
inline float inverse_of(float d) { return std::abs(d) >= 0x1p-126f ? 1 / d : 0; }

/// One group of GGUF's Q8_0.
struct Q8Block {
  static constexpr const char* name = "Q8_0";
  static constexpr std::size_t bytes = sizeof(float16) + 32;
  static constexpr float largest = 65504.0f * 127;  // the scale is a float16

  /// q of weight i.
  TINYMOE_EVERYWHERE static int integer(const std::byte* block, Index i) {
    return static_cast<std::int8_t>(block[sizeof(float16) + static_cast<std::size_t>(i)]);
  }
  /// Stores 32 weights with the rounding of ggml's quantize_row_q8_0_ref, halves away from zero.
  static void encode(const float* weights, std::byte* block) {
    float most = 0;
    for (Index i = 0; i < block_weights; ++i) most = std::max(most, std::abs(weights[i]));
    const float d = most / 127, inverse = inverse_of(d);
    const float16 scale(d);
    std::memcpy(block, &scale, sizeof scale);
    for (Index i = 0; i < block_weights; ++i) {
      const auto q = static_cast<std::int8_t>(std::round(weights[i] * inverse));
      block[sizeof scale + static_cast<std::size_t>(i)] = static_cast<std::byte>(q);
    }
  }
};

/// One group of GGUF's Q4_0.
struct Q4Block {
  static constexpr const char* name = "Q4_0";
  static constexpr std::size_t bytes = sizeof(float16) + 16;
  static constexpr float largest = 65504.0f * 8;

  TINYMOE_EVERYWHERE static int integer(const std::byte* block, Index i) {
    const auto pair = static_cast<unsigned>(block[sizeof(float16) + static_cast<std::size_t>(i % 16)]);
    return static_cast<int>(i < 16 ? pair & 15u : pair >> 4) - 8;
  }
  /// Stores 32 weights with the rounding of ggml's quantize_row_q4_0_ref: the whole part of w/d + 8.5.
  static void encode(const float* weights, std::byte* block) {
    float most = 0;
    for (Index i = 0; i < block_weights; ++i) {
      if (std::abs(weights[i]) > std::abs(most)) most = weights[i];
    }
    const float d = most / -8, inverse = inverse_of(d);
    const float16 scale(d);
    std::memcpy(block, &scale, sizeof scale);
    const auto shifted = [=](Index i) {
      const volatile float product = weights[i] * inverse;  // rounded before the sum: an FMA rounds once
      return static_cast<unsigned>(std::min(15, static_cast<int>(product + 8.5f)));
    };
    for (Index i = 0; i < 16; ++i) {
      block[sizeof scale + static_cast<std::size_t>(i)] = static_cast<std::byte>(shifted(i) | shifted(i + 16) << 4);
    }
  }
};

/// A matrix of such blocks, row by row.
template <class BlockType>
struct BlockView {
  using Block = BlockType;
  const std::byte* data = nullptr;
  Index rows = 0, cols = 0;

  TINYMOE_EVERYWHERE static constexpr Index blocks(Index cols) { return (cols + block_weights - 1) / block_weights; }
  TINYMOE_EVERYWHERE static constexpr std::size_t row_bytes(Index cols) {
    return static_cast<std::size_t>(blocks(cols)) * Block::bytes;
  }

  TINYMOE_EVERYWHERE const std::byte* row(Index r) const {
    return data + static_cast<std::size_t>(r) * row_bytes(cols);
  }
  TINYMOE_EVERYWHERE float operator()(Index r, Index c) const {
    const std::byte* block = row(r) + static_cast<std::size_t>(c / block_weights) * Block::bytes;
    return float(block_scale(block)) * static_cast<float>(Block::integer(block, c % block_weights));
  }
  TINYMOE_EVERYWHERE BlockView middle_rows(Index first, Index count) const { return {row(first), count, cols}; }
};

/// One matrix for each of `count` experts, `stride` bytes apart.
template <class Block>
struct BlockBank {
  const std::byte* data = nullptr;
  std::ptrdiff_t stride = 0;
  Index count = 0, rows = 0, cols = 0;
  TINYMOE_EVERYWHERE BlockView<Block> operator[](Index expert) const { return {data + expert * stride, rows, cols}; }
};

/// What the two formats share.
template <class Block>
struct BlockFormat {
  using Vector = float;
  using Pointer = std::byte*;
  using View = BlockView<Block>;
  using ConstView = View;
  using Bank = BlockBank<Block>;
  using ConstBank = Bank;
  static constexpr bool plain = false;

  static constexpr std::size_t bytes(Index rows, Index cols) {
    return round_up(static_cast<std::size_t>(rows) * row_bytes(cols), memory_alignment);
  }
  static Pointer pointer(std::byte* address) { return address; }
  static View view(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  static View read(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  static Bank bank(Pointer first, Pointer second, Index count, Index rows, Index cols) {
    return {first, second - first, count, rows, cols};
  }

  /// A row's bytes, of which a checkpoint's tensor of unsigned bytes has (rows, row_bytes).
  static constexpr std::size_t row_bytes(Index cols) { return View::row_bytes(cols); }

  /// Whether all scales of whole blocks are finite.
  static bool sound(std::span<const std::byte> blocks) {
    for (std::size_t at = 0; at < blocks.size(); at += Block::bytes) {
      if ((~block_scale(blocks.data() + at).bits & 0x7c00u) == 0) return false;
    }
    return true;
  }

  /// Throws OptionError for a weight that is no finite number, or too large for its group's scale to be a float16.
  template <class M>
  static void encode(tinymoe::View<const M> values, std::byte* stored) {
    for (Index row = 0; row < values.rows; ++row) {
      for (Index first = 0; first < values.cols; first += block_weights, stored += Block::bytes) {
        float weights[block_weights] = {};
        const Index count = std::min(block_weights, values.cols - first);
        for (Index i = 0; i < count; ++i) {
          weights[i] = static_cast<float>(values(row, first + i));
          if (!(std::abs(weights[i]) <= Block::largest)) refuse(row, first + i, weights[i]);
        }
        Block::encode(weights, stored);
      }
    }
  }

 private:
  [[noreturn, gnu::cold]] static void refuse(Index row, Index col, float weight) {
    fail<OptionError>("the weight in row ", row, ", column ", col, " is ", weight, ", which ", Block::name,
                      " cannot hold; expected a finite one of at most ", Block::largest);
  }
};

}  // namespace detail

/// The name is that of a checkpoint's config.json and of the programs' --weights.
template <>
struct WeightFormat<Int8> : detail::BlockFormat<detail::Q8Block> {
  static constexpr std::string_view name = "int8";
  template <Part part>
  using Matrix = std::conditional_t<part == Part::router, float, Int8>;
};

/// As that of Int8.
template <>
struct WeightFormat<Int4> : detail::BlockFormat<detail::Q4Block> {
  static constexpr std::string_view name = "int4";
  template <Part part>
  using Matrix = std::conditional_t<part == Part::router, float, Int4>;
};

}  // namespace tinymoe::inline v0_1
