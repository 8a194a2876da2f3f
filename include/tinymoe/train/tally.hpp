#pragma once
/// @file
/// The results of a step or of an evaluation: losses, experts' loads, the gradients' norm. They are summed on the
/// backend and read back once, because each read makes the host wait for all pending work of the device.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// A mixture's losses and loads of a pass, and their totals.
template <class M>
struct MixtureResults {
  const M* losses;            // (2): balance, z
  const std::int32_t* loads;  // (E)
  double* loss_totals;        // (2)
  Index* load_totals;         // (E)
  Index experts;
};

/// Adds the results of one pass. Row 0: the cross-entropy, total += Σ_n losses[n]. Row 1 + i: mixture i.
template <class M>
struct AddResults {
  static constexpr bool long_rows = true;
  View<const M> losses;  // (1, N)
  double* total;
  const MixtureResults<M>* mixtures;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    if (row == 0) {
      const M* from = losses.data;
      const double sum = group.sum(losses.cols, [=](Index n) { return static_cast<double>(real_part(from[n])); });
      group.once([&] { *total += sum; });
      return;
    }
    const MixtureResults<M> at = mixtures[row - 1];
    group.each(at.experts, [=](Index e) { at.load_totals[e] += at.loads[e]; });
    group.each(2, [=](Index i) { at.loss_totals[i] += static_cast<double>(real_part(at.losses[i])); });
  }
};

}  // namespace kernels

/// The sums over the passes since `clear`, in one block of the backend's memory:
///
///     norm, clip factor (2 of M) | cross-entropy (1), balance and z of each mixture (2 each), double | loads, Index
template <Backend B>
class Tally {
 public:
  using Master = typename B::Master;

  /// Sets where the passes leave their results: each token's cross-entropy, and the routing of the mixtures in order.
  /// Throws DeviceError without memory.
  void bind(B& backend, View<const Master> losses, const std::vector<Routing<Master>>& mixtures) {
    backend_ = &backend, losses_ = losses;
    Index loads = 0;
    for (const auto& routing : mixtures) loads += routing.loads.cols;
    const std::size_t bytes =
        totals_at + (1 + 2 * mixtures.size()) * sizeof(double) + static_cast<std::size_t>(loads) * sizeof(Index);
    if (block_.size() < bytes) {
      block_ = backend.allocate(bytes);
      host_.assign(bytes, std::byte{});
      for (const auto& routing : mixtures) loads_.emplace_back(static_cast<std::size_t>(routing.loads.cols));
      table_ = backend.allocate(mixtures.size() * sizeof(kernels::MixtureResults<Master>));
    }
    std::vector<kernels::MixtureResults<Master>> table;
    double* totals = this->totals(block_.bytes()) + 1;
    auto* counts = reinterpret_cast<Index*>(totals + 2 * mixtures.size());
    for (const auto& routing : mixtures) {
      table.push_back({routing.losses.data, routing.loads.data, totals, counts, routing.loads.cols});
      totals += 2, counts += routing.loads.cols;
    }
    backend.copy_to_device(table_.bytes(), table.data(), table.size() * sizeof(table[0]));
  }

  void clear() { backend_->zero(block_.bytes(), block_.size()); }

  /// Adds the results of the last pass.
  void add() {
    backend_->launch(1 + std::ssize(loads_),
                     kernels::AddResults<Master>{losses_, totals(block_.bytes()),
                                                 table_.template as<kernels::MixtureResults<Master>>().data});
  }

  /// (1, 2) on the backend: the place for the gradients' norm and the factor that clips them.
  View<Master> clip() const { return {reinterpret_cast<Master*>(block_.bytes()), 1, 2}; }

  /// Copies all sums to the host. The functions below use this copy.
  void read() { backend_->copy_to_host(host_.data(), block_.bytes(), host_.size()); }

  /// Sums the host's copy over all ranks. The norm is left alone: it is that of the summed gradients already.
  template <Communicator<B> C>
  void sum_over_ranks(C& communicator) {
    if (communicator.size() == 1) return;
    std::byte* at = host_.data() + totals_at;
    const std::size_t totals = 1 + 2 * loads_.size(), numbers = (host_.size() - totals_at) / sizeof(double);
    sums_.resize(numbers);
    std::memcpy(sums_.data(), at, totals * sizeof(double));
    for (std::size_t i = totals; i < numbers; ++i) {  // loads are exact in double
      Index load;
      std::memcpy(&load, at + i * sizeof load, sizeof load);
      sums_[i] = static_cast<double>(load);
    }
    communicator.sum(std::span<double>(sums_));
    std::memcpy(at, sums_.data(), totals * sizeof(double));
    for (std::size_t i = totals; i < numbers; ++i) {
      const auto load = static_cast<Index>(sums_[i]);
      std::memcpy(at + i * sizeof load, &load, sizeof load);
    }
  }

  /// Summed over the scored tokens of all passes, nats.
  double cross_entropy() const { return number(0); }
  /// Summed over the passes, a mean over the mixtures; 0 without any.
  double balance() const { return mixture_mean(0); }
  double z() const { return mixture_mean(1); }
  double gradient_norm() const {
    Master norm;
    std::memcpy(&norm, host_.data(), sizeof norm);
    return static_cast<double>(real_part(norm));
  }

  /// For each mixture in order, the pairs of each expert, as of the last `count_loads`.
  const ExpertLoads& loads() const { return loads_; }
  /// Copies the loads that were read last to `loads`.
  void count_loads() {
    const std::byte* from = host_.data() + totals_at + (1 + 2 * loads_.size()) * sizeof(double);
    for (auto& layer : loads_) {
      std::memcpy(layer.data(), from, layer.size() * sizeof(Index));
      from += layer.size() * sizeof(Index);
    }
  }

 private:
  static_assert(sizeof(Index) == sizeof(double));
  static constexpr std::size_t totals_at = round_up(2 * sizeof(Master), sizeof(double));

  static double* totals(std::byte* block) { return reinterpret_cast<double*>(block + totals_at); }
  double number(std::size_t i) const {
    double value;
    std::memcpy(&value, host_.data() + totals_at + i * sizeof value, sizeof value);
    return value;
  }
  double mixture_mean(std::size_t which) const {
    double total = 0;
    for (std::size_t i = 0; i < loads_.size(); ++i) total += number(1 + 2 * i + which);
    return loads_.empty() ? 0 : total / static_cast<double>(loads_.size());
  }

  B* backend_ = nullptr;
  View<const Master> losses_;  // (1, N)
  Memory block_, table_;
  std::vector<std::byte> host_;
  std::vector<double> sums_;  // buffer of `sum_over_ranks`; empty in a run of one rank
  ExpertLoads loads_;
};

}  // namespace tinymoe::inline v0_1
