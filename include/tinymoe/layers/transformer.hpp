#pragma once
/// @file
/// The whole model:  x₀ = embedding(tokens);  x_{l+1} = block_l(x_l);  z = norm(x_L);  logits = z Wᵀ_head + b
///
/// With PerLayerEmbeddings a block's input is x_l + E_l[tokens], for l > 0.
///
/// tokens (1, N); x, z (N, D); logits (N, V). W_head is the embedding's matrix where the head is tied.
///
/// Over 300 lines: a pass of the whole model, from tokens to gradients, is read in one place.

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/block.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/embedding.hpp"
#include "tinymoe/layers/loss.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The dropout masks of the embedding.
inline constexpr RandomSite embedding_dropout = RandomSite::in_layers(1);
}  // namespace random_site

/// Tokens in the vocabulary, V. Required.
template <Index N>
struct Vocab : NumberOption<place::Vocab, N> {};
/// Maximum number of tokens of a sequence, C. Required.
template <Index N>
struct Context : NumberOption<place::Context, N> {};
/// Width of the residual stream, D. Required.
template <Index N>
struct Width : NumberOption<place::Width, N> {};
/// The head is the embedding's matrix.
struct TiedHead {
  using Place = place::Head;
  static constexpr bool value = true;
};
/// The head has a matrix of its own; the default.
struct UntiedHead {
  using Place = place::Head;
  static constexpr bool value = false;
};
/// A bias on the logits.
struct HeadBias {
  using Place = place::HeadBias;
  static constexpr bool value = true;
};
/// A table of R vectors for pairs of successive tokens, hashed; a token's is added to its own vector. It costs memory
/// and no product. No architecture of the hub has it.
template <Index R>
struct Bigrams : NumberOption<place::Bigrams, R> {
  static_assert(R >= 1, "tinymoe::Transformer: Bigrams must be 1 or more rows");
};
/// A table of vectors for tokens for each block but the first, which adds them to its input; they cost memory and no
/// product. Gemma 3n's per-layer embeddings are wider and pass a gate; no architecture of the hub has these.
struct PerLayerEmbeddings {
  using Place = place::PerLayerEmbeddings;
  static constexpr bool value = true;
};
/// The norm before the head; by default the last block's.
template <NormKind N>
struct FinalNorm {
  using Place = place::FinalNorm;
  using Type = N;
};

namespace detail {

template <class Option>
inline constexpr bool is_layers = InPlace<place::Layers, Option>;

/// The groups of layers among the options, in order, as a tuple.
template <class Option>
using GroupTuple = std::conditional_t<is_layers<Option>, std::tuple<Option>, std::tuple<>>;
template <class... Options>
using Groups = decltype(std::tuple_cat(std::declval<GroupTuple<Options>>()...));

template <class Groups>
inline constexpr Index total_layers = 0;
template <class... Group>
inline constexpr Index total_layers<std::tuple<Group...>> = (Group::count + ... + 0);

}  // namespace detail

/// A language model as a type: Transformer<Vocab<V>, Context<C>, Width<D>, Layers<n, Block>…, TiedHead | UntiedHead,
/// HeadBias, FinalNorm<N>, Bigrams<R>, PerLayerEmbeddings>. Several groups of layers stand in order.
template <class... Options>
struct Transformer {
  using Known = KnownPlaces<place::Vocab, place::Context, place::Width, place::Head, place::HeadBias, place::FinalNorm,
                            place::Bigrams, place::PerLayerEmbeddings, place::Layers>;
  using KnownOnce = KnownPlaces<place::Vocab, place::Context, place::Width, place::Head, place::HeadBias,
                                place::FinalNorm, place::Bigrams, place::PerLayerEmbeddings>;
  static_assert(Known::know_all<Options...>,
                "tinymoe::Transformer: unknown option; it takes Vocab, Context, Width, Layers (one or more), TiedHead, "
                "UntiedHead, HeadBias, FinalNorm, Bigrams and PerLayerEmbeddings");
  static_assert(KnownOnce::each_once<Options...>, "tinymoe::Transformer: an option is given twice");

