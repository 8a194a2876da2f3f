#pragma once
/// @file
/// A pre-norm transformer block:  h = x + dropout(attention(norm₁(x)));  y = h + dropout(network(norm₂(h)))
///
/// Dropout acts in training, where `setting::dropout` is above 0. The network is a mixture of experts (MoEBlock) or
/// one feed-forward layer (DenseBlock). x, h, y (N, D)

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/attention.hpp"
#include "tinymoe/layers/cached_attention.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/dense.hpp"
#include "tinymoe/layers/moe.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// Dropout of embeddings and of what a block adds.
inline constexpr Setting dropout{.name = "dropout",
                                 .range = SettingRange::share,
                                 .about = "dropout rate of embeddings and of what a block adds",
                                 .draws = true};
}  // namespace setting

namespace random_site {
/// The dropout masks after attention.
inline constexpr RandomSite residual_dropout = RandomSite::in_layers(3);
/// The dropout masks after the network.
inline constexpr RandomSite network_dropout = RandomSite::in_layers(4);
}  // namespace random_site

namespace detail {

/// A block with attention `A` and network `Net`, which is a Mixture or Dense.
template <NormKind N, AttentionKind A, class Net, bool mixture>
struct Block {
  using Norm = N;
  using AttentionType = A;
  using Network = Net;
  static constexpr bool is_mixture = mixture;

  static constexpr void add_settings(SettingList& list) {
    list.add(setting::dropout);
    detail::add_settings<N>(list);
    detail::add_settings<A>(list);
    detail::add_settings<Net>(list);
  }

  template <Index D>
  struct Layer {
    static constexpr bool is_mixture = mixture;
    using NormLayer = typename N::template Layer<D>;
    using AttentionLayer = typename A::template Layer<D>;
    using NetworkLayer = typename Net::template Layer<D>;

    template <class W>
    struct Parameters {
      typename NormLayer::template Parameters<W> attention_norm;
      typename AttentionLayer::template Parameters<W> attention;
      typename NormLayer::template Parameters<W> network_norm;
      typename NetworkLayer::template Parameters<W> network;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        const Path attention_norm_path{&path, "input_layernorm"}, attention_path{&path, "self_attn"};
        const Path network_norm_path{&path, "post_attention_layernorm"};
        const Path network_path{&path, mixture ? "block_sparse_moe" : "mlp"};
        NormLayer::template Parameters<W>::for_each(attention_norm_path, f, p.attention_norm...);
        AttentionLayer::template Parameters<W>::for_each(attention_path, f, p.attention...);
        NormLayer::template Parameters<W>::for_each(network_norm_path, f, p.network_norm...);
        NetworkLayer::template Parameters<W>::for_each(network_path, f, p.network...);
      }
    };

    template <class T, class M>
    struct Saved {
      typename NormLayer::template Saved<T, M> attention_norm, network_norm;
      typename AttentionLayer::template Saved<T, M> attention;
      typename NetworkLayer::template Saved<T, M> network;
      PerRow<T> normed, middle, network_normed;  // norm₁(x), h, norm₂(h): (N, D)
      PerRow<T> gradient, masked;                // (N, D); masked: dy after dropout

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B& backend) {
        const Index n = pass.rows();
        const Plan::Frame frame(plan);
        normed = plan.keep<T>(n, D);
        middle = plan.keep<T>(n, D);
        network_normed = plan.keep<T>(n, D);
        attention_norm.plan(plan, pass);
        network_norm.plan(plan, pass);
        if (plan.purpose() == Plan::Purpose::training) {
          gradient = plan.scratch<T>(n, D);
          masked = plan.scratch<T>(n, D);
        }
        {
          const Plan::Frame attention_frame(plan);
          attention.plan(plan, pass, backend);
        }
        const Plan::Frame network_frame(plan);
        network.plan(plan, pass, backend);
      }
    };

