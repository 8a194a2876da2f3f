#pragma once
/// @file
/// Training by several processes on MPI: `Mpi`, a Communicator of the processes that mpirun or srun has started.
///
///     int main() {
///       tinymoe::Mpi ranks;
///       …
///       Trainer trainer(model, AdamW{}, WarmupCosine{}, ranks);   // on every rank, with the same model
///       trainer.fit(data, {.accumulation = 4 * ranks.size(), …});
///     }
///
/// A sum has an order of its own: each rank gets its share of the elements from all ranks (all-to-all), and adds them
/// in the order of the ranks. MPI only moves bytes, so its algorithms, the network and the placement of the ranks
/// change no bit. In a step a rank with an R-th of the parameters sends and receives 2 · (R − 1)/R times the bytes of
/// all of them, gradients first and then weights: as much as in the best all-reduce of the gradients.
///
/// It needs MPI 3, in C: Open MPI, MPICH, and what is compatible. CMake's component `mpi` brings it.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tinymoe/backend/host.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/mpi/launcher.hpp"
#include "tinymoe/mpi/mpi_ranks.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1 {

/// The ranks of an MPI job: a Communicator for every backend. It is a handle; the last copy to go waits for the other
/// ranks and finalizes MPI, if it was `Mpi` that started it. All calls come from one thread, the one that made it.
///
/// A rank whose `fit` throws tells rank 0 why: there what is under way throws a TrainingError with that sentence, so
/// that rank 0 can tell it. When a program ends without the end of its `Mpi`, as after an exception, it ends the other
/// processes at once (MPI_Abort). So none waits for one that has gone; a rank that lets rank 0 speak after its own
/// exception waits before it ends.
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

  /// row[i] = Σ of row[i] over the ranks in this rank's share, added in their order in the type of the elements; see
  /// Communicator. The row may have any size; two pieces of it lie in host memory at a time, 4 MiB each or 64 KiB for
  /// each rank. Throws DeviceError for an error of MPI, TrainingError where another rank has left.
  template <class B>
  void reduce_scatter(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    if (size() == 1) return;
    ranks_->settle();
    sum_shares(backend, row, firsts);
  }
  /// Whether sums can go on beside the calling thread: where the backend's numbers are on the host, and MPI allows
  /// another thread (MPI_THREAD_SERIALIZED).
  template <class B>
  bool overlaps(const B&) const {
    return std::is_base_of_v<detail::HostBackend, B> && ranks_->threads_allowed();
  }
  /// reduce_scatter in a thread of its own, which does one after the other; see OverlappingCommunicator.
  template <class B>
  void start_reduce_scatter(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    if (size() == 1) return;
    ranks_->start([this, &backend, row, firsts] { sum_shares(backend, row, firsts); });
  }
  /// Returns when all that was started is done. Errors as above.
  template <class B>
  void finish(B&) {
    ranks_->settle();
  }
  /// The ranks that give the same number, in their order, as a communicator of their own; all ranks call it.
  Mpi group(Index color) {
    return Mpi(std::shared_ptr<detail::MpiRanks>(new detail::MpiRanks(ranks_, color), detail::MpiRanks::end));
  }
  /// Begins to send rows[r] rows to each rank r and to receive such, in host memory; see ExpertExchange. Rows of other
  /// ranks move while this one computes, as far as the MPI does it by itself.
  void start_exchange(const void* from, std::span<const Index> send, void* to, std::span<const Index> receive,
                      std::size_t row_bytes) {
    ranks_->start_exchange(from, send, to, receive, row_bytes);
  }
  /// Returns when they have come. Errors as above.
  void finish_exchange() { ranks_->finish_exchange(); }
  /// row[i] = that of the rank that owns it. Memory and errors as above.
  template <class B>
  void all_gather(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    using M = typename B::Master;
    if (size() == 1) return;
    ranks_->settle();
    for_each_piece<M>(firsts, [&](std::span<const Index> places, std::span<const Index> counts) {
      const auto own = static_cast<std::size_t>(rank());
      backend.copy_to_host(ranks_->own(), row.data + places[own], static_cast<std::size_t>(counts[own]) * sizeof(M));
      const M* from = reinterpret_cast<const M*>(ranks_->all_gather(counts, sizeof(M)));
      for (std::size_t r = 0; r < counts.size(); ++r) {
        if (r != own) {
          backend.copy_to_device(row.data + places[r], from, static_cast<std::size_t>(counts[r]) * sizeof(M));
        }
        from += counts[r];
      }
    });
  }
  /// The sums of a few numbers on the host.
  void sum(std::span<double> numbers) {
    if (size() == 1) return;
    ranks_->settle();
    ranks_->sum(numbers);
  }
  /// Gives the bytes of rank 0 to all, which must have as many.
  void broadcast(std::span<std::byte> bytes) {
    if (size() == 1) return;
    ranks_->settle();
    ranks_->broadcast(bytes);
  }
  /// Returns when all ranks have called it.
  void meet() {
    if (size() == 1) return;
    ranks_->settle();
    ranks_->meet();
  }
  /// Waits until `done()` is true, in the way in which it waits for the other ranks, and throws what ends that. For
  /// what a program does with the ranks by other means.
  template <class F>
  void wait_until(F&& done) {
    ranks_->settle();
    ranks_->wait_until(done);
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
  explicit Mpi(std::shared_ptr<detail::MpiRanks> ranks) : ranks_(std::move(ranks)) {}

  template <class B>
  void sum_shares(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    using M = typename B::Master;
    for_each_piece<M>(firsts, [&](std::span<const Index> places, std::span<const Index> counts) {
      M* to = reinterpret_cast<M*>(ranks_->packed());
      for (std::size_t r = 0; r < counts.size(); ++r) {
        backend.copy_to_host(to, row.data + places[r], static_cast<std::size_t>(counts[r]) * sizeof(M));
        to += counts[r];
      }
      const auto own = static_cast<std::size_t>(rank());
      const std::byte* sums = ranks_->reduce_scatter(counts, sizeof(M), add<M>);
      backend.copy_to_device(row.data + places[own], sums, static_cast<std::size_t>(counts[own]) * sizeof(M));
    });
  }
  /// f(places, counts) for each piece of a row of `M` that is cut by `firsts`: of rank r's share the counts[r] elements
  /// from places[r] on.
  template <class M, class F>
  void for_each_piece(std::span<const Index> firsts, F&& f) {
    const auto ranks = static_cast<std::size_t>(size());
    auto &places = ranks_->piece_places, &counts = ranks_->piece_counts;
    places.resize(ranks), counts.resize(ranks);
    const Index most = ranks_->reserve(sizeof(M));
    for (Index at = 0;; at += most) {
      bool any = false;
      for (std::size_t r = 0; r < ranks; ++r) {
        places[r] = std::min(firsts[r] + at, firsts[r + 1]);
        counts[r] = std::min(most, firsts[r + 1] - places[r]);
        any = any || counts[r] > 0;
      }
      if (!any) return;
      f(std::span<const Index>(places), std::span<const Index>(counts));
    }
  }

  template <class M>
  static void add(std::byte* to, const std::byte* from, Index count) {
    auto* const sums = reinterpret_cast<M*>(to);
    const auto* const more = reinterpret_cast<const M*>(from);
    for (Index i = 0; i < count; ++i) sums[i] += more[i];
  }

  std::shared_ptr<detail::MpiRanks> ranks_;
};
static_assert(OverlappingCommunicator<Mpi> && GroupingCommunicator<Mpi> && TellsWhyItLeaves<Mpi>);

}  // namespace tinymoe::inline v0_1
