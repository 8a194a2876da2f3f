#pragma once
/// @file
/// What is behind `Nccl`: NCCL's communicator, which never blocks, what is on its stream, and its ends.

#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <exception>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/mpi/mpi.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail<DeviceError>("CUDA: ", what, " failed: ", cudaGetErrorString(status));
}

/// NCCL's communicator. It never blocks: a rank that waits for the others looks, as MPI's waiting does, whether one has
/// left.
class NcclRanks {
 public:
  /// On the calling thread's device, which stays that of all calls. `all` is that of which these ranks are a group;
  /// null: of none.
  [[gnu::cold]] explicit NcclRanks(Mpi ranks, std::shared_ptr<NcclRanks> all = nullptr)
      : mpi(std::move(ranks)), shared_(all ? all->shared_ : std::make_shared<Shared>()) {
    shared_->members.push_back(this);
    try {
      check_cuda(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "making an event");
      ncclUniqueId id{};
      if (mpi.rank() == 0) check(ncclGetUniqueId(&id), "start");
      mpi.broadcast(std::as_writable_bytes(std::span(&id, 1)));
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      settle(ncclCommInitRankConfig(&communicator_, static_cast<int>(mpi.size()), id, static_cast<int>(mpi.rank()),
                                    &config),
             "join the processes");
    } catch (...) {
      free();
      throw;
    }
  }
  NcclRanks(const NcclRanks&) = delete;
  /// Waits for the other ranks, which may still receive what this one has sent; not after an exception, for they may
  /// not come.
  [[gnu::cold]] ~NcclRanks() {
    if (communicator_ != nullptr && !shared_->left && std::uncaught_exceptions() <= exceptions_) {
      try {
        mpi.meet();
        settle(ncclCommFinalize(communicator_), "end");
        if (ncclCommDestroy(communicator_) == ncclSuccess) communicator_ = nullptr;
      } catch (const std::exception&) {  // then it is aborted
      }
    }
    free();
  }

  /// What `enqueue(communicator)` puts on the stream, as one group; returns when the device has done it. After an
  /// exception no more is possible. A kernel that waits for a rank that does not come is ended by then, since memory of
  /// the device could not be freed before.
  template <class F>
  void run(cudaStream_t stream, const char* what, F&& enqueue) {
    expect_good(what);
    try {
      check_cuda(cudaStreamSynchronize(stream), "the work before");  // so that patience is with the others alone
      put(what, enqueue);
      wait_for(stream, what);
    } catch (...) {
      abort();
      throw;
    }
  }

  /// The same on the stream of what goes on beside the backend's work, behind what is on `stream` now. It returns when
  /// NCCL has taken it up; `finish` waits for it.
  template <class F>
  void start(cudaStream_t stream, const char* what, F&& enqueue) {
    expect_good(what);
    try {
      const cudaStream_t beside = shared_->stream();
      check_cuda(cudaEventRecord(done_, stream), "recording an event");
      check_cuda(cudaStreamWaitEvent(beside, done_, 0), "waiting for an event");
      put(what, [&](ncclComm_t communicator) { return enqueue(communicator, beside); });
      check_cuda(cudaEventRecord(done_, beside), "recording an event");
      under_way_ = true;
    } catch (...) {
      abort();
      throw;
    }
  }
  /// Returns when the device has done what was started last, and with it all that was.
  void finish(const char* what) {
    if (!std::exchange(under_way_, false)) return;
    expect_good(what);
    try {
      wait_for_event(what);
    } catch (...) {
      abort();
      throw;
    }
  }

  void leave(std::string_view sentence) {
    shared_->left = true;
    mpi.leave(sentence);
  }

  Mpi mpi;

