/// @file
/// The device, its memory, copies, and recordings of work.
/// Over 300 lines: they share one context, its streams and its events.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>

#include "tinymoe/backend/cuda.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

namespace {

/// The compute capability from which there are cp.async and products in bfloat16.
constexpr int least_capability = 8;

/// Copies to the host of up to so many bytes land in pinned memory first; the logits of a token are such a copy.
constexpr std::size_t landing_bytes = std::size_t{1} << 20;

/// `bytes` of the device's memory. Throws DeviceError, with what is free, without enough.
void* take(std::size_t bytes) {
  void* address = nullptr;
  if (cudaMalloc(&address, bytes) == cudaSuccess) return address;
  cudaGetLastError();  // clears the error, which the next operation would report
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  fail<DeviceError>("out of memory: ", bytes, " bytes were asked for (", bytes >> 20, " MiB), and the GPU has ",
                    free >> 20, " MiB of ", total >> 20, " MiB free");
}

/// Stands in for all kernels to find out whether this program has code for a device.
__global__ void no_operation() {}

/// Whether this program's kernels can run on the thread's device.
bool has_code() noexcept {
  cudaFuncAttributes attributes{};
  if (cudaFuncGetAttributes(&attributes, no_operation) == cudaSuccess) return true;
  cudaGetLastError();  // clears the error
  return false;
}

/// Throws DeviceError while work is recorded: a recording cannot hold work in which the host has a part.
void expect_no_recording(const Context& context, const char* what) {
  if (context.capturing()) fail<DeviceError>(what, " cannot be recorded");
}

/// Throws DeviceError that says why there is no device and what to do.
[[noreturn]] void no_device(cudaError_t status) {
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver != 0) {
      fail<DeviceError>("the NVIDIA driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10,
                        ", older than this program's CUDA ", runtime / 1000, ".", runtime % 1000 / 10,
                        "; update the driver, or take the cpu");
    }
  }
  fail<DeviceError>("no NVIDIA GPU can be used here (", cudaGetErrorString(status), "); take the cpu instead");
}

/// Describes the device. Throws DeviceError if it does not exist or cannot run this program.
int chosen_device(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // clears the error
    no_device(status);
  }
  if (device < 0 || device >= count) {
    fail<DeviceError>("there is no GPU number ", device, "; this machine has ", count, ", counted from 0");
  }
  check(cudaSetDevice(device), "choosing the device");
  const CudaDevice description = describe(device);
  if (description.major < least_capability) {
    fail<DeviceError>("GPU number ", device, ", ", description.name, ", has compute capability ", description.major,
                      ".", description.minor, "; 8.0 or newer is needed");
  }
  return device;
}

}  // namespace

bool usable(int device) noexcept {
  int count = 0, major = 0, before = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && device >= 0 && device < count &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      major >= least_capability && cudaGetDevice(&before) == cudaSuccess && cudaSetDevice(device) == cudaSuccess) {
    const bool has = has_code();
    cudaSetDevice(before);
    return has;
  }
  cudaGetLastError();  // as above
  return false;
}

void use(Context& context) { context.use(); }
CUstream_st* stream(Context& context) { return context.stream; }

CudaDevice describe(int device) {
  CudaDevice result;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "asking for the device's properties");
  result.name = properties.name;
  result.major = properties.major, result.minor = properties.minor;
  result.multiprocessors = properties.multiProcessorCount;
  check(cudaMemGetInfo(&result.free_bytes, &result.bytes), "asking for the device's memory");
  return result;
}

Context::Context(const CudaOptions& chosen) : options(chosen), device(chosen_device(chosen.device)) {
  try {
    open();
  } catch (...) {
    release();
    throw;
  }
}

Context::~Context() { release(); }

void Context::open() {
  use();
  multiprocessors = describe(device).multiprocessors;
  int shared = 0;
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the device's shared memory");
  shared_bytes = static_cast<std::size_t>(shared);
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  for (auto& side : sides) check(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking), "making a stream");
  check(cublasLtCreate(&products), "starting cublasLt");
  check(cublasCreate(&blas), "starting cuBLAS");
  check(cublasSetStream(blas, stream), "giving cuBLAS a stream");
  check(cublasSetWorkspace(blas, workspace(0), workspace_bytes), "giving cuBLAS a workspace");
}

void Context::release() noexcept {
  cudaSetDevice(device);
  cudaDeviceSynchronize();
  for (auto& [key, plan] : plans_) {
    if (plan.description != nullptr) cublasLtMatmulDescDestroy(plan.description);
  }
  if (blas != nullptr) cublasDestroy(blas);
  if (products != nullptr) cublasLtDestroy(products);
  for (void* workspace : workspaces_) cudaFree(workspace);
  for (void* block : scratch_) cudaFree(block);
  for (cudaStream_t side : sides) {
    if (side != nullptr) cudaStreamDestroy(side);
  }
  if (stream != nullptr) cudaStreamDestroy(stream);
}

void FreeContext::operator()(Context* context) const { delete context; }
ContextOwner open(const CudaOptions& options) { return ContextOwner(new Context(options)); }

bool Context::capturing() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "asking whether work is being recorded");
  return status != cudaStreamCaptureStatusNone;
}

