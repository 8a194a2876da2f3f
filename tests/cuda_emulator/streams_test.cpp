// Memory, streams and capture: when work happens, and what CUDA refuses.

#include "test_support.hpp"

namespace {

using namespace cuda_emulator::test;
using cuda_emulator::StreamOrder;

__global__ void touch_shared(int n) { dynamic_shared<int>()[n] = 1; }
__global__ void fill(float* to, float value, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = value;
}
__global__ void scale(float* to, float factor, float more) { to[threadIdx.x] = to[threadIdx.x] * factor + more; }

TEST_CASE("the host cannot touch device memory", "[cuda_emulator]") {
  const Buffer<float> memory(64);
  const auto values = memory.host();
  CHECK(values[0] != values[0]);  // fresh memory is NaN
  CHECK(signal_of([&] { memory.data[0] = 1; }) == SIGSEGV);
  CHECK(signal_of([&] { std::printf("%f", double(memory.data[0])); }) == SIGSEGV);
  const auto run = [](float* address) {
    start(fill, 1, 32, 0, nullptr, address, 1.0f, 1);
    cudaDeviceSynchronize();
  };
  CHECK(signal_of([&] { run(memory.data); }) == 0);
  CHECK(signal_of([&] { run(memory.data + 64); }) == SIGSEGV);
  CHECK(signal_of([&] {
          cudaFree(memory.data);
          run(memory.data);
        }) == SIGSEGV);
  std::string text;
  CHECK(signal_of(
            [&] {
              float* small = nullptr;
              cudaMalloc(&small, 12);
              run(small + 3);
              cudaFree(small);
            },
            &text) == SIGABRT);
  CHECK(text.find("past the end") != std::string::npos);
}

TEST_CASE("more memory than the device has is refused", "[cuda_emulator]") {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total));
  float* memory = nullptr;
  CHECK(cudaMalloc(&memory, total + 1) == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
  CHECK(cudaPeekAtLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  float host[4];
  const Buffer<float> four(4);
  CHECK(cudaMemcpy(four.data, host, 20, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, four.data, 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemset(four.data, 0, 17) == cudaErrorInvalidValue);
  CHECK(cudaFree(four.data + 1) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("streams do nothing before they are waited for", "[cuda_emulator]") {
  const Stream stream;
  const Buffer<float> memory(4);
  float* pinned = nullptr;
  check(cudaMallocHost(&pinned, 4 * sizeof(float)));
  check(start(fill, 1, 32, 0, stream, memory.data, 3.0f, 4));
  check(cudaMemcpyAsync(pinned, memory.data, 16, cudaMemcpyDeviceToHost, stream));
  CHECK(pinned[0] != 3);
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  check(cudaStreamSynchronize(stream));
  CHECK(pinned[0] == 3);
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  // A loop of queries comes to an end.
  check(start(fill, 1, 32, 0, stream, memory.data, 4.0f, 4));
  const Event event;
  check(cudaEventRecord(event, stream));
  int queries = 0;
  while (cudaEventQuery(event) == cudaErrorNotReady) ++queries;
  CHECK(queries == 2);
  check(cudaFreeHost(pinned));
}

TEST_CASE("pinned memory is read late, pageable memory at once", "[cuda_emulator]") {
  const Stream stream;
  const Buffer<float> memory(2);
  float* pinned = nullptr;
  check(cudaMallocHost(&pinned, sizeof(float)));
  float pageable = 1;
  *pinned = 1;
  check(cudaMemcpyAsync(memory.data, pinned, 4, cudaMemcpyHostToDevice, stream));
  check(cudaMemcpyAsync(memory.data + 1, &pageable, 4, cudaMemcpyHostToDevice, stream));
  *pinned = pageable = 2;
  float back[2];
  check(cudaMemcpyAsync(back, memory.data, 8, cudaMemcpyDeviceToHost, stream));  // pageable: waits
  CHECK(back[0] == 2);
  CHECK(back[1] == 1);
  check(cudaFreeHost(pinned));
}

TEST_CASE("events order streams, and nothing else does", "[cuda_emulator]") {
  const InOrder late(StreamOrder::late);
  const Stream first, second;
  const Event event;
  const Buffer<float> memory(1);
  const auto result = [&](bool wait) {
    check(start(fill, 1, 1, 0, first, memory.data, 1.0f, 1));
    check(cudaEventRecord(event, first));
    if (wait) check(cudaStreamWaitEvent(second, event));
    check(start(scale, 1, 1, 0, second, memory.data, 10.0f, 5.0f));
    check(cudaStreamSynchronize(second));
    check(cudaStreamSynchronize(first));
    return memory.host()[0];
  };
  CHECK(result(true) == 15);
  CHECK(result(false) == 1);
  // Early: a stream goes as far ahead as events allow.
  const InOrder early(StreamOrder::early);
  check(cudaMemset(memory.data, 0, 4));
  check(cudaDeviceSynchronize());
  check(start(scale, 1, 1, 0, first, memory.data, 10.0f, 5.0f));
  check(start(fill, 1, 1, 0, second, memory.data, 1.0f, 1));
  check(cudaStreamSynchronize(first));
  CHECK(memory.host()[0] == 15);
}

TEST_CASE("the default stream waits for blocking streams only", "[cuda_emulator]") {
  const InOrder late(StreamOrder::late);
  cudaStream_t blocking = nullptr;
  check(cudaStreamCreate(&blocking));
  const Stream other;
  const Buffer<float> a(1), b(1);
  check(start(fill, 1, 1, 0, blocking, a.data, 1.0f, 1));
  check(start(fill, 1, 1, 0, other, b.data, 1.0f, 1));
  CHECK(a.host()[0] == 1);
  CHECK(b.host()[0] != 1);
  check(cudaDeviceSynchronize());
  CHECK(b.host()[0] == 1);
  check(cudaStreamDestroy(blocking));
}

TEST_CASE("events measure time", "[cuda_emulator]") {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end) == cudaErrorInvalidResourceHandle);
  check(cudaEventRecord(begin));
  check(cudaEventRecord(end));
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end) == cudaErrorNotReady);
  check(cudaEventSynchronize(end));
  check(cudaEventElapsedTime(&milliseconds, begin, end));
  CHECK(milliseconds >= 0);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  cudaGetLastError();
}