  static constexpr Index vocab = option_t<place::Vocab, Vocab<0>, Options...>::value;
  static constexpr Index context = option_t<place::Context, Context<0>, Options...>::value;
  static constexpr Index width = option_t<place::Width, Width<0>, Options...>::value;
  static_assert(vocab > 0, "tinymoe::Transformer: Vocab is missing; give Vocab<V> with V of 1 or more");
  static_assert(context > 0, "tinymoe::Transformer: Context is missing; give Context<C> with C of 1 or more tokens");
  static_assert(width > 0, "tinymoe::Transformer: Width is missing; give Width<D> with D of 1 or more");

  using Groups = detail::Groups<Options...>;
  static constexpr Index layers = detail::total_layers<Groups>;
  static_assert(layers > 0, "tinymoe::Transformer: Layers is missing; give Layers<n, MoEBlock<...>> at least once");
  static constexpr bool tied = option_t<place::Head, UntiedHead, Options...>::value;
  static constexpr Index bigrams = option_t<place::Bigrams, NumberOption<place::Bigrams, 0>, Options...>::value;
  static constexpr bool per_layer_embeddings = option_t<place::PerLayerEmbeddings, detail::NotGiven, Options...>::value;
  static_assert(!per_layer_embeddings || layers > 1,
                "tinymoe::Transformer: PerLayerEmbeddings need two layers or more");
  static constexpr bool head_bias = option_t<place::HeadBias, detail::NotGiven, Options...>::value;

 private:
  static constexpr Index D = width;
  /// The norm of the last block. Without a block it is any norm; an assertion has failed by then.
  template <class Groups>
  struct LastNorm {
    using Type = RmsNorm;
  };
  template <class... Group>
  requires(sizeof...(Group) > 0) struct LastNorm<std::tuple<Group...>> {
    using Type = typename std::tuple_element_t<sizeof...(Group) - 1, std::tuple<Group...>>::Block::Norm;
  };

  template <class Groups>
  struct Stack;
  template <class... Group>
  struct Stack<std::tuple<Group...>> {
    static constexpr bool learned_positions = (Group::Block::AttentionType::learned_positions || ...);
    static constexpr bool has_mixtures = (Group::Block::is_mixture || ...);
    static constexpr bool has_moving_routers = (BlockThatMovesByItself<typename Group::Block> || ...);
    template <class W>
    using Parameters =
        std::tuple<std::array<typename Group::Block::template Layer<D>::template Parameters<W>, Group::count>...>;
    template <class T, class M>
    using Saved =
        std::tuple<std::array<typename Group::Block::template Layer<D>::template Saved<T, M>, Group::count>...>;
  };

 public:
  static constexpr bool learned_positions = Stack<Groups>::learned_positions;
  using FinalNormType =
      typename option_t<place::FinalNorm, FinalNorm<typename LastNorm<Groups>::Type>, Options...>::Type;
  using EmbeddingLayer =
      detail::Embedding<vocab, D, context, learned_positions, bigrams, per_layer_embeddings ? layers - 1 : 0>;
  using NormLayer = typename FinalNormType::template Layer<D>;
  template <std::size_t group>
  using BlockLayer = typename std::tuple_element_t<group, Groups>::Block::template Layer<D>;

  /// Adds the settings of all parts; `settings_of` gives the list.
  static constexpr void add_settings(SettingList& list) {
    list.add(setting::dropout);  // of the embeddings
    detail::add_settings<FinalNormType>(list);
    for_each_group(
        [&](auto group, Index) { detail::add_settings<typename std::tuple_element_t<group, Groups>::Block>(list); });
  }

  /// The number of a group's first layer.
  template <std::size_t group>
  static constexpr Index first_layer() {
    Index first = 0;
    for_each_group([&](auto g, Index number) {
      if (g == group) first = number;
    });
    return first;
  }

  /// f(integral constant of the group, the layer's number in its group, its number in the model) for each layer.
  template <class F>
  static constexpr void for_each_layer(F&& f) {
    for_each_group([&](auto group, Index first) {
      for (Index i = 0; i < std::tuple_element_t<group, Groups>::count; ++i) f(group, i, first + i);
    });
  }

