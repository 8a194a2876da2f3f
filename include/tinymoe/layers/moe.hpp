#pragma once
/// @file
/// The mixture of experts, dropless: pairs are sorted by expert, each expert works on its rows, and each token sums its
/// choices in order. No token is padded or dropped, and nothing is added atomically.
///
///     x̃[slot] = x[token of slot];   ỹ = experts(x̃);   y[n] = Σ_k g[n, k] ỹ[slot of (n, k)]
///
/// Backward: dỹ[slot] = g · dy[n];   dg[n, k] = dy[n] · ỹ[slot];   dx[n] = router's dx[n] + Σ_k dx̃[slot of (n, k)]

#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/router.hpp"

namespace tinymoe {

namespace kernels {

/// x̃[slot] = x[token of slot].
template <class T>
struct Gather {
  View<const T> x;  // (N, D)
  View<const std::int32_t> pairs;
  Index choices;
  View<T> sorted;  // (S, D)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index slot) const {
    const T* from = x.row(pairs.data[slot] / choices);
    T* to = sorted.row(slot);
    group.each(x.cols, [=](Index i) { to[i] = from[i]; });
  }
};

/// loads[e] = the pairs that expert e got; one kernel row.
struct Loads {
  View<const std::int32_t> offsets;
  View<std::int32_t> loads;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const std::int32_t* start = offsets.data;
    std::int32_t* to = loads.data;
    group.each(loads.cols, [=](Index e) { to[e] = start[e + 1] - start[e]; });
  }
};

/// y[n] = Σ_k g[n, k] ỹ[slot of (n, k)], in the order of k.
template <class T, class M>
struct Combine {
  View<const T> sorted;  // (S, D)
  View<const std::int32_t> slots;
  View<const M> gate;  // (N, K)
  View<T> y;           // (N, D)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const M* g = gate.row(n);
    const std::int32_t* slot = slots.row(n);
    const Index choices = slots.cols, stride = sorted.stride;
    const T* from = sorted.data;
    T* to = y.row(n);
    if (choices == 2) {  // by far the most common, and then one pass
      const T *first = from + slot[0] * stride, *second = from + slot[1] * stride;
      const M g0 = g[0], g1 = g[1];
      group.each(y.cols, [=](Index i) { to[i] = T(g0 * M(first[i]) + g1 * M(second[i])); });
      return;
    }
    group.each(y.cols, [=](Index i) {
      M total(0);
      for (Index k = 0; k < choices; ++k) total += g[k] * M(from[slot[k] * stride + i]);
      to[i] = T(total);
    });
  }
};

/// dỹ[slot] = g · dy[n] and dg = dy[n] · ỹ[slot], for one slot.
template <class T, class M>
struct CombineBackward {
  View<const T> dy, sorted;
  View<const std::int32_t> pairs;
  View<const M> gate;
  View<T> dsorted;  // (S, D)
  View<M> dgate;    // (N, K)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index slot) const {
    const Index pair = pairs.data[slot], choices = gate.cols;
    const M g = gate.data[pair];
    const T *from = dy.row(pair / choices), *out = sorted.row(slot);
    T* to = dsorted.row(slot);
    const M along = group.sum(dy.cols, [=](Index i) { return M(from[i]) * M(out[i]); });
    group.each(dy.cols, [=](Index i) { to[i] = T(g * M(from[i])); });
    group.once([&] { dgate.data[pair] = along; });
  }
};

/// dx[n] += Σ_k dx̃[slot of (n, k)], in the order of k.
template <class T>
struct GatherBackward {
  View<const T> dsorted;
  View<const std::int32_t> slots;
  View<T> dx;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const std::int32_t* slot = slots.row(n);
    T* to = dx.row(n);
    for (Index k = 0; k < slots.cols; ++k) {
      const T* from = dsorted.row(slot[k]);
      group.each(dx.cols, [=](Index i) { to[i] = T(to[i] + from[i]); });
    }
  }
};

}  // namespace kernels

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
concept ExpertsLayer = requires(B& backend, const typename L::template Parameters<float>& p,
                                typename L::template Parameters<float>& gradients, Plan& plan, Index pairs,
                                typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y,
                                View<const std::int32_t> offsets) {
  saved.plan(plan, pairs);
  L::forward(backend, p, offsets, x, y, saved);
  L::backward(backend, p, offsets, x, y, saved, gradients);
};

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

/// A router and its experts.
template <RouterKind R, ExpertKind X>
struct Mixture {
  static constexpr Index experts = R::experts, choices = R::choices;

  template <Index D>
  struct Layer {
    using RouterLayer = typename R::template Layer<D>;
    using Experts = typename X::template Layer<D, experts>;
    static constexpr Index choices = R::choices;