TEST_CASE("launches that CUDA refuses", "[cuda_emulator]") {
  const auto run = [](dim3 blocks, dim3 threads, std::size_t shared) {
    return start(touch_shared, blocks, threads, shared, nullptr, 0);
  };
  CHECK(run(1, 1025, 64) == cudaErrorInvalidConfiguration);
  CHECK(run(1, dim3(32, 33), 64) == cudaErrorInvalidConfiguration);
  CHECK(run(1, dim3(1, 1, 65), 64) == cudaErrorInvalidConfiguration);
  CHECK(run(0, 32, 64) == cudaErrorInvalidConfiguration);
  CHECK(run(1, 0, 64) == cudaErrorInvalidConfiguration);
  CHECK(run(dim3(1, 65536), 32, 64) == cudaErrorInvalidConfiguration);
  CHECK(run(dim3(1, 1, 65536), 32, 64) == cudaErrorInvalidConfiguration);
  CHECK(run(1, 32, 48 * 1024) == cudaSuccess);
  CHECK(run(1, 32, 48 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(touch_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024 + 1) ==
        cudaErrorInvalidValue);
  check(cudaFuncSetAttribute(touch_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024));
  CHECK(run(1, 32, 227 * 1024) == cudaSuccess);
  CHECK(run(1, 32, 228 * 1024) == cudaErrorInvalidValue);
  check(cudaFuncSetAttribute(touch_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 * 1024));
  CHECK(start(fill, 1, 1, 0, reinterpret_cast<cudaStream_t>(std::uintptr_t{64}), nullptr, 0.0f, 0) ==
        cudaErrorInvalidResourceHandle);
  check(cudaDeviceSynchronize());
  cudaGetLastError();
}

TEST_CASE("a graph repeats what was captured", "[cuda_emulator]") {
  const Stream main, side;
  const Event fork, join;
  const Buffer<float> a(8), b(8);
  float* pinned = nullptr;
  check(cudaMallocHost(&pinned, 8 * sizeof(float)));
  check(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
  check(cudaMemcpyAsync(a.data, pinned, 32, cudaMemcpyHostToDevice, main));
  check(cudaEventRecord(fork, main));
  check(cudaStreamWaitEvent(side, fork));
  check(start(scale, 1, 8, 0, side, a.data, 2.0f, 0.0f));
  check(cudaMemsetAsync(b.data, 0, 32, main));
  check(start(fill, 1, 4, 0, main, b.data, 7.0f, 4));
  check(cudaEventRecord(join, side));
  check(cudaStreamWaitEvent(main, join));
  check(start(scale, 1, 8, 0, main, a.data, 1.0f, 1.0f));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(side, &status));
  CHECK(status == cudaStreamCaptureStatusActive);
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(main, &graph));
  check(cudaStreamIsCapturing(side, &status));
  CHECK(status == cudaStreamCaptureStatusNone);
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph));
  check(cudaGraphDestroy(graph));
  check(cudaDeviceSynchronize());
  CHECK(a.host()[0] != a.host()[0]);  // nothing ran yet
  for (int round = 1; round <= 4; ++round) {
    for (int i = 0; i < 8; ++i) pinned[i] = static_cast<float>(round * i);
    check(cudaGraphLaunch(executable, main));
    check(cudaStreamSynchronize(main));
    const auto x = a.host(), y = b.host();
    for (int i = 0; i < 8; ++i) {
      CHECK(x[static_cast<std::size_t>(i)] == static_cast<float>(2 * round * i + 1));
      CHECK(y[static_cast<std::size_t>(i)] == (i < 4 ? 7 : 0));
    }
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaFreeHost(pinned));
}

