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
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tinymoe/backend/host.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/mpi/launcher.hpp"
#include "tinymoe/mpi/mpi_ranks.hpp"
#include "tinymoe/train/any_communicator.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1 {

/// The ranks of an MPI job: a Communicator for every backend with masters of float, double or std::complex<double>. It
/// is a handle; the last copy to go waits for the other ranks and finalizes MPI, if it was `Mpi` that started it. All
/// calls come from one thread, the one that made it.
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
  Index local_rank() const { return ranks_->neighbours.local_rank; }
  Index local_size() const { return ranks_->neighbours.local_size; }
  /// The threads for this rank's CPU backend: the cores that it may use, divided by the ranks that share them.
  int threads() const { return ranks_->neighbours.threads; }

  /// row[i] = Σ of row[i] over the ranks in this rank's share, added in their order in the type of the elements; see
  /// Communicator. The row may have any size; what comes needs 4 MiB of host memory, or 64 KiB for each rank.
  /// A row that is not in host memory needs as much again for a copy. Throws DeviceError for an error of
  /// MPI, TrainingError where another rank has left.
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
    return in_host_memory<B> && ranks_->threads_allowed();
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
  /// Gives each rank its part of a few numbers on the host, and takes theirs; see GroupingCommunicator.
  void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) {
    ranks_->exchange_numbers(send, receive);
  }
  /// Begins to send rows to the other ranks and to receive some; see GroupingCommunicator. They move while this rank
  /// computes, as far as the MPI does it by itself, and beside sums of other communicators. Those of a GPU go through
  /// memory of the host.
  template <class B>
  void start_exchange(B& backend, const void* from, std::span<const Index> send, void* to,
                      std::span<const Index> receive, std::size_t row_bytes) {
    if constexpr (in_host_memory<B>) {
      ranks_->start_exchange(from, send, to, receive, row_bytes);
    } else {
      const auto own = static_cast<std::size_t>(rank());
      auto &sent = ranks_->rows_to_send, &received = ranks_->rows_to_receive;
      sent.resize(bytes_of(send, row_bytes)), received.resize(bytes_of(receive, row_bytes));
      for_others(send, own, row_bytes, [&](std::size_t first, std::size_t bytes) {
        backend.copy_to_host(sent.data() + first, static_cast<const std::byte*>(from) + first, bytes);
      });
      ranks_->received_rows = to;
      ranks_->received_parts.clear();
      for_others(receive, own, row_bytes,
                 [&](std::size_t first, std::size_t bytes) { ranks_->received_parts.emplace_back(first, bytes); });
      ranks_->start_exchange(sent.data(), send, received.data(), receive, row_bytes);
    }
  }
  /// Returns when they have come. Errors as above.
  template <class B>
  void finish_exchange(B& backend) {
    ranks_->finish_exchange();
    if constexpr (!in_host_memory<B>) {
      const auto parts = std::exchange(ranks_->received_parts, {});
      for (const auto& [first, bytes] : parts) {
        backend.copy_to_device(static_cast<std::byte*>(ranks_->received_rows) + first,
                               ranks_->rows_to_receive.data() + first, bytes);
      }
    }
  }
  /// row[i] = that of the rank that owns it. Memory and errors as above.
  template <class B>
  void all_gather(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    using M = typename B::Master;
    if (size() == 1) return;
    ranks_->settle();
    const auto own = static_cast<std::size_t>(rank());
    for_each_piece<B>(row, firsts, [&](const Piece<M>& piece) {
      if (piece.is_copy) backend.copy_to_host(piece.of_rank(own), piece.row_of_rank(own), piece.bytes(own));
      ranks_->all_gather(piece.data, piece.places, piece.counts);
      if (!piece.is_copy) return;
      for (std::size_t r = 0; r < piece.counts.size(); ++r) {
        if (r != own) backend.copy_to_device(piece.row_of_rank(r), piece.of_rank(r), piece.bytes(r));
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

  /// Whether MPI may read and write the memory of a backend.
  template <class B>
  static constexpr bool in_host_memory = std::is_base_of_v<detail::HostBackend, B>;

  /// Of each rank's share some elements, in the row itself or in a copy.
  template <class M>
  struct Piece {
    M *data, *row;
    std::span<const Index> places, places_in_row, counts;
    bool is_copy;
    M* of_rank(std::size_t r) const { return data + places[r]; }
    M* row_of_rank(std::size_t r) const { return row + places_in_row[r]; }
    std::size_t bytes(std::size_t r) const { return static_cast<std::size_t>(counts[r]) * sizeof(M); }
  };
  /// f(piece) for each piece of a row that is cut by `firsts`. It is a copy where MPI cannot have the row itself: for
  /// backends with memory of their own, and for rows of 2³¹ elements.
  template <class B, class M, class F>
  void for_each_piece(View<M> row, std::span<const Index> firsts, F&& f) {
    const auto ranks = static_cast<std::size_t>(size());
    auto &places = ranks_->piece_places, &counts = ranks_->piece_counts, &packed = ranks_->packed_places;
    places.resize(ranks), counts.resize(ranks), packed.resize(ranks);
    const bool is_copy = !in_host_memory<B> || row.cols > std::numeric_limits<int>::max();
    const Index most = ranks_->reserve(sizeof(M));
    for (Index at = 0;; at += most) {
      Index all = 0;
      for (std::size_t r = 0; r < ranks; ++r) {
        places[r] = std::min(firsts[r] + at, firsts[r + 1]);
        counts[r] = std::min(most, firsts[r + 1] - places[r]);
        packed[r] = std::exchange(all, all + counts[r]);
      }
      if (all == 0) return;
      M* const data = is_copy ? reinterpret_cast<M*>(ranks_->packed()) : row.data;
      f(Piece<M>{data, row.data, is_copy ? packed : places, places, counts, is_copy});
    }
  }

  template <class B>
  void sum_shares(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    using M = typename B::Master;
    const auto own = static_cast<std::size_t>(rank());
    for_each_piece<B>(row, firsts, [&](const Piece<M>& piece) {
      for (std::size_t r = 0; piece.is_copy && r < piece.counts.size(); ++r) {
        backend.copy_to_host(piece.of_rank(r), piece.row_of_rank(r), piece.bytes(r));
      }
      add_in_order(piece.of_rank(own), ranks_->exchange_shares(piece.data, piece.places, piece.counts),
                   piece.counts[own]);
      if (piece.is_copy) backend.copy_to_device(piece.row_of_rank(own), piece.of_rank(own), piece.bytes(own));
    });
  }
  /// own[i] = Σ_r of[r · count + i], where its own is that of this rank, in the order of the ranks.
  template <class M>
  void add_in_order(M* own, const M* of, Index count) const {
    std::array<M, 512> sums;
    for (Index at = 0; at < count; at += std::ssize(sums)) {
      const Index part = std::min(count - at, std::ssize(sums));
      for (Index r = 0; r < size(); ++r) {
        const M* const more = (r == rank() ? own : of + r * count) + at;
        if (r == 0) {
          std::copy_n(more, part, sums.data());
        } else {
          for (Index i = 0; i < part; ++i) sums[static_cast<std::size_t>(i)] += more[i];
        }
      }
      std::copy_n(sums.data(), part, own + at);
    }
  }

  static std::size_t bytes_of(std::span<const Index> rows, std::size_t row_bytes) {
    return static_cast<std::size_t>(std::accumulate(rows.begin(), rows.end(), Index{0})) * row_bytes;
  }
  /// f(first byte, bytes) for what lies before a rank's own rows, and for what lies behind, if there is something.
  template <class F>
  static void for_others(std::span<const Index> rows, std::size_t own, std::size_t row_bytes, F&& f) {
    const std::size_t before = bytes_of(rows.first(own), row_bytes), to = bytes_of(rows.first(own + 1), row_bytes);
    const std::size_t behind = bytes_of(rows, row_bytes) - to;
    if (before > 0) f(0, before);
    if (behind > 0) f(to, behind);
  }

  std::shared_ptr<detail::MpiRanks> ranks_;
};
static_assert(OverlappingCommunicator<Mpi> && GroupingCommunicator<Mpi> && TellsWhyItLeaves<Mpi>);

}  // namespace tinymoe::inline v0_1
