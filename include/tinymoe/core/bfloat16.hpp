#pragma once
/// @file
/// bfloat16: the upper half of a float32, and the conversions from half precision that weight files need.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// A 16-bit float with float32's exponent: eight bits of exponent, seven of mantissa.
/// Arithmetic happens in float: the type converts both ways and rounds to nearest even.
struct bfloat16 {
  std::uint16_t bits = 0;

  constexpr bfloat16() = default;
  TINYMOE_EVERYWHERE constexpr explicit bfloat16(float value) : bits(round(value)) {}
  TINYMOE_EVERYWHERE constexpr operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  TINYMOE_EVERYWHERE friend constexpr bool operator==(bfloat16 a, bfloat16 b) { return float(a) == float(b); }

  static constexpr bfloat16 from_bits(std::uint16_t bits) {
    bfloat16 value;
    value.bits = bits;
    return value;
  }

 private:
  TINYMOE_EVERYWHERE static constexpr std::uint16_t round(float value) {
#if defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      std::uint16_t half;
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
      return half;
    }
#endif
    const auto word = std::bit_cast<std::uint32_t>(value);
    // Without a branch, so that loops vectorise. A NaN stays one: nothing is added, and it becomes a quiet one.
    const std::uint32_t is_nan = -std::uint32_t{value != value}, half = 0x7fffu + ((word >> 16) & 1u);
    return static_cast<std::uint16_t>(((word + (half & ~is_nan)) | (is_nan & 0x00400000u)) >> 16);
  }
};

namespace detail {

/// The value of an IEEE 754 half-precision number, subnormals, infinities and NaN included.
constexpr float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
