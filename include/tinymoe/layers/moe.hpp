#pragma once
/// @file
/// The mixture of experts, dropless unless its router has a capacity: pairs are sorted by expert, each expert works on
/// its rows, and each token sums its choices in order. Nothing is padded, and nothing is added atomically.
///
///     x̃[slot] = x[token of slot];   ỹ = experts(x̃);   y[n] = Σ_k g[n, k] ỹ[slot of (n, k)] + shared(x[n])
///
/// Backward: dỹ[slot] = g · dy[n];   dg[n, k] = dy[n] · ỹ[slot];   dx[n] = router's dx[n] + Σ_k dx̃[slot of (n, k)] +
/// shared's dx[n]. A choice that is not taken has slot −1, adds nothing and has dg = 0.

#include "tinymoe/core/random.hpp"
#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/moe_kernels.hpp"
#include "tinymoe/layers/router.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
inline constexpr RandomSite shared_dropout = RandomSite::in_layers(6);  // expert_dropout of the shared expert
}  // namespace random_site

namespace detail {

template <class L, class B = DeclaredBackend>
concept RouterLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                               typename L::template Parameters<float>& gradients, Plan& plan, const Dispatch& dispatch,
                               typename L::template Saved<float, float>& saved, Input<B> x, MasterInput<B> dgate,
                               Output<B> dx) {
  saved.plan(plan, pass);
  { saved.routing } -> std::convertible_to<Routing<float>>;
  L::forward(backend, pass, p, x, saved);
  L::losses(backend, pass, dispatch, saved);
  L::backward(backend, pass, p, dgate, dx, saved, gradients);
};

template <class L, class B = DeclaredBackend>
concept ExpertsLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                typename L::template Parameters<float>& gradients, Plan& plan, Index pairs,
                                typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y,
                                const Dispatch& dispatch) {
  saved.plan(plan, pairs);
  L::forward(backend, pass, p, dispatch, x, y, saved);
  L::backward(backend, pass, p, dispatch, x, y, saved, gradients);
};

/// Optional: a router that chooses and sorts for few tokens at once, with weights of type W.
template <class L, class B, class W>
concept DecodingRouter = requires(B& backend, const Pass& pass, const typename L::template Parameters<W>& p,
                                  typename L::template Saved<typename B::Scalar, typename B::Master>& saved, Input<B> x,
                                  Dispatch& dispatch) {
  L::decode(backend, pass, p, x, dispatch, saved);
};

/// Optional: experts that gather and combine few tokens by themselves, with weights of type W.
template <class L, class B, class W>
concept DecodingExperts = requires(B& backend, const typename L::template Parameters<W>& p,
                                   typename L::template Saved<typename B::Scalar, typename B::Master>& saved,
                                   Input<B> x, Input<B> residual, Output<B> y, View<const std::int32_t> selected,
                                   MasterInput<B> gate, const Dispatch& dispatch) {
  L::decode(backend, p, dispatch, selected, gate, x, residual, y, saved);
};

/// The pairs that N tokens send at most.
template <class Router, class RouterLayer>
constexpr Index most_pairs(Index tokens) {
  if constexpr (requires { RouterLayer::pairs(tokens); }) {
    return RouterLayer::pairs(tokens);
  } else {
    return tokens * Router::choices;
  }
}

/// The experts that a token has, for counting.
template <class Router>
constexpr Index active_experts() {
  if constexpr (requires { Router::active; }) {
    return Router::active;
  } else {
    return Router::choices;
  }
}

}  // namespace detail

/// A router of a mixture, looked at for width 8; `Router<E, K>` is the model for one's own (docs/write-your-own.md).
template <class R>
concept RouterKind = requires {
  { R::experts } -> std::convertible_to<Index>;
  { R::choices } -> std::convertible_to<Index>;
}
&&detail::RouterLayer<typename R::template Layer<8>>;

/// The experts of a mixture, looked at for width 8 as a bank of two; `Expert<…>` is the model for one's own.
template <class X>
concept ExpertKind = detail::ExpertsLayer<typename X::template Layer<8, 2>>;

/// Experts that may also be the one network of a dense block: they describe the parameters of one by itself.
template <class X>
concept DenseExpertKind = ExpertKind<X> && requires {
  typename X::template Layer<8, 1>::template One<float>;
};

/// One network for all tokens beside a mixture's experts (Dai et al. 2024, DeepSeekMoE): `Shared<Expert<…>>`.
template <DenseExpertKind X>
struct Shared {
  using Place = place::Shared;
  using Expert = X;
};
/// No shared expert; the default.
struct NoShared {
  using Place = place::Shared;
};

