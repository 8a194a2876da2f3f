#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "emulator/launch.hpp"
#include "emulator/memory.hpp"
#include "emulator/streams.hpp"

namespace cuda_emulator {
namespace {

std::map<const void*, std::size_t>& dynamic_limits() {
  static auto* const limits = new std::map<const void*, std::size_t>;
  return *limits;
}

/// Which of the two ends are on the device, as the kind of copy says or the addresses do.
struct Ends {
  bool to_device, from_device;
};
cudaError_t ends_of(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Ends& ends) {
  ends = {is_device_address(to), is_device_address(from)};
  if ((ends.to_device && !is_device(to, bytes)) || (ends.from_device && !is_device(from, bytes))) {
    return cudaErrorInvalidValue;
  }
  if (kind == cudaMemcpyDefault) return cudaSuccess;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return to_device == ends.to_device && from_device == ends.from_device ? cudaSuccess : cudaErrorInvalidValue;
}

/// The copy as work of a stream. Pageable memory is read now, as CUDA stages it; pinned memory when the copy runs.
Work copy_work(void* to, const void* from, std::size_t bytes, bool stage) {
  if (!stage) return [=] { std::memcpy(to, from, bytes); };
  auto staged = std::make_shared<std::vector<std::byte>>(bytes);
  std::memcpy(staged->data(), from, bytes);
  return [=] { std::memcpy(to, staged->data(), bytes); };
}

bool capturing(cudaStream_t handle) {
  const CUstream_st* const stream = find_stream(handle);
  return stream != nullptr && stream->capture != nullptr;
}

}  // namespace

cudaError_t launch(const void* kernel, dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t stream,
                   Work run) {
  const std::lock_guard guard(runtime_lock());
  if (kernel == nullptr) return remember(cudaErrorInvalidDeviceFunction);
  const bool empty =
      blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || threads.x == 0 || threads.y == 0 || threads.z == 0;
  const bool grid = blocks.x <= 0x7fffffffu && blocks.y <= 65535 && blocks.z <= 65535;
  const bool block = threads.x <= 1024 && threads.y <= 1024 && threads.z <= 64 &&
                     std::uint64_t{threads.x} * threads.y * threads.z <= 1024;
  if (empty || !grid || !block) return remember(cudaErrorInvalidConfiguration);
  const auto limit = dynamic_limits().find(kernel);
  if (shared_bytes > (limit == dynamic_limits().end() ? shared_memory_plain : limit->second)) {
    return remember(cudaErrorInvalidValue);
  }
  return remember(enqueue(stream, std::move(run)));
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return remember(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = device_memory_bytes;
  properties->sharedMemPerBlock = shared_memory_plain;
  properties->sharedMemPerBlockOptin = shared_memory_most;
  properties->sharedMemPerMultiprocessor = 228 * 1024;
  properties->reservedSharedMemPerBlock = 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024, properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 0x7fffffff, properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = 4 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t status = cudaGetDeviceProperties(&p, device); status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = p.warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = p.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    default:
      return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard guard(runtime_lock());
  *total = device_memory_bytes;
  *free = device_memory_bytes - device_bytes_used();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  const std::lock_guard guard(runtime_lock());
  if (address == nullptr) return remember(cudaErrorInvalidValue);
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  *address = allocate_device(bytes);
  return remember(*address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* address) {
  const std::lock_guard guard(runtime_lock());
  if (address == nullptr) return cudaSuccess;
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  synchronise_all();
  return remember(free_device(address) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** address, std::size_t bytes) {
  const std::lock_guard guard(runtime_lock());
  if (address == nullptr) return remember(cudaErrorInvalidValue);
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  *address = bytes == 0 ? nullptr : allocate_pinned(bytes);
  return remember(bytes != 0 && *address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFreeHost(void* address) {
  const std::lock_guard guard(runtime_lock());
  if (address == nullptr) return cudaSuccess;
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  synchronise_all();
  return remember(free_pinned(address) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const std::lock_guard guard(runtime_lock());
  if (bytes == 0) return cudaSuccess;
  Ends ends;
  if (const cudaError_t status = ends_of(to, from, bytes, kind, ends); status != cudaSuccess) return remember(status);
  const bool pageable_from = !ends.from_device && !is_pinned(from, bytes);
  const bool pageable_to = !ends.to_device && !is_pinned(to, bytes);
  if (capturing(stream) && (pageable_from || pageable_to)) {
    find_stream(stream)->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  const cudaError_t status = enqueue(stream, copy_work(to, from, bytes, pageable_from));
  if (status != cudaSuccess || !pageable_to) return remember(status);
  return remember(synchronise(stream));  // only pinned memory can be written behind the host's back
}

/// On the default stream. Copies from pageable memory return when that may be changed, copies within the device at
/// once, all others when they are done.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const std::lock_guard guard(runtime_lock());
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  Ends ends;
  if (const cudaError_t status = ends_of(to, from, bytes, kind, ends); status != cudaSuccess) return remember(status);
  const bool staged = ends.to_device && !ends.from_device && !is_pinned(from, bytes);
  if (staged) {
    if (const cudaError_t status = synchronise(nullptr); status != cudaSuccess) return remember(status);
  }
  const cudaError_t status = enqueue(nullptr, copy_work(to, from, bytes, staged));
  if (status != cudaSuccess || staged || (ends.to_device && ends.from_device)) return remember(status);
  return remember(synchronise(nullptr));
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard guard(runtime_lock());
  if (bytes == 0) return cudaSuccess;
  if (!is_device(to, bytes) && !is_pinned(to, bytes)) return remember(cudaErrorInvalidValue);
  return remember(enqueue(stream, [=] { std::memset(to, value, bytes); }));
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  const std::lock_guard guard(runtime_lock());
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  const cudaError_t status = cudaMemsetAsync(to, value, bytes, nullptr);
  if (status != cudaSuccess || is_device_address(to)) return status;
  return remember(synchronise(nullptr));
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const std::lock_guard guard(runtime_lock());
  if (function == nullptr) return remember(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    return remember(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
  }
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<std::size_t>(value) > shared_memory_most) {
    return remember(cudaErrorInvalidValue);
  }
  dynamic_limits()[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
