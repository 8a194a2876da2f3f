#pragma once
/// @file
/// The experts of few tokens in inference: the equations of expert.hpp and of the mixture around them (moe.hpp) in two
/// kernels, for a backend on which a launch costs more than the arithmetic of few rows (FewTokenBackend). Nothing is
/// kept for backward.

#include <cstdint>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// The experts' first layer for few tokens: a[slot, f] of the slot's token, kernel row slot · F + f. h is not kept. The
/// kernel looks up token and expert itself, so that nothing is gathered.
template <class Activation, class T, class M>
struct FewExpertInputs {
  View<const T> x;                           // (N, D)
  Bank<const T> weight, bias;                // W₁ and W₃ of each expert; bias may be empty
  View<const std::int32_t> selected, pairs;  // (N, K), (1, S)
  View<const std::int32_t> taken;            // (1, 1): the slots that have a pair
  View<T> activated;                         // a (S, F)
  TINYMOE_EVERYWHERE Index row_elements() const { return x.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index number) const {
    const Index width = activated.cols, slot = number / width, f = number % width, choices = selected.cols;
    if (slot >= taken.data[0]) return;
    const Index n = pairs.data[slot] / choices, e = selected(n, pairs.data[slot] % choices);
    const T *in = x.row(n), *gate = weight[e].row(f);
    const T* added = bias.empty() ? nullptr : bias[e].data + f;
    M value;
    if constexpr (Activation::gated) {
      const auto both = [](T g, T u, T v) { return detail::Two<M>{M(g) * M(v), M(u) * M(v)}; };
      auto h = group.sum(x.cols, both, gate, weight[e].row(width + f), in);
      if (added != nullptr) h += detail::Two<M>{M(added[0]), M(added[width])};
      value = Activation::value(h.first, h.second);
    } else {
      const auto dot = [](T g, T v) { return M(g) * M(v); };
      M h = group.sum(x.cols, dot, gate, in);
      if (added != nullptr) h += M(added[0]);
      value = Activation::value(h);
    }
    group.once([&] { activated.row(slot)[f] = T(value); });
  }
};

/// The experts' second layer, summed over each token's choices, kernel row n·D + d:
/// y[n, d] = r[n, d] + Σ_k g[n, k] (W₂ a[slot of (n, k)] + b₂)[d].
template <class T, class M>
struct FewExpertOutputs {
  View<const T> activated;                   // a (S, F)
  Bank<const T> weight, bias;                // W₂ and b₂ of each expert; bias may be empty
  View<const std::int32_t> selected, slots;  // (N, K); slot −1: not taken
  View<const M> gate;                        // (N, K)
  View<const T> residual;                    // r (N, D), or empty: 0
  View<T> y;                                 // (N, D)
  TINYMOE_EVERYWHERE Index row_elements() const { return activated.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index number) const {
    const Index n = number / y.cols, d = number % y.cols, choices = slots.cols, width = activated.cols;
    const std::int32_t *slot = slots.row(n), *expert = selected.row(n);
    const M* g = gate.row(n);
    const auto weights_of = [=, this](Index k) { return weight[expert[k]].row(d); };
    M total(0);
    for (Index k = 0; k < choices; ++k) {
      if (slot[k] < 0) continue;
      const T *w = weights_of(k), *a = activated.row(slot[k]);
      const M share = g[k];
      if (!bias.empty()) total += share * M(bias[expert[k]].data[d]);
      if (k + 1 == choices || slot[k + 1] < 0) {
        const auto dot = [](T wv, T av) { return M(wv) * M(av); };
        total += share * group.sum(width, dot, w, a);
        continue;
      }
      ++k;  // two at once: their weights come together
      const M other = g[k];
      if (!bias.empty()) total += other * M(bias[expert[k]].data[d]);
      const auto both = [=](T w0, T a0, T w1, T a1) { return share * (M(w0) * M(a0)) + other * (M(w1) * M(a1)); };
      total += group.sum(width, both, w, a, weights_of(k), activated.row(slot[k]));
    }
    group.once([&] { y.row(n)[d] = T(residual.empty() ? total : M(residual.row(n)[d]) + total); });
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
