#pragma once
/// @file
/// What a router decides for each token: as its kernels leave it for the mixture, and as the host reads it.

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

/// What a balance loss is computed from. Kernels get it at run time, so that they are compiled once for all routers.
enum class BalanceKind { none, shares, first_choices, variation };

/// What the mixture reads of a router's decisions, and what reports read.
template <class M>
struct Routing {
  View<std::int32_t> selected;  // (N, K): experts, −1 where a choice is not taken
  View<M> gate;                 // (N, K): 0 where a choice is not taken
  View<M> probability;          // (N, E): the scores
  // These stay until the next pass.
  View<M> losses;            // (1, 2): balance, z
  View<M> sums;              // (2, E): what the balance loss of this pass is computed from (balance.hpp)
  View<std::int32_t> loads;  // (1, E): pairs that each expert got
  /// How the `sums` of all passes become a step's balance loss. `none`: it is the mean of the passes' losses, weighted
  /// by their tokens.
  BalanceKind balance = BalanceKind::none;

  void plan(Plan& plan, const Pass& pass, Index experts, Index choices) {
    selected = plan.keep<std::int32_t>(pass.rows(), choices);
    gate = plan.keep<M>(pass.rows(), choices);
    probability = plan.keep<M>(pass.rows(), experts);
    losses = plan.persist<M>(1, 2);
    sums = plan.persist<M>(2, experts);
    loads = plan.persist<std::int32_t>(1, experts);
  }
  /// Sets the number of tokens; a mixture calls it before its router.
  void resize(Index tokens) { selected.rows = gate.rows = probability.rows = tokens; }
};

/// One choice of a token, on the host: an expert, or none. Pads take none, nor do all choices of a router with
/// DynamicTopK, ExpertChoice or Capacity. On the backend a choice is an int32, −1 for none.
class ChosenExpert {
 public:
  constexpr ChosenExpert() = default;  // none
  constexpr explicit ChosenExpert(std::int32_t number) : number_(number) {}

  constexpr bool taken() const { return number_ >= 0; }
  /// The expert's number; only for a choice that is taken.
  constexpr Index expert() const {
    assert(taken());
    return number_;
  }
  friend constexpr bool operator==(ChosenExpert, ChosenExpert) = default;

 private:
  std::int32_t number_ = -1;
};
static_assert(sizeof(ChosenExpert) == sizeof(std::int32_t));  // so that choices are copied from a backend as they are

/// The experts that one mixture chose for some tokens.
struct ExpertChoices {
  Index layer = 0;                          // its number in the model
  Index experts = 0, choices = 0;           // E, K
  std::vector<ChosenExpert> selected = {};  // (n, K); empty for a token that was not read
  std::vector<float> gate = {};             // (n, K)
  std::vector<float> score = {};            // (n, E): probabilities, or σ of the logits
  std::vector<float> logit = {};            // (n, E): the router's; empty of a router of one's own

  Index tokens() const { return std::ssize(selected) / choices; }
};

/// The choices that each of `experts` experts got.
inline std::vector<Index> loads_of(std::span<const ChosenExpert> choices, Index experts) {
  std::vector<Index> loads(static_cast<std::size_t>(experts));
  for (const ChosenExpert choice : choices) {
    if (choice.taken()) ++loads[static_cast<std::size_t>(choice.expert())];
  }
  return loads;
}

}  // namespace tinymoe::inline v0_1