 private:
  /// What a job's communicators have in common: one stream, so that their kernels, which wait for those of the other
  /// ranks, stand in one order on all ranks; and one end.
  struct Shared {
    std::vector<NcclRanks*> members;
    cudaStream_t beside = nullptr;
    bool left = false;
    Shared() = default;
    Shared(const Shared&) = delete;
    ~Shared() {
      if (beside != nullptr) cudaStreamDestroy(beside);
    }
    cudaStream_t stream() {
      if (beside == nullptr) {
        check_cuda(cudaStreamCreateWithFlags(&beside, cudaStreamNonBlocking), "making a stream");
      }
      return beside;
    }
  };

  /// Throws. If a rank has left, the others see an error of NCCL's; rank 0 hears the reason, and it is that which
  /// counts.
  [[gnu::cold]] void throw_error(ncclResult_t code, const char* what) {
    const auto started = std::chrono::steady_clock::now();
    mpi.wait_until([&] { return std::chrono::steady_clock::now() - started > std::chrono::seconds(1); });
    const char* const more = ncclGetLastError(communicator_);
    fail<DeviceError>("NCCL cannot ", what, ": ", ncclGetErrorString(code), *more != '\0' ? "; " : "", more);
  }
  void check(ncclResult_t code, const char* what) {
    if (code != ncclSuccess && code != ncclInProgress) throw_error(code, what);
  }
  void expect_good(const char* what) const {
    if (communicator_ == nullptr) fail<DeviceError>("NCCL cannot ", what, ": it has failed before");
  }
  template <class F>
  void put(const char* what, F&& enqueue) {
    check(ncclGroupStart(), what);
    const ncclResult_t inside = enqueue(communicator_);
    const ncclResult_t group = ncclGroupEnd();
    settle(inside == ncclSuccess || inside == ncclInProgress ? group : inside, what);
  }
  void wait_for(cudaStream_t stream, const char* what) {
    check_cuda(cudaEventRecord(done_, stream), "recording an event");
    wait_for_event(what);
  }
  void wait_for_event(const char* what) {
    mpi.wait_until([&] {
      const cudaError_t status = cudaEventQuery(done_);
      if (status == cudaErrorNotReady) {
        cudaGetLastError();  // clears it: it is no error
        check_state(what);
        return false;
      }
      check_cuda(status, what);
      return true;
    });
  }
  /// The state of what NCCL does by itself. An error of any communicator counts: what is waited for may stand behind
  /// its work.
  ncclResult_t check_state(const char* what) {
    for (NcclRanks* member : shared_->members) {
      if (member != this && member->communicator_ != nullptr) member->own_state(what);
    }
    return own_state(what);
  }
  ncclResult_t own_state(const char* what) {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(communicator_, &state), what);
    check(state, what);
    return state;
  }
  /// Waits until NCCL has taken up a call.
  void settle(ncclResult_t code, const char* what) {
    check(code, what);
    if (code == ncclInProgress) mpi.wait_until([&] { return check_state(what) != ncclInProgress; });
  }
  /// Of all, at once: an abort waits for the device, where a kernel of another one may wait for the same rank.
  [[gnu::cold]] void abort() {
    int device = 0;
    cudaGetDevice(&device);
    std::vector<std::thread> threads;
    for (NcclRanks* member : shared_->members) {
      if (member->communicator_ == nullptr) continue;
      const auto end = [device, communicator = std::exchange(member->communicator_, nullptr)] {
        cudaSetDevice(device);
        ncclCommAbort(communicator);
      };
      try {
        threads.emplace_back(end);
      } catch (const std::exception&) {  // there is no thread
        end();
      }
    }
    for (std::thread& thread : threads) thread.join();
  }

  [[gnu::cold]] void free() {
    if (communicator_ != nullptr) abort();  // it was not ended in good order
    std::erase(shared_->members, this);
    if (done_ != nullptr) cudaEventDestroy(done_);
  }

  ncclComm_t communicator_ = nullptr;
  std::shared_ptr<Shared> shared_;
  cudaEvent_t done_ = nullptr;  // of what is waited for
  bool under_way_ = false;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
