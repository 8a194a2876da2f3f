#pragma once
/// @file
/// How row kernels run on the CPU.

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/instructions.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// kernel(group, row) for rows first … last − 1, on this thread.
template <class Kernel>
void run_rows(CpuInstructions, const Kernel& kernel, Index first, Index last) {
  for (Index row = first; row < last; ++row) kernel(SerialGroup{}, row);
}

}  // namespace tinymoe::inline v0_1::detail::cpu