  /// Whether a block of the model is a mixture.
  static constexpr bool has_mixtures = Stack<Groups>::has_mixtures;
  static constexpr bool has_moving_routers = Stack<Groups>::has_moving_routers;
  /// The maximum number of pairs that a layer sends for N tokens; N where there is no mixture.
  static constexpr Index max_pairs(Index tokens) {
    Index most = tokens;
    for_each_group([&](auto group, Index) {
      using Layer = BlockLayer<group>;
      if constexpr (Layer::is_mixture) most = std::max(most, Layer::NetworkLayer::max_pairs(tokens));
    });
    return most;
  }

  /// All tensors of the model, in the order of the layers.
  template <class W>
  struct Parameters {
    typename EmbeddingLayer::template Parameters<W> embedding;
    typename Stack<Groups>::template Parameters<W> layers;
    typename NormLayer::template Parameters<W> norm;
    std::conditional_t<tied, NoTensor, Tensor<MatrixOf<W, Part::head>, vocab, width>> head;  // (V, D)
    std::conditional_t<head_bias, Tensor<VectorOf<W>, 1, vocab>, NoTensor> bias;             // (V)

    template <class F, class... P>
    static constexpr void for_each(const Path& root, F&& f, P&... p) {
      const Path model{&root, "model"}, norm_path{&model, "norm"};
      EmbeddingLayer::template Parameters<W>::for_each(model, f, p.embedding...);
      for_each_layer([&](auto group, Index i, Index number) {
        const Path layer{&model, "layers", number};
        [[maybe_unused]] const auto at = static_cast<std::size_t>(i);
        BlockLayer<group>::template Parameters<W>::for_each(layer, f, std::get<group>(p.layers)[at]...);
      });
      NormLayer::template Parameters<W>::for_each(norm_path, f, p.norm...);
      if constexpr (!tied)
        f(ParameterInfo::matrix(root, "lm_head.weight", vocab, width, Part::head, Initial::fan_in), p.head...);
      if constexpr (head_bias)
        f(ParameterInfo::vector(root, "lm_head.bias", vocab, Part::head, Initial::zeros), p.bias...);
    }

    /// The head's matrix (V, D); the embedding's where the head is tied.
    const auto& head_matrix() const {
      if constexpr (tied) {
        return embedding.weight;
      } else {
        return head;
      }
    }
  };

  /// What backward reads, of all layers.
  template <class T, class M>
  struct Saved {
    std::array<PerRow<T>, static_cast<std::size_t>(layers + 1)>
        x;  // the input of each block, and the last output: (N, D)
    typename Stack<Groups>::template Saved<T, M> blocks;
    typename NormLayer::template Saved<T, M> norm;
    PerRow<T> normed;    // z (N, D)
    PerRow<T> gradient;  // (N, D)
    detail::HeadScratch<T, M> head;
    typename EmbeddingLayer::Saved embedding;
    View<M> losses;  // (1, N)

    template <Backend B>
    void plan(Plan& plan, const Pass& pass, const B& backend) {
      for (auto& activations : x) activations = plan.keep<T>(pass.rows(), D);
      normed = plan.keep<T>(pass.rows(), D);
      norm.plan(plan, pass);
      losses = plan.keep<M>(1, pass.rows());
      if (plan.purpose() == Plan::Purpose::training) gradient = plan.scratch<T>(pass.rows(), D);
      {
        const Plan::Frame frame(plan);
        embedding.plan(plan, pass);
      }
      // Nothing is kept after the blocks: those that are computed again lie over one another, and over what follows.
      for_each_block(*this, [&](auto&, auto& block, Index) {
        if (!pass.recompute) return block.plan(plan, pass, backend);
        const Plan::Overlay overlay(plan);
        block.plan(plan, pass, backend);
      });
      const Plan::Frame frame(plan);
      if (plan.purpose() == Plan::Purpose::training) head.plan(plan, pass, vocab, head_bias, backend);
    }
  };

