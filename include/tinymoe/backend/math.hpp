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

/// e^x. For float it is branch-free, so that loops vectorise: relative error below 2e-7, 0 below −87.3, and at most
/// e^88.3 = 2.2e38 above (never infinite).
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T exponential(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {  // the device has an instruction for it
    return x < -87.3f ? 0.0f : ::expf(x > 88.3f ? 88.3f : x);
  }
#endif
  if constexpr (std::is_same_v<T, float>) {
    const float clamped = x < -87.3f ? -87.3f : (x > 88.3f ? 88.3f : x);
    const float rounded = clamped * 1.44269504f + 12582912.0f;  // 1.5·2^23: the sum's low bits are the whole number
    const float whole = rounded - 12582912.0f;
    const float rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    const float mantissa = series * rest * rest + rest + 1.0f;
    const auto exponent = std::bit_cast<std::uint32_t>(rounded) - 0x4B400000u + 127u;
    const float result = mantissa * std::bit_cast<float>(exponent << 23);
    return x < -87.3f ? 0.0f : (x == x ? result : x);
  } else {
    return std::exp(x);
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
