#pragma once
/// @file
/// Records which experts the tokens of an inference pass went to, and how sure their router was.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// Records the choices of each mixture of a model, with all scores and logits. In an inference plan the next layer
/// overwrites them, so the routers write them to the trace's memory instead.
template <class Arch, Backend B>
class ExpertTrace {
 public:
  using Scalar = typename B::Scalar;
  using Master = typename B::Master;

  /// Traces passes of up to `rows` rows. The activations must not be planned again.
  ExpertTrace(B& backend, Activations<Arch, B>& activations, Index rows) {
    Arch::for_each_mixture(*activations, [&](auto& mixture, Index number) {
      auto& routing = mixture.routing();
      const Index choices = routing.selected.cols, experts = routing.probability.cols;
      Layer layer;
      routing.selected = layer.selected.place(backend, rows, choices);
      routing.gate = layer.gate.place(backend, rows, choices);
      routing.probability = layer.score.place(backend, rows, experts);
      if constexpr (requires { requires std::same_as<decltype(mixture.router.logits), PerRow<Scalar>>; }) {
        const Index cols = mixture.router.logits(1).cols;
        if (cols >= experts) mixture.router.logits = layer.logit.place(backend, rows, cols);
      }
      layers_.push_back(std::move(layer));
      choices_.push_back({.layer = number, .experts = experts, .choices = choices});
    });
  }

  /// Clears the record and makes it `tokens` tokens long, without experts yet.
  void restart(Index tokens) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto& choices = choices_[i];
      const auto pairs = static_cast<std::size_t>(tokens * choices.choices);
      choices.selected.assign(pairs, ChosenExpert());
      choices.gate.assign(pairs, 0.0f);
      choices.score.assign(static_cast<std::size_t>(tokens * choices.experts), 0.0f);
      choices.logit.assign(layers_[i].logit.cols > 0 ? choices.score.size() : 0, 0.0f);
    }
  }

  /// Records the last pass: its row n is token `to[n]`; a row with a negative token is skipped.
  void record(B& backend, std::span<const Index> to) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto& choices = choices_[i];
      auto& layer = layers_[i];
      layer.selected.read(backend, to, choices.choices, [&](std::size_t pair, std::int32_t expert) {
        choices.selected[pair] = ChosenExpert(expert);
      });
      const auto numbers = [&](auto& part, Index cols, std::vector<float>& all) {
        part.read(backend, to, cols,
                  [&](std::size_t at, auto value) { all[at] = static_cast<float>(real_part(value)); });
      };
      numbers(layer.gate, choices.choices, choices.gate);
      numbers(layer.score, choices.experts, choices.score);
      if (layer.logit.cols > 0) numbers(layer.logit, choices.experts, choices.logit);
    }
  }

  /// The choices of each mixture, by token.
  std::span<const ExpertChoices> choices() const { return choices_; }

 private:
  /// Rows of `cols` numbers that a pass writes.
  template <class T>
  struct Rows {
    Memory memory;
    Index cols = 0;
    std::vector<T> host = {};

    View<T> place(B& backend, Index rows, Index count) {
      cols = count;
      memory = backend.allocate(static_cast<std::size_t>(rows * cols) * sizeof(T));
      return {memory.template as<T>().data, rows, cols};
    }
    /// f(index of token to[n] and column, value) for the first `wanted` columns.
    template <class F>
    void read(B& backend, std::span<const Index> to, Index wanted, F&& f) {
      host.resize(to.size() * static_cast<std::size_t>(cols));
      backend.copy_to_host(host.data(), memory.bytes(), host.size() * sizeof(T));
      for (std::size_t n = 0; n < to.size(); ++n) {
        if (to[n] < 0) continue;
        for (std::size_t c = 0; c < static_cast<std::size_t>(wanted); ++c) {
          f(static_cast<std::size_t>(to[n] * wanted) + c, host[n * static_cast<std::size_t>(cols) + c]);
        }
      }
    }
  };
  struct Layer {
    Rows<std::int32_t> selected;
    Rows<Master> gate, score;
    Rows<Scalar> logit;  // with those of the noise behind them
  };

  std::vector<Layer> layers_;
  std::vector<ExpertChoices> choices_;
};

}  // namespace tinymoe::inline v0_1
