#pragma once
/// @file
/// The ranks of a run and their groups in expert parallelism. Of R ranks each G, in order, share the experts: rank r
/// has the experts r mod G of G parts of each bank. The R/G ranks that have the same experts sum their gradients.

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/expert_exchange.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1::detail {

/// The ranks of communicator C.
template <class C>
class RankGroups {
 public:
  /// All ranks call it. Throws OptionError where the ranks cannot form groups of `together`.
  [[gnu::cold]] RankGroups(C communicator, Index together) : all_(std::move(communicator)), together_(together) {
    if (together == 1) return;
    if (together < 1 || all_.size() % together != 0) {
      fail<OptionError>("expert parallelism in groups of ", together,
                        " needs a number of processes that is a multiple of ", "it; found ", all_.size());
    }
    if constexpr (GroupingCommunicator<C>) {
      if constexpr (requires { all_.can_group(); }) {
        if (!all_.can_group()) fail<OptionError>(cannot);
      }
      const Index rank = all_.rank();
      experts_.emplace(all_.group(rank / together));
      alike_.emplace(all_.group(rank % together));
      exchange_.of = &*experts_;
    } else {
      fail<OptionError>(cannot);
    }
  }
  RankGroups(const RankGroups&) = delete;

  /// All ranks.
  C& all() { return all_; }
  const C& all() const { return all_; }
  /// The ranks that share the experts with this one; those that have the same experts. Only with `together` above 1.
  C& sharing() { return *experts_; }
  C& alike() { return *alike_; }
  /// G: 1 without expert parallelism.
  Index together() const { return together_; }
  /// How rows go to their experts; null: all experts are here.
  ExpertExchange* exchange() { return together_ > 1 ? &exchange_ : nullptr; }
  /// What routers count over all ranks; null for one.
  RankCounts* counts() {
    counts_.of = &all_;
    return all_.size() > 1 ? &counts_ : nullptr;
  }

 private:
  static constexpr const char* cannot = "this communicator cannot form groups, which expert parallelism needs";

  struct Exchange final : ExpertExchange {
    C* of = nullptr;
    Index rank() const override { return of->rank(); }
    Index size() const override { return of->size(); }
    void start(const void* send, std::span<const Index> send_rows, void* receive, std::span<const Index> receive_rows,
               std::size_t row_bytes) override {
      if constexpr (GroupingCommunicator<C>) of->start_exchange(send, send_rows, receive, receive_rows, row_bytes);
    }
    void finish() override {
      if constexpr (GroupingCommunicator<C>) of->finish_exchange();
    }
  };

  struct Counts final : RankCounts {
    C* of = nullptr;
    std::map<Index, std::vector<double>> of_layers;  // of the rounds so far
    void before(Index layer, bool first, std::span<double> numbers) override {
      const auto ranks = static_cast<std::size_t>(of->size()), rank = static_cast<std::size_t>(of->rank());
      std::vector<double> all(ranks * numbers.size());  // of each rank in this round
      std::copy(numbers.begin(), numbers.end(), all.begin() + static_cast<std::ptrdiff_t>(rank * numbers.size()));
      of->sum(std::span(all));
      std::vector<double>& so_far = of_layers[layer];
      if (first) so_far.assign(numbers.size(), 0);
      for (std::size_t r = 0; r < ranks; ++r) {
        if (r == rank) std::copy(so_far.begin(), so_far.end(), numbers.begin());
        for (std::size_t i = 0; i < numbers.size(); ++i) so_far[i] += all[r * numbers.size() + i];
      }
    }
    void sum(std::span<double> numbers) override { of->sum(numbers); }
  };

  C all_;
  Index together_;
  std::optional<C> experts_, alike_;
  Exchange exchange_;
  Counts counts_;
};

}  // namespace tinymoe::inline v0_1::detail