/// Whether kernels can start early: `follow` does something in the code that runs on this device (compute capability
/// 9.0), and this CUDA can record early starts.
bool Context::waits_by_itself(const void* kernel) {
  const auto known_one = waiting_.find(kernel);
  if (known_one != waiting_.end()) return known_one->second;
  constexpr int least_cuda = 12030, least_architecture = 90;
  int driver = 0;
  cudaFuncAttributes attributes{};
  check(cudaDriverGetVersion(&driver), "asking for the driver's version");
  check(cudaFuncGetAttributes(&attributes, kernel), "asking for a kernel's properties");
  const bool waits =
      CUDART_VERSION >= least_cuda && driver >= least_cuda && attributes.ptxVersion >= least_architecture;
  return waiting_[kernel] = waits;
}

void Context::fork(std::size_t count) {
  check(cudaEventRecord(here.event, stream), "marking a stream");
  for (std::size_t i = 0; i < count; ++i) check(cudaStreamWaitEvent(sides[i], here.event, 0), "joining streams");
}

void* Context::scratch(std::size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_.back();
  if (capturing()) fail<DeviceError>("work that takes scratch memory for the first time cannot be recorded");
  void* block = take(bytes);
  scratch_.push_back(block);  // a recording may use the old ones
  scratch_bytes_ = bytes;
  return block;
}

void* Context::workspace(std::size_t on) {
  void*& workspace = workspaces_[on];
  if (workspace == nullptr) {
    if (capturing()) fail<DeviceError>("work that takes a workspace for the first time cannot be recorded");
    workspace = take(workspace_bytes);
  }
  return workspace;
}

Memory allocate(Context& context, std::size_t bytes) {
  if (bytes == 0) return {};
  expect_no_recording(context, "taking memory");
  void* address = take(bytes);
  Memory memory(address, bytes, [](void* block, std::size_t) { cudaFree(block); });
  zero(context, address, bytes);
  return memory;
}

void zero(Context& context, void* to, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, 0, bytes, context.stream), "zeroing memory");
}

void synchronise(Context& context) {
  check(cudaStreamSynchronize(context.stream), "earlier work of the GPU");
  check(cudaGetLastError(), "earlier work of the GPU");
}

void copy_to_device(Context& context, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  expect_no_recording(context, "a copy from the host");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context.stream), "copying to the device");
  synchronise(context);
}

void copy_to_host(Context& context, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  expect_no_recording(context, "a copy to the host");
  const bool lands = bytes <= landing_bytes;
  if (lands && !context.landing) context.landing.emplace(landing_bytes);
  check(cudaMemcpyAsync(lands ? context.landing->data : to, from, bytes, cudaMemcpyDeviceToHost, context.stream),
        "copying to the host");
  synchronise(context);
  if (lands) std::memcpy(to, context.landing->data, bytes);
}

void upload(Context& context, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  expect_no_recording(context, "a copy from the host");
  const auto place_is_free = [&](const Context::Staging& staging) {
    if (staging.memory.bytes < bytes) return false;
    const cudaError_t status = cudaEventQuery(staging.free.event);
    if (status != cudaErrorNotReady) check(status, "a copy to the device");
    if (status == cudaErrorNotReady) cudaGetLastError();  // that is no failure
    return status == cudaSuccess;
  };
  auto place = std::find_if(context.staging.begin(), context.staging.end(), place_is_free);
  if (place == context.staging.end()) {
    context.staging.push_back({Pinned(detail::round_up(bytes, 4096)), Event()});
    place = context.staging.end() - 1;
  }
  std::copy_n(static_cast<const std::byte*>(from), bytes, static_cast<std::byte*>(place->memory.data));
  check(cudaMemcpyAsync(to, place->memory.data, bytes, cudaMemcpyHostToDevice, context.stream),
        "copying to the device");
  check(cudaEventRecord(place->free.event, context.stream), "marking a stream");
}

Index plain_products(const Context& context) { return context.plain_products; }

void set_early_starts(Context& context, bool early) { context.options.early_starts = early; }
bool starts_early(Context& context) { return context.starts_early(no_operation); }

void set_grouped(Context& context, GroupedProducts how) { context.options.grouped = how; }

double milliseconds(Context& context, const std::function<void()>& work) {
  const Event begin(cudaEventDefault), end(cudaEventDefault);
  check(cudaEventRecord(begin.event, context.stream), "marking a stream");
  work();
  check(cudaEventRecord(end.event, context.stream), "marking a stream");
  check(cudaEventSynchronize(end.event), "earlier work of the GPU");
  float elapsed = 0;
  check(cudaEventElapsedTime(&elapsed, begin.event, end.event), "reading the device's clock");
  return elapsed;
}

/// Work as a graph, recorded after a first run.
class Recording {
 public:
  cudaGraphExec_t graph = nullptr;
  ~Recording() {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
};

void FreeRecording::operator()(Recording* recording) const { delete recording; }

void replay(Context& context, std::unique_ptr<Recording, FreeRecording>& recording, const std::function<void()>& work) {
  // The first run takes memory and looks up algorithms, which must not be recorded.
  if (recording == nullptr) {
    work();
    recording.reset(new Recording);
    return;
  }
  if (recording->graph == nullptr) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal), "recording work");
    try {
      work();
    } catch (...) {
      if (cudaStreamEndCapture(context.stream, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(context.stream, &graph), "recording work");
    const cudaError_t status = cudaGraphInstantiate(&recording->graph, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "preparing recorded work");
  }
  check(cudaGraphLaunch(recording->graph, context.stream), "starting recorded work");
}

}  // namespace tinymoe::inline v0_1::detail::cuda
