#pragma once
/// @file
/// Vectors of the compiler's own (GNU vector extensions), from which the products of the CPU are written once for every
/// instruction set.
///
/// A vector may be wider than the processor's registers: the compiler then splits it, so all code runs everywhere. It
/// is fast where the function that it is inlined into has a target that has the width.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// `lanes` numbers that are computed at once. Vectors are never parameters or results: how those are passed depends on
/// the instruction set.
template <class T, int lanes>
struct SimdVector {
  typedef T Type __attribute__((vector_size(lanes * sizeof(T))));
  typedef T Anywhere __attribute__((vector_size(lanes * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <int lanes>
using Floats = typename SimdVector<float, lanes>::Type;

/// to = `lanes` numbers of memory, as float.
template <int lanes>
TINYMOE_INLINE void load(Floats<lanes>& to, const float* from) {
  to = *reinterpret_cast<const typename SimdVector<float, lanes>::Anywhere*>(from);
}
template <int lanes>
TINYMOE_INLINE void load(Floats<lanes>& to, const bfloat16* from) {
  using Halves = SimdVector<std::uint16_t, lanes>;
  using Words = typename SimdVector<std::uint32_t, lanes>::Type;
  const auto& halves = *reinterpret_cast<const typename Halves::Anywhere*>(from);
  Words words;
#if defined(__x86_64__) && !defined(__clang__)
  // GCC 12 widens the two halves apart and joins them, four shuffles in place of one.
  if constexpr (lanes >= 8) {
    asm("vpmovzxwd %1, %0" : "=v"(words) : "m"(halves));
  } else {
    words = __builtin_convertvector(halves, Words);
  }
#else
  words = __builtin_convertvector(halves, Words);
#endif
  words <<= 16;
  to = __builtin_bit_cast(Floats<lanes>, words);
}
template <int lanes>
TINYMOE_INLINE void store(float* to, const Floats<lanes>& from) {
  *reinterpret_cast<typename SimdVector<float, lanes>::Anywhere*>(to) = from;
}

/// All lanes of `to` = *from.
template <int lanes>
TINYMOE_INLINE void broadcast(Floats<lanes>& to, const float* from) {
#if defined(__x86_64__) && !defined(__clang__)
  // GCC 12 loads one lane and spreads it by a shuffle, which takes a multiply-add's place in the processor.
  if constexpr (lanes >= 8) {
    asm("vbroadcastss %1, %0" : "=v"(to) : "m"(*from));
    return;
  }
#endif
  to = Floats<lanes>{} + *from;
}

/// Exchanges bit `distance` of the lane with the same bit of the vector's number, for two vectors `distance` apart.
template <int lanes, int distance, std::size_t... lane>
TINYMOE_INLINE void exchange(Floats<lanes>& a, Floats<lanes>& b, std::index_sequence<lane...>) {
  constexpr int d = distance;
  const Floats<lanes> low =
      __builtin_shufflevector(a, b, ((int(lane) & d) != 0 ? int(lane) - d + lanes : int(lane))...);
  const Floats<lanes> high =
      __builtin_shufflevector(a, b, ((int(lane) & d) != 0 ? int(lane) + lanes : int(lane) + d)...);
  a = low, b = high;
}

/// Transposes a square of `lanes` vectors (Eklundh 1972).
template <int lanes, int distance = 1>
TINYMOE_INLINE void transpose(Floats<lanes>* rows) {
  if constexpr (distance < lanes) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if ((i & distance) == 0) {
        exchange<lanes, distance>(rows[i], rows[i + distance], std::make_index_sequence<std::size_t(lanes)>());
      }
    }
    transpose<lanes, 2 * distance>(rows);
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
