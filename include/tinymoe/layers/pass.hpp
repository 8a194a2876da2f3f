#pragma once
/// @file
/// What a layer knows of the pass that it runs in: shapes, positions, pads, random numbers and the model's real-valued
/// settings.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

/// Which experts the mixture of one layer may use (expert_limits.hpp).
struct ExpertLimit {
  Index choices = 0;                       // a token takes at most so many; 0: no limit
  Index kept = 0;                          // experts that are not left out
  View<const std::uint8_t> left_out = {};  // (1, E) on the backend: 1 for those that are; empty: none is
  std::byte* scratch = nullptr;            // on the backend, for E numbers of the router's
};

class ExpertExchange;

/// Told in backward that the gradients of a layer have all that this pass adds to them, from the last layer to the
/// first. Before them it is told the number of layers: those of the last norm, and of a head of its own.
struct LayerWatch {
  void (*tell)(void* to, Index layer) = nullptr;
  void* to = nullptr;
};

/// What routers count over all ranks of a run. All ranks make the same calls.
class RankCounts {
 public:
  virtual ~RankCounts() = default;
  /// Adds the numbers of a micro-batch in a layer, and replaces them by the sums of those before it in the step: of all
  /// ranks' earlier ones, and in the same round of the ranks before this one. `first`: the first round of the step.
  virtual void before(Index layer, bool first, std::span<double> numbers) = 0;
  /// Sums numbers over the ranks.
  virtual void sum(std::span<double> numbers) = 0;
};

/// One pass over `batch` sequences of `time` tokens each; row n = b·T + t of every activation is token t of sequence b.
struct Pass {
  Index batch = 1;           // B
  Index time = 0;            // T
  Index first_position = 0;  // of each sequence's first token; not zero when decoding
  Settings settings = {};
  double router_loss_scale = 1;  // of the routers' losses: this micro-batch's share of the step's real tokens

  bool recompute = false;      // activation recomputation: only a block's input is kept; backward runs it again
  bool training = false;       // noise, jitter, dropout and capacity act
  Seed seed = {};              // random numbers follow from it, step, micro-batch and layer
  std::uint32_t step = 0;      // of the optimizer
  Index micro_batch = 0;       // of the step, of all ranks: i · ranks + rank
  Index ranks = 1;             // processes that train together
  Index layer = 0;             // the block that is running; a Transformer sets it
  bool second_run = false;     // the block is recomputed in backward: nothing is counted twice
  bool losses = true;          // routers write losses and loads; false in decoding, where there is no backward
  View<const Token> tokens{};  // (1, N): a negative one is a pad, which no expert sees; empty: no pads
  Index pads = 0;              // how many there are
  const ExpertLimit* limits = nullptr;  // of each layer; null: none, as always in training
  ExpertExchange* exchange = nullptr;   // of training, where a group of ranks shares the experts; null: none does
  RankCounts* counts = nullptr;         // of training by several ranks
  const LayerWatch* watch = nullptr;    // of backward; null: nobody is told
  bool* drew = nullptr;                 // set by `random`: the step draws numbers, so that no backend may record it

  /// The first position of each sequence, (1, B), where they differ; empty: `first_position` for all.
  View<const std::int32_t> positions{};

  /// The token before each sequence's first, (1, B), where the pass goes on with sequences; empty: there is none.
  View<const Token> previous{};

  /// Tells the watch, if there is one.
  void tell_watch(Index of_layer) const {
    if (watch != nullptr) watch->tell(watch->to, of_layer);
  }
  /// The limit of this layer's experts, or null.
  constexpr const ExpertLimit* limit() const { return limits == nullptr ? nullptr : limits + layer; }
  constexpr Index rows() const { return batch * time; }        // N
  constexpr Index real_rows() const { return rows() - pads; }  // N without pads
  /// Whether it is the first micro-batch of its step on this rank.
  constexpr bool first_of_step() const { return micro_batch < ranks; }
  /// The random numbers of one use in this layer and step.
  constexpr RandomStream random(RandomSite site) const {
    if (drew != nullptr) *drew = true;
    return {seed, step, site, static_cast<std::uint32_t>(layer)};
  }
  /// The dropout of one use in this layer, of `count` rows in each micro-batch; inactive outside training.
  constexpr Dropout dropout(RandomSite site, double rate, Index count) const {
    if (!training || rate <= 0) return {};
    return {random(site), static_cast<std::uint64_t>(micro_batch * count), rate};
  }
};

}  // namespace tinymoe::inline v0_1
