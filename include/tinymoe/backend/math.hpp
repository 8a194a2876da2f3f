#pragma once
/// @file
/// Scalar mathematics for every number type a kernel is run with: float, double and std::complex<double>.
///
/// Comparisons look at the real part, so that an imaginary step never changes a choice (gradients by complex step).

#include <bit>
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"

#ifdef __FAST_MATH__
#error "tinymoe: -ffast-math reorders the arithmetic that exponential() relies on and gives wrong numbers; leave it out"
#endif

namespace tinymoe::inline v0_1 {

namespace detail {

template <class T>
struct ComputeType {
  using Type = T;
};
template <>
struct ComputeType<bfloat16> {
  using Type = float;
};
template <>
struct ComputeType<float16> {
  using Type = float;
};

template <class T>
inline constexpr bool is_complex = false;
template <class T>
inline constexpr bool is_complex<std::complex<T>> = true;

}  // namespace detail

/// The type in which values of `T` are computed: bfloat16 and float16 are computed in float, all else in itself.
template <class T>
using Compute = typename detail::ComputeType<std::remove_const_t<T>>::Type;

/// The part of a number that comparisons look at.
template <class T>
TINYMOE_EVERYWHERE constexpr auto real_part(T x) {
  if constexpr (detail::is_complex<T>) {
    return x.real();
  } else {
    return x;
  }
}

/// e^x. For float: relative error below 2e-7, 0 below −87.3, and at most e^88.3 = 2.2e38 above (never infinite). It has
/// no branch, so that loops vectorise, and chooses by bits, because compilers make branches of `?:` with a constant.
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T exponential(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {  // the device has an instruction for it
    return x < -87.3f ? 0.0f : ::expf(x > 88.3f ? 88.3f : x);
  }
#endif
  if constexpr (std::is_same_v<T, float>) {
    const float rounded = x * 1.44269504f + 12582912.0f;  // 1.5·2^23: the sum's low bits are the whole number
    const float whole = rounded - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    const float mantissa = series * rest * rest + rest + 1.0f;
    const auto exponent = std::bit_cast<std::uint32_t>(rounded) - 0x4B400000u + 127u;
    const auto result = std::bit_cast<std::uint32_t>(mantissa * std::bit_cast<float>(exponent << 23));
    const std::uint32_t above = -std::uint32_t{x > 88.3f}, inside = (std::uint32_t{x < -87.3f} - 1u) & ~above;
    constexpr auto most = std::bit_cast<std::uint32_t>(2.2294826e38f);
    return std::bit_cast<float>((result & inside) | (most & above));
  } else {
    return std::exp(x);
  }
}

/// The square root of x ≥ 0. For float: relative error below 2e-7 for normal numbers, and absolute error below 1e-19
/// for subnormal ones. std::sqrt may set `errno`, and a loop with it does not vectorise unless the compiler is told
/// that nobody looks; so this is Newton's method for 1/√x, from a guess by the bits of x, with a last step for √x
/// itself.
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T square_root(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) return ::sqrtf(x);
#endif
  if constexpr (std::is_same_v<T, float>) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const float half = 0.5f * x;
    float inverse = std::bit_cast<float>(0x5f375a86u - (bits >> 1));  // within 3.5 %
    inverse = inverse * (1.5f - half * inverse * inverse);
    inverse = inverse * (1.5f - half * inverse * inverse);  // within 5e-6
    const float near = x * inverse, root = near + 0.5f * inverse * (x - near * near);
    const std::uint32_t infinite = -std::uint32_t{bits == 0x7f800000u};  // where `near` is, and root is not a number
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(root) & ~infinite) | (bits & infinite));
  } else {
    return std::sqrt(x);
  }
}

/// 1 / (1 + e^−x).
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

/// The error function. For float: Abramowitz and Stegun 1964, 7.1.26, absolute error below 6e-7 (near 0, by rounding).
/// For complex: the first-order expansion about the real part, exact to machine precision for the imaginary steps of
/// gradient tests.
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T error_function(T x) {
  if constexpr (detail::is_complex<T>) {
    const auto slope = 1.1283791670955126 * std::exp(-x.real() * x.real());
    return T(std::erf(x.real()), slope * x.imag());
  } else if constexpr (std::is_same_v<T, float>) {
    const float magnitude = x < 0 ? -x : x;
    const float t = 1.0f / (1.0f + 0.3275911f * magnitude);
    float series = 1.061405429f;
    series = series * t - 1.453152027f;
    series = series * t + 1.421413741f;
    series = series * t - 0.284496736f;
    series = series * t + 0.254829592f;
    const float value = 1.0f - series * t * exponential(-x * x);
    return x < 0 ? -value : value;
  } else {
    return std::erf(x);
  }
}

}  // namespace tinymoe::inline v0_1
