#pragma once
// How an architecture is trained: the options that a preset or a variant of `sweep` recommends, and the optimizer and
// schedule that they are.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tinymoe/model.hpp>
#include <variant>

namespace examples {

using tinymoe::Index;

enum class ScheduleKind { cosine, constant, onecycle, wsd };
inline constexpr std::array<std::string_view, 4> schedule_names = {"cosine", "constant", "onecycle", "wsd"};

enum class OptimizerKind { adamw, lion, muon };
inline constexpr std::array<std::string_view, 3> optimizer_names = {"adamw", "lion", "muon"};

/// The training options of an architecture; the command line overrides them. The defaults suit some minutes of training
/// on a CPU.
struct Recipe {
  OptimizerKind optimizer = OptimizerKind::adamw;
  double rate = 5e-3, beta1 = 0.9, beta2 = 0.95, decay = 0.1, clip = 1;
  bool muon_experts = true, muon_feed_forward = true;  // whether Muon orthogonalises their matrices
  double muon_adamw_rate = 1;                          // AdamW's share of the rate, for what Muon leaves to it
  tinymoe::PartFactors rates = {}, decays = {};
  ScheduleKind schedule = ScheduleKind::cosine;
  Index warmup = 60;    // steps
  double floor = 0.02;  // of the schedule, a share of the rate
  Index batch = 4, accumulation = 1;
  tinymoe::SequenceGrowth growth = {};
  bool recompute = false;
  tinymoe::Settings settings = {};
};

namespace recipes {

/// docs/benchmarks/recipe.md has the runs behind it.
inline constexpr Recipe story = {.optimizer = OptimizerKind::muon,
                                 .rate = 2e-2,
                                 .muon_experts = false,
                                 .muon_adamw_rate = 0.25,
                                 .rates = {.embedding = 2, .norm = 4, .table = 6},
                                 .decays = {.table = 150},
                                 .batch = 2,  // of 512 tokens
                                 .growth = {{{{64, 0.1}, {128, 0.35}, {256, 0.75}}}}};
/// The same for dense models: what Muon leaves to AdamW is the same part.
inline constexpr Recipe story_without_experts = [] {
  Recipe recipe = story;
  recipe.muon_feed_forward = false;
  return recipe;
}();
/// Published: AdamW and a cosine, without figures. The figures are ours.
inline constexpr Recipe minimixtral = {.rate = 5e-4, .warmup = 200, .floor = 0.1, .batch = 8};
/// Published: OneCycle with a peak of 1e-3, batches of 32 × 2, dropout, gradient checkpointing. Betas and decay are the
/// defaults of PyTorch's AdamW.
inline constexpr Recipe nanogpt = {
    .rate = 1e-3,
    .beta2 = 0.999,
    .decay = 0.01,
    .schedule = ScheduleKind::onecycle,
    .batch = 32,
    .accumulation = 2,
    .recompute = true,
    .settings = {tinymoe::setting::dropout = 0.1, tinymoe::setting::attention_dropout = 0.1}};
/// Published: gradient checkpointing, without figures. The figures are ours.
inline constexpr Recipe mymoe = {.rate = 5e-4, .warmup = 200, .floor = 0.1, .batch = 16, .recompute = true};
inline constexpr Recipe sparse_moe = {.rate = 3e-4,
                                      .decay = 0.01,
                                      .warmup = 100,
                                      .batch = 4,
                                      .accumulation = 8,
                                      .settings = {tinymoe::setting::dropout = 0.1}};
/// Pockets with learned positions and LayerNorm learn better at a lower rate than the others.
inline constexpr Recipe learned_pocket = {.rate = 3e-3, .batch = 8};
inline constexpr Recipe deepseek_mini = {.rate = 1e-3, .warmup = 200, .floor = 0.1, .batch = 8};

}  // namespace recipes

/// An optimizer for any backend.
using AnyRule = std::variant<tinymoe::AdamW, tinymoe::Lion, tinymoe::Muon>;

/// AdamW or Lion as a recipe says.
template <class O>
O by_moments(const Recipe& recipe) {
  return {.lr = recipe.rate,
          .beta1 = recipe.beta1,
          .beta2 = recipe.beta2,
          .weight_decay = recipe.decay,
          .rates = recipe.rates,
          .decays = recipe.decays};
}

inline AnyRule optimizer_of(const Recipe& recipe) {
  switch (recipe.optimizer) {
    case OptimizerKind::lion:
      return by_moments<tinymoe::Lion>(recipe);
    case OptimizerKind::muon:
      return tinymoe::Muon{.lr = recipe.rate,
                           .weight_decay = recipe.decay,
                           .beta1 = recipe.beta1,
                           .beta2 = recipe.beta2,
                           .adamw_rate = recipe.muon_adamw_rate,
                           .experts = recipe.muon_experts,
                           .feed_forward = recipe.muon_feed_forward,
                           .rates = recipe.rates,
                           .decays = recipe.decays};
    case OptimizerKind::adamw:
      break;
  }
  return by_moments<tinymoe::AdamW>(recipe);
}

/// A hash of a recipe, of the settings of its architecture too, but for learning rate, warm-up and batch: by it a
/// resumed sweep knows that the recipe was changed.
inline std::uint64_t fingerprint(const Recipe& recipe, const tinymoe::SettingList& settings) {
  tinymoe::detail::Fnv1a hash;
  const auto add = [&](double number) { hash.number(std::bit_cast<std::uint64_t>(number)); };
  for (const double number :
       {double(recipe.optimizer), recipe.beta1, recipe.beta2, recipe.decay, recipe.clip, double(recipe.muon_experts),
        recipe.muon_adamw_rate, double(recipe.schedule), recipe.floor, double(recipe.accumulation)}) {
    add(number);
  }
  if (!recipe.muon_feed_forward) add(0);  // else it is the hash of before there was a choice
  for (std::size_t part = 0; part < tinymoe::detail::part_names.size(); ++part) {
    add(recipe.rates[static_cast<tinymoe::Part>(part)]), add(recipe.decays[static_cast<tinymoe::Part>(part)]);
  }
  for (const auto& stage : recipe.growth.stages) add(double(stage.time)), add(stage.until);
  for (const tinymoe::Setting* setting : settings) add(recipe.settings[*setting]);
  return hash.value();
}

inline tinymoe::AnySchedule schedule_of(const Recipe& recipe) {
  using namespace tinymoe;
  switch (recipe.schedule) {
    case ScheduleKind::constant:
      return Constant{.warmup = recipe.warmup};
    case ScheduleKind::onecycle:
      return OneCycle{};
    case ScheduleKind::wsd:
      return WarmupStableDecay{.warmup = recipe.warmup, .floor = recipe.floor};
    case ScheduleKind::cosine:
      break;
  }
  return WarmupCosine{.warmup = recipe.warmup, .floor = recipe.floor};
}

}  // namespace examples
