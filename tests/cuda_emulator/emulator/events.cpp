#include <algorithm>

#include "emulator/streams.hpp"

namespace {

using namespace cuda_emulator;

CUevent_st* find_event(cudaEvent_t event) { return find(runtime().events, event); }

/// The stream whose queue has the event's last record, or nullptr.
CUstream_st* recorder(const CUevent_st& event) {
  Runtime& r = runtime();
  const auto has = [&](const CUstream_st& stream) {
    return std::any_of(stream.queue.begin(), stream.queue.end(), [&](const Operation& each) {
      return each.records == event.state && each.version == event.state->recorded;
    });
  };
  if (has(r.standard)) return &r.standard;
  for (const auto& stream : r.streams) {
    if (has(*stream)) return stream.get();
  }
  return nullptr;
}

std::uint64_t number_of_record(const CUstream_st& stream, const CUevent_st& event) {
  for (const Operation& each : stream.queue) {
    if (each.records == event.state && each.version == event.state->recorded) return each.number;
  }
  return 0;
}

}  // namespace

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  const std::lock_guard guard(runtime_lock());
  if (event == nullptr || flags > (cudaEventBlockingSync | cudaEventDisableTiming)) {
    return remember(cudaErrorInvalidValue);
  }
  runtime().events.push_back(std::make_unique<CUevent_st>());
  *event = runtime().events.back().get();
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard guard(runtime_lock());
  return remember(remove(runtime().events, event) ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  const std::lock_guard guard(runtime_lock());
  CUevent_st* const event = find_event(handle);
  CUstream_st* const stream = find_stream(stream_handle);
  if (event == nullptr || stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t status = check_capture(*stream); status != cudaSuccess) return remember(status);
  event->state->capture = stream->capture;
  event->state->leaves = stream->leaves;
  if (stream->capture == nullptr) push(*stream, {.records = event->state, .version = ++event->state->recorded});
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t handle, unsigned int) {
  const std::lock_guard guard(runtime_lock());
  CUevent_st* const event = find_event(handle);
  CUstream_st* const stream = find_stream(stream_handle);
  if (event == nullptr || stream == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t status = check_capture(*stream); status != cudaSuccess) return remember(status);
  const EventState& state = *event->state;
  if (state.capture == nullptr) {
    if (stream->capture != nullptr) {
      // A graph cannot wait for what is outside it.
      stream->capture->invalid = true;
      return remember(cudaErrorStreamCaptureIsolation);
    }
    if (state.recorded > 0) push(*stream, {.waits_for = event->state, .version = state.recorded});
    return cudaSuccess;
  }
  const auto& captures = runtime().captures;
  if (std::find(captures.begin(), captures.end(), state.capture) == captures.end()) {
    return remember(cudaErrorCapturedEvent);
  }
  if (stream->capture != nullptr && stream->capture != state.capture) {
    stream->capture->invalid = state.capture->invalid = true;
    return remember(cudaErrorStreamCaptureMerge);
  }
  if (stream == &runtime().standard) return remember(cudaErrorStreamCaptureImplicit);
  stream->capture = state.capture;  // the fork: the stream's work goes into the graph from here on
  for (const std::size_t leaf : state.leaves) {
    if (std::find(stream->leaves.begin(), stream->leaves.end(), leaf) == stream->leaves.end()) {
      stream->leaves.push_back(leaf);
    }
  }
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const std::lock_guard guard(runtime_lock());
  const CUevent_st* const event = find_event(handle);
  if (event == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (event->state->capture != nullptr) {
    event->state->capture->invalid = true;
    return remember(cudaErrorCapturedEvent);
  }
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  if (CUstream_st* const stream = recorder(*event)) flush(*stream, number_of_record(*stream, *event));
  forget_destroyed();
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const std::lock_guard guard(runtime_lock());
  const CUevent_st* const event = find_event(handle);
  if (event == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (event->state->capture != nullptr) {
    event->state->capture->invalid = true;
    return remember(cudaErrorCapturedEvent);
  }
  if (const cudaError_t status = refuse_in_capture(); status != cudaSuccess) return remember(status);
  CUstream_st* const stream = recorder(*event);
  if (stream == nullptr) return cudaSuccess;
  flush(*stream, stream->queue.front().number);
  return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const std::lock_guard guard(runtime_lock());
  const CUevent_st *const first = find_event(start), *const last = find_event(end);
  if (first == nullptr || last == nullptr || !first->timed || !last->timed || first->state->recorded == 0 ||
      last->state->recorded == 0) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (first->state->done < first->state->recorded || last->state->done < last->state->recorded) {
    return cudaErrorNotReady;
  }
  *milliseconds = static_cast<float>(last->state->milliseconds - first->state->milliseconds);
  return cudaSuccess;
}
