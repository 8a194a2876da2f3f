#pragma once
/// @file
/// Training on several GPUs that NCCL joins: `Nccl`, a Communicator of the processes that mpirun or srun has
/// started, one for each GPU.
///
///     tinymoe::Mpi ranks;
///     tinymoe::CudaBfloat16 device({.device = static_cast<int>(ranks.local_rank())});   // 0 if it sees one GPU alone
///     …
///     Trainer trainer(model, AdamW{}, WarmupCosine{}, Nccl(ranks, device));
///
/// MPI starts and joins the processes, and sums the few numbers on the host. Gradients and weights go from GPU to GPU,
/// by NVLink, PCIe or the network, as NCCL finds best, and not through the memory of the hosts. A rank gets the sums of
/// its share's gradients by a reduction, and gives its weights by a broadcast; those of all ranks are one group.
///
/// Gradients are summed while backward goes on, on a stream of its own: a bucket's reduction waits there for what was
/// enqueued on the backend's stream before it. In expert parallelism rows go from GPU to GPU on the same stream, in the
/// order in which the host asks for them.
///
/// All ranks get the same bits. NCCL chooses the order of a sum by the machines and the sizes, so the same job on the
/// same machines should give the same bits again; `Mpi` has an order of its own.
///
/// It needs NCCL 2.14. CMake's component `nccl` brings it, with `cuda` and `mpi`.

#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/backend/cuda.hpp"
#include "tinymoe/core/control_group.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/mpi/mpi.hpp"
#include "tinymoe/mpi/nccl_ranks.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1 {

/// The ranks of an MPI job with a GPU each: a Communicator for CUDA backends. It is a handle, as `Mpi` is: the last
/// copy to go waits for the other ranks, and all that is said there of ends and exceptions holds.
class Nccl {
 public:
  /// Joins the GPUs of all ranks, each the one of its backend; all ranks call it. Throws DeviceError where two ranks
  /// have the same GPU, which NCCL refuses, and for an error of NCCL.
  template <class T>
  Nccl(Mpi ranks, const BasicCuda<T>& backend) {
    const auto [first, second] = ranks_of_one_gpu(ranks, backend);
    if (second > 0) {
      fail<DeviceError>("ranks ", first, " and ", second, " have the same GPU, and NCCL needs one for each; ",
                        "take fewer processes, or sum through the hosts with Mpi");
    }
    (void)backend.stream();  // makes its device that of this thread
    ranks_ = std::make_shared<detail::NcclRanks>(std::move(ranks));
  }

  /// Whether each rank has a GPU of its own; all ranks call it, and get the same answer.
  template <class T>
  static bool possible(Mpi& ranks, const BasicCuda<T>& backend) {
    return ranks_of_one_gpu(ranks, backend).second == 0;
  }

  Index rank() const { return ranks_->mpi.rank(); }
  Index size() const { return ranks_->mpi.size(); }

