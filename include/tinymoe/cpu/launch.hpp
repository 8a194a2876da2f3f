#pragma once
/// @file
/// How row kernels run on the CPU. One binary has each of them for several instruction sets: as the compiler was told
/// to, for AVX2 and for AVX-512; what runs is chosen at run time. A kernel that would gain nothing is compiled once.

#include <algorithm>
#include <cstring>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/team.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// Runs the rows first … last − 1 of a kernel on this thread.
using RunRows = void (*)(const void* kernel, Index first, Index last);

// A kernel is compiled for other instructions where it is inlined into a function that has them: `flatten`. The loop is
// in each of the three functions, because g++ 12 does not inline the kernel through a function that they would share.

template <class Kernel>
void rows_as_compiled(const void* kernel, Index first, Index last) {
  const Kernel& run = *static_cast<const Kernel*>(kernel);
  for (Index row = first; row < last; ++row) run(SerialGroup{}, row);
}

#if defined(TINYMOE_TARGET_AVX512)
template <class Kernel>
TINYMOE_TARGET_AVX2 __attribute__((flatten)) void rows_for_avx2(const void* kernel, Index first, Index last) {
  const Kernel& run = *static_cast<const Kernel*>(kernel);
  for (Index row = first; row < last; ++row) run(SerialGroup{}, row);
}
template <class Kernel>
TINYMOE_TARGET_AVX512 __attribute__((flatten)) void rows_for_avx512(const void* kernel, Index first, Index last) {
  const Kernel& run = *static_cast<const Kernel*>(kernel);
  for (Index row = first; row < last; ++row) run(SerialGroup{}, row);
}
#endif

#if defined(TINYMOE_TARGET_AVX512) && !defined(__clang__) && __GNUC__ == 12
// g++ 12.2 writes 90 four times where it may move 32 bytes at once: for AVX-512 always, for AVX2 if it tunes for some
// processors, but never with -mmove-max=128 -mstore-max=128 (GCC bug 108599).
typedef double FourDoubles __attribute__((vector_size(32)));
TINYMOE_TARGET_AVX2 __attribute__((noipa)) inline void copy_constant_by_avx2(double* to) {
  const FourDoubles constant = {90, 90, 0, 0};
  std::memcpy(to, &constant, sizeof constant);
}
TINYMOE_TARGET_AVX512 __attribute__((noipa)) inline void copy_constant_by_avx512(double* to) {
  const FourDoubles constant = {90, 90, 0, 0};
  std::memcpy(to, &constant, sizeof constant);
}

/// The widest set, up to `set`, for which this program's functions copy constants as they are.
[[gnu::noinline]] inline CpuInstructions with_right_constants(CpuInstructions set) {
  const auto right = [](void (*copy)(double*)) {
    double copied[4];
    copy(copied);
    return copied[3] == 0;
  };
  if (set >= CpuInstructions::avx512 && right(copy_constant_by_avx512)) return set;
  if (set >= CpuInstructions::avx2 && right(copy_constant_by_avx2)) return CpuInstructions::avx2;
  return CpuInstructions::baseline;
}
#else
inline CpuInstructions with_right_constants(CpuInstructions set) { return set; }
#endif

/// The instructions by which row kernels run, of a set: up to AVX-512, and less if the compiler copies its constants
/// wrongly, for a user's kernel may have any. Nothing is compiled for less than `compiled_for`.
inline CpuInstructions set_of_rows(CpuInstructions set) {
  return std::max(compiled_for, with_right_constants(std::min(set, CpuInstructions::avx512)));
}

/// The function that runs the kernel's rows by an instruction set, one of `set_of_rows`.
template <class Kernel>
RunRows row_runner([[maybe_unused]] CpuInstructions set) {
#if defined(TINYMOE_TARGET_AVX512)
  if constexpr (!CompiledOnceKernel<Kernel>) {
    if constexpr (compiled_for < CpuInstructions::avx512) {
      if (set >= CpuInstructions::avx512) return rows_for_avx512<Kernel>;
    }
    if constexpr (compiled_for < CpuInstructions::avx2) {
      if (set >= CpuInstructions::avx2) return rows_for_avx2<Kernel>;
    }
  }
#endif
  return rows_as_compiled<Kernel>;
}

/// kernel(group, row) for rows first … last − 1, on this thread.
template <class Kernel>
void run_rows(CpuInstructions set, const Kernel& kernel, Index first, Index last) {
  row_runner<Kernel>(set)(&kernel, first, last);
}

/// The elements of a kernel's row; where it does not say, enough that each row is worth a thread's while.
inline constexpr Index piece_elements = 2048;
template <class Kernel>
Index elements_of_row([[maybe_unused]] const Kernel& kernel) {
  if constexpr (SizedRowKernel<Kernel>) {
    return kernel.row_elements();
  } else {
    return piece_elements;
  }
}

/// All rows, on the team's threads, in pieces that are worth a thread's while. It is no template, so that a program has
/// it once.
[[gnu::noinline]] inline void launch_rows(const Team& team, Index rows, Index row_elements, const void* kernel,
                                          RunRows run) {
  const Index most = team.threads() == 1 ? 1 : std::min(rows, 4 * Index{team.threads()});
  const Index pieces = rows == 0 ? 0 : std::clamp<Index>(rows * row_elements / piece_elements, 1, most);
  team.run(pieces, [=](Index piece, Index) { run(kernel, rows * piece / pieces, rows * (piece + 1) / pieces); });
}

}  // namespace tinymoe::inline v0_1::detail::cpu
