#pragma once
/// @file
/// What the parts of a model must have and may have: a norm, an attention, a router, experts, a block. Each is a type
/// with a nested `Layer`, which has the functions over explicit data. The concepts check it for float and a width of 8.
///
/// | part | must have | may have |
/// |---|---|---|
/// | norm | NormKind | AddingNorm, ResidualNorm |
/// | attention | AttentionKind | CachingAttention |
/// | router | RouterKind | CapacityRouter, MovingRouter, BoundedRouter, DecodingRouter, CountingRouter, GateSumRouter |
/// | experts | ExpertKind | DenseExpertKind, DecodingExperts |
/// | block | BlockKind | |
///
/// Any part may have a `name`, which config.json says, and `settings` (layers/settings.hpp). A backend's contract is in
/// backend/backend.hpp and capabilities.hpp, an optimizer's in train/optimizer_step.hpp, a schedule's in
/// train/schedule.hpp, a weight format's in core/weights.hpp.
///
/// An optional member with the right name and a wrong signature is a compile error. A misspelt name goes unnoticed, so
/// assert below a part what it has: `static_assert(AddingNorm<MyNorm>)`.
///
/// Over 300 lines: all contracts stand where a reader looks first.

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/cached_attention.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// A router with fewer experts for a token, on average, than `choices`: `active` says how many. Optional.
template <class R>
concept CountingRouter = requires {
  { R::active } -> std::convertible_to<Index>;
};
/// A router that says whether a token's gates sum to one. Where it is false, a dense model cannot become the mixture
/// (checkpoint/upcycle.hpp). Optional.
template <class R>
concept GateSumRouter = requires {
  { R::gates_sum_to_one } -> std::convertible_to<bool>;
};

namespace detail {

// Each concept of a layer L says how its functions are called. p are its parameters; `saved` is what it keeps for
// backward, planned for the largest pass. x and y (N, D). Activation gradients are overwritten, parameter gradients are
// added to.

/// The names of layers' optional members. In a class that derives from this and from L, a name is ambiguous where L has
/// it too, with whatever signature. That distinguishes a wrong member from a missing one.
struct OptionalLayerNames {
  static int add_and_forward, backward_and_add, forward_cached, within_capacity, after_step, max_pairs, decode;
};
template <class L>
struct WithOptionalLayerNames : L, OptionalLayerNames {};

/// y = norm(x). In backward dx may be dy.
template <class L, class B = DeclaredBackend>
concept NormContract = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                typename L::template Parameters<float>& gradients, Plan& plan,
                                typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y) {
  saved.plan(plan, pass);
  L::forward(backend, pass, p, x, y, saved);
  L::backward(backend, pass, p, x, y, saved, gradients);
};

/// sum += residual, then y = norm(sum), in one pass over memory.
template <class L, class B = DeclaredBackend>
concept AddingNormLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                   typename L::template Saved<float, float>& saved, Input<B> residual, Output<B> sum,
                                   Output<B> y) {
  L::add_and_forward(backend, pass, p, residual, sum, y, saved);
};

/// dx = the gradient through the norm + `beside`, the gradient of a residual connection; dx may be `beside`.
template <class L, class B = DeclaredBackend>
concept ResidualNormLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                     typename L::template Parameters<float>& gradients,
                                     typename L::template Saved<float, float>& saved, Input<B> dy, Input<B> beside,
                                     Output<B> dx) {
  L::backward_and_add(backend, pass, p, dy, beside, dx, saved, gradients);
};

/// y = attention(x) over B sequences of T tokens.
template <class L, class B = DeclaredBackend>
concept AttentionContract = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                     typename L::template Parameters<float>& gradients, Plan& plan,
                                     typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y) {
  saved.plan(plan, pass, backend);
  L::forward(backend, pass, p, x, y, saved);
  L::backward(backend, pass, p, x, y, saved, gradients);
};

