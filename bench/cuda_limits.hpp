#pragma once
/// @file
/// A GPU's limits, measured in the same process as the figures, and timing on the GPU.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "support.hpp"
#include "tinymoe/backend/cuda.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/layers/model.hpp"

namespace bench {

/// Milliseconds of one `work` on the device after warming up: the median of several samples of many runs.
template <class B, class F>
double median_milliseconds(B& backend, F&& work, int samples = 7, double sample_milliseconds = 20) {
  backend.milliseconds(work);
  const double once = backend.milliseconds(work);
  const int times = static_cast<int>(std::clamp(sample_milliseconds / std::max(once, 1e-3), 1.0, 100.0));
  std::vector<double> found;
  for (int sample = 0; sample < samples; ++sample) {
    const double all = backend.milliseconds([&] {
      for (int i = 0; i < times; ++i) work();
    });
    found.push_back(all / times);
  }
  return programs::median(std::move(found));
}

/// A matrix of normal random numbers on the device. Zeros would use less power on a GPU, and so less time.
template <class B, class T>
class DeviceMatrix {
 public:
  DeviceMatrix(B& backend, Index rows, Index cols) : memory_(backend.allocate(bytes<T>(rows * cols))) {
    using Normal = tinymoe::kernels::InitialNormal<float>;
    using Convert = tinymoe::kernels::Convert<float, T>;
    view_ = {memory_.template as<T>().data, rows, cols};
    const Index size = rows * cols;
    const auto stream =
        tinymoe::RandomStream(tinymoe::Seed{static_cast<std::uint64_t>(size)}, 0, tinymoe::RandomSite{});
    tinymoe::Memory wide;
    float* numbers = reinterpret_cast<float*>(view_.data);
    if constexpr (!std::is_same_v<T, float>) {
      wide = backend.allocate(bytes<float>(size));
      numbers = wide.template as<float>().data;
    }
    backend.launch(tinymoe::kernels::chunk_count<Normal>(size), Normal{numbers, 0, size, 0.1, stream});
    if constexpr (!std::is_same_v<T, float>) {
      const tinymoe::View<const float> from(numbers, 1, size);
      backend.launch(tinymoe::kernels::chunk_count<Convert>(size),
                     Convert{from, tinymoe::View<T>(view_.data, 1, size)});
      backend.milliseconds([] {});  // waits until `wide` has been read
    }
  }
  operator tinymoe::View<T>() const { return view_; }
  operator tinymoe::View<const T>() const { return view_; }
  tinymoe::View<T> view() const { return view_; }

 private:
  template <class U>
  static std::size_t bytes(Index size) {
    return static_cast<std::size_t>(size) * sizeof(U);
  }
  tinymoe::Memory memory_;
  tinymoe::View<T> view_;
};

/// Bytes a second of a copy within the device's memory, counting reads and writes.
inline double measure_copy(std::size_t bytes) {
  const auto check = [](cudaError_t status) {
    if (status != cudaSuccess) tinymoe::fail<tinymoe::DeviceError>("CUDA: ", cudaGetErrorString(status));
  };
  void *from = nullptr, *to = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaMalloc(&from, bytes));
  check(cudaMalloc(&to, bytes));
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  check(cudaMemsetAsync(from, 0x3c, bytes, stream));
  std::vector<double> seconds;
  constexpr int warm = 2, samples = 9, copies = 4;
  for (int sample = -warm; sample < samples; ++sample) {
    check(cudaEventRecord(begin, stream));
    for (int i = 0; i < copies; ++i) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (sample >= 0) seconds.push_back(double(milliseconds) / 1e3 / copies);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  cudaFree(from);
  cudaFree(to);
  return 2 * double(bytes) / std::max(programs::median(std::move(seconds)), 1e-9);
}

/// Operations a second of a product of n x n matrices.
template <class B>
double measure_product(B& backend, Index n) {
  using T = typename B::Scalar;
  const DeviceMatrix<B, T> x(backend, n, n), w(backend, n, n), y(backend, n, n);
  const double milliseconds = median_milliseconds(
      backend, [&] { backend.matmul(x, w, {}, y); }, 9);
  return 2e3 * double(n) * double(n) * double(n) / std::max(milliseconds, 1e-9);
}

}  // namespace bench
