#pragma once
/// @file
/// Data parallel training on MPI: `Mpi`, a Communicator of the processes that mpirun or srun has started.
///
///     int main() {
///       tinymoe::Mpi ranks;
///       …
///       Trainer trainer(model, AdamW{}, WarmupCosine{}, ranks);   // on every rank, with the same model
///       trainer.fit(data, {.accumulation = 4 * ranks.size(), …});
///     }
///
/// A sum has an order of its own. Each rank gets its share of the elements from all ranks (all-to-all), adds them in
/// the order of the ranks, and gives the sums to all (all-gather). MPI only moves bytes, so its algorithms, the network
/// and the placement of the ranks change no bit. A rank sends and receives 2 · (R − 1)/R times the bytes of the row, as
/// much as in the best all-reduce.
///
/// It needs MPI 3, in C: Open MPI, MPICH, and what is compatible. CMake's component `mpi` brings it.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/mpi/launcher.hpp"
#include "tinymoe/mpi/mpi_ranks.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1 {

/// The ranks of an MPI job: a Communicator for every backend. It is a handle; the last copy to go waits for the other
/// ranks and finalizes MPI, if it was `Mpi` that started it. All calls come from one thread, the one that made it.
///
/// A rank whose `fit` throws tells rank 0 why: there the sum under way throws a TrainingError with that sentence, so
/// that rank 0 can save and tell it. When a program ends without the end of its `Mpi`, as after an exception, it ends
/// the other processes at once (MPI_Abort). So none waits for one that has gone; a rank that lets rank 0 save after its
/// own exception waits before it ends.
class Mpi {
 public:
  /// Joins the processes that were started together (MPI_COMM_WORLD), and starts MPI unless that was done. Throws
  /// DeviceError where MPI cannot start or finds other processes than the launcher has started.
  explicit Mpi(MpiOptions options = {})
      : ranks_(new detail::MpiRanks(MPI_COMM_NULL, std::move(options)), detail::MpiRanks::end) {}
  /// The processes of a communicator of the program, which is copied. MPI must have been started, with
  /// MPI_THREAD_FUNNELED or more.
  explicit Mpi(MPI_Comm communicator, MpiOptions options = {})
      : ranks_(new detail::MpiRanks(communicator, std::move(options)), detail::MpiRanks::end) {}

  Index rank() const { return ranks_->rank; }
  Index size() const { return ranks_->size; }
  /// The number of this rank on its machine, from 0, and how many there are on it.
  Index local_rank() const { return ranks_->local_rank; }
  Index local_size() const { return ranks_->local_size; }
  /// The threads for this rank's CPU backend: the cores that it may use, divided by the ranks that share them.
  int threads() const { return ranks_->threads; }

  /// row[i] = Σ of row[i] over the ranks, added in their order in the type of the elements. The row may have any
  /// size; two pieces of it lie in host memory at a time, 4 MiB each or 64 KiB for each rank. Throws DeviceError for an
  /// error of MPI, TrainingError where another rank has left.
  template <class B>
  void sum(B& backend, View<typename B::Master> row) {
    using M = typename B::Master;
    if (size() == 1) return;
    const Index piece = ranks_->piece(sizeof(M));
    for (Index at = 0; at < row.cols; at += piece) {
      const Index count = std::min(piece, row.cols - at);
      const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(M);
      std::byte* const host = ranks_->buffer(bytes);
      backend.copy_to_host(host, row.data + at, bytes);
      ranks_->sum(count, sizeof(M), add<M>);
      backend.copy_to_device(row.data + at, host, bytes);
    }
  }
  /// The same for a few numbers on the host.
  void sum(std::span<double> numbers) {
    if (size() > 1) ranks_->sum(numbers);
  }
  /// Gives the bytes of rank 0 to all, which must have as many.
  void broadcast(std::span<std::byte> bytes) {
    if (size() > 1) ranks_->broadcast(bytes);
  }
  /// Returns when all ranks have called it.
  void meet() {
    if (size() > 1) ranks_->meet();
  }
  /// Changes MpiOptions::patience, before something that takes longer on one rank.
  void wait_at_most(double seconds) { ranks_->wait_at_most(seconds); }

  /// Tells rank 0 why this rank makes no more calls. `fit` does it for what it throws.
  void leave(std::string_view sentence) { ranks_->leave(sentence); }
  /// Ends all processes now, with this exit status.
  [[noreturn]] static void abort(int status = 1) {
    MPI_Abort(MPI_COMM_WORLD, status);
    std::_Exit(status);
  }

  /// The copy of the communicator that it uses, for a program's own calls of MPI.
  MPI_Comm communicator() const { return ranks_->communicator(); }

 private:
  template <class M>
  static void add(std::byte* to, const std::byte* from, Index count) {
    auto* const sums = reinterpret_cast<M*>(to);
    const auto* const more = reinterpret_cast<const M*>(from);
    for (Index i = 0; i < count; ++i) sums[i] += more[i];
  }

  std::shared_ptr<detail::MpiRanks> ranks_;
};
static_assert(Communicator<Mpi> && TellsWhyItLeaves<Mpi>);

}  // namespace tinymoe::inline v0_1
