#pragma once
/// @file
/// The mixture of experts, dropless unless its router has a capacity: pairs are sorted by expert, each expert works on
/// its rows, and each token sums its choices in order. Nothing is padded, and nothing is added atomically.
///
///     x̃[slot] = x[token of slot];   ỹ = experts(x̃);   y[n] = Σ_k g[n, k] ỹ[slot of (n, k)] + shared(x[n])
///
/// Backward: dỹ[slot] = g · dy[n];   dg[n, k] = dy[n] · ỹ[slot];   dx[n] = router's dx[n] + Σ_k dx̃[slot of (n, k)] +
/// shared's dx[n]. A choice that is not taken has slot −1, adds nothing and has dg = 0.

#include <cstdint>
#include <memory>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/expert_exchange.hpp"
#include "tinymoe/layers/moe_kernels.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/router.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/layers/shared_expert.hpp"

namespace tinymoe::inline v0_1 {

/// A router, its experts and, if there is one, a shared expert.
template <RouterKind R, ExpertKind X, class S = NoShared>
struct Mixture {
  static constexpr Index experts = R::experts, choices = R::choices;
  static constexpr bool has_shared = detail::SharedLayer<S>::present;

  static constexpr void add_settings(SettingList& list) {
    detail::add_settings<R>(list);
    detail::add_settings<X>(list);
    if constexpr (has_shared) detail::add_settings<typename S::Expert>(list);
  }

  /// The mixture at width D.
  template <Index D>
  struct Layer {
    using Gate = typename R::template Layer<D>;
    using Experts = typename X::template Layer<D, experts>;
    using SharedLayer = typename detail::SharedLayer<S>::template Layer<D>;
    static constexpr Index choices = R::choices;
    /// The maximum number of pairs that N tokens send.
    static constexpr Index max_pairs(Index tokens) { return detail::max_pairs<R, Gate>(tokens); }

    /// Those of the router, the experts and the shared expert.
    template <class W>
    struct Parameters {
      typename Gate::template Parameters<W> gate;
      typename Experts::template Parameters<W> experts;
      typename SharedLayer::template Parameters<W> shared;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        const Path gate_path{&path, "gate"};
        Gate::template Parameters<W>::for_each(gate_path, f, p.gate...);
        Experts::template Parameters<W>::for_each(path, detail::active_experts<R>(), f, p.experts...);
        if constexpr (has_shared) {
          SharedLayer::template Parameters<W>::for_each(path, f, p.shared...);
        }
      }
    };

    /// What backward reads.
    template <class T, class M>
    struct Saved {
      typename Gate::template Saved<T, M> router;
      typename Experts::template Saved<T, M> experts;
      typename SharedLayer::template Saved<T, M> shared;
      Dispatch dispatch;
      PerRow<T> x, y;                                   // (S, D), sorted by expert
      PerRow<T> dx, dy;                                 // (S, D)
      PerRow<M> dgate;                                  // (N, K)
      std::unique_ptr<detail::SharedBank<T>> of_group;  // where a group of ranks shares the experts

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B& backend) {
        const Index tokens = pass.rows(), most = max_pairs(tokens);
        router.plan(plan, pass);
        dispatch = {plan.keep<std::int32_t>(1, R::experts + 1), plan.keep<std::int32_t>(tokens, choices),
                    plan.keep<std::int32_t>(1, most)};
        x = plan.keep<T>(most, D);
        y = plan.keep<T>(most, D);
        experts.plan(plan, most);
        if constexpr (has_shared) shared.plan(plan, pass, backend);
        if (plan.purpose() == Plan::Purpose::inference) return;
        dx = plan.scratch<T>(most, D);
        dy = plan.scratch<T>(most, D);
        dgate = plan.scratch<M>(tokens, choices);
      }
      /// For passes with this exchange, before the first; W is the type of the model's weights.
      template <class W, Backend B>
      void share_experts(B& backend, ExpertExchange& exchange) {
        using Bank = detail::ExpertsOfGroup<Experts, R::experts, D, B, typename Experts::template Parameters<W>>;
        if (!of_group) of_group = std::make_unique<Bank>(backend, exchange);
      }
      std::size_t received_bytes() const { return of_group ? of_group->bytes() : 0; }
      Routing<M>& routing() { return router.routing; }
      const Routing<M>& routing() const { return router.routing; }
    };

