#pragma once
/// @file
/// Sparse upcycling (Komatsuzaki et al. 2022): a mixture that starts as a trained dense model.
///
///     every expert = the dense network;   Σ_k g_k expert_k(x) = network(x), as the gates sum to one
///
/// Embeddings, norms, attention and head are copied as they are, and routers start from the seed of their model. The
/// first logits are then the dense model's, whatever the router chooses. Experts become different because they get
/// different tokens. Until then the cross-entropy gives the routers no gradient: swapping equal experts changes
/// nothing.

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

/// How experts start.
struct UpcycleOptions {
  /// Each weight of an expert's matrices gets a normal number of this deviation, in units of the matrix's root mean
  /// square. 0: experts are exact copies; 0.01 makes them differ sooner and changes the first
  /// logits a little.
  double noise = 0;
  Seed seed = {};

  /// Throws OptionError.
  void check() const { detail::check_options("UpcycleOptions", {{"noise", noise, detail::range::from_0}}); }
};

namespace detail {

/// Whether two layers' parameters have the same tensors in the same order.
template <class P, class Q>
constexpr bool same_shapes() {
  constexpr auto one = segments<P>();
  constexpr auto other = segments<Q>();
  if constexpr (one.size() != other.size()) {
    return false;
  } else {
    for (std::size_t i = 0; i < one.size(); ++i) {
      if (one[i].rows != other[i].rows || one[i].cols != other[i].cols) return false;
    }
    return true;
  }
}

/// An attention with the members of tinymoe's own, which are compared one by one. Of others, both models must have the
/// same type.
template <class A>
concept DescribedAttention = requires {
  A::heads, A::kv_heads, A::window, A::qkv_bias, A::output_bias;
  typename A::Position;
};

/// Experts with the members of tinymoe's own, which are compared one by one. Of others, both models must have the same
/// type.
template <class X>
concept DescribedExpert = requires {
  X::hidden, X::has_bias;
  typename X::Activation;
};

/// Compiles if block `To` can start as the dense block `From` in models of width D; otherwise the error says why not.
template <class From, class To, Index D>
consteval void check_blocks() {
  static_assert(!From::is_mixture, "tinymoe::upcycle: the model to start from must be of DenseBlocks");
  static_assert(std::is_same_v<typename From::Norm, typename To::Norm>,
                "tinymoe::upcycle: the norms of both models must be of one type");
  using A = typename From::AttentionType;
  using C = typename To::AttentionType;
  if constexpr (!std::is_same_v<A, C>) {
    if constexpr (DescribedAttention<A> && DescribedAttention<C>) {
      static_assert(A::heads == C::heads && A::kv_heads == C::kv_heads,
                    "tinymoe::upcycle: Heads and KvHeads of both models must be equal");
      static_assert(A::window == C::window, "tinymoe::upcycle: SlidingWindow of both models must be equal");
      static_assert(A::qkv_bias == C::qkv_bias && A::output_bias == C::output_bias,
                    "tinymoe::upcycle: the biases of both models' attention must be the same");
      static_assert(std::is_same_v<typename A::Position, typename C::Position>,
                    "tinymoe::upcycle: the positions of both models' attention must be of one type");
    } else {
      static_assert(std::is_same_v<A, C>, "tinymoe::upcycle: the attentions of both models must be of one type");
    }
  }
  static_assert(same_shapes<typename A::template Layer<D>::template Parameters<float>,
                            typename C::template Layer<D>::template Parameters<float>>(),
                "tinymoe::upcycle: the attentions of both models must have the same tensors");
  using X = typename From::Expert;
  using Y = typename To::Expert;
  if constexpr (!std::is_same_v<X, Y>) {
    if constexpr (DescribedExpert<X> && DescribedExpert<Y>) {
      static_assert(X::hidden == Y::hidden, "tinymoe::upcycle: Hidden of the network and of the experts must be equal");
      static_assert(X::has_bias == Y::has_bias,
                    "tinymoe::upcycle: the network and the experts must both have biases, or neither");
      static_assert(std::is_same_v<typename X::Activation, typename Y::Activation>,
                    "tinymoe::upcycle: the activations of the network and of the experts must be of one type");
    } else {
      static_assert(std::is_same_v<X, Y>, "tinymoe::upcycle: the network and the experts must be of one type");
    }
  }
  if constexpr (To::is_mixture) {
    static_assert(DenseExpertKind<Y>, "tinymoe::upcycle: the experts must also be able to be a DenseBlock's network");
    using R = typename To::Router;
    static_assert(
        GateSumRouter<R> || !requires { R::gates_sum_to_one; },
        "tinymoe: a router's `gates_sum_to_one` must be a bool");
    if constexpr (GateSumRouter<R>) {
      static_assert(R::gates_sum_to_one,
                    "tinymoe::upcycle: the router's gates must sum to one to start as the dense model; take "
                    "NormalisedGates");
    }
  }
}

/// The same for the models themselves, without their layers.
template <class From, class To>
consteval void check_models() {
  static_assert(From::width == To::width, "tinymoe::upcycle: Width of both models must be equal");
  static_assert(From::vocab == To::vocab, "tinymoe::upcycle: Vocab of both models must be equal");
  static_assert(From::layers == To::layers, "tinymoe::upcycle: both models must have the same number of layers");
  static_assert(From::tied == To::tied, "tinymoe::upcycle: both models must have TiedHead, or neither");
  static_assert(From::head_bias == To::head_bias, "tinymoe::upcycle: both models must have HeadBias, or neither");
  static_assert(From::bigrams == To::bigrams, "tinymoe::upcycle: Bigrams of both models must be equal");
  static_assert(From::per_layer_embeddings == To::per_layer_embeddings,
                "tinymoe::upcycle: both models must have PerLayerEmbeddings, or neither");
  static_assert(
      From::learned_positions == To::learned_positions && (!From::learned_positions || From::context == To::context),
      "tinymoe::upcycle: where positions are learned, Context of both models must be equal");
  static_assert(std::is_same_v<typename From::FinalNormType, typename To::FinalNormType>,
                "tinymoe::upcycle: the last norms of both models must be of one type");
}

/// f(group and number in it of `One`, group and number in it of `Other`) for each layer; only groups that share a layer
/// meet.
template <class One, class Other, class F>
void for_each_layer_pair(F&& f) {
  One::for_each_layer([&](auto group, Index i, Index number) {
    Other::for_each_layer([&](auto other_group, Index j, Index other_number) {
      constexpr std::size_t g = decltype(group)::value, h = decltype(other_group)::value;
      constexpr Index first = One::template first_layer<g>(), other_first = Other::template first_layer<h>();
      if constexpr (first < other_first + std::tuple_element_t<h, typename Other::Groups>::count &&
                    other_first < first + std::tuple_element_t<g, typename One::Groups>::count) {
        if (number == other_number) f(group, i, other_group, j);
      }
    });
  });
}

/// A model's masters as tensors.
template <class ModelType>
auto bound_masters(const ModelType& model) {
  typename ModelType::Architecture::template Parameters<typename ModelType::Master> masters;
  bind_parameters(masters, model.masters().data);
  return masters;
}

/// Copies tensors from one model to another, through the host.
template <class From, class To>
class TensorCopy {
 public:
  TensorCopy(const From& from, To& to, const UpcycleOptions& options) : from_(&from), to_(&to), options_(options) {}

