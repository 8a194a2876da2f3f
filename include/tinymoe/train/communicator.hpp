#pragma once
/// @file
/// Data parallelism: several processes train one model, and sum their gradients and reports in each step.
///
/// Each rank has the whole model and reads micro-batches of its own. The gradients are summed over the ranks after the
/// last micro-batch and before their norm is measured. The numbers of a report are summed where the host reads them.
/// Every rank then sees the same norm and the same loss, so all ranks take the same step, and their weights stay equal
/// to the bit.

#include <concepts>
#include <span>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// One rank of a run with the ranks 0 … size − 1. It is a handle: copies belong to the same rank. All ranks call both
/// `sum` functions in the same order, and each gets the same bits. The result replaces the argument.
///
/// A rank that throws makes no more calls. If the other ranks would wait for it forever, the communicator must end
/// them, as MPI_Abort does.
template <class C, class B = detail::DeclaredBackend>
concept Communicator = std::copyable<C> &&
    requires(C& communicator, const C& same, B& backend, View<typename B::Master> row, std::span<double> numbers) {
  { same.rank() } -> std::convertible_to<Index>;
  { same.size() } -> std::convertible_to<Index>;
  // On the backend, in order with its other operations: row[i] = Σ of row[i] over the ranks.
  communicator.sum(backend, row);
  // The same for a few numbers on the host; returns when the sums have arrived.
  communicator.sum(numbers);
};

/// The only process of a run.
struct Alone {
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 1; }
  template <class B>
  static constexpr void sum(B&, View<typename B::Master>) {}
  static constexpr void sum(std::span<double>) {}
};
static_assert(Communicator<Alone>);

}  // namespace tinymoe::inline v0_1
