#pragma once
/// @file
/// One network for all tokens: y = expert(x), x and y (N, D). It is a bank of one expert, to which all rows belong.

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

/// One expert for all tokens: the feed-forward layer of a dense block, with the same interface as a mixture.
template <DenseExpertKind X>
struct Dense {
  static constexpr Index experts = 1, choices = 1;
  static constexpr void add_settings(SettingList& list) { detail::add_settings<X>(list); }

  /// The network at width D.
  template <Index D>
  struct Layer {
    using Network = typename X::template Layer<D, 1>;

    /// Those of the network.
    template <class W>
    struct Parameters {
      typename Network::template Parameters<W> network;

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        Network::template One<W>::for_each(path, Part::feed_forward, f, p.network.experts[0]...);
      }
    };

    /// What backward reads.
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

}  // namespace tinymoe::inline v0_1
