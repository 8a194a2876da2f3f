#pragma once
/// @file
/// What a model costs, at compile time: parameters, floating-point operations per token, bytes. The bytes of its
/// activations depend on a shape and a backend, so they are known at run time.

#include <array>
#include <cstddef>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1 {

/// Counts of one architecture.
///
/// A token meets K of E experts, a shared one, and all else. With DynamicTopK it may meet fewer than K, with
/// ExpertChoice more or fewer, K on average. A multiply and an add are two operations; norms, softmax and activations
/// are not counted. The noise of NoisyTopK is drawn in training alone: its matrix is counted in `active`, but not in
/// `flops_forward`.
struct Count {
  Index total = 0;                  // parameters
  Index trained = 0;                // parameters that the optimizer changes: all but what a router moves itself
  Index active = 0;                 // parameters that a token meets, both vocabulary matrices among them
  std::array<Index, detail::part_names.size()> parts = {};  // parameters by Part
  std::array<Index, detail::part_names.size()> active_parts = {};
  Index flops_forward = 0;   // for each token of a sequence that fills the context, on average
  Index flops_trained = 0;   // forward and backward: three times as many, the router's noise among them
  Index weight_bytes = 0;    // float32
  Index training_bytes = 0;  // weights, gradients and AdamW's two moments, float32; activations not counted
  Index kv_cache_bytes = 0;  // of one sequence that fills the context, float32

  /// Bytes that training keeps for all parameters: the masters, their gradients and the optimizer's moments (AdamW 2,
  /// Lion 1) in `Master`, and a copy in `Scalar` for the layers where that is another type. For bfloat16 that is
  /// 4 + 4 + 8 + 2 bytes a parameter. Activations are not counted; see `activation_bytes`.
  template <class Scalar, class Master = float>
  constexpr Index state_bytes(Index moments = 2) const {
    const Index copy = std::is_same_v<Scalar, Master> ? 0 : Index{sizeof(Scalar)};
    return total * (copy + (2 + moments) * Index{sizeof(Master)});
  }

  /// The parameters of a part of the model.
  constexpr Index part(Part which) const { return parts[static_cast<std::size_t>(which)]; }
  /// Those of them that a token meets.
  constexpr Index active_part(Part which) const { return active_parts[static_cast<std::size_t>(which)]; }
};

/// The counts of an architecture; constexpr: `static_assert(count<StoryTeller>().total == …)`.
template <class Arch>
constexpr Count count() {
  Count result;
  Index products = 0;  // weights that a token is multiplied with
  Index noise = 0;     // the same, only in training
  Arch::template Parameters<float>::for_each(Path{}, [&](const ParameterInfo& info) {
    const auto part = static_cast<std::size_t>(info.part);
    const Index size = info.size(), active = info.active_of(size);
    result.total += size;
    if (info.trained) result.trained += size;
    result.active += active;
    result.parts[part] += size;
    result.active_parts[part] += active;
    const bool looked_up = info.part == Part::embedding || info.part == Part::position || info.part == Part::table;
    if (info.is_vector || looked_up) return;
    products += active;
    for (const detail::NamedRows& rows : info.names) {
      if (rows.name == "noise.weight") noise += rows.rows * info.cols;
    }
  });
  products -= noise;
  if (Arch::tied) products += Arch::vocab * Arch::width;
  Index attention = 0;  // twice (q · k and p · v) heads · d for each visible key, summed over positions
  Arch::for_each_layer([&](auto group, Index, Index) {
    using A = typename Arch::template BlockLayer<group>::AttentionLayer;
    // 1 + 2 + … up to the window, then the window for each of the rest.
    constexpr Index seen = A::visible(Arch::context - 1);
    attention += 2 * A::query_width * (seen * (seen + 1) / 2 + (Arch::context - seen) * seen);
    result.kv_cache_bytes += 2 * A::key_width * A::visible(Arch::context - 1) * Index{sizeof(float)};
  });
  result.flops_forward = 2 * (products + attention / Arch::context);
  result.flops_trained = 3 * (result.flops_forward + 2 * noise);
  result.weight_bytes = result.total * Index{sizeof(float)};
  result.training_bytes = result.state_bytes<float>();
  return result;
}

/// Bytes that training an architecture takes besides its activations: `training_bytes<StoryTeller, bfloat16>()`.
template <class Arch, class Scalar = float, class Master = float>
constexpr Index training_bytes(Index moments = 2) {
  return count<Arch>().template state_bytes<Scalar, Master>(moments);
}

/// Bytes of the activations of passes of (batch, time) on a backend, as they would be planned; nothing is allocated.
template <class Arch, Backend B>
Index activation_bytes(const B& backend, Index batch, Index time, bool recompute = false,
                       Plan::Purpose purpose = Plan::Purpose::training) {
  typename Arch::template Saved<typename B::Scalar, typename B::Master> saved;
  Plan measure(purpose);
  saved.plan(measure, {.batch = batch, .time = time, .recompute = recompute, .training = true}, backend);
  return static_cast<Index>(measure.bytes());
}

}  // namespace tinymoe::inline v0_1
