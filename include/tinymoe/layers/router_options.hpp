#pragma once
/// @file
/// The options of `Router<E, K, …>`.

#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace place {
struct Scores;
struct Gates;
struct GateScale;
struct Selection;
struct RouterNoise;
struct RouterJitter;
struct RouterCapacity;
struct Balance;
struct BalanceBias;
}  // namespace place

namespace setting {
/// How far Jitter multiplies a router's input.
inline constexpr Setting jitter{.name = "jitter",  // Fedus et al. 2021
                                .initial = 0.01,
                                .range = SettingRange::share,
                                .about = "routers with Jitter multiply their input by 1 ± this",
                                .draws = true};
/// By how much a balancing bias moves after each step.
inline constexpr Setting bias_rate{.name = "bias_rate",  // Wang et al. 2024
                                   .initial = 0.001,
                                   .range = SettingRange::weight,
                                   .max = 1,
                                   .about = "by how much a balancing bias moves after each step"};
/// The probability that the experts of DynamicTopK reach together.
inline constexpr Setting routing_mass{.name = "routing_mass",
                                      .initial = 0.5,
                                      .range = SettingRange::fraction,
                                      .about = "DynamicTopK: sum of probabilities that a token's experts reach",
                                      .use = SettingUse::always};
}  // namespace setting

/// Scores p = softmax(logits) over the experts; the default.
struct SoftmaxScores {
  using Place = place::Scores;
  static constexpr const char* name = "softmax";
  static constexpr bool sigmoid = false;
};
/// Scores p = σ(logits), each expert by itself (DeepSeek-AI 2024, DeepSeek-V3).
struct SigmoidScores {
  using Place = place::Scores;
  static constexpr const char* name = "sigmoid";
  static constexpr bool sigmoid = true;
};

/// Gates g = p / Σ p over the chosen, which for softmax is the softmax after the selection (Jiang et al. 2024,
/// Mixtral). The default for K of 2 or more.
struct NormalisedGates {
  using Place = place::Gates;
  static constexpr bool value = true;
};
/// Gates g = p: the softmax before the selection (Fedus et al. 2021, Switch). The default for K = 1, DynamicTopK and
/// ExpertChoice.
struct ScoreGates {
  using Place = place::Gates;
  static constexpr bool value = false;
};

/// Gates are multiplied by Numerator/Denominator, after they are normalised (DeepSeek-AI 2024, DeepSeek-V3's
/// routed_scaling_factor): a token's experts count so much beside its shared expert.
template <Index Numerator, Index Denominator = 1>
struct GateScale {
  using Place = place::GateScale;
  static_assert(Numerator > 0 && Denominator > 0, "tinymoe::GateScale: the factor must be above 0");
  static constexpr double value = static_cast<double>(Numerator) / static_cast<double>(Denominator);
};

/// Each token takes the K experts with the highest scores; the default.
struct TopK {
  using Place = place::Selection;
  static constexpr const char* name = "top_k";
};
/// Each token takes the most probable experts until their probabilities sum to `setting::routing_mass`, at most K and
/// at least one (Huang et al. 2024, "Harder tasks need more experts").
struct DynamicTopK {
  using Place = place::Selection;
  static constexpr const char* name = "dynamic_top_k";
};
/// Each expert takes the N·K/E tokens with the highest scores (Zhou et al. 2022). That depends on later tokens, so it
/// is done in training alone. In evaluation and generation an expert takes the tokens whose score reaches its
/// threshold, a moving average of the lowest score that it took in training. That is causal, and the same for one token
/// as for many.
struct ExpertChoice {
  using Place = place::Selection;
  static constexpr const char* name = "expert_choice";
};

/// In training the logits are h = W x + N(0, 1) · softplus(W_noise x) (Shazeer et al. 2017, eq. 4).
struct NoisyTopK {
  using Place = place::RouterNoise;
  static constexpr bool value = true;
};
/// In training the router reads x · U(1 − jitter, 1 + jitter), with `setting::jitter` (Fedus et al. 2021).
struct Jitter {
  using Place = place::RouterJitter;
  static constexpr bool value = true;
};

/// In training an expert takes at most ⌈Numerator/Denominator · N·K/E⌉ pairs of a micro-batch, those of the first
/// tokens. The rest are dropped: their tokens keep the residual stream alone (Lepikhin et al. 2020; Fedus et al. 2021).
/// Pairs are taken in the order of tokens, whichever choice they are, so that a later token never displaces an earlier.
/// Evaluation and generation drop nothing.
template <Index Numerator, Index Denominator = 1>
struct Capacity {
  using Place = place::RouterCapacity;
  static_assert(Numerator > 0 && Denominator > 0, "tinymoe::Capacity: the factor must be above 0");
  static constexpr Index numerator = Numerator, denominator = Denominator;

  /// The pairs that one of `experts` takes at most, of `tokens` with `choices` each.
  static constexpr Index of(Index tokens, Index choices, Index experts) {
    return (numerator * tokens * choices + denominator * experts - 1) / (denominator * experts);
  }
};
/// No limit; the default.
struct Dropless {
  using Place = place::RouterCapacity;
};

/// A bias on each expert's score, in the selection alone. After each step it moves by `setting::bias_rate` towards even
/// loads: b_e += rate · sign(mean load − load_e) (Wang et al. 2024; DeepSeek-V3).
struct BalanceBias {
  using Place = place::BalanceBias;
  static constexpr bool value = true;
};

}  // namespace tinymoe::inline v0_1