/// One expert for all tokens: the feed-forward layer of a dense block, with the same interface as a mixture.
template <DenseExpertKind X>
struct Dense {
  static constexpr Index experts = 1, choices = 1;
  static constexpr void add_settings(SettingList& list) { detail::add_settings<X>(list); }

  template <Index D>
  struct Layer {
    using Network = typename X::template Layer<D, 1>;

    template <class W>
    struct Parameters {
      typename Network::template Parameters<W> network;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        Network::template One<W>::for_each(path, Part::feed_forward, f, p.network.experts[0]...);
      }
    };

    template <class T, class M>
    struct Saved {
      typename Network::template Saved<T, M> network;

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B&) {
        network.plan(plan, pass.rows());
      }
    };

    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved) {
      Network::forward(backend, pass, p.network, Dispatch::to_one(x.rows), x, y, saved.network);
    }

    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      Network::backward(backend, pass, p.network, Dispatch::to_one(dy.rows), dy, dx, saved.network, gradients.network);
    }
  };
};

namespace detail {

/// The layer of a mixture's shared expert; without one there is nothing.
template <class S>
struct SharedLayer {
  static constexpr bool present = false;
  template <Index>
  struct Layer {
    template <class>
    struct Parameters {};
    template <class, class>
    struct Saved {};
  };
};
template <class X>
struct SharedLayer<Shared<X>> {
  static constexpr bool present = true;
  template <Index D>
  using Layer = typename Dense<X>::template Layer<D>;
};

}  // namespace detail

/// A router and its experts, and perhaps a shared one.
template <RouterKind R, ExpertKind X, class S = NoShared>
struct Mixture {
  static constexpr Index experts = R::experts, choices = R::choices;
  static constexpr bool has_shared = detail::SharedLayer<S>::present;

  static constexpr void add_settings(SettingList& list) {
    detail::add_settings<R>(list);
    detail::add_settings<X>(list);
    if constexpr (has_shared) detail::add_settings<typename S::Expert>(list);
  }

  template <Index D>
  struct Layer {
    using RouterLayer = typename R::template Layer<D>;
    using Experts = typename X::template Layer<D, experts>;
    using SharedLayer = typename detail::SharedLayer<S>::template Layer<D>;
    static constexpr Index choices = R::choices;
    /// The pairs that N tokens send at most.
    static constexpr Index most_pairs(Index tokens) { return detail::most_pairs<R, RouterLayer>(tokens); }

    template <class W>
    struct Parameters {
      typename RouterLayer::template Parameters<W> gate;
      typename Experts::template Parameters<W> experts;
      typename SharedLayer::template Parameters<W> shared;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        const Path gate_path{&path, "gate"};
        RouterLayer::template Parameters<W>::for_each(gate_path, f, p.gate...);
        Experts::template Parameters<W>::for_each(path, detail::active_experts<R>(), f, p.experts...);
        if constexpr (has_shared) {
          const Path shared_path{&path, "shared_experts"};
          SharedLayer::template Parameters<W>::for_each(shared_path, f, p.shared...);
        }
      }
    };