    /// y = block(x).
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved) {
      static_assert(AttentionContract<AttentionLayer> && attention_members_are_right<AttentionLayer>);
      const auto attend = [&](Input<B> normed, Output<B> out) {
        AttentionLayer::forward(backend, pass, p.attention, normed, out, saved.attention);
      };
      forward_with(backend, pass, p, x, y, saved, attend, [&](Input<B> normed, Output<B> out, auto... residual) {
        NetworkLayer::forward(backend, pass, p.network, normed, out, saved.network, residual...);
      });
    }

    /// The same for new tokens of sequences whose earlier tokens are in `cache`. `probability` is scratch of
    /// `cached_attention_scratch` elements.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward_cached(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                               Saved<T, M>& saved, const KvCache<T>& cache, MasterOutput<B> probability) {
      const auto attend = [&](Input<B> normed, Output<B> out) {
        AttentionLayer::forward_cached(backend, pass, p.attention, normed, out, saved.attention, cache, probability);
      };
      forward_with(backend, pass, p, x, y, saved, attend, [&](Input<B> normed, Output<B> out, auto... residual) {
        if constexpr (mixture) {
          NetworkLayer::forward_cached(backend, pass, p.network, normed, out, saved.network, residual...);
        } else {
          NetworkLayer::forward(backend, pass, p.network, normed, out, saved.network);
        }
      });
    }

    /// Overwrites dx, which may be dy; adds to the gradients.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const auto branch = saved.gradient(dy.rows);
      const auto network_dy = masked(backend, network_dropout(pass), dy, saved);
      NetworkLayer::backward(backend, pass, p.network, network_dy, branch, saved.network, gradients.network);
      norm_and_add(backend, pass, p.network_norm, branch, dy, dx, saved.network_norm, gradients.network_norm);
      // dx holds dh
      const auto attention_dy = masked(backend, attention_dropout(pass), dx, saved);
      AttentionLayer::backward(backend, pass, p.attention, attention_dy, branch, saved.attention, gradients.attention);
      norm_and_add(backend, pass, p.attention_norm, branch, dx, dx, saved.attention_norm, gradients.attention_norm);
    }

    /// After an optimizer step: lets the router move what no gradient trains.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void after_step(B& backend, const Pass& pass, const Parameters<W>& p, const Parameters<M>& masters,
                           Saved<T, M>& saved) {
      if constexpr (mixture) NetworkLayer::after_step(backend, pass, p.network, masters.network, saved.network);
    }

   private:
    static Dropout attention_dropout(const Pass& pass) {
      return pass.dropout(random_site::residual_dropout, pass.settings[setting::dropout], pass.rows());
    }
    static Dropout network_dropout(const Pass& pass) {
      return pass.dropout(random_site::network_dropout, pass.settings[setting::dropout], pass.rows());
    }
    /// dy behind the branch's dropout mask.
    template <Backend B, class T, class M>
    static Input<B> masked(B& backend, const Dropout& dropout, Input<B> dy, Saved<T, M>& saved) {
      if (!dropout.active()) return dy;
      const auto masked = saved.masked(dy.rows);
      rowwise::dropout(backend, dropout, dy, masked);
      return masked;
    }

    /// dx = the gradient through the norm + `beside`, in one pass over memory where the norm can. `branch` has the
    /// gradient of the norm's result.
    template <Backend B, class Own, class OwnSaved, class OwnGradients>
    static void norm_and_add(B& backend, const Pass& pass, const Own& p, Output<B> branch, Input<B> beside,
                             Output<B> dx, OwnSaved& saved, OwnGradients& gradients) {
      if constexpr (detail::ResidualNormLayer<NormLayer>) {
        NormLayer::backward_and_add(backend, pass, p, branch, beside, dx, saved, gradients);
      } else {
        NormLayer::backward(backend, pass, p, branch, branch, saved, gradients);
        rowwise::add(backend, beside, branch, dx);
      }
    }

    /// h = x + dropout(attention(…)) and norm₂(h), in one pass over memory where the norm can.
    template <Backend B, class W, class T, class M>
    static void add_and_norm(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Saved<T, M>& saved) {
      const auto dropout = attention_dropout(pass);
      const View<T> h = saved.middle(x.rows), normed = saved.network_normed(x.rows);
      if constexpr (detail::AddingNormLayer<NormLayer>) {
        if (!dropout.active()) {
          return NormLayer::add_and_forward(backend, pass, p.network_norm, x, h, normed, saved.network_norm);
        }
      }
      rowwise::add_dropout(backend, dropout, x, h);
      NormLayer::forward(backend, pass, p.network_norm, h, normed, saved.network_norm);
    }

    /// y = block(x) with attend(x, y) and feed(x, y), the network; feed(x, y, residual) adds the residual as well.
    template <Backend B, class W, class T, class M, class Attend, class Feed>
    static void forward_with(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                             Saved<T, M>& saved, Attend&& attend, Feed&& feed) {
      const View<T> normed = saved.normed(x.rows), middle = saved.middle(x.rows);
      const View<T> network_normed = saved.network_normed(x.rows);
      NormLayer::forward(backend, pass, p.attention_norm, x, normed, saved.attention_norm);
      attend(normed, middle);
      add_and_norm(backend, pass, p, x, saved);
      const auto dropout = network_dropout(pass);
      if constexpr (mixture) {
        if (!dropout.active()) return feed(network_normed, y, middle);
      }
      feed(network_normed, y);
      rowwise::add_dropout(backend, dropout, middle, y);
    }
  };
};

}  // namespace detail

/// A block whose network is a mixture: `MoEBlock<RmsNorm, Attention<…>, Router<E, K>, Expert<…>>`. A
/// `Shared<Expert<…>>` after it is an expert that every token passes, `Shared<Expert<…>, Gated>` one with a gate.
template <NormKind N, AttentionKind A, RouterKind R, ExpertKind X, class S = NoShared>
struct MoEBlock : detail::Block<N, A, Mixture<R, X, S>, true> {
  static_assert(detail::InPlace<place::Shared, S>,
                "tinymoe::MoEBlock: after the expert there may be Shared<Expert<...>> and nothing else");
  using Router = R;
  using Expert = X;
  using SharedExpert = S;
};

/// A block with one feed-forward network for all tokens: `DenseBlock<RmsNorm, Attention<…>, Expert<…>>`.
template <NormKind N, AttentionKind A, DenseExpertKind X>
struct DenseBlock : detail::Block<N, A, Dense<X>, false> {
  using Expert = X;
};

/// `Count` blocks of the same type, one after another.
template <Index Count, BlockKind K>
struct Layers {
  using Place = place::Layers;
  static_assert(Count >= 1, "tinymoe::Layers: there must be at least one layer");
  static constexpr Index count = Count;
  using Block = K;
};

}  // namespace tinymoe::inline v0_1
