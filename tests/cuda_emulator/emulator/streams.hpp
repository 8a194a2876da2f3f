#pragma once
/// @file
/// Streams and events: queues of work that runs when something waits for it.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace cuda_emulator {

using Work = std::function<void()>;

/// What runs of other streams when the host waits for one: only what it waits for by events; all of it, first; or these
/// by turns.
enum class StreamOrder { alternate, late, early };
void set_stream_order(StreamOrder order);

struct Node {
  Work work;
  std::vector<std::size_t> after;  // nodes of smaller numbers
};
struct Graph {
  std::vector<Node> nodes;
};
/// Runs the nodes once, first to last or last to first as far as the dependencies allow.
void run_graph(const Graph& graph, bool backward);

struct Capture {
  Graph graph;
  CUstream_st* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool invalid = false;
};

/// What an event stands for. Waiting operations share it: the event may be destroyed before they run.
struct EventState {
  std::uint64_t recorded = 0, done = 0;  // how many times: calls, and operations that ran
  double milliseconds = 0;               // when the last one ran
  std::shared_ptr<Capture> capture;      // where the last record was captured,
  std::vector<std::size_t> leaves;       // and after which nodes
};

/// One entry of a queue: does `work`, or records an event, or waits until its `version`-th record ran.
struct Operation {
  std::uint64_t number = 0;  // in order of the calls, over all streams
  Work work{};
  std::shared_ptr<EventState> records{}, waits_for{};
  std::uint64_t version = 0;
};

/// One lock for the runtime's state. It is held while kernels run, too.
std::recursive_mutex& runtime_lock();
/// Keeps an error for cudaGetLastError.
cudaError_t remember(cudaError_t status);

/// Adds to a stream, or to the graph that it is being captured into.
cudaError_t enqueue(cudaStream_t stream, Work work);
/// The stream of a handle. nullptr is the default stream; it is returned if there is no such stream.
CUstream_st* find_stream(cudaStream_t handle);
/// Whether a call that waits or allocates may go on; otherwise it invalidates the captures that it disturbs.
cudaError_t refuse_in_capture();
cudaError_t check_capture(CUstream_st& stream);
/// Waits for a stream as the host does.
cudaError_t synchronise(cudaStream_t stream);
void synchronise_all();

}  // namespace cuda_emulator

struct CUstream_st {
  bool blocking = true, destroyed = false;
  std::deque<cuda_emulator::Operation> queue;
  std::shared_ptr<cuda_emulator::Capture> capture;
  std::vector<std::size_t> leaves;  // the nodes after which the next captured one comes
};
struct CUevent_st {
  std::shared_ptr<cuda_emulator::EventState> state = std::make_shared<cuda_emulator::EventState>();
  bool timed = true;
};
struct CUgraph_st : cuda_emulator::Graph {};
struct CUgraphExec_st {
  std::shared_ptr<const cuda_emulator::Graph> graph;
};

namespace cuda_emulator {

/// The handles that are alive.
struct Runtime {
  CUstream_st standard;  // CUDA's stream 0
  std::vector<std::unique_ptr<CUstream_st>> streams;
  std::vector<std::unique_ptr<CUevent_st>> events;
  std::vector<std::unique_ptr<CUgraph_st>> graphs;
  std::vector<std::unique_ptr<CUgraphExec_st>> executables;
  std::vector<std::shared_ptr<Capture>> captures;
  std::uint64_t operations = 0, flushes = 0, graph_runs = 0;
  StreamOrder order = StreamOrder::alternate;
};
Runtime& runtime();

/// Runs a stream's operations up to the one of number `last`, with device memory open.
void flush(CUstream_st& stream, std::uint64_t last);
void push(CUstream_st& stream, Operation operation);
/// Removes streams that were destroyed and have nothing left to do.
void forget_destroyed();

template <class T>
T* find(const std::vector<std::unique_ptr<T>>& all, const T* handle) {
  for (const auto& each : all) {
    if (each.get() == handle) return each.get();
  }
  return nullptr;
}
template <class T>
bool remove(std::vector<std::unique_ptr<T>>& all, const T* handle) {
  return std::erase_if(all, [=](const auto& each) { return each.get() == handle; }) > 0;
}

}  // namespace cuda_emulator
