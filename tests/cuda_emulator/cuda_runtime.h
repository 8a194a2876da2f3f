#pragma once
/// @file
/// An emulator of the part of CUDA that tinymoe's CUDA backend uses, so that its tests need no GPU: this folder comes
/// first in the include path, its headers stand for those of the toolkit (and for tinymoe/cuda/device.cuh), and the
/// .cu files compile with a host compiler. Link every emulator/*.cpp.
///
/// What it does, and which mistakes it makes visible:
///  - A block's threads are fibers (emulator/fibers.hpp). A barrier that some threads miss, lanes of a warp in
///    different collectives, lanes that have exited: the program stops and lists where each thread waits. Threads run
///    forwards in one block and backwards in the next, blocks likewise, so that a missing barrier gives wrong numbers.
///  - Shared memory starts as 0xff in each block; asynchronous copies destroy what they will overwrite when they are
///    started and bring their bytes only when they are waited for. Writing past dynamic shared memory is a SIGSEGV.
///  - Device memory (emulator/memory.hpp) starts as 0xff, is closed to the host (SIGSEGV), has guard pages, is never
///    handed out twice, and is checked for writes past its ends when it is freed.
///  - Streams (emulator/streams.hpp) run nothing before something synchronises, and then other streams either as late
///    or as early as events allow, by turns. Pinned memory is read when a copy runs, pageable memory when it is called.
///  - Capture (emulator/capture.cpp) makes graphs with the dependencies that CUDA would record, and refuses the same
///    calls; a graph's nodes run first to last, or last to first where the dependencies allow it, by turns.
///  - Launches fail as CUDA's do: sizes of blocks and grids, shared memory beyond what was asked for.
///
/// Environment: TINYMOE_EMULATOR_THREADS = forward, backward, alternate (default) or a number, the seed of a random
/// order; TINYMOE_EMULATOR_STREAMS = late, early or alternate (default).
///
/// What it does not: run blocks at the same time (races between blocks show only through their order); check registers,
/// __launch_bounds__, bank conflicts, coalescing or memory spaces (a kernel may read pageable host memory); know
/// atomics, textures, cooperative groups, peer devices; round as tensor cores and cuBLAS do (sums are float32, in order
/// of k). Emulated work happens on the host thread that synchronises, one at a time.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define CUDART_VERSION 13000
#define CUDA_VERSION 13000
#define TINYMOE_CUDA_EMULATOR 1

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static_assert(false, "shared memory is asked for through device.cuh");
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __forceinline__ inline __attribute__((always_inline))

#include "emulator/types.h"

/// Where the running thread is. Plain variables: the fibers' switch writes them.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaMalloc(void** address, std::size_t bytes);
cudaError_t cudaFree(void* address);
cudaError_t cudaMallocHost(void** address, std::size_t bytes);
cudaError_t cudaFreeHost(void* address);
template <class T>
cudaError_t cudaMalloc(T** address, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(address), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** address, std::size_t bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(address), bytes);
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

/// What is asked of a kernel: there is always code for the emulated device.
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes = 0;
  int ptxVersion = 90;
};
template <class T>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, T*) {
  *attributes = {};
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value);
template <class T>
cudaError_t cudaFuncSetAttribute(T* function, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(function), attribute, value);
}
