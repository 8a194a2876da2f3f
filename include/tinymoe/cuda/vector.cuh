#pragma once
/// @file
/// Elements that are loaded and stored 16 bytes at a time.

#include <cstddef>
#include <cstdint>

namespace tinymoe::inline v0_1::detail::cuda {

/// Elements that are loaded at once: 16 bytes of them, or a multiple of that.
template <class T, int count = static_cast<int>(16 / sizeof(T))>
struct alignas(16) Vector {
  static constexpr int size = count;
  T values[static_cast<std::size_t>(size)];
};

/// Whether all rows of these matrices, and their parts of `width` elements, begin at multiples of 16 bytes.
template <class T, class... Matrices>
bool rows_aligned(std::ptrdiff_t width, const Matrices&... matrices) {
  auto bits = static_cast<std::uintptr_t>(width) * sizeof(T);
  ((bits |= reinterpret_cast<std::uintptr_t>(matrices.data) | static_cast<std::uintptr_t>(matrices.stride) * sizeof(T)),
   ...);
  return bits % 16 == 0;
}

}  // namespace tinymoe::inline v0_1::detail::cuda
