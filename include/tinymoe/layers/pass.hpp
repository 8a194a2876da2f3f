#pragma once
/// @file
/// What a layer is told about the pass it takes part in: shapes, positions, pads, random numbers and the model's
/// real-valued settings.

#include <cmath>

#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1 {

/// Real-valued settings of a model: run-time values with the defaults of the field. They are stored in config.json.
struct Settings {
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;       // Su et al. 2021
  double balance_weight = 0.01;    // of the balance loss of each MoE layer (Fedus et al. 2021)
  double z_weight = 0.001;         // of the router's z-loss of each MoE layer (Zoph et al. 2022)
  bool balance_over_step = false;  // the balance loss looks at the step so far, not at the micro-batch alone
  double dropout = 0;              // share of zeros in embeddings and in what a block adds to the residual stream
  double attention_dropout = 0;    // of the attention's probabilities
  double expert_dropout = 0;       // of the experts' hidden activations (Fedus et al. 2021, section 2.4)
  double jitter = 0.01;            // routers with Jitter read x · U(1 − jitter, 1 + jitter) (Fedus et al. 2021)
  double bias_rate = 0.001;        // by which a balancing bias moves after each step (Wang et al. 2024)
  double routing_mass = 0.5;       // DynamicTopK: probability that a token's experts reach together

  friend bool operator==(const Settings&, const Settings&) = default;

  /// Throws OptionError, naming it, for a value outside its range.
  void check() const {
    const auto expect = [](const char* name, double value, bool good, const char* range) {
      if (!good) fail<OptionError>("the setting ", name, " must be ", range, ", found ", value);
    };
    const auto positive = [&](const char* name, double value) {
      expect(name, value, value > 0 && std::isfinite(value), "a number above 0");
    };
    const auto weight = [&](const char* name, double value) {
      expect(name, value, value >= 0 && std::isfinite(value), "a number of 0 or more");
    };
    const auto share = [&](const char* name, double value) {
      expect(name, value, value >= 0 && value < 1, "at least 0 and below 1");
    };
    positive("norm_epsilon", norm_epsilon), positive("rope_theta", rope_theta);
    weight("balance_weight", balance_weight), weight("z_weight", z_weight), weight("bias_rate", bias_rate);
    share("dropout", dropout), share("attention_dropout", attention_dropout), share("expert_dropout", expert_dropout);
    share("jitter", jitter);
    expect("routing_mass", routing_mass, routing_mass >= 0 && routing_mass <= 1, "between 0 and 1");
  }
};

/// One pass over `batch` sequences of `time` tokens each; row n = b·T + t of every activation is token t of sequence b.
struct Pass {
  Index batch = 1;           // B
  Index time = 0;            // T
  Index first_position = 0;  // of each sequence's first token; not zero when decoding
  Settings settings = {};
  double loss_scale = 1;  // of the routers' losses: 1 / (micro-batches in a step)

  bool recompute = false;      // a pass of training keeps each block's input alone and runs the block again in backward
  bool training = false;       // noise, dropout and capacity act
  Seed seed = {};              // with step, micro-batch and layer: what the pass's random numbers follow from
  std::uint32_t step = 0;      // of the optimizer
  Index micro_batch = 0;       // of the step
  Index layer = 0;             // the block that is running; a Transformer sets it
  bool recomputed = false;     // the block runs for the second time: nothing is counted twice
  bool losses = true;          // routers leave losses and loads; without, as in decoding, there is no backward either
  View<const Token> tokens{};  // (1, N): a negative one is a pad, which no expert sees; empty: no pads
  Index pads = 0;              // how many there are

  /// The first position of each sequence, (1, B), where they differ; empty: `first_position` for all.
  View<const std::int32_t> positions{};

  constexpr Index rows() const { return batch * time; }        // N
  constexpr Index real_rows() const { return rows() - pads; }  // N without pads
  /// The random numbers of one use in this layer and step.
  constexpr RandomStream random(RandomSite site) const { return {seed, step, site, static_cast<std::uint32_t>(layer)}; }
  /// The dropout of one use in this layer, of `count` rows in each micro-batch; none but in training.
  constexpr Dropout dropout(RandomSite site, double rate, Index count) const {
    return {random(site), static_cast<std::uint64_t>(micro_batch * count), training ? rate : 0};
  }
};

}  // namespace tinymoe::inline v0_1