/// Attention of new tokens to those in a KV cache, in which they store their own keys and values. Decoding needs it.
template <class L, class B = DeclaredBackend>
concept CachingAttentionLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                         typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y,
                                         const KvCache<float>& cache, MasterOutput<B> probability, Index n) {
  L::forward_cached(backend, pass, p, x, y, saved, cache, probability);
  { L::cache_rows(n, n) } -> std::convertible_to<Index>;  // of a context and a pass's maximum of tokens
  { L::visible(n) } -> std::convertible_to<Index>;        // keys that position n sees
  { L::shape(pass) } -> std::convertible_to<AttentionShape>;
};

/// Chooses experts and gates for x (N, D). `forward` fills `saved.routing`, which has N rows; `losses` fills its losses
/// once the pairs are sorted. `backward` gets dgate (N, K), and adds the gradients of the weighted losses.
template <class L, class B = DeclaredBackend>
concept RouterContract = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                  typename L::template Parameters<float>& gradients, Plan& plan,
                                  const Dispatch& dispatch, typename L::template Saved<float, float>& saved, Input<B> x,
                                  MasterInput<B> dgate, Output<B> dx) {
  saved.plan(plan, pass);
  { saved.routing } -> std::convertible_to<Routing<float>>;
  L::forward(backend, pass, p, x, saved);
  L::losses(backend, pass, dispatch, saved);
  L::backward(backend, pass, p, dgate, dx, saved, gradients);
};

/// The choices (N, K) within the experts' capacity, from the sorted pairs; an empty view: all choices are.
template <class L, class B = DeclaredBackend>
concept CapacityRouterLayer = requires(B& backend, const Pass& pass, const Dispatch& dispatch,
                                       typename L::template Saved<float, float>& saved) {
  { L::within_capacity(backend, pass, dispatch, saved) } -> std::convertible_to<View<const std::int32_t>>;
};

/// After an optimizer step, moves the tensors that no gradient trains (`ParameterInfo::trained`), in masters and in p.
template <class L, class B = DeclaredBackend>
concept MovingRouterLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                     typename L::template Saved<float, float>& saved) {
  L::after_step(backend, pass, p, p, saved);
};

/// The maximum number of pairs that N tokens send, where that is not N·K.
template <class L>
concept BoundedRouterLayer = requires(Index tokens) {
  { L::max_pairs(tokens) } -> std::convertible_to<Index>;
};

/// Chooses experts for few tokens and sorts the pairs, in one call, with weights of type W.
template <class L, class B = DeclaredBackend, class W = float>
concept DecodingRouterLayer = requires(B& backend, const Pass& pass, const typename L::template Parameters<W>& p,
                                       typename L::template Saved<typename B::Scalar, typename B::Master>& saved,
                                       Input<B> x, Dispatch& dispatch) {
  L::decode(backend, pass, p, x, dispatch, saved);
};

/// y (S, D) = each expert's network over its rows of x (S, D), which are sorted by expert.
template <class L, class B = DeclaredBackend>
concept ExpertsContract = requires(B& backend, const Pass& pass, const typename L::template Parameters<float>& p,
                                   typename L::template Parameters<float>& gradients, Plan& plan, Index pairs,
                                   typename L::template Saved<float, float>& saved, Input<B> x, Output<B> y,
                                   const Dispatch& dispatch) {
  saved.plan(plan, pairs);
  L::forward(backend, pass, p, dispatch, x, y, saved);
  L::backward(backend, pass, p, dispatch, x, y, saved, gradients);
};

/// Gathers, computes and combines few tokens in one call, with weights of type W: y = residual + Σ_k gate · expert(x).
template <class L, class B = DeclaredBackend, class W = float>
concept DecodingExpertsLayer = requires(B& backend, const typename L::template Parameters<W>& p,
                                        typename L::template Saved<typename B::Scalar, typename B::Master>& saved,
                                        Input<B> x, Input<B> residual, Output<B> y, View<const std::int32_t> selected,
                                        MasterInput<B> gate, const Dispatch& dispatch) {
  L::decode(backend, p, dispatch, selected, gate, x, residual, y, saved);
};