  template <class A, class B>
  void operator()(const ParameterInfo&, const A& from, const B& to) {
    copy(from, to, 0);
  }
  /// The same for a tensor of an expert.
  auto expert() {
    return [this](const ParameterInfo& info, const auto& from, const auto& to) {
      copy(from, to, info.is_vector ? 0 : options_.noise);
    };
  }
  /// Zeroes the tensors of a shared expert that end in the residual stream. Its other tensors stay random, so that it
  /// learns from the first step on.
  auto silence() {
    return [this](const ParameterInfo& info, const auto& to) {
      if (info.initial != Initial::residual) return;
      values_.assign(static_cast<std::size_t>(to.size()), typename To::Master(0));
      to_->backend().copy_to_device(to.data, values_.data(), values_.size() * sizeof(values_[0]));
    };
  }

 private:
  template <class A, class B>
  void copy(const A& from, const B& to, double noise) {
    using M = typename To::Master;
    static_assert(A::rows == B::rows && A::cols == B::cols);
    read_.resize(static_cast<std::size_t>(from.size()));
    values_.resize(read_.size());
    from_->backend().copy_to_host(read_.data(), from.data, read_.size() * sizeof(read_[0]));
    double square = 0;
    for (std::size_t i = 0; i < read_.size(); ++i) {
      values_[i] = static_cast<M>(read_[i]);
      square += std::norm(read_[i]);
    }
    if (noise > 0) {
      const double deviation = noise * std::sqrt(square / static_cast<double>(read_.size()));
      // Step 0 of this site drew the weights that the noise replaces.
      const RandomStream stream(options_.seed, 1, random_site::initialisation);
      const auto offset = static_cast<std::uint64_t>(to.data - to_->masters().data);
      for (std::size_t i = 0; i < values_.size(); ++i) {
        values_[i] += static_cast<M>(deviation * random_normal(stream, offset + i));
      }
    }
    to_->backend().copy_to_device(to.data, values_.data(), values_.size() * sizeof(M));
  }

