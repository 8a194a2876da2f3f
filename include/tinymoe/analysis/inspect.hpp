#pragma once
/// @file
/// What a model computes on given tokens, as xtensor arrays: logits, router probabilities, choices and loads.

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/xtensor.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// One mixture's routing of B·T tokens; row n = b·T + t.
struct RoutingArrays {
  Index layer = 0;                        // its number in the model
  xt::xtensor<float, 2> probability;      // (B·T, E)
  xt::xtensor<ChosenExpert, 2> selected;  // (B·T, K)
  xt::xtensor<float, 2> gate;             // (B·T, K): 0 for a choice that is not taken
  xt::xtensor<std::int32_t, 1> load;      // (E): pairs that each expert got
};

/// What `inspect` returns.
struct Inspection {
  xt::xtensor<float, 3> logits;  // (B, T, V)
  std::vector<RoutingArrays> routing;
};

namespace detail {

template <class To, std::size_t rank, class B, class From>
xt::xtensor<To, rank> to_array(B& backend, View<From> view, std::array<std::size_t, rank> shape) {
  auto array = xt::xtensor<To, rank>::from_shape(shape);
  assert(static_cast<Index>(array.size()) == view.size() && view.contiguous());
  std::vector<std::remove_const_t<From>> host(array.size());
  backend.copy_to_host(host.data(), view.data, host.size() * sizeof(From));
  std::transform(host.begin(), host.end(), array.begin(), [](auto value) { return static_cast<To>(real_part(value)); });
  return array;
}

}  // namespace detail

/// Runs `model` on tokens (B, T) and returns logits and routing.
/// Throws ShapeError if there are no tokens or T is above the context, TextError for a token outside the vocabulary.
template <class Arch, class B, class W>
Inspection inspect(const Model<Arch, B, W>& model, const xt::xtensor<Token, 2>& tokens) {
  using Scalar = typename B::Scalar;
  const Pass pass{.batch = static_cast<Index>(tokens.shape(0)),
                  .time = static_cast<Index>(tokens.shape(1)),
                  .settings = model.settings(),
                  .limits = model.limits_by_layer()};
  if (pass.rows() == 0 || pass.time > Arch::context) {
    fail<ShapeError>("expected tokens of shape (B, T) with T from 1 to ", Arch::context, ", found (", pass.batch, ", ",
                     pass.time, ")");
  }
  for (const Token token : tokens) {
    if (token < 0 || token >= Arch::vocab) {
      fail<TextError>("token ", token, " is outside the vocabulary of ", Arch::vocab);
    }
  }
  auto& backend = model.backend();
  Activations<Arch, B> saved(backend, Plan::Purpose::training, pass);
  const auto rows = static_cast<std::size_t>(pass.rows()), vocab = static_cast<std::size_t>(Arch::vocab);
  const Memory ids = backend.allocate(rows * sizeof(Token)), memory = backend.allocate(rows * vocab * sizeof(Scalar));
  backend.copy_to_device(ids.bytes(), tokens.data(), rows * sizeof(Token));
  Arch::forward(backend, pass, model.weights(), View<const Token>(ids.as<Token>().data, 1, pass.rows()), *saved);
  const View<Scalar> logits(memory.as<Scalar>().data, pass.rows(), Arch::vocab);
  Arch::logits(backend, model.weights(), saved->normed(pass.rows()), logits);

  Inspection result;
  result.logits = detail::to_array<float, 3>(backend, logits, {tokens.shape(0), tokens.shape(1), vocab});
  Arch::for_each_mixture(*saved, [&](auto& mixture, Index number) {
    const auto& routing = mixture.routing();
    const auto experts = static_cast<std::size_t>(routing.probability.cols);
    const auto choices = static_cast<std::size_t>(routing.selected.cols);
    RoutingArrays arrays{number, detail::to_array<float, 2>(backend, routing.probability, {rows, experts}),
                         detail::to_array<ChosenExpert, 2>(backend, routing.selected, {rows, choices}),
                         detail::to_array<float, 2>(backend, routing.gate, {rows, choices}),
                         xt::xtensor<std::int32_t, 1>::from_shape({experts})};
    const auto loads = loads_of({arrays.selected.data(), arrays.selected.size()}, routing.probability.cols);
    std::transform(loads.begin(), loads.end(), arrays.load.begin(),
                   [](Index pairs) { return static_cast<std::int32_t>(pairs); });
    result.routing.push_back(std::move(arrays));
  });
  return result;
}

}  // namespace tinymoe::inline v0_1
