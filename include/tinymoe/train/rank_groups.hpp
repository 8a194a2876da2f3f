#pragma once
/// @file
/// The ranks of a run and their groups in expert parallelism. Of R ranks each G, in order, share the experts: rank r
/// has the experts r mod G of G parts of each bank. The R/G ranks that have the same experts sum their gradients.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
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

/// The ranks of communicator C, which train on backend B.
template <class C, class B>
class RankGroups {
 public:
  /// Throws OptionError where the ranks cannot form groups of `expert_parallel`.
  [[gnu::cold]] RankGroups(C communicator, Index expert_parallel)
      : all_(std::move(communicator)), expert_parallel_(expert_parallel) {
    if (expert_parallel == 1) return;
    if (expert_parallel < 1 || all_.size() % expert_parallel != 0) {
      fail<OptionError>("expert parallelism in groups of ", expert_parallel,
                        " needs a number of processes that is a multiple of it; found ", all_.size());
    }
    bool can = GroupingCommunicator<C, B>;
    if constexpr (requires { all_.can_group(); }) can = all_.can_group();
    if (!can) fail<OptionError>("this communicator cannot form groups, which expert parallelism needs");
  }
  RankGroups(const RankGroups&) = delete;

  /// Forms the groups, before they are asked for. All ranks call it, once they know that they agree on the number. The
  /// backend, which must outlive this, is the one whose rows they send.
  void form(B& backend) {
    if constexpr (GroupingCommunicator<C, B>) {
      if (expert_parallel_ == 1 || expert_group_) return;
      expert_group_.emplace(all_.group(all_.rank() / expert_parallel_));
      replicas_.emplace(all_.group(all_.rank() % expert_parallel_));
      exchange_ = std::make_unique<Exchange>(*expert_group_, backend);
    }
  }

  /// All ranks.
  C& all() { return all_; }
  const C& all() const { return all_; }
  /// With expert parallelism: the ranks that share the experts with this one; those that have the same experts as it.
  C& expert_group() { return *expert_group_; }
  C& replicas() { return *replicas_; }
  /// The ranks of an expert group, G; 1 without expert parallelism.
  Index expert_parallel() const { return expert_parallel_; }
  /// How rows go to their experts; null: all experts are here.
  ExpertExchange* exchange() { return exchange_.get(); }
  /// What routers count over all ranks; null for one.
  RankCounts* counts() {
    counts_.of = &all_;
    return all_.size() > 1 ? &counts_ : nullptr;
  }

 private:
  class Exchange final : public ExpertExchange {
   public:
    Exchange(C& group, B& backend) : group_(&group), backend_(&backend) {}
    Index rank() const override { return group_->rank(); }
    Index size() const override { return group_->size(); }
    void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) override {
      group_->exchange_numbers(send, receive);
    }
    void start(const void* send, std::span<const Index> send_rows, void* receive, std::span<const Index> receive_rows,
               std::size_t row_bytes) override {
      group_->start_exchange(*backend_, send, send_rows, receive, receive_rows, row_bytes);
      under_way_ = true;
    }
    void finish() override {
      under_way_ = false;
      group_->finish_exchange(*backend_);
    }
    void give_up() override {
      if (!under_way_) return;
      try {
        finish();
      } catch (...) {  // the error for which it is given up is told
      }
    }

   private:
    C* group_;
    B* backend_;
    bool under_way_ = false;
  };

  struct Counts final : RankCounts {
    C* of = nullptr;
    std::vector<std::vector<double>> of_layers;  // of the rounds so far
    void before(Index layer, bool first, std::span<double> numbers) override {
      const auto ranks = static_cast<std::size_t>(of->size()), rank = static_cast<std::size_t>(of->rank());
      const auto at = static_cast<std::size_t>(layer);
      std::vector<double> all(ranks * numbers.size());  // of each rank in this round
      std::copy(numbers.begin(), numbers.end(), all.begin() + static_cast<std::ptrdiff_t>(rank * numbers.size()));
      of->sum(std::span(all));
      if (of_layers.size() <= at) of_layers.resize(at + 1);
      std::vector<double>& so_far = of_layers[at];
      if (first) so_far.assign(numbers.size(), 0);
      for (std::size_t r = 0; r < ranks; ++r) {
        if (r == rank) std::copy(so_far.begin(), so_far.end(), numbers.begin());
        for (std::size_t i = 0; i < numbers.size(); ++i) so_far[i] += all[r * numbers.size() + i];
      }
    }
    void sum(std::span<double> numbers) override { of->sum(numbers); }
  };

  C all_;
  Index expert_parallel_;
  std::optional<C> expert_group_, replicas_;
  std::unique_ptr<ExpertExchange> exchange_;
  Counts counts_;
};

/// A single process has no groups; it costs no compiling either.
template <class B>
class RankGroups<Alone, B> {
 public:
  [[gnu::cold]] RankGroups(Alone /*communicator*/, Index expert_parallel) {
    if (expert_parallel != 1) {
      fail<OptionError>("expert parallelism in groups of ", expert_parallel,
                        " needs a number of processes that is a multiple of it; found one");
    }
  }
  void form(B&) {}
  Alone& all() { return all_; }
  const Alone& all() const { return all_; }
  static constexpr Index expert_parallel() { return 1; }
  static constexpr ExpertExchange* exchange() { return nullptr; }
  static constexpr RankCounts* counts() { return nullptr; }

 private:
  Alone all_;
};

}  // namespace tinymoe::inline v0_1::detail
