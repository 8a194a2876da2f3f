#pragma once
/// @file
/// Several processes that train one model: what they say to each other in a step.
///
/// Each rank has the whole model and reads micro-batches of its own. The gradients are summed where those of all its
/// micro-batches are complete and nothing has been measured yet; the numbers of a report are summed where the host
/// reads them. Every rank then has the same norm, the same loss and the same answer to whether they are finite, so all
/// take the same step, and their weights stay the same bits.

#include <concepts>
#include <span>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// The ranks 0 … size − 1 of a run, seen from one of them. It is a handle: copies speak for the same rank. All ranks
/// call both kinds of `sum` in the same order, and each gets the same bits; what a rank passes is overwritten.
///
/// A rank that throws calls no more: a communicator whose others would wait for it must end them, as MPI_Abort does.
template <class C, class B = detail::DeclaredBackend>
concept Communicator = std::copyable<C> &&
    requires(C& communicator, const C& same, B& backend, View<typename B::Master> row, std::span<double> numbers) {
  { same.rank() } -> std::convertible_to<Index>;
  { same.size() } -> std::convertible_to<Index>;
  // On the backend, in order with its operations before and after: row[i] = Σ over the ranks of their row[i].
  communicator.sum(backend, row);
  // The same for a few numbers of the host; returns when they are there.
  communicator.sum(numbers);
};

/// One process, which has nobody to speak to.
struct Alone {
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 1; }
  template <class B>
  static constexpr void sum(B&, View<typename B::Master>) {}
  static constexpr void sum(std::span<double>) {}
};
static_assert(Communicator<Alone>);

}  // namespace tinymoe::inline v0_1
