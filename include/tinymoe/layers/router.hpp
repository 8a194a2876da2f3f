#pragma once
/// @file
/// The router of Mixtral (Jiang et al. 2024): each token takes the K experts of the greatest probability.
///
///     p = softmax(x Wᵀ);   S = the K greatest of p, the lower expert first where two are equal;   g_k = p_k / Σ_S p
///
/// x (N, D); W (E, D); p (N, E); S, g (N, K). Its two losses, averaged over the tokens of a micro-batch:
///
///     balance = E Σ_e f_e P_e,  f_e = pairs sent to e / (N·K),  P_e = mean_n p_ne     (Fedus et al. 2021, eq. 4; 1
///     when even) z       = mean_n (log Σ_e exp logit_ne)²                                        (Zoph et al. 2022,
///     eq. 5)
///
/// f is a count and has no gradient; P's gradient goes through the whole softmax.

#include "tinymoe/backend/rows.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe {

namespace kernels {

/// One token: softmax over the experts, top-k, renormalise.
template <class T, class M>
struct RouterForward {
  View<const T> logits;  // (N, E)
  View<M> probability;   // (N, E)
  View<M> log_sum;       // (1, N)
  View<std::int32_t> selected;
  View<M> gate;  // (N, K)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index experts = logits.cols, choices = selected.cols;
    const T* in = logits.row(n);
    M *p = probability.row(n), *g = gate.row(n);
    std::int32_t* chosen = selected.row(n);
    const auto greatest = group.max(experts, [=](Index e) { return M(in[e]); });
    const M total = group.sum(experts, [=](Index e) { return p[e] = exponential(M(in[e]) - M(greatest)); });
    group.each(experts, [=](Index e) { p[e] = p[e] / total; });
    group.once([&] {
      log_sum.data[n] = M(greatest) + std::log(total);
      M kept(0);
      for (Index k = 0; k < choices; ++k) {
        Index best = -1;
        for (Index e = 0; e < experts; ++e) {
          bool taken = false;
          for (Index earlier = 0; earlier < k; ++earlier) taken = taken || chosen[earlier] == e;
          if (!taken && (best < 0 || real_part(p[e]) > real_part(p[best]))) best = e;
        }
        chosen[k] = static_cast<std::int32_t>(best);
        g[k] = p[best];
        kept += p[best];
      }
      for (Index k = 0; k < choices; ++k) g[k] = g[k] / kept;
    });
  }
};

/// balance and z of one layer, into losses (1, 2), and each expert's factor of the balance loss's gradient; one kernel
/// row for all tokens.
template <class M>
struct RouterLosses {
  View<const M> probability, log_sum;
  View<const std::int32_t> offsets;
  Index choices;
  View<M> losses;      // (1, 2)
  View<M> pair_share;  // (1, E): f_e
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const Index tokens = probability.rows, experts = probability.cols;
    const std::int32_t* start = offsets.data;
    M* f = pair_share.data;
    const View<const M> p = probability;
    const M pairs = M(double(tokens * choices));
    group.each(experts, [=](Index e) { f[e] = M(double(start[e + 1] - start[e])) / pairs; });
    M balance(0), z(0);
    for (Index e = 0; e < experts; ++e) {
      balance += f[e] * group.sum(tokens, [=](Index n) { return p.data[n * p.stride + e]; });
    }
    const M* s = log_sum.data;
    z = group.sum(tokens, [=](Index n) { return s[n] * s[n]; });
    group.once([&] {
      losses.data[0] = balance * M(double(experts)) / M(double(tokens));
      losses.data[1] = z / M(double(tokens));
    });
  }
};

/// From dg (N, K) to the logits' gradient, the two losses' parts included.
///
/// dL/dp_k = (dg_k − Σ_j dg_j g_j) / kept for chosen k, + balance_weight · E f_e / N for all e;
/// dL/dlogit_e = p_e (dL/dp_e − Σ_j p_j dL/dp_j) + z_weight · 2 log_sum p_e / N
template <class T, class M>
struct RouterBackward {
  View<const M> probability, log_sum, gate, dgate, pair_share;
  View<const std::int32_t> selected;
  View<T> dlogits;
  double balance_weight, z_weight;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index experts = probability.cols, choices = gate.cols;
    const M *p = probability.row(n), *g = gate.row(n), *dg = dgate.row(n), *f = pair_share.data;
    const std::int32_t* chosen = selected.row(n);
    M kept(0), along(0);
    for (Index k = 0; k < choices; ++k) {
      kept += p[chosen[k]];
      along += dg[k] * g[k];
    }
    const M balance = M(balance_weight * double(experts) / double(probability.rows));
    const auto slope = [=](Index e) {  // dL/dp_e
      M d = balance * f[e];
      for (Index k = 0; k < choices; ++k) {
        if (chosen[k] == e) d += (dg[k] - along) / kept;
      }
      return d;
    };
    const M mean = group.sum(experts, [=](Index e) { return p[e] * slope(e); });
    const M z = M(2 * z_weight / double(probability.rows)) * log_sum.data[n];
    T* out = dlogits.row(n);
    group.each(experts, [=](Index e) { out[e] = T(p[e] * (slope(e) - mean + z)); });
  }
};

}  // namespace kernels

