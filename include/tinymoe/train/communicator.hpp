#pragma once
/// @file
/// Data parallelism: several processes train one model, and sum their gradients and reports in each step.
///
/// Each rank has the whole model and reads micro-batches of its own. The gradients are summed over the ranks after the
/// last micro-batch and before their norm is measured. The numbers of a report are summed where the host reads them.
/// Every rank then sees the same norm and the same loss, so all ranks take the same step, and their weights stay equal
/// to the bit.

#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

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

/// A communicator that can tell the other ranks why this one leaves the run: `leave(sentence)`. Their calls of `sum`
/// then end by an exception, or they are ended, so that none waits. Called once, by a rank whose run has thrown.
template <class C>
concept TellsWhyItLeaves = requires(C& communicator, std::string_view sentence) {
  communicator.leave(sentence);
};

/// Any communicator for one backend, chosen at run time; a default one is `Alone`. A program that runs with one process
/// or with many then compiles one Trainer for each architecture.
template <class B>
class AnyCommunicator {
 public:
  AnyCommunicator() = default;
  template <class C>
  requires(!std::same_as<C, AnyCommunicator> && Communicator<C, B>)
      AnyCommunicator(C communicator)  // NOLINT: implicit, as every communicator is one
      : rank_(communicator.rank()), size_(communicator.size()) {
    auto shared = std::make_shared<C>(std::move(communicator));
    sum_row_ = [shared](B& backend, View<typename B::Master> row) { shared->sum(backend, row); };
    sum_numbers_ = [shared](std::span<double> numbers) { shared->sum(numbers); };
    if constexpr (TellsWhyItLeaves<C>) leave_ = [shared](std::string_view sentence) { shared->leave(sentence); };
  }

  Index rank() const { return rank_; }
  Index size() const { return size_; }
  void sum(B& backend, View<typename B::Master> row) {
    if (sum_row_) sum_row_(backend, row);
  }
  void sum(std::span<double> numbers) {
    if (sum_numbers_) sum_numbers_(numbers);
  }
  void leave(std::string_view sentence) {
    if (leave_) leave_(sentence);
  }

 private:
  Index rank_ = 0, size_ = 1;
  std::function<void(B&, View<typename B::Master>)> sum_row_;
  std::function<void(std::span<double>)> sum_numbers_;
  std::function<void(std::string_view)> leave_;
};
static_assert(Communicator<AnyCommunicator<detail::DeclaredBackend>>);

}  // namespace tinymoe::inline v0_1