/// True if each optional member that a layer has satisfies its concept; otherwise it does not compile. A final class
/// cannot be checked.
template <class L>
consteval bool check_norm_members() {
  if constexpr (!std::is_final_v<L>) {
    using Names = WithOptionalLayerNames<L>;
    static_assert(
        requires { Names::add_and_forward; } || AddingNormLayer<L>,
        "tinymoe: a norm's `add_and_forward` must be add_and_forward(backend, pass, p, residual, sum, y, saved)");
    static_assert(
        requires { Names::backward_and_add; } || ResidualNormLayer<L>,
        "tinymoe: a norm's `backward_and_add` must be backward_and_add(backend, pass, p, dy, beside, dx, saved, "
        "gradients)");
  }
  return true;
}
template <class L>
consteval bool check_attention_members() {
  if constexpr (!std::is_final_v<L>) {
    using Names = WithOptionalLayerNames<L>;
    static_assert(
        requires { Names::forward_cached; } || CachingAttentionLayer<L>,
        "tinymoe: an attention with a cache has forward_cached(backend, pass, p, x, y, saved, cache, probability), "
        "cache_rows(context, chunk), visible(position) and shape(pass)");
  }
  return true;
}
template <class L>
consteval bool check_router_members() {
  if constexpr (!std::is_final_v<L>) {
    using Names = WithOptionalLayerNames<L>;
    static_assert(
        requires { Names::within_capacity; } || CapacityRouterLayer<L>,
        "tinymoe: a router's `within_capacity` must be View<const std::int32_t> within_capacity(backend, pass, "
        "dispatch, saved)");
    static_assert(
        requires { Names::after_step; } || MovingRouterLayer<L>,
        "tinymoe: a router's `after_step` must be after_step(backend, pass, p, masters, saved)");
    static_assert(
        requires { Names::max_pairs; } || BoundedRouterLayer<L>,
        "tinymoe: a router's `max_pairs` must be Index max_pairs(Index tokens)");
    static_assert(
        requires { Names::decode; } || DecodingRouterLayer<L>,
        "tinymoe: a router's `decode` must be decode(backend, pass, p, x, dispatch, saved)");
  }
  return true;
}
template <class L>
consteval bool check_experts_members() {
  if constexpr (!std::is_final_v<L>) {
    using Names = WithOptionalLayerNames<L>;
    static_assert(
        requires { Names::decode; } || DecodingExpertsLayer<L>,
        "tinymoe: experts' `decode` must be decode(backend, p, dispatch, selected, gate, x, residual, y, saved)");
  }
  return true;
}
template <class L>
inline constexpr bool norm_members_are_right = check_norm_members<L>();
template <class L>
inline constexpr bool attention_members_are_right = check_attention_members<L>();
template <class L>
inline constexpr bool router_members_are_right = check_router_members<L>();
template <class L>
inline constexpr bool experts_members_are_right = check_experts_members<L>();

/// Experts whose `Saved` has the random site of their dropout, so that a shared expert can draw from another site.
template <class Saved>
concept HasDropoutSite = requires(Saved& saved) {
  { saved.dropout } -> std::same_as<RandomSite&>;
};
template <class Saved>
void set_dropout_site(Saved& saved, RandomSite site) {
  static_assert(
      HasDropoutSite<Saved> || !requires { saved.dropout; }, "tinymoe: experts' `Saved::dropout` must be a RandomSite");
  if constexpr (HasDropoutSite<Saved>) saved.dropout = site;
}

/// The maximum number of pairs that N tokens send.
template <class Router, class Layer>
constexpr Index max_pairs(Index tokens) {
  if constexpr (BoundedRouterLayer<Layer>) {
    return Layer::max_pairs(tokens);
  } else {
    return tokens * Router::choices;
  }
}

/// Whether a router obeys `Pass::limit`: it says so.
template <class Router>
constexpr bool limits_experts() {
  if constexpr (requires { Router::limits_experts; }) {
    return Router::limits_experts;
  } else {
    return false;
  }
}

