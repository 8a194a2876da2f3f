#pragma once
/// @file
/// Which experts the tokens of an inference pass took.

#include <cstdint>
#include <span>
#include <vector>

#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// Where one mixture sent tokens; row n is token n of what was fed.
struct ExpertChoices {
  Index layer = 0;                          // its number in the model
  Index experts = 0, choices = 0;           // E, K
  std::vector<ChosenExpert> selected = {};  // (n, K); a token that was not read took none
  std::vector<float> gate = {};             // (n, K)

  Index tokens() const { return std::ssize(selected) / choices; }
};

/// Records the choices of each mixture of a model, which an inference plan would let the next layer overwrite: the
/// routers write them to memory of the trace instead.
template <class Arch, Backend B>
class ExpertTrace {
 public:
  using Master = typename B::Master;

  /// For passes of up to `rows` rows with these activations, which must not be planned again.
  ExpertTrace(B& backend, Activations<Arch, B>& activations, Index rows) {
    Arch::for_each_mixture(*activations, [&](auto& mixture, Index number) {
      auto& routing = mixture.routing();
      const Index choices = routing.selected.cols;
      const auto pairs = static_cast<std::size_t>(rows * choices);
      layers_.push_back({backend.allocate(pairs * sizeof(std::int32_t)), backend.allocate(pairs * sizeof(Master))});
      const auto& layer = layers_.back();
      routing.selected = {layer.selected.template as<std::int32_t>().data, rows, choices};
      routing.gate = {layer.gate.template as<Master>().data, rows, choices};
      choices_.push_back({.layer = number, .experts = routing.probability.cols, .choices = choices});
    });
  }

  /// Forgets what was noted, and expects `tokens` tokens that have taken no expert yet.
  void restart(Index tokens) {
    for (auto& choices : choices_) {
      const auto pairs = static_cast<std::size_t>(tokens * choices.choices);
      choices.selected.assign(pairs, ChosenExpert());
      choices.gate.assign(pairs, 0.0f);
    }
  }

  /// Notes the last pass: its row n is token `to[n]`; one below 0 is not wanted.
  void record(B& backend, std::span<const Index> to) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto& choices = choices_[i];
      const auto count = static_cast<std::size_t>(choices.choices), pairs = to.size() * count;
      selected_.resize(pairs);
      gate_.resize(pairs);
      backend.copy_to_host(selected_.data(), layers_[i].selected.bytes(), pairs * sizeof(std::int32_t));
      backend.copy_to_host(gate_.data(), layers_[i].gate.bytes(), pairs * sizeof(Master));
      for (std::size_t n = 0; n < to.size(); ++n) {
        if (to[n] < 0) continue;
        for (std::size_t k = 0; k < count; ++k) {
          const std::size_t pair = static_cast<std::size_t>(to[n]) * count + k;
          choices.selected[pair] = ChosenExpert(selected_[n * count + k]);
          choices.gate[pair] = static_cast<float>(real_part(gate_[n * count + k]));
        }
      }
    }
  }

  std::span<const ExpertChoices> choices() const { return choices_; }

 private:
  struct Layer {
    Memory selected, gate;
  };

  std::vector<Layer> layers_;
  std::vector<ExpertChoices> choices_;
  std::vector<std::int32_t> selected_;
  std::vector<Master> gate_;
};

}  // namespace tinymoe::inline v0_1