  /// Runs the blocks and the last norm; the result, z (N, D), is `saved.normed`. With `pass.recompute`, which
  /// `saved` must be planned for, only the blocks' inputs are kept.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void forward(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens,
                      Saved<T, M>& saved) {
    run(backend, pass, p, tokens, saved,
        [&](auto layer, const Pass& here, const auto& parameters, auto& block, Index i) {
          decltype(layer)::type::forward(backend, here, parameters, saved.x[at(i)](pass.rows()),
                                         saved.x[at(i + 1)](pass.rows()), block);
        });
  }

  /// `forward` that shows results as soon as they are there: look(operation, number of the layer or −1, values). For
  /// finding a fault.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master, class Look>
  [[gnu::cold]] static void forward_and_look(B& backend, const Pass& pass, const Parameters<W>& p,
                                             View<const Token> tokens, Saved<T, M>& saved, Look&& look) {
    const Index n = pass.rows();
    run(backend, pass, p, tokens, saved,
        [&](auto layer, const Pass& here, const auto& parameters, auto& block, Index i) {
          using Layer = typename decltype(layer)::type;
          const View<T> x = saved.x[at(i)](n), y = saved.x[at(i + 1)](n);
          if (i == 0) look("the embedding", -1, x);
          Layer::forward(backend, here, parameters, x, y, block);
          if constexpr (requires { block.normed(n), block.middle(n), block.network_normed(n); }) {
            look("the norm before the attention", i, block.normed(n));
            look("the attention", i, block.middle(n));
            look(Layer::is_mixture ? "the norm before the router" : "the norm before the feed-forward network", i,
                 block.network_normed(n));
          }
          if constexpr (Layer::is_mixture) look("the router", i, block.network.routing().gate);
          look(Layer::is_mixture ? "the experts" : "the feed-forward network", i, y);
        });
    look("the last norm", -1, saved.normed(n));
  }

  /// `forward` for new tokens of sequences whose earlier tokens are in `caches`, one for each layer; `probability` is
  /// scratch. Routers write neither losses nor loads.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master, class Caches>
  static void forward_cached(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens,
                             Saved<T, M>& saved, const Caches& caches, MasterOutput<B> probability) {
    Pass decoding = pass;
    decoding.losses = false;
    run(backend, decoding, p, tokens, saved,
        [&](auto layer, const Pass& here, const auto& parameters, auto& block, Index i) {
          decltype(layer)::type::forward_cached(backend, here, parameters, saved.x[at(i)](pass.rows()),
                                                saved.x[at(i + 1)](pass.rows()), block, caches[at(i)], probability);
        });
  }

  /// logits (n, V) of rows z (n, D).
  template <Backend B, class W, class T = typename B::Scalar>
  static void logits(B& backend, const Parameters<W>& p, Input<B> normed, Output<B> logits) {
    backend.matmul(normed, p.head_matrix().weights(), p.bias, logits);
  }

  /// saved.losses = each token's cross-entropy in nats; forward comes first.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void loss(B& backend, const Parameters<W>& p, View<const Token> targets, Saved<T, M>& saved) {
    detail::head_loss(backend, p.head_matrix().weights(), p.bias, saved.normed(targets.cols), targets, saved.losses,
                      saved.head);
  }

  /// The losses, and the gradients of `scale` · Σ losses + the weighted router losses, added to `gradients`.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void loss_and_backward(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens,
                                View<const Token> targets, double scale, Saved<T, M>& saved, Parameters<M>& gradients) {
    const auto dx = saved.gradient(pass.rows());
    detail::head_loss_and_gradient(backend, p.head_matrix().weights(), p.bias, saved.normed(pass.rows()), targets,
                                   scale, saved.losses, dx, gradients.head_matrix(), gradients.bias, saved.head);
    NormLayer::backward(backend, pass, p.norm, dx, dx, saved.norm, gradients.norm);
    pass.tell_watch(layers);
    for_each_block_backwards([&](auto group, Index i, Index number) {
      auto& block = std::get<group>(saved.blocks)[at(i)];
      const auto& parameters = std::get<group>(p.layers)[at(i)];
      Pass here = pass;
      here.layer = number;
      if (pass.recompute && number + 1 < layers) {  // the last block's activations are still there
        here.second_run = true;
        BlockLayer<group>::forward(backend, here, parameters, saved.x[at(number)](pass.rows()),
                                   saved.x[at(number + 1)](pass.rows()), block);
      }
      BlockLayer<group>::backward(backend, here, parameters, dx, dx, block, std::get<group>(gradients.layers)[at(i)]);
      pass.tell_watch(number);
      if constexpr (per_layer_embeddings) {
        if (number > 0) {
          EmbeddingLayer::backward_layer(backend, number, tokens, dx, saved.embedding, gradients.embedding);
        }
      }
    });
    if (const auto dropout = embedding_dropout(pass); dropout.active()) rowwise::dropout(backend, dropout, dx, dx);
    EmbeddingLayer::backward(backend, pass, tokens, dx, saved.embedding, gradients.embedding);
  }

  /// After an optimizer step: lets routers move what no gradient trains, in the masters and in the weights that layers
  /// read. `pass` is that of the step's last micro-batch.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void after_step(B& backend, const Pass& pass, const Parameters<W>& p, const Parameters<M>& masters,
                         Saved<T, M>& saved) {
    for_each_layer([&](auto group, Index i, Index) {
      BlockLayer<group>::after_step(backend, pass, std::get<group>(p.layers)[at(i)],
                                    std::get<group>(masters.layers)[at(i)], std::get<group>(saved.blocks)[at(i)]);
    });
  }

  /// f(type of the block's layer, its saved state, its number) in order.
  template <class S, class F>
  static void for_each_block(S& saved, F&& f) {
    for_each_layer([&](auto group, Index i, Index number) {
      std::type_identity<BlockLayer<group>> layer;
      f(layer, std::get<group>(saved.blocks)[at(i)], number);
    });
  }

  /// f(the mixture's saved state, the number of its layer) for each block that is a mixture, in order.
  template <class S, class F>
  static void for_each_mixture(S& saved, F&& f) {
    for_each_block(saved, [&](auto layer, auto& block, Index number) {
      if constexpr (decltype(layer)::type::is_mixture) f(block.network, number);
    });
  }

 private:
  static Dropout embedding_dropout(const Pass& pass) {
    return pass.dropout(random_site::embedding_dropout, pass.settings[setting::dropout], pass.rows());
  }
  static constexpr std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  template <class F>
  static constexpr void for_each_group(F&& f) {
    [&]<std::size_t... g>(std::index_sequence<g...>) {
      Index first = 0;
      ((f(std::integral_constant<std::size_t, g>{}, first), first += std::tuple_element_t<g, Groups>::count), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<Groups>>{});
  }

  template <class F>
  static void for_each_block_backwards(F&& f) {
    constexpr std::size_t groups = std::tuple_size_v<Groups>;
    [&]<std::size_t... g>(std::index_sequence<g...>) {
      (
          [&] {
            constexpr std::size_t group = groups - 1 - g;
            constexpr Index first = first_layer<group>();
            for (Index i = std::tuple_element_t<group, Groups>::count; i-- > 0;) {
              f(std::integral_constant<std::size_t, group>{}, i, first + i);
            }
          }(),
          ...);
    }
    (std::make_index_sequence<groups>{});
  }

  template <Backend B, class W, class T, class M, class Run>
  static void run(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens, Saved<T, M>& saved,
                  Run&& run_block) {
    const View<T> first = saved.x[0](pass.rows());
    EmbeddingLayer::forward(backend, pass, p.embedding, tokens, first, saved.embedding);
    if (const auto dropout = embedding_dropout(pass); dropout.active()) {
      rowwise::dropout(backend, dropout, first, first);
    }
    for_each_layer([&](auto group, Index i, Index number) {
      Pass here = pass;
      here.layer = number;
      if constexpr (per_layer_embeddings) {
        if (number > 0) {
          EmbeddingLayer::forward_layer(backend, p.embedding, number, tokens, saved.x[at(number)](pass.rows()));
        }
      }
      run_block(std::type_identity<BlockLayer<group>>{}, here, std::get<group>(p.layers)[at(i)],
                std::get<group>(saved.blocks)[at(i)], number);
    });
    NormLayer::forward(backend, pass, p.norm, saved.x[at(layers)](pass.rows()), saved.normed(pass.rows()), saved.norm);
  }
};

}  // namespace tinymoe::inline v0_1