    /// y (N, D) = the mixture over x (N, D), plus `residual` (N, D) unless that is empty. With `pass.losses` the
    /// router's losses and the experts' loads are written to saved.router.routing.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved, Input<B> residual = {}) {
      Dispatch& dispatch = saved.dispatch;
      const auto& routing = saved.router.routing;
      resize(saved, x.rows);
      Gate::forward(backend, pass, p.gate, x, saved.router);
      backend.sort_by_expert(routing.selected, dispatch);
      if (pass.losses) Gate::losses(backend, pass, dispatch, saved.router);
      drop_pairs(backend, pass, saved);
      if (pass.losses) backend.launch(1, kernels::Loads{dispatch.offsets, routing.loads});
      run_experts(backend, pass, p, x, y, saved, residual);
      add_shared(backend, pass, p, x, y, saved);
    }

    /// The same beside a KV cache, where nothing is kept for backward: few tokens decode.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward_cached(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                               Saved<T, M>& saved, Input<B> residual = {}) {
      if constexpr (FewTokenBackend<B>) {
        const bool few = max_pairs(x.rows) <= detail::max_fused_pairs<B>;
        if (few && !pass.losses && pass.limits == nullptr) return decode(backend, pass, p, x, y, saved, residual);
      }
      forward(backend, pass, p, x, y, saved, residual);
    }

    /// The same for so few tokens that a launch costs more than the arithmetic: router and experts may use fewer,
    /// larger kernels. Nothing is kept for backward, and no losses are computed.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void decode(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                       Saved<T, M>& saved, Input<B> residual = {}) {
      Dispatch& dispatch = saved.dispatch;
      const auto& routing = saved.router.routing;
      resize(saved, x.rows);
      if constexpr (detail::DecodingRouterLayer<Gate, B, W>) {
        Gate::decode(backend, pass, p.gate, x, dispatch, saved.router);
      } else {
        Gate::forward(backend, pass, p.gate, x, saved.router);
        backend.sort_by_expert(routing.selected, dispatch);
      }
      if constexpr (detail::DecodingExpertsLayer<Experts, B, W>) {
        Experts::decode(backend, p.experts, dispatch, routing.selected, routing.gate, x, residual, y, saved.experts);
      } else {
        run_experts(backend, pass, p, x, y, saved, residual);
      }
      add_shared(backend, pass, p, x, y, saved);
    }

    /// Overwrites dx, which must not be dy; adds to the gradients.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const Dispatch& dispatch = saved.dispatch;
      const View<T> sorted_dy = saved.dy(dispatch.rows), sorted_dx = saved.dx(dispatch.rows);
      const View<M> dgate = saved.dgate(dy.rows);
      backend.launch(dy.rows, kernels::CombineBackward<T, M>{dy, saved.y(dispatch.rows), dispatch.slots,
                                                             saved.router.routing.gate, sorted_dy, dgate});
      if (pass.exchange != nullptr) {
        saved.of_group->backward(pass, &p.experts, sorted_dy, sorted_dx, &saved.experts, &gradients.experts);
      } else {
        Experts::backward(backend, pass, p.experts, dispatch, sorted_dy, sorted_dx, saved.experts, gradients.experts);
      }
      Gate::backward(backend, pass, p.gate, dgate, dx, saved.router, gradients.gate);
      backend.launch(dx.rows, kernels::GatherBackward<T>{sorted_dx, dispatch.slots, dx});
      if constexpr (has_shared) {
        SharedLayer::backward_and_add(backend, pass, p.shared, dy, dx, saved.shared, gradients.shared);
      }
    }

    /// After an optimizer step: lets the router move what no gradient trains.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void after_step(B& backend, const Pass& pass, const Parameters<W>& p, const Parameters<M>& masters,
                           Saved<T, M>& saved) {
      if constexpr (detail::MovingRouterLayer<Gate>) {
        Gate::after_step(backend, pass, p.gate, masters.gate, saved.router);
      }
    }

   private:
    template <class T, class M>
    static void resize(Saved<T, M>& saved, Index tokens) {
      saved.dispatch.resize(tokens, max_pairs(tokens));
      saved.router.routing.resize(tokens);
    }

    /// Drops the pairs beyond an expert's capacity, if the router has one and it acts in this pass.
    template <Backend B, class T, class M>
    static void drop_pairs(B& backend, const Pass& pass, Saved<T, M>& saved) {
      if constexpr (detail::CapacityRouterLayer<Gate>) {
        const auto kept = Gate::within_capacity(backend, pass, saved.dispatch, saved.router);
        if (!kept.empty()) backend.sort_by_expert(kept, saved.dispatch);
      }
    }

    /// Gathers x̃, computes ỹ and combines it to y; the pairs are sorted.
    template <Backend B, class W, class T, class M>
    static void run_experts(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                            Saved<T, M>& saved, Input<B> residual) {
      const Dispatch& dispatch = saved.dispatch;
      const View<T> sorted_x = saved.x(dispatch.rows), sorted_y = saved.y(dispatch.rows);
      backend.launch(x.rows, kernels::Gather<T>{x, dispatch.slots, sorted_x});
      if (pass.exchange != nullptr) {
        saved.of_group->forward(pass, &p.experts, dispatch, sorted_x, sorted_y, &saved.experts);
      } else {
        Experts::forward(backend, pass, p.experts, dispatch, sorted_x, sorted_y, saved.experts);
      }
      backend.launch(x.rows, kernels::Combine<T, M>{sorted_y, dispatch.slots, saved.router.routing.gate, residual, y});
    }

    /// y += shared(x).
    template <Backend B, class W, class T, class M>
    static void add_shared(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                           Saved<T, M>& saved) {
      if constexpr (has_shared) SharedLayer::forward_and_add(backend, pass, p.shared, x, y, saved.shared);
    }
  };
};

}  // namespace tinymoe::inline v0_1