  /// row[i] = Σ of row[i] over the ranks in this rank's share; see Communicator. Nothing is copied to the host. Throws
  /// DeviceError for an error of NCCL or CUDA, TrainingError where another rank has left or does not answer.
  template <class T>
  void reduce_scatter(const BasicCuda<T>& backend, View<float> row, std::span<const Index> firsts) {
    ranks_->run(backend.stream(), "sum over the processes", [&](ncclComm_t communicator) {
      return for_each_share(row, firsts, [&](float* share, std::size_t count, int owner) {
        return ncclReduce(share, share, count, ncclFloat, ncclSum, owner, communicator, backend.stream());
      });
    });
  }
  /// It can on every CUDA backend.
  template <class T>
  static constexpr bool overlaps(const BasicCuda<T>&) {
    return true;
  }
  /// reduce_scatter beside what is enqueued on the backend from now on; see OverlappingCommunicator. Errors as above.
  template <class T>
  void start_reduce_scatter(const BasicCuda<T>& backend, View<float> row, std::span<const Index> firsts) {
    ranks_->start(backend.stream(), "sum over the processes", [&](ncclComm_t communicator, cudaStream_t stream) {
      return for_each_share(row, firsts, [&](float* share, std::size_t count, int owner) {
        return ncclReduce(share, share, count, ncclFloat, ncclSum, owner, communicator, stream);
      });
    });
  }
  /// Returns when the device has done all that was started.
  template <class T>
  void finish(const BasicCuda<T>&) {
    ranks_->finish("sum over the processes");
  }
  /// The ranks that give the same number, in their order, as a communicator of their own; all ranks call it.
  Nccl group(Index color) { return Nccl(std::make_shared<detail::NcclRanks>(ranks_->mpi.group(color), ranks_)); }
  /// Gives each rank its part of a few numbers on the host, and takes theirs, by MPI; see GroupingCommunicator.
  void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) {
    ranks_->mpi.exchange_numbers(send, receive);
  }
  /// Begins to send rows from GPU to GPU, beside what is enqueued on the backend from now on and behind the sums that
  /// were begun; see GroupingCommunicator. Errors as above.
  template <class T>
  void start_exchange(const BasicCuda<T>& backend, const void* from, std::span<const Index> send, void* to,
                      std::span<const Index> receive, std::size_t row_bytes) {
    ranks_->start(backend.stream(), exchange, [&](ncclComm_t communicator, cudaStream_t stream) {
      const auto* sent = static_cast<const std::byte*>(from);
      auto* received = static_cast<std::byte*>(to);
      for (std::size_t r = 0; r < send.size(); ++r) {
        const std::size_t go = static_cast<std::size_t>(send[r]) * row_bytes;
        const std::size_t come = static_cast<std::size_t>(receive[r]) * row_bytes;
        if (static_cast<Index>(r) != rank()) {
          const int peer = static_cast<int>(r);
          ncclResult_t code = go > 0 ? ncclSend(sent, go, ncclUint8, peer, communicator, stream) : ncclSuccess;
          if (come > 0 && (code == ncclSuccess || code == ncclInProgress)) {
            code = ncclRecv(received, come, ncclUint8, peer, communicator, stream);
          }
          if (code != ncclSuccess && code != ncclInProgress) return code;
        }
        sent += go, received += come;
      }
      return ncclSuccess;
    });
  }
  /// Returns when the rows have come.
  template <class T>
  void finish_exchange(const BasicCuda<T>&) {
    ranks_->finish(exchange);
  }
  /// row[i] = that of the rank that owns it. Errors as above.
  template <class T>
  void all_gather(const BasicCuda<T>& backend, View<float> row, std::span<const Index> firsts) {
    ranks_->run(backend.stream(), "gather from the processes", [&](ncclComm_t communicator) {
      return for_each_share(row, firsts, [&](float* share, std::size_t count, int owner) {
        return ncclBroadcast(share, share, count, ncclFloat, owner, communicator, backend.stream());
      });
    });
  }
  /// The sums of a few numbers on the host, by MPI.
  void sum(std::span<double> numbers) { ranks_->mpi.sum(numbers); }
  /// Tells rank 0 why this rank makes no more calls. `fit` does it for what it throws.
  void leave(std::string_view sentence) { ranks_->leave(sentence); }

 private:
  static constexpr const char* exchange = "exchange rows with the processes";

  explicit Nccl(std::shared_ptr<detail::NcclRanks> ranks) : ranks_(std::move(ranks)) {}

  /// call(share, its size, its rank) for each share that has elements, up to the first error.
  template <class F>
  static ncclResult_t for_each_share(View<float> row, std::span<const Index> firsts, F&& call) {
    for (std::size_t r = 0; r + 1 < firsts.size(); ++r) {
      if (firsts[r] == firsts[r + 1]) continue;
      const auto count = static_cast<std::size_t>(firsts[r + 1] - firsts[r]);
      const ncclResult_t code = call(row.data + firsts[r], count, static_cast<int>(r));
      if (code != ncclSuccess && code != ncclInProgress) return code;
    }
    return ncclSuccess;
  }

  /// Two ranks with the same GPU of the same machine; 0 and 0 if there are none.
  template <class T>
  [[gnu::cold]] static std::pair<Index, Index> ranks_of_one_gpu(Mpi& ranks, const BasicCuda<T>& backend) {
    (void)backend.stream();  // makes its device that of this thread
    int device = 0;
    std::array<char, 256> name{};
    detail::check_cuda(cudaGetDevice(&device), "asking for the device");
    detail::check_cuda(cudaDeviceGetPCIBusId(name.data(), static_cast<int>(name.size()), device),
                       "asking for the device's place");
    detail::Fnv1a hash;  // of the machine, by the number of this start of its system, and of the GPU in it
    hash.text(detail::system_file("/proc/sys/kernel/random/boot_id") + name.data());
    std::vector<double> places(static_cast<std::size_t>(ranks.size()));
    places[static_cast<std::size_t>(ranks.rank())] = static_cast<double>(hash.value() >> 11);  // as a double has it
    ranks.sum(std::span(places));
    for (std::size_t second = 1; second < places.size(); ++second) {
      const auto first =
          std::find(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(second), places[second]);
      if (first != places.begin() + static_cast<std::ptrdiff_t>(second)) {
        return {first - places.begin(), static_cast<Index>(second)};
      }
    }
    return {0, 0};
  }

  std::shared_ptr<detail::NcclRanks> ranks_;
};
static_assert(OverlappingCommunicator<Nccl, Cuda> && OverlappingCommunicator<Nccl, CudaBfloat16> &&
              GroupingCommunicator<Nccl, Cuda> && TellsWhyItLeaves<Nccl>);

}  // namespace tinymoe::inline v0_1