  const From* from_;
  To* to_;
  UpcycleOptions options_;
  std::vector<typename From::Master> read_;
  std::vector<typename To::Master> values_;
};

}  // namespace detail

/// Makes `mixture` compute what `dense` does (Komatsuzaki et al. 2022): each expert of each MoEBlock is a copy of the
/// dense block's network, shared experts add nothing at first, and everything else is copied, with the
/// settings that change what a model computes: the norms' epsilon and the rotary θ. Special tokens are copied too.
/// Routers keep their weights. Blocks that are dense in both models are copied.
///
/// The architectures must agree in all but experts, routers and, without learned positions, Context; the models may be
/// on different backends. Throws OptionError.
template <class DenseArch, Backend B, class V, class MixtureArch, Backend C, class W>
void upcycle(const Model<DenseArch, B, V>& dense, Model<MixtureArch, C, W>& mixture,
             const UpcycleOptions& options = {}) {
  static_assert(Model<DenseArch, B, V>::has_masters && Model<MixtureArch, C, W>::has_masters,
                "tinymoe::upcycle: both models must have masters; a weight format that is not plain has none");
  detail::check_models<DenseArch, MixtureArch>();
  options.check();
  const auto from = detail::bound_masters(dense);
  const auto to = detail::bound_masters(mixture);
  detail::TensorCopy copy(dense, mixture, options);
  using M = typename C::Master;
  using Weights = typename MixtureArch::template Parameters<M>;
  const Path path;
  decltype(Weights::embedding)::for_each(path, copy, from.embedding, to.embedding);
  detail::for_each_layer_pair<DenseArch, MixtureArch>([&](auto group, Index i, auto other_group, Index j) {
    using One = typename std::tuple_element_t<decltype(group)::value, typename DenseArch::Groups>::Block;
    using Other = typename std::tuple_element_t<decltype(other_group)::value, typename MixtureArch::Groups>::Block;
    detail::check_blocks<One, Other, DenseArch::width>();
    using Layer = typename Other::template Layer<MixtureArch::width>;
    const auto& a = std::get<decltype(group)::value>(from.layers)[static_cast<std::size_t>(i)];
    const auto& b = std::get<decltype(other_group)::value>(to.layers)[static_cast<std::size_t>(j)];
    Layer::NormLayer::template Parameters<M>::for_each(path, copy, a.attention_norm, b.attention_norm);
    Layer::AttentionLayer::template Parameters<M>::for_each(path, copy, a.attention, b.attention);
    Layer::NormLayer::template Parameters<M>::for_each(path, copy, a.network_norm, b.network_norm);
    if constexpr (Other::is_mixture) {
      using Expert = typename Layer::NetworkLayer::Experts::template One<M>;
      for (const auto& expert : b.network.experts.experts) {
        Expert::for_each(path, Part::expert, copy.expert(), a.network.network.experts[0], expert);
      }
      if constexpr (Other::Network::has_shared) {
        Layer::NetworkLayer::SharedLayer::template Parameters<M>::for_each(path, copy.silence(), b.network.shared);
      }
    } else {
      Layer::NetworkLayer::template Parameters<M>::for_each(path, copy, a.network, b.network);
    }
  });
  decltype(Weights::norm)::for_each(path, copy, from.norm, to.norm);
  const ParameterInfo head = ParameterInfo::vector(path, "lm_head", MixtureArch::vocab, Part::head, Initial::fan_in);
  if constexpr (!MixtureArch::tied) copy(head, from.head, to.head);
  if constexpr (MixtureArch::head_bias) copy(head, from.bias, to.bias);
  for (const Setting* setting : settings_of<DenseArch>()) {
    if (setting->use == SettingUse::always) mixture.settings().set(*setting = dense.settings()[*setting]);
  }
  mixture.special_tokens() = dense.special_tokens();
  mixture.refresh();
}

}  // namespace tinymoe::inline v0_1
