#pragma once
/// @file
/// What differs between compilers: functions that also run on a GPU, and the fundamental index types.

#include <cstddef>
#include <cstdint>

/// @def TINYMOE_EVERYWHERE
/// Marks a function that host and device both run.
#if defined(__CUDACC__)
#define TINYMOE_EVERYWHERE __host__ __device__
#else
#define TINYMOE_EVERYWHERE
#endif

/// @def TINYMOE_INLINE
/// Marks a function that must be inlined, so that the loop around it vectorises.
#if defined(__GNUC__) || defined(__clang__)
#define TINYMOE_INLINE [[gnu::always_inline]] inline
#else
#define TINYMOE_INLINE inline
#endif

namespace tinymoe::inline v0_1 {

/// Sizes, rows and offsets: signed, so that differences and loops downwards are plain arithmetic.
using Index = std::ptrdiff_t;

/// A token's number in the vocabulary; negative as a target means "not scored".
using Token = std::int32_t;

}  // namespace tinymoe::inline v0_1
