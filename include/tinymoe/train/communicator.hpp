#pragma once
/// @file
/// Data parallelism: several processes train one model, and sum their gradients and reports in each step.
///
/// Each rank has the whole model and reads micro-batches of its own. Each owns a share of the parameters
/// (parameter_buckets.hpp): after the last micro-batch it gets the sums of that share's gradients from all ranks
/// (reduce-scatter), it alone keeps the optimizer's state of that share and takes its step, and it gives the new
/// weights to all (all-gather). That is stage 1 of ZeRO (Rajbhandari et al. 2020). Gradients are summed in buckets of
/// some layers, each as soon as backward is done with it, if the communicator can do so beside it. The numbers of a
/// report are summed where the host reads them. Every rank then sees the same norm and the same loss, so all ranks take
/// the same step, and their weights stay equal to the bit.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// One rank of a run with the ranks 0 … size − 1. It is a handle: copies belong to the same rank. All ranks call the
/// three functions in the same order, and each gets the same bits. The result replaces the argument.
///
/// `firsts` cuts a row into a share for each rank: rank r owns row[i] for firsts[r] ≤ i < firsts[r + 1]. It has size +
/// 1 numbers, the same on all ranks, in rising order, from 0 to the row's size. A share may be empty.
///
/// A rank that throws makes no more calls. If the other ranks would wait for it forever, the communicator must end
/// them, as MPI_Abort does.
template <class C, class B = detail::DeclaredBackend>
concept Communicator = std::copyable<C> &&
    requires(C& communicator, const C& same, B& backend, View<typename B::Master> row, std::span<const Index> firsts,
             std::span<double> numbers) {
  { same.rank() } -> std::convertible_to<Index>;
  { same.size() } -> std::convertible_to<Index>;
  // On the backend, in order with its other operations: row[i] = Σ of row[i] over the ranks, in this rank's share. The
  // other elements may become anything.
  communicator.reduce_scatter(backend, row, firsts);
  // On the backend: row[i] = that of the rank that owns it.
  communicator.all_gather(backend, row, firsts);
  // A few numbers on the host: Σ of each over the ranks; returns when the sums have arrived.
  communicator.sum(numbers);
};

/// A communicator that can sum gradients while backward goes on. `start_reduce_scatter` begins what `reduce_scatter`
/// does; several may be under way. Until `finish` the caller changes nothing of these rows and reads nothing, and makes
/// no other call of the communicator. All ranks start the same ones in the same order.
template <class C, class B = detail::DeclaredBackend>
concept OverlappingCommunicator = Communicator<C, B> &&
    requires(C& communicator, const C& same, B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
  { same.overlaps(backend) } -> std::convertible_to<bool>;  // whether it can on this backend; else it is not asked to
  communicator.start_reduce_scatter(backend, row, firsts);  // `firsts` stays where it is until `finish`
  // Returns when all that was started is done, in order with the backend's operations. Called after an exception, too:
  // the rows' memory may go then.
  communicator.finish(backend);
};

/// A communicator whose ranks can form groups, in which they send each other rows. Expert parallelism needs it.
template <class C, class B = detail::DeclaredBackend>
concept GroupingCommunicator = requires(C& communicator, Index color, std::span<const std::int32_t> numbers,
                                        std::span<std::int32_t> received, B& backend, const void* from, void* to,
                                        std::span<const Index> rows, std::size_t row_bytes) {
  // The ranks that give the same number, in their order, as a communicator of their own. All ranks call it.
  { communicator.group(color) } -> std::same_as<C>;
  // A few numbers on the host, as many for each rank: the r-th part goes to rank r, and the r-th part received is from
  // it. Returns when they have come.
  communicator.exchange_numbers(numbers, received);
  // Rows of `row_bytes` bytes in memory of the backend, in order with its operations: rows[r] go to each rank r, and as
  // many come as the second `rows` says. Those to and from one rank lie together, in the order of the ranks; those to
  // itself stay where they are. Until `finish_exchange`, which waits, the memory stays, and no other call is made but
  // for sums of other communicators that go on beside it.
  communicator.start_exchange(backend, from, rows, to, rows, row_bytes);
  communicator.finish_exchange(backend);
};

/// The only process of a run.
struct Alone {
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 1; }
  template <class B>
  static constexpr void reduce_scatter(B&, View<typename B::Master>, std::span<const Index>) {}
  template <class B>
  static constexpr void all_gather(B&, View<typename B::Master>, std::span<const Index>) {}
  static constexpr void sum(std::span<double>) {}
};
static_assert(Communicator<Alone>);

/// A communicator that can tell the other ranks why this one leaves the run: `leave(sentence)`. Their calls then end by
/// an exception, or they are ended, so that none waits. Called once, by a rank whose run has thrown.
template <class C>
concept TellsWhyItLeaves = requires(C& communicator, std::string_view sentence) {
  communicator.leave(sentence);
};

}  // namespace tinymoe::inline v0_1
