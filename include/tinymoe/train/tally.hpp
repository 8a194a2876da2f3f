#pragma once
/// @file
/// The results of a step or of an evaluation: losses, experts' loads, the gradients' norm. They are summed on the
/// backend and read back once, because each read makes the host wait for all pending work of the device.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// A mixture's results of a pass, and their totals.
template <class M>
struct MixtureResults {
  const M* losses;            // (2): balance, z
  const M* sums;              // (2, E): what the balance loss is computed from, or null
  const std::int32_t* loads;  // (E)
  double* loss_totals;        // (2): Σ over passes of tokens · loss
  double* sum_totals;         // (2, E)
  Index* load_totals;         // (E)
  Index experts;
};

/// Adds the results of one pass. Row 0: the cross-entropy, total += Σ_n losses[n]. Row 1 + i: mixture i.
template <class M>
struct AddResults {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  View<const M> losses;  // (1, N)
  double* total;
  const MixtureResults<M>* mixtures;
  double tokens;  // of the pass, without pads
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
    if (at.sums != nullptr) {
      group.each(2 * at.experts, [=](Index i) { at.sum_totals[i] += static_cast<double>(real_part(at.sums[i])); });
    }
    const double weight = tokens;
    group.each(2, [=](Index i) { at.loss_totals[i] += weight * static_cast<double>(real_part(at.losses[i])); });
  }
};

}  // namespace kernels

namespace detail {

/// The sums over the passes since `clear`, in one block of the backend's memory:
///
///     norm, clip factor (2 of M) | cross-entropy (1), of each mixture balance and z (2) and sums (2E), double |
///     loads, Index
template <Backend B>
class Tally {
 public:
  using Master = typename B::Master;

  /// Sets where the passes leave their results: each token's cross-entropy, and the routing of the mixtures in order.
  /// Throws DeviceError without memory.
  [[gnu::cold]] void bind(B& backend, View<const Master> losses, const std::vector<Routing<Master>>& mixtures) {
    backend_ = &backend, losses_ = losses;
    Index loads = 0;
    for (const auto& routing : mixtures) loads += routing.loads.cols;
    numbers_ = 1 + 2 * mixtures.size() + 2 * static_cast<std::size_t>(loads);
    const std::size_t bytes = totals_at + numbers_ * sizeof(double) + static_cast<std::size_t>(loads) * sizeof(Index);
    if (block_.size() < bytes) {
      block_ = backend.allocate(bytes);
      host_.assign(bytes / sizeof(double), 0);
      for (const auto& routing : mixtures) {
        loads_.emplace_back(static_cast<std::size_t>(routing.loads.cols));
        kinds_.push_back(routing.balance);
      }
      table_ = backend.allocate(mixtures.size() * sizeof(kernels::MixtureResults<Master>));
    }
    std::vector<kernels::MixtureResults<Master>> table;
    double* totals = this->totals(block_.bytes()) + 1;
    auto* counts = reinterpret_cast<Index*>(totals + numbers_ - 1);
    for (const auto& routing : mixtures) {
      const Index experts = routing.loads.cols;
      const Master* sums = routing.balance == BalanceKind::none ? nullptr : routing.sums.data;
      table.push_back({routing.losses.data, sums, routing.loads.data, totals, totals + 2, counts, experts});
      totals += 2 + 2 * experts, counts += experts;
    }
    backend.copy_to_device(table_.bytes(), table.data(), table.size() * sizeof(table[0]));
  }

  void clear() { backend_->zero(block_.bytes(), block_.size()); }

  /// Adds the results of the last pass, which had so many tokens, pads left out.
  void add(Index tokens) {
    backend_->launch(1 + std::ssize(loads_),
                     kernels::AddResults<Master>{losses_, totals(block_.bytes()),
                                                 table_.template as<kernels::MixtureResults<Master>>().data,
                                                 static_cast<double>(tokens)});
  }

  /// (1, 2) on the backend: the place for the gradients' norm and the factor that clips them.
  View<Master> clip() const { return {reinterpret_cast<Master*>(block_.bytes()), 1, 2}; }

  /// Copies all sums to the host. The functions below use this copy.
  void read() { backend_->copy_to_host(host_.data(), block_.bytes(), host_.size() * sizeof(double)); }

  /// Sums the host's copy over all ranks. The norm is left alone: it is that of the summed gradients already.
  template <Communicator<B> C>
  void sum_over_ranks(C& communicator) {
    if (communicator.size() == 1) return;
    const auto loads = std::span(host_).subspan(first_total + numbers_);
    for (double& number : loads) number = static_cast<double>(std::bit_cast<Index>(number));  // exact
    communicator.sum(std::span(host_).subspan(first_total));
    for (double& number : loads) number = std::bit_cast<double>(static_cast<Index>(number));
  }

  /// Summed over the scored tokens of all passes, nats.
  double cross_entropy() const { return host_[first_total]; }
  /// The losses of so many tokens, those of all passes, as a mean over the mixtures; 0 without any. z is a mean over
  /// the tokens, and so is the balance loss of a router without sums; else it is computed from the sums of all passes.
  double balance(double tokens) const {
    return mixture_mean([&](std::size_t at, std::size_t mixture) {
      const BalanceKind kind = kinds_[mixture];
      if (kind == BalanceKind::none) return host_[at] / tokens;
      return detail::balance_of(kind, std::span(host_).subspan(at + 2, 2 * loads_[mixture].size()), tokens);
    });
  }
  double z(double tokens) const {
    return mixture_mean([&](std::size_t at, std::size_t) { return host_[at + 1] / tokens; });
  }
  double gradient_norm() const {
    Master norm;
    std::memcpy(&norm, host_.data(), sizeof norm);
    return static_cast<double>(real_part(norm));
  }

  /// For each mixture in order, the pairs of each expert, as of the last `count_loads`.
  const ExpertLoads& loads() const { return loads_; }
  /// Copies the loads that were read last to `loads`.
  void count_loads() {
    const double* from = host_.data() + first_total + numbers_;
    for (auto& layer : loads_) {
      std::memcpy(layer.data(), from, layer.size() * sizeof(Index));
      from += layer.size();
    }
  }

 private:
  static_assert(sizeof(Index) == sizeof(double));
  static constexpr std::size_t totals_at = round_up(2 * sizeof(Master), sizeof(double)),
                               first_total = totals_at / sizeof(double);

  static double* totals(std::byte* block) { return reinterpret_cast<double*>(block + totals_at); }
  /// The mean of f(where a mixture's numbers begin in `host_`, its place).
  template <class F>
  double mixture_mean(F&& f) const {
    double total = 0;
    std::size_t at = first_total + 1;
    for (std::size_t i = 0; i < loads_.size(); ++i) {
      total += f(at, i);
      at += 2 + 2 * loads_[i].size();
    }
    return loads_.empty() ? 0 : total / static_cast<double>(loads_.size());
  }

  B* backend_ = nullptr;
  View<const Master> losses_;  // (1, N)
  Memory block_, table_;
  std::vector<double> host_;        // the block; a load is the bits of its number
  std::size_t numbers_ = 0;         // totals before the loads
  std::vector<BalanceKind> kinds_;  // of each mixture
  ExpertLoads loads_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