/// The experts of a token, for counting: the router's `active` if it has one, otherwise `choices`.
template <class Router>
constexpr Index active_experts() {
  static_assert(
      CountingRouter<Router> || !requires { Router::active; },
      "tinymoe: a router's `active` must be a number of experts");
  if constexpr (CountingRouter<Router>) {
    return Router::active;
  } else {
    return Router::choices;
  }
}

}  // namespace detail

/// A part with a name for config.json. Without one, config.json has the compiler's name of the type.
template <class P>
concept NamedPart = requires {
  std::string(P::name);
};

/// A norm; `RmsNorm` is the model for one's own (docs/write-your-own.md).
template <class N>
concept NormKind = detail::NormContract<typename N::template Layer<8>> &&
    detail::norm_members_are_right<typename N::template Layer<8>>;
/// A norm that adds a residual first, in the same pass over memory; otherwise a block takes two.
template <class N>
concept AddingNorm = NormKind<N> && detail::AddingNormLayer<typename N::template Layer<8>>;
/// A norm whose backward adds the residual's gradient in the same pass over memory; otherwise a block takes two.
template <class N>
concept ResidualNorm = NormKind<N> && detail::ResidualNormLayer<typename N::template Layer<8>>;

/// An attention. Its `Layer` is checked with the model's own width, since the heads must fit it.
template <class A>
concept AttentionKind = requires {
  { A::learned_positions } -> std::convertible_to<bool>;  // whether the embedding adds learned positions
  { A::window } -> std::convertible_to<Index>;            // 0: all keys are seen
};
/// An attention that a model of width D can decode with.
template <class A, Index D>
concept CachingAttention = AttentionKind<A> && detail::CachingAttentionLayer<typename A::template Layer<D>>;

/// A router of a mixture; `Router<E, K>` is the model for one's own. `choices` is the number of columns of what it
/// selects.
template <class R>
concept RouterKind = requires {
  { R::experts } -> std::convertible_to<Index>;
  { R::choices } -> std::convertible_to<Index>;
}
&&detail::RouterContract<typename R::template Layer<8>>&&
    detail::router_members_are_right<typename R::template Layer<8>>;
/// A router that may drop the pairs beyond an expert's capacity.
template <class R>
concept CapacityRouter = RouterKind<R> && detail::CapacityRouterLayer<typename R::template Layer<8>>;
/// A router that moves something itself after each step.
template <class R>
concept MovingRouter = RouterKind<R> && detail::MovingRouterLayer<typename R::template Layer<8>>;
/// A block whose router does so, each rank of a run by its own tokens: it does not say `moves_alike`, that it goes by
/// Pass::counts. Several ranks cannot train it.
template <class K>
concept BlockThatMovesByItself = requires {
  requires MovingRouter<typename K::Router>;
  requires !requires { requires K::Router::moves_alike; };
};
/// A router that gives the maximum number of pairs of its tokens.
template <class R>
concept BoundedRouter = RouterKind<R> && detail::BoundedRouterLayer<typename R::template Layer<8>>;
/// A router with fewer launches for few tokens.
template <class R>
concept DecodingRouter = RouterKind<R> && detail::DecodingRouterLayer<typename R::template Layer<8>>;

/// The experts of a mixture, checked as a bank of two; `Expert<…>` is the model for one's own.
template <class X>
concept ExpertKind = detail::ExpertsContract<typename X::template Layer<8, 2>> &&
    detail::experts_members_are_right<typename X::template Layer<8, 2>>;
/// Experts that may also be the one network of a dense block: `One` describes the parameters of a single expert.
template <class X>
concept DenseExpertKind = ExpertKind<X> && requires {
  typename X::template Layer<8, 1>::template One<float>;
};
/// Experts with fewer launches for few tokens.
template <class X>
concept DecodingExperts = ExpertKind<X> && detail::DecodingExpertsLayer<typename X::template Layer<8, 2>>;

/// What a group of layers repeats.
template <class K>
concept BlockKind = requires {
  { K::is_mixture } -> std::convertible_to<bool>;
  typename K::Norm;
  typename K::AttentionType;
  typename K::template Layer<8>;
};

}  // namespace tinymoe::inline v0_1
