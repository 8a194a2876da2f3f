#include "emulator/streams.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "emulator/fibers.hpp"
#include "emulator/memory.hpp"

namespace cuda_emulator {
namespace {

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run_through(CUstream_st& stream, std::uint64_t last);

/// Runs what another stream must have done before.
void run_before(CUstream_st& stream, const Operation& operation) {
  Runtime& r = runtime();
  // The default stream waits for the blocking ones, and they for it.
  if (&stream == &r.standard) {
    for (const auto& other : r.streams) {
      if (other->blocking) run_through(*other, operation.number);
    }
  } else if (stream.blocking) {
    run_through(r.standard, operation.number);
  }
  if (operation.waits_for == nullptr || operation.waits_for->done >= operation.version) return;
  const auto look_in = [&](CUstream_st& other) {
    const auto record = std::find_if(other.queue.begin(), other.queue.end(), [&](const Operation& each) {
      return each.records == operation.waits_for && each.version == operation.version;
    });
    if (record == other.queue.end()) return false;
    run_through(other, record->number);
    return true;
  };
  if (look_in(r.standard)) return;
  for (const auto& other : r.streams) {
    if (look_in(*other)) return;
  }
  stop("a stream waits for an event that no stream records");
}

/// Runs the stream's operations up to the one of number `last`.
void run_through(CUstream_st& stream, std::uint64_t last) {
  while (!stream.queue.empty() && stream.queue.front().number <= last) {
    Operation& operation = stream.queue.front();
    run_before(stream, operation);
    if (operation.work) operation.work();
    if (operation.records != nullptr) {
      operation.records->done = std::max(operation.records->done, operation.version);
      operation.records->milliseconds = now();
    }
    stream.queue.pop_front();
  }
}

bool early() {
  Runtime& r = runtime();
  ++r.flushes;
  return r.order == StreamOrder::early || (r.order == StreamOrder::alternate && r.flushes % 2 == 0);
}

StreamOrder order_of_environment() {
  const char* text = std::getenv("TINYMOE_EMULATOR_STREAMS");
  if (text == nullptr) return StreamOrder::alternate;
  if (std::strcmp(text, "late") == 0) return StreamOrder::late;
  return std::strcmp(text, "early") == 0 ? StreamOrder::early : StreamOrder::alternate;
}

}  // namespace

/// What one synchronisation runs; device memory is open meanwhile.
void flush(CUstream_st& stream, std::uint64_t last) {
  Runtime& r = runtime();
  if (stream.queue.empty() || stream.queue.front().number > last) return;
  const OpenMemory open;
  if (early()) {
    for (auto other = r.streams.rbegin(); other != r.streams.rend(); ++other) {
      if (other->get() != &stream) run_through(**other, r.operations);
    }
  }
  run_through(stream, last);
}

void forget_destroyed() {
  std::erase_if(runtime().streams, [](const auto& stream) { return stream->destroyed && stream->queue.empty(); });
}

void push(CUstream_st& stream, Operation operation) {
  operation.number = ++runtime().operations;
  stream.queue.push_back(std::move(operation));
}

Runtime& runtime() {
  static Runtime* const runtime = [] {
    auto* const made = new Runtime;
    made->order = order_of_environment();
    return made;
  }();
  return *runtime;
}
void set_stream_order(StreamOrder order) { runtime().order = order; }

std::recursive_mutex& runtime_lock() {
  static auto* const lock = new std::recursive_mutex;
  return *lock;
}

CUstream_st* find_stream(cudaStream_t handle) {
  if (handle == nullptr) return &runtime().standard;
  CUstream_st* const stream = find(runtime().streams, handle);
  return stream == nullptr || stream->destroyed ? nullptr : stream;
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  const std::lock_guard guard(runtime_lock());
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t status = check_capture(*stream); status != cudaSuccess) return status;
  if (stream->capture != nullptr) {
    Graph& graph = stream->capture->graph;
    graph.nodes.push_back({std::move(work), std::move(stream->leaves)});
    stream->leaves = {graph.nodes.size() - 1};
    return cudaSuccess;
  }
  push(*stream, {.work = std::move(work)});
  return cudaSuccess;
}

cudaError_t synchronise(cudaStream_t handle) {
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t status = check_capture(*stream); status != cudaSuccess) return status;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return status;
  // The default stream's synchronisation covers the blocking streams, too.
  Runtime& r = runtime();
  if (stream == &r.standard) {
    for (const auto& other : r.streams) {
      if (other->blocking) flush(*other, r.operations);
    }
  }
  flush(*stream, r.operations);
  forget_destroyed();
  return cudaSuccess;
}

void synchronise_all() {
  Runtime& r = runtime();
  const OpenMemory open;
  if (early()) {
    for (auto stream = r.streams.rbegin(); stream != r.streams.rend(); ++stream) run_through(**stream, r.operations);
  }
  for (const auto& stream : r.streams) run_through(*stream, r.operations);
  run_through(r.standard, r.operations);
  forget_destroyed();
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  const std::lock_guard guard(runtime_lock());
  if (stream == nullptr || flags > cudaStreamNonBlocking) return remember(cudaErrorInvalidValue);
  runtime().streams.push_back(std::make_unique<CUstream_st>());
  *stream = runtime().streams.back().get();
  (*stream)->blocking = flags == cudaStreamDefault;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

/// What is queued still runs when something waits for it.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const std::lock_guard guard(runtime_lock());
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr || handle == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) stream->capture->invalid = true;
  stream->destroyed = true;
  forget_destroyed();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard guard(runtime_lock());
  return remember(synchronise(stream));
}

/// A query that finds work runs one operation, so that a loop of queries ends.
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const std::lock_guard guard(runtime_lock());
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t status = check_capture(*stream); status != cudaSuccess) return remember(status);
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  if (stream->queue.empty()) return cudaSuccess;
  flush(*stream, stream->queue.front().number);
  return cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard guard(runtime_lock());
  for (const auto& capture : runtime().captures) capture->invalid = true;
  if (!runtime().captures.empty()) return remember(cudaErrorStreamCaptureUnsupported);
  synchronise_all();
  return cudaSuccess;
}