/// What a router decides for each token, and what the mixture reads of it.
template <class M>
struct Routing {
  View<std::int32_t> selected;  // (N, K)
  View<M> gate;                 // (N, K)
  View<M> probability;          // (N, E)
  View<M> losses;               // (1, 2): balance, z
  View<std::int32_t> loads;     // (1, E): pairs that each expert got; like the losses, it stays until the next pass

  void plan(Plan& plan, const Pass& pass, Index experts, Index choices) {
    selected = plan.keep<std::int32_t>(pass.rows(), choices);
    gate = plan.keep<M>(pass.rows(), choices);
    probability = plan.keep<M>(pass.rows(), experts);
    losses = plan.persist<M>(1, 2);
    loads = plan.persist<std::int32_t>(1, experts);
  }
  void resize(Index tokens) { selected.rows = gate.rows = probability.rows = tokens; }
};

/// Router<E, K>: E experts, of which each token takes K; softmax, top-k, renormalise.
template <Index E, Index K>
struct Router {
  static_assert(E >= 1, "tinymoe::Router: there must be at least one expert");
  static_assert(K >= 1 && K <= E, "tinymoe::Router: a token takes at least one expert and no more than there are");
  static_assert(K >= 2 || E == 1,
                "tinymoe::Router: with K = 1 the renormalised gate is constant 1 and the router gets no gradient; "
                "take K of 2 or more");
  static constexpr Index experts = E, choices = K;

  template <Index D>
  struct Layer {
    static constexpr Index experts = E, choices = K;

    template <class T>
    struct Parameters {
      Tensor<T, E, D> weight;  // (E, D)

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        f(matrix(path, "weight", E, D, Part::router, Initial::fan_in), p.weight...);
      }
    };

    template <class T, class M>
    struct Saved {
      View<const T> x;     // (N, D), the caller's
      Routing<M> routing;  // what was decided
      View<M> log_sum;     // (1, N)
      View<M> pair_share;  // (1, E)
      View<T> logits;      // (N, E), and their gradient

      void plan(Plan& plan, const Pass& pass) {
        routing.plan(plan, pass, E, K);
        log_sum = plan.keep<M>(1, pass.rows());
        pair_share = plan.keep<M>(1, E);
        logits = plan.scratch<T>(pass.rows(), E);
      }
    };

    /// Fills `saved.routing`, but for the losses.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass&, const Parameters<T>& p, Input<B> x, Saved<T, M>& saved) {
      saved.x = x;
      saved.routing.resize(x.rows);
      saved.logits.rows = x.rows;
      backend.matmul(x, p.weight, {}, saved.logits);
      backend.launch(x.rows, kernels::RouterForward<T, M>{saved.logits, saved.routing.probability, saved.log_sum,
                                                          saved.routing.selected, saved.routing.gate});
    }

    /// Computes the losses, once the pairs are sorted.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void losses(B& backend, const Pass& pass, const Dispatch& dispatch, Saved<T, M>& saved) {
      backend.launch(1, kernels::RouterLosses<M>{saved.routing.probability, saved.log_sum.middle_cols(0, pass.rows()),
                                                 dispatch.offsets, K, saved.routing.losses, saved.pair_share});
    }

    /// From the gates' gradient (N, K): overwrites dx, adds to the gradients. The weighted losses' gradients join here.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<T>& p, MasterInput<B> dgate, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const auto& settings = pass.settings;
      const auto& routing = saved.routing;
      backend.launch(dx.rows, kernels::RouterBackward<T, M>{routing.probability, saved.log_sum, routing.gate, dgate,
                                                            saved.pair_share, routing.selected, saved.logits,
                                                            settings.balance_weight * pass.loss_scale,
                                                            settings.z_weight * pass.loss_scale});
      backend.matmul_weight(saved.logits, saved.x, gradients.weight);
      backend.matmul_input(saved.logits, p.weight, dx, Write::overwrite);
    }
  };
};

}  // namespace tinymoe
