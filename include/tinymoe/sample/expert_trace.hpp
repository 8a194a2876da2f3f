#pragma once
/// @file
/// Records which experts the tokens of an inference pass went to.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// Records the choices of each mixture of a model. In an inference plan the next layer overwrites them, so the routers
/// write them to the trace's memory instead.
template <class Arch, Backend B>
class ExpertTrace {
 public:
  using Master = typename B::Master;

  /// Traces passes of up to `rows` rows. The activations must not be planned again.
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

  /// Clears the record and makes it `tokens` tokens long, without experts yet.
  void restart(Index tokens) {
    for (auto& choices : choices_) {
      const auto pairs = static_cast<std::size_t>(tokens * choices.choices);
      choices.selected.assign(pairs, ChosenExpert());
      choices.gate.assign(pairs, 0.0f);
    }
  }

  /// Records the last pass: its row n is token `to[n]`; a row with a negative token is skipped.
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