    template <class T, class M>
    struct Saved {
      typename RouterLayer::template Saved<T, M> router;
      typename Experts::template Saved<T, M> experts;
      typename SharedLayer::template Saved<T, M> shared;
      Dispatch dispatch;
      View<T> x, y;    // (S, D), sorted by expert
      View<T> dx, dy;  // (S, D)
      View<M> dgate;   // (N, K)
      View<T> beside;  // (N, D), the shared expert's y, then its dx
      Index most = 0;  // S at most

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B& backend) {
        const Index tokens = pass.rows();
        most = detail::most_pairs<R, RouterLayer>(tokens);
        router.plan(plan, pass);
        dispatch = {plan.keep<std::int32_t>(1, R::experts + 1), plan.keep<std::int32_t>(tokens, choices),
                    plan.keep<std::int32_t>(1, most)};
        x = plan.keep<T>(most, D);
        y = plan.keep<T>(most, D);
        experts.plan(plan, most);
        if constexpr (has_shared) {
          beside = plan.scratch<T>(tokens, D);
          shared.plan(plan, pass, backend);
          if constexpr (requires { shared.network.dropout; }) shared.network.dropout = random_site::shared_dropout;
        }
        if (plan.purpose() == Plan::Purpose::inference) return;
        dx = plan.scratch<T>(most, D);
        dy = plan.scratch<T>(most, D);
        dgate = plan.scratch<M>(tokens, choices);
      }
      Routing<M>& routing() { return router.routing; }
      const Routing<M>& routing() const { return router.routing; }
    };

    /// y (N, D) = the mixture over x (N, D), plus `residual` (N, D) unless that is empty; the router's losses and the
    /// experts' loads are left in saved.router.routing, if `pass.losses` asks for them.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved, Input<B> residual = {}) {
      Dispatch& dispatch = saved.dispatch;
      dispatch.slots.rows = saved.dgate.rows = saved.beside.rows = x.rows;
      dispatch.pairs.cols = most_pairs(x.rows);
      if constexpr (FewTokenBackend<B>) {
        const bool few = dispatch.size() <= detail::max_fused_pairs<B>;
        if (few && !pass.losses && !pass.training) return decode(backend, pass, p, x, y, saved, residual);
      }
      const auto& routing = saved.router.routing;
      RouterLayer::forward(backend, pass, p.gate, x, saved.router);
      backend.sort_by_expert(routing.selected, dispatch);
      if (pass.losses) RouterLayer::losses(backend, pass, dispatch, saved.router);
      drop_pairs(backend, pass, saved);
      if (pass.losses) backend.launch(1, kernels::Loads{dispatch.offsets, routing.loads});
      run_experts(backend, pass, p, x, y, saved, residual);
      add_shared(backend, pass, p, x, y, saved);
    }

    /// The same in inference for tokens so few that a launch costs more than they do: the router and the experts may do
    /// it in fewer, larger kernels. There is no backward from it.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void decode(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                       Saved<T, M>& saved, Input<B> residual = {}) {
      Dispatch& dispatch = saved.dispatch;
      const auto& routing = saved.router.routing;
      if constexpr (detail::DecodingRouter<RouterLayer, B, W>) {
        RouterLayer::decode(backend, pass, p.gate, x, dispatch, saved.router);
      } else {
        RouterLayer::forward(backend, pass, p.gate, x, saved.router);
        backend.sort_by_expert(routing.selected, dispatch);
      }
      if constexpr (detail::DecodingExperts<Experts, B, W>) {
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
      backend.launch(dy.rows, kernels::CombineBackward<T, M>{dy, saved.y, dispatch.slots, saved.router.routing.gate,
                                                             saved.dy, saved.dgate});
      Experts::backward(backend, pass, p.experts, dispatch, saved.dy, saved.dx, saved.experts, gradients.experts);
      RouterLayer::backward(backend, pass, p.gate, saved.dgate, dx, saved.router, gradients.gate);
      backend.launch(dx.rows, kernels::GatherBackward<T>{saved.dx, dispatch.slots, dx});
      if constexpr (has_shared) {
        SharedLayer::backward(backend, pass, p.shared, dy, saved.beside, saved.shared, gradients.shared);
        rowwise::add(backend, saved.beside, dx);
      }
    }

    /// After an optimizer step: what the router moves by itself.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void after_step(B& backend, const Pass& pass, const Parameters<W>& p, const Parameters<M>& masters,
                           Saved<T, M>& saved) {
      if constexpr (requires { RouterLayer::after_step(backend, pass, p.gate, masters.gate, saved.router); }) {
        RouterLayer::after_step(backend, pass, p.gate, masters.gate, saved.router);
      }
    }

   private:
    /// Takes out of the dispatch what is beyond an expert's capacity, where the router has one and this pass minds it.
    template <Backend B, class T, class M>
    static void drop_pairs(B& backend, const Pass& pass, Saved<T, M>& saved) {
      if constexpr (requires { RouterLayer::drop(backend, pass, saved.dispatch, saved.router); }) {
        if (!RouterLayer::drops(pass)) return;
        RouterLayer::drop(backend, pass, saved.dispatch, saved.router);
        backend.sort_by_expert(saved.router.sent, saved.dispatch);
      }
    }

    /// x̃, ỹ and the choices' sum, once the pairs are sorted.
    template <Backend B, class W, class T, class M>
    static void run_experts(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                            Saved<T, M>& saved, Input<B> residual) {
      const Dispatch& dispatch = saved.dispatch;
      saved.x.rows = saved.y.rows = saved.dx.rows = saved.dy.rows = dispatch.rows;
      backend.launch(x.rows, kernels::Gather<T>{x, dispatch.slots, saved.x});
      Experts::forward(backend, pass, p.experts, dispatch, saved.x, saved.y, saved.experts);
      backend.launch(x.rows, kernels::Combine<T, M>{saved.y, dispatch.slots, saved.router.routing.gate, residual, y});
    }

    /// y += the shared expert's.
    template <Backend B, class W, class T, class M>
    static void add_shared(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                           Saved<T, M>& saved) {
      if constexpr (has_shared) {
        SharedLayer::forward(backend, pass, p.shared, x, saved.beside, saved.shared);
        rowwise::add(backend, saved.beside, y);
      }
    }
  };
};

}  // namespace tinymoe::inline v0_1
