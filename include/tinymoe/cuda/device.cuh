#pragma once
/// @file
/// What kernels ask of the machine itself: lanes, barriers, shuffles, shared memory, tensor cores and asynchronous
/// copies. All PTX and all intrinsics of the CUDA backend are here, so that the tests can put an emulator in its place
/// and run every kernel on a host without a GPU.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

/// Threads of a warp.
inline constexpr int warp_size = 32;

/// This thread's value from the lane whose number differs by the bits of `mask`.
template <class T>
__device__ inline T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
/// The value that lane `from` of the warp gives.
template <class T>
__device__ inline T shuffle(T value, int from) {
  return __shfl_sync(0xffffffffu, value, from);
}
/// The lanes of the warp whose predicate holds, as bits.
__device__ inline std::uint32_t ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }
/// A barrier of the warp: afterwards its lanes see what each of them wrote.
__device__ inline void sync_warp() { __syncwarp(); }
/// A barrier of the block.
__device__ inline void sync_block() { __syncthreads(); }

/// The dynamic shared memory of the block, aligned to 16 bytes.
template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char tinymoe_dynamic_shared[];
  return reinterpret_cast<T*>(tinymoe_dynamic_shared);
}
/// `Count` elements of the block's static shared memory; each `Place` has its own.
template <class T, int Count, class Place>
__device__ inline T* static_shared() {
  __shared__ __align__(16) unsigned char memory[Count * sizeof(T)];
  return reinterpret_cast<T*>(memory);
}

/// Copies 16 bytes from global to shared memory, both aligned to 16, asynchronously; `wait_copies` waits.
__device__ inline void copy_async(void* shared, const void* global) {
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global) : "memory");
}
/// Ends a group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/// Waits until this thread's copies are done, but for those of the last `Pending` groups; a barrier must follow before
/// other threads read them.
template <int Pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory (ldmatrix): lane l gives the address of row l mod 8 of
/// matrix l / 8, aligned to 16 bytes; in matrix i's register lane l gets elements 2 (l mod 4) and + 1 of row l / 4.
__device__ inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
/// The same, each matrix transposed: lane l gets rows 2 (l mod 4) and + 1 of column l / 4.
__device__ inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

/// c += a b on the tensor cores, a (16 x 16), b (16 x 8), c (16 x 8) in float32. With g = lane / 4 and t = lane mod 4,
/// a lane holds c (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1); of a, in pairs, (g, 2t…), (g + 8, 2t…),
/// (g, 2t + 8…), (g + 8, 2t + 8…); of b (2t…, g) and (2t + 8…, g) (PTX ISA, mma.m16n8k16).
template <class T>
__device__ inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>);
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Two numbers, rounded, in one register, the first in the low half.
template <class T>
__device__ inline std::uint32_t pack(float low, float high) {
  return static_cast<std::uint32_t>(T(low).bits) | static_cast<std::uint32_t>(T(high).bits) << 16;
}

/// The first thing in a kernel that may start early: lets the next one's blocks take their places, then waits until the
/// kernel before has ended and what it wrote can be read (PTX ISA, griddepcontrol).
__device__ inline void follow() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

/// Starts kernel(arguments…) on a stream; the status is that of the launch. `early`: its blocks may take their places
/// while the kernel before it in the stream still runs, because it begins with `follow`.
template <class... Parameters, class... Arguments>
cudaError_t start_next(bool early, void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared_bytes,
                       cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}
/// The same, and it begins once the kernel before has ended.
template <class... Parameters, class... Arguments>
cudaError_t start(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared_bytes,
                  cudaStream_t stream, Arguments&&... arguments) {
  return start_next(false, kernel, blocks, threads, shared_bytes, stream, arguments...);
}

}  // namespace tinymoe::inline v0_1::detail::cuda
