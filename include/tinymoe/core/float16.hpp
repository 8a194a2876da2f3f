#pragma once
/// @file
/// float16: IEEE 754 half precision. Compared with bfloat16, it has three more bits of mantissa and a far smaller
/// range.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// A 16-bit float with five bits of exponent and ten of mantissa. The largest is 65504, the smallest above 0 is 6e-8.
/// Arithmetic happens in float: the type converts both ways and rounds to nearest even. A value that is too large
/// becomes infinite.
struct float16 {
  std::uint16_t bits = 0;

  constexpr float16() = default;
  TINYMOE_EVERYWHERE constexpr explicit float16(float value) : bits(round(value)) {}
  TINYMOE_EVERYWHERE constexpr operator float() const {
#if defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
      return value;
    }
#endif
    return detail::float_from_half(bits);
  }
  TINYMOE_EVERYWHERE friend constexpr bool operator==(float16 a, float16 b) { return float(a) == float(b); }

  static constexpr float16 from_bits(std::uint16_t bits) {
    float16 value;
    value.bits = bits;
    return value;
  }

 private:
  TINYMOE_EVERYWHERE static constexpr std::uint16_t round(float value) {
#if defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      std::uint16_t half;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
      return half;
    }
#endif
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (word >> 16) & 0x8000u, magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // stays a NaN
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and more
    if (magnitude < 0x33000001u) return static_cast<std::uint16_t>(sign);             // 2^-25 and less
    const std::uint32_t exponent = magnitude >> 23;
    // The mantissa with its leading bit, and how many of its bits half precision lacks.
    const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t lost = exponent < 113 ? 126 - exponent : 13;
    const std::uint32_t kept = mantissa >> lost, rest = mantissa & ((1u << lost) - 1), half = 1u << (lost - 1);
    const std::uint32_t up = rest > half || (rest == half && (kept & 1u) != 0) ? 1 : 0;
    // A normal number's leading bit adds one to the exponent, and so does a carry out of the mantissa.
    const std::uint32_t base = exponent < 113 ? 0 : (exponent - 113) << 10;
    return static_cast<std::uint16_t>(sign | (base + kept + up));
  }
};

}  // namespace tinymoe::inline v0_1
