#pragma once
/// @file
/// Starting a kernel: what CUDA refuses, and the queue.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_emulator {

/// Threads of the running kernel that have waited for the kernel before it.
inline constinit std::uint64_t followed = 0;

/// Queues `run`, the whole grid, unless its sizes are not allowed.
cudaError_t launch(const void* kernel, dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t stream,
                   std::function<void()> run);

}  // namespace cuda_emulator
