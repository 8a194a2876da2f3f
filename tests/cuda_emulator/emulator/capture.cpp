#include <algorithm>
#include <queue>

#include "emulator/streams.hpp"

namespace cuda_emulator {
namespace {

/// Whether every node comes before one of `leaves` or is one.
bool all_joined(const Graph& graph, const std::vector<std::size_t>& leaves) {
  std::vector<bool> reached(graph.nodes.size());
  for (const std::size_t leaf : leaves) reached[leaf] = true;
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    if (!reached[i]) return false;
    for (const std::size_t before : graph.nodes[i].after) reached[before] = true;
  }
  return true;
}

void leave_capture(const std::shared_ptr<Capture>& capture) {
  Runtime& r = runtime();
  for (const auto& stream : r.streams) {
    if (stream->capture == capture) stream->capture = nullptr, stream->leaves.clear();
  }
  std::erase(r.captures, capture);
}

}  // namespace

cudaError_t check_capture(CUstream_st& stream) {
  Runtime& r = runtime();
  if (stream.capture != nullptr) return stream.capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  if (&stream != &r.standard) return cudaSuccess;
  // The default stream would have to wait for blocking streams that only take notes.
  bool disturbs = false;
  for (const auto& other : r.streams) {
    if (other->capture != nullptr && other->blocking) disturbs = other->capture->invalid = true;
  }
  return disturbs ? cudaErrorStreamCaptureImplicit : cudaSuccess;
}

cudaError_t refuse_in_capture() {
  bool refused = false;
  for (const auto& capture : runtime().captures) {
    const bool here = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal || (capture->mode == cudaStreamCaptureModeThreadLocal && here)) {
      refused = capture->invalid = true;
    }
  }
  return refused ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

void run_graph(const Graph& graph, bool backward) {
  if (!backward) {
    for (const Node& node : graph.nodes) node.work();
    return;
  }
  // Always the last of those whose predecessors have run.
  std::vector<std::vector<std::size_t>> followers(graph.nodes.size());
  std::vector<std::size_t> missing(graph.nodes.size());
  std::priority_queue<std::size_t> ready;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::size_t before : graph.nodes[i].after) followers[before].push_back(i);
    missing[i] = graph.nodes[i].after.size();
    if (missing[i] == 0) ready.push(i);
  }
  while (!ready.empty()) {
    const std::size_t i = ready.top();
    ready.pop();
    graph.nodes[i].work();
    for (const std::size_t follower : followers[i]) {
      if (--missing[follower] == 0) ready.push(follower);
    }
  }
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const std::lock_guard guard(runtime_lock());
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (handle == nullptr) return remember(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return remember(cudaErrorIllegalState);
  }
  auto capture = std::make_shared<Capture>();
  capture->origin = stream, capture->mode = mode, capture->thread = std::this_thread::get_id();
  runtime().captures.push_back(capture);
  stream->capture = std::move(capture);
  stream->leaves.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const std::lock_guard guard(runtime_lock());
  CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (graph == nullptr || stream->capture == nullptr) return remember(cudaErrorInvalidValue);
  const std::shared_ptr<Capture> capture = stream->capture;
  *graph = nullptr;
  if (capture->origin != stream) {
    capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnmatched);
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return remember(cudaErrorStreamCaptureWrongThread);
  }
  const std::vector<std::size_t> leaves = stream->leaves;
  leave_capture(capture);
  if (capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  if (!all_joined(capture->graph, leaves)) return remember(cudaErrorStreamCaptureUnjoined);
  runtime().graphs.push_back(std::make_unique<CUgraph_st>());
  *graph = runtime().graphs.back().get();
  static_cast<Graph&>(**graph) = std::move(capture->graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const std::lock_guard guard(runtime_lock());
  const CUstream_st* const stream = find_stream(handle);
  if (stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (status == nullptr) return remember(cudaErrorInvalidValue);
  *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
            : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t handle, unsigned long long) {
  const std::lock_guard guard(runtime_lock());
  const CUgraph_st* const graph = find(runtime().graphs, handle);
  if (executable == nullptr || graph == nullptr) return remember(cudaErrorInvalidValue);
  runtime().executables.push_back(std::make_unique<CUgraphExec_st>());
  *executable = runtime().executables.back().get();
  (*executable)->graph = std::make_shared<const Graph>(*graph);
  return cudaSuccess;
}

/// A launch into a stream that is being captured becomes one node of that graph.
cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
  const std::lock_guard guard(runtime_lock());
  const CUgraphExec_st* const executable = find(runtime().executables, handle);
  if (executable == nullptr) return remember(cudaErrorInvalidValue);
  return remember(enqueue(stream, [graph = executable->graph] {
    run_graph(*graph, runtime().order == StreamOrder::late || ++runtime().graph_runs % 2 == 0);
  }));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const std::lock_guard guard(runtime_lock());
  return remember(remove(runtime().executables, executable) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard guard(runtime_lock());
  return remember(remove(runtime().graphs, graph) ? cudaSuccess : cudaErrorInvalidValue);
}
