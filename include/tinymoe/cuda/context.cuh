#pragma once
/// @file
/// What the units of the CUDA backend share: streams, handles, workspaces, and what the host knows of the device.

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tinymoe/backend/cuda.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

/// Throws DeviceError unless the status is good; `what` was being done.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail<DeviceError>("CUDA: ", what, " failed: ", cudaGetErrorString(status));
}
inline void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail<DeviceError>("cuBLAS: ", what, " failed: ", cublasGetStatusString(status));
}

/// Streams beside the main one, for the products of a bank.
inline constexpr std::size_t side_streams = 4;

/// Scratch of cuBLAS for each stream; more than 32 MiB is not known to help.
inline constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

/// A block of pinned memory: memory of the host that the device copies from and to by itself.
struct Pinned {
  void* data = nullptr;
  std::size_t bytes = 0;

  explicit Pinned(std::size_t size) : bytes(size) { check(cudaMallocHost(&data, size), "taking pinned memory"); }
  Pinned(Pinned&& other) noexcept : data(std::exchange(other.data, nullptr)), bytes(std::exchange(other.bytes, 0)) {}
  Pinned& operator=(Pinned other) noexcept {
    std::swap(data, other.data);
    std::swap(bytes, other.bytes);
    return *this;
  }
  ~Pinned() {
    if (data != nullptr) cudaFreeHost(data);
  }
};

/// A point in a stream.
struct Event {
  cudaEvent_t event = nullptr;

  explicit Event(unsigned flags = cudaEventDisableTiming) {
    check(cudaEventCreateWithFlags(&event, flags), "making an event");
  }
  Event(Event&& other) noexcept : event(std::exchange(other.event, nullptr)) {}
  Event& operator=(Event other) noexcept {
    std::swap(event, other.event);
    return *this;
  }
  ~Event() {
    if (event != nullptr) cudaEventDestroy(event);
  }
};

/// What a sorted Dispatch keeps on the host: where experts' rows begin. A copy from the device brings it; `ready` comes
/// after that copy.
struct HostOffsets : HostRows {
  Pinned memory;
  Event ready;
  bool known = false;   // `memory` has, or will have, the offsets of the last sort
  bool arrived = true;  // no copy to `memory` is under way

  explicit HostOffsets(std::size_t bytes) : memory(bytes) {}
  HostOffsets(const HostOffsets&) = delete;
  ~HostOffsets() override {
    if (!arrived) cudaEventSynchronize(ready.event);
  }
};

/// What a dispatch keeps; null if this backend has not sorted it.
inline HostOffsets* host_offsets_of(const Dispatch& dispatch) {
  auto* own = dynamic_cast<HostOffsets*>(dispatch.host.get());
  assert((own != nullptr || dispatch.host == nullptr) && "the dispatch was sorted by another backend");
  return own;
}

/// One product in cuBLAS's terms, column-major: c (m, n) = op(a) (m, k) · op(b) (k, n) + bias + beta · c.
struct Product {
  bool transpose_a = false, transpose_b = false;
  Index m = 0, n = 0, k = 0;
  const void* a = nullptr;
  Index lda = 0;
  const void* b = nullptr;
  Index ldb = 0;
  void* c = nullptr;
  Index ldc = 0;
  cudaDataType type = CUDA_R_32F;    // of a and b
  cudaDataType result = CUDA_R_32F;  // of c
  const void* bias = nullptr;        // (m), of the result's type
  bool accumulate = false;           // beta is 1
  bool rows_vary = false;            // n, or k if b is transposed, changes with each step
};

/// cuBLAS's answer for products of one kind: its algorithm for them.
struct ProductPlan {
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;  // false: cuBLAS has no algorithm, and a plain kernel computes it
};

class Context {
 public:
  explicit Context(const CudaOptions& options);
  ~Context();
  Context(const Context&) = delete;

  /// Makes this context's device the one of the calling thread.
  void use() const { check(cudaSetDevice(device), "choosing the device"); }
  bool capturing() const;
  /// Whether to start a kernel that begins with `follow` before the previous one has ended.
  template <class Kernel>
  bool starts_early(Kernel* kernel) {
    return options.early_starts && waits_by_itself(reinterpret_cast<const void*>(kernel));
  }

  /// c = the product, on the main stream (0) or one beside it (1 …).
  void multiply(const Product& product, std::size_t on = 0);
  cudaStream_t on(std::size_t number) const { return number == 0 ? stream : sides[number - 1]; }
  /// Makes the first `count` side streams wait for the work that the main stream has so far.
  void fork(std::size_t count);

  /// The offsets of a dispatch, (E + 1), on the host; waits for the device if need be. They stay until the next call.
  const std::int32_t* host_offsets(const Dispatch& dispatch);

  /// Device memory of at least so many bytes. The next call may give the same memory again, so only work on the main
  /// stream may use it. It grows in the first step only.
  void* scratch(std::size_t bytes);
  /// cuBLAS's own scratch for a stream, taken at the first call.
  void* workspace(std::size_t on);

  CudaOptions options;
  int device = 0;
  int multiprocessors = 1;
  std::size_t shared_bytes = 0;  // that a block may have
  cudaStream_t stream = nullptr;
  std::array<cudaStream_t, side_streams> sides{};
  Event here;  // of the main stream, for streams that wait for it
  std::array<Event, side_streams> done;
  cublasLtHandle_t products = nullptr;
  cublasHandle_t blas = nullptr;
  Index plain_products = 0;  // that cuBLAS could not do

  /// Staging memory of uploads, free again once its event has come.
  struct Staging {
    Pinned memory;
    Event free;
  };
  std::vector<Staging> staging;
  /// Pinned memory for small copies to the host: a driver takes longer with memory that it must pin first.
  std::optional<Pinned> landing;

 private:
  bool waits_by_itself(const void* kernel);
  std::unordered_map<const void*, bool> waiting_;
  void open();
  void release() noexcept;
  using Key = std::tuple<bool, bool, Index, Index, Index, Index, Index, Index, int, int, bool, bool, unsigned>;
  ProductPlan& plan_of(const Product& product, bool exact);
  void make(ProductPlan& plan, const Product& p, unsigned a, unsigned b, unsigned c);
  std::map<Key, ProductPlan> plans_;
  std::array<void*, side_streams + 1> workspaces_{};
  std::vector<void*> scratch_;
  std::size_t scratch_bytes_ = 0;
  std::vector<std::int32_t> offsets_;  // of dispatches that keep none
};

/// cuBLAS's name of T.
template <class T>
inline constexpr cudaDataType type_of = std::is_same_v<T, float>      ? CUDA_R_32F
                                        : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                                                      : CUDA_R_16F;

}  // namespace tinymoe::inline v0_1::detail::cuda
