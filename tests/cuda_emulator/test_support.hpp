#pragma once
/// @file
/// Helpers of the emulator's own tests.

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tinymoe/cuda/device.cuh>
#include <vector>

#include "emulator/streams.hpp"
#include "support/catch.hpp"
#include "support/sanitizers.hpp"

namespace cuda_emulator::test {

using namespace tinymoe::detail::cuda;
using tinymoe::bfloat16, tinymoe::float16;

inline void check(cudaError_t status) { REQUIRE(status == cudaSuccess); }

/// Device memory for the length of a scope.
template <class T>
struct Buffer {
  T* data = nullptr;
  std::size_t count;

  explicit Buffer(std::size_t n) : count(n) { check(cudaMalloc(&data, n * sizeof(T))); }
  explicit Buffer(const std::vector<T>& from) : Buffer(from.size()) {
    check(cudaMemcpy(data, from.data(), count * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> to(count);
    check(cudaMemcpy(to.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
};

struct Stream {
  cudaStream_t handle = nullptr;
  Stream() { check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(handle); }
  operator cudaStream_t() const { return handle; }
};

struct Event {
  cudaEvent_t handle = nullptr;
  Event() { check(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming)); }
  Event(const Event&) = delete;
  ~Event() { cudaEventDestroy(handle); }
  operator cudaEvent_t() const { return handle; }
};

struct InOrder {
  explicit InOrder(StreamOrder order) { cuda_emulator::set_stream_order(order); }
  explicit InOrder(Order order) { cuda_emulator::set_thread_order(order); }
  InOrder(const InOrder&) = delete;
  ~InOrder() {
    cuda_emulator::set_stream_order(StreamOrder::alternate);
    cuda_emulator::set_thread_order({});
  }
};

/// Runs f in a child process. Returns the signal that ended it, or 0; `text` gets what it printed.
template <class F>
int signal_of(F f, std::string* text = nullptr) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    for (const int number : {SIGSEGV, SIGABRT}) std::signal(number, SIG_DFL);
    f();
    std::_Exit(0);
  }
  close(ends[1]);
  std::string printed;
  char part[256];
  for (ssize_t n; (n = read(ends[0], part, sizeof(part))) > 0;) printed.append(part, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (text != nullptr) *text = printed;
#if TINYMOE_TEST_ADDRESS_SANITIZER
  // The sanitiser ends the program in its own way.
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    return printed.find("CUDA emulator") == std::string::npos ? SIGSEGV : SIGABRT;
  }
#endif
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

template <class T>
std::vector<T> numbers(std::size_t n, int first = 0, int modulus = 17) {
  std::vector<T> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = T(static_cast<float>((first + static_cast<int>(i) * 7) % modulus - modulus / 2));
  }
  return values;
}

}  // namespace cuda_emulator::test