TEST_CASE("what a capture does not allow", "[cuda_emulator]") {
  const Stream main, side;
  const Event event, outside;
  const Buffer<float> memory(1);
  cudaGraph_t graph = nullptr;
  const auto begin = [&] { check(cudaStreamBeginCapture(main, cudaStreamCaptureModeGlobal)); };
  const auto end = [&] { return cudaStreamEndCapture(main, &graph); };

  begin();
  CHECK(cudaStreamSynchronize(main) == cudaErrorStreamCaptureUnsupported);
  CHECK(start(fill, 1, 1, 0, main, memory.data, 1.0f, 1) == cudaErrorStreamCaptureInvalidated);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  begin();
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 4) == cudaErrorStreamCaptureUnsupported);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  begin();
  CHECK(cudaDeviceSynchronize() == cudaErrorStreamCaptureUnsupported);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  begin();
  float pageable = 0;
  CHECK(cudaMemcpyAsync(memory.data, &pageable, 4, cudaMemcpyHostToDevice, main) == cudaErrorStreamCaptureUnsupported);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  begin();
  check(cudaEventRecord(event, main));
  CHECK(cudaEventSynchronize(event) == cudaErrorCapturedEvent);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  check(cudaEventRecord(outside, side));
  begin();
  CHECK(cudaStreamWaitEvent(main, outside) == cudaErrorStreamCaptureIsolation);
  CHECK(end() == cudaErrorStreamCaptureInvalidated);
  begin();  // a fork without a join
  check(cudaEventRecord(event, main));
  check(cudaStreamWaitEvent(side, event));
  check(start(fill, 1, 1, 0, side, memory.data, 1.0f, 1));
  CHECK(end() == cudaErrorStreamCaptureUnjoined);
  begin();
  check(start(fill, 1, 1, 0, main, memory.data, 1.0f, 1));
  check(end());
  check(cudaGraphDestroy(graph));
  check(cudaDeviceSynchronize());
  cudaGetLastError();
}

}  // namespace