    template <class T>
    struct Parameters {
      typename RouterLayer::template Parameters<T> gate;
      typename Experts::template Parameters<T> experts;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        const Path gate_path{&path, "gate"};
        RouterLayer::template Parameters<T>::for_each(gate_path, f, p.gate...);
        Experts::template Parameters<T>::for_each(path, choices, f, p.experts...);
      }
    };

    template <class T, class M>
    struct Saved {
      typename RouterLayer::template Saved<T, M> router;
      typename Experts::template Saved<T, M> experts;
      Dispatch dispatch;
      View<T> x, y;    // (S, D), sorted by expert
      View<T> dx, dy;  // (S, D)
      View<M> dgate;   // (N, K)

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B&) {
        const Index tokens = pass.rows(), pairs = tokens * choices;
        router.plan(plan, pass);
        dispatch = {plan.keep<std::int32_t>(1, R::experts + 1), plan.keep<std::int32_t>(tokens, choices),
                    plan.keep<std::int32_t>(1, pairs)};
        x = plan.keep<T>(pairs, D);
        y = plan.keep<T>(pairs, D);
        experts.plan(plan, pairs);
        if (plan.purpose() == Plan::Purpose::inference) return;
        dx = plan.scratch<T>(pairs, D);
        dy = plan.scratch<T>(pairs, D);
        dgate = plan.scratch<M>(tokens, choices);
      }
      const Routing<M>* routing() const { return &router.routing; }
    };

    /// y (N, D) = the mixture over x (N, D); the router's losses are left in saved.router.routing.losses.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved) {
      const Index pairs = x.rows * choices;
      saved.dispatch.slots.rows = saved.dgate.rows = x.rows;
      saved.dispatch.pairs.cols = saved.x.rows = saved.y.rows = saved.dx.rows = saved.dy.rows = pairs;
      const Dispatch& dispatch = saved.dispatch;
      RouterLayer::forward(backend, pass, p.gate, x, saved.router);
      backend.sort_by_expert(saved.router.routing.selected, dispatch);
      backend.launch(1, kernels::Loads{dispatch.offsets, saved.router.routing.loads});
      RouterLayer::losses(backend, pass, dispatch, saved.router);
      backend.launch(pairs, kernels::Gather<T>{x, dispatch.pairs, choices, saved.x});
      Experts::forward(backend, p.experts, dispatch.offsets, saved.x, saved.y, saved.experts);
      backend.launch(x.rows, kernels::Combine<T, M>{saved.y, dispatch.slots, saved.router.routing.gate, y});
    }

    /// Overwrites dx, which must not be dy; adds to the gradients.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> dy, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const Dispatch& dispatch = saved.dispatch;
      backend.launch(dispatch.size(), kernels::CombineBackward<T, M>{dy, saved.y, dispatch.pairs,
                                                                     saved.router.routing.gate, saved.dy, saved.dgate});
      Experts::backward(backend, p.experts, dispatch.offsets, saved.dy, saved.dx, saved.experts, gradients.experts);
      RouterLayer::backward(backend, pass, p.gate, saved.dgate, dx, saved.router, gradients.gate);
      backend.launch(dx.rows, kernels::GatherBackward<T>{saved.dx, dispatch.slots, dx});
    }
  };
};

/// One expert for all tokens: the feed-forward layer of a dense block, with the same interface as a mixture.
template <DenseExpertKind X>
struct Dense {
  static constexpr Index experts = 1, choices = 1;

  template <Index D>
  struct Layer {
    using Network = typename X::template Layer<D, 1>;

    template <class T>
    struct Parameters {
      typename Network::template Parameters<T> network;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        Network::template One<T>::for_each(path, Part::feed_forward, f, p.network.experts[0]...);
      }
    };

    template <class T, class M>
    struct Saved {
      typename Network::template Saved<T, M> network;
      View<std::int32_t> offsets;  // (1, 2): 0, N

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B&) {
        offsets = plan.persist<std::int32_t>(1, 2);
        network.plan(plan, pass.rows());
      }
      const Routing<M>* routing() const { return nullptr; }
    };

    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass&, const Parameters<T>& p, Input<B> x, Output<B> y, Saved<T, M>& saved) {
      const std::int32_t ends[2] = {0, static_cast<std::int32_t>(x.rows)};
      backend.copy_to_device(saved.offsets.data, ends, sizeof(ends));
      Network::forward(backend, p.network, saved.offsets, x, y, saved.network);
    }

    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass&, const Parameters<T>& p, Input<B> dy, Output<B> dx, Saved<T, M>& saved,
                         Parameters<M>& gradients) {
      Network::backward(backend, p.network, saved.offsets, dy, dx, saved.network, gradients.network);
    }
  };
};

}  // namespace tinymoe
