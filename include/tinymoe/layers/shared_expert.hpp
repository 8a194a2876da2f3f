#pragma once
/// @file
/// The expert beside a mixture's that every token passes (Dai et al. 2024, DeepSeekMoE; the gate is Qwen2-MoE's):
///
///     y[n] += s[n] ŷ[n];   ŷ = expert(x);   s = 1, or with Gated σ(w · x[n])
///
/// x, y, ŷ (N, D); w (D); s (N). Backward: dŷ[n] = s dy[n];   dh = s (1 − s) (dy[n] · ŷ[n]);   dw = Σ_n dh x[n];
/// dx[n] += expert's dx[n] + dh w

#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/dense.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

namespace place {
struct SharedGate;
}  // namespace place

namespace random_site {
/// The dropout masks within the shared expert, of the rate expert_dropout.
inline constexpr RandomSite shared_dropout = RandomSite::in_layers(6);
}  // namespace random_site

/// The shared expert counts by a gate of its own, the sigmoid of a linear of the token.
struct Gated {
  using Place = place::SharedGate;
  static constexpr bool value = true;
};

/// One network for all tokens beside a mixture's experts: `Shared<Expert<…>>`, or `Shared<Expert<…>, Gated>`.
template <DenseExpertKind X, class... Options>
struct Shared {
  using Known = KnownPlaces<place::SharedGate>;
  static_assert(Known::know_all<Options...>, "tinymoe::Shared: unknown option; after the expert it takes Gated");
  static_assert(Known::each_once<Options...>, "tinymoe::Shared: an option is given twice");
  using Place = place::Shared;
  using Expert = X;
  static constexpr bool gated = option_t<place::SharedGate, detail::NotGiven, Options...>::value;
};
/// No shared expert; the default.
struct NoShared {
  using Place = place::Shared;
};

namespace kernels {

/// y[n] += s ŷ[n] with s = σ(w · x[n]).
template <class T, class M>
struct AddGated {
  View<const T> x, weight, beside;  // (N, D), (1, D), ŷ (N, D)
  View<T> y;
  View<M> share;  // s (1, N)
  TINYMOE_EVERYWHERE Index row_elements() const { return x.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const auto dot = [](T v, T w) { return M(v) * M(w); };
    const M s = sigmoid(group.sum(x.cols, dot, x.row(n), weight.data));
    const auto add = [=](T& to, T v) { to = T(M(to) + s * M(v)); };
    group.each(y.cols, add, y.row(n), beside.row(n));
    group.once([&] { share.data[n] = s; });
  }
};

/// One chunk of rows: dŷ = s dy, dx += dh w, and the chunk's part of dw.
template <class T, class M>
struct AddGatedBackward {
  View<const T> x, weight, dy, beside;
  View<T> dbeside, dx;  // dŷ, dx (N, D)
  View<const M> share;
  View<M> partial;  // (rowwise::chunks(N), D)
  TINYMOE_EVERYWHERE Index row_elements() const { return x.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index chunk) const {
    const Index width = x.cols, first = chunk * rowwise::chunk_size;
    const Index last = x.rows - first < rowwise::chunk_size ? x.rows : first + rowwise::chunk_size;
    M* total = partial.row(chunk);
    const T* w = weight.data;
    const auto clear = [](M& sum) { sum = M(0); };
    group.each(width, clear, write_only(total));
    for (Index n = first; n < last; ++n) {
      const M s = share.data[n];
      const auto back = [=](T& to, T slope, T out) {
        to = T(s * M(slope));
        return M(slope) * M(out);
      };
      const M dh = s * (M(1) - s) * group.sum(width, back, write_only(dbeside.row(n)), dy.row(n), beside.row(n));
      const auto add = [=](T& to, M& sum, T wv, T v) {
        to = T(M(to) + dh * M(wv));
        sum += dh * M(v);
      };
      group.each(width, add, dx.row(n), total, w, x.row(n));
    }
  }
};

}  // namespace kernels

namespace detail {

/// The layer of a mixture's shared expert; empty without one.
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
template <class X, class... Options>
struct SharedLayer<Shared<X, Options...>> {
  static constexpr bool present = true;
  static constexpr bool gated = Shared<X, Options...>::gated;

  template <Index D>
  struct Layer {
    using Network = typename Dense<X>::template Layer<D>;

    template <class W>
    struct Parameters {
      typename Network::template Parameters<W> network;
      std::conditional_t<gated, Tensor<VectorOf<W>, 1, D>, NoTensor> gate;  // w (D)

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        const Path network_path{&path, "shared_experts"};
        Network::template Parameters<W>::for_each(network_path, f, p.network...);
        if constexpr (gated) {
          f(ParameterInfo::matrix(path, "shared_expert_gate.weight", 1, D, Part::router, Initial::fan_in), p.gate...);
        }
      }
    };

    template <class T, class M>
    struct Saved {
      typename Network::template Saved<T, M> network;
      PerRow<T> beside;  // (N, D): ŷ, then the network's dx
      // Only with Gated:
      View<const T> x;    // (N, D), the caller's
      View<M> share;      // s (1, N)
      PerRow<T> dbeside;  // dŷ (N, D)
      View<M> partial;    // scratch of dw

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B& backend) {
        const Index n = pass.rows();
        beside = gated ? plan.keep<T>(n, D) : PerRow<T>(plan.scratch<T>(n, D));
        if constexpr (gated) share = plan.keep<M>(1, n);
        network.plan(plan, pass, backend);
        set_dropout_site(network.network, random_site::shared_dropout);
        if (!gated || plan.purpose() == Plan::Purpose::inference) return;
        dbeside = plan.scratch<T>(n, D);
        partial = plan.scratch<M>(rowwise::chunks(n), D);
      }
    };

    /// y += the shared expert of x.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward_and_add(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                                Saved<T, M>& saved) {
      const View<T> beside = saved.beside(x.rows);
      Network::forward(backend, pass, p.network, x, beside, saved.network);
      if constexpr (gated) {
        saved.x = x;
        backend.launch(x.rows, kernels::AddGated<T, M>{x, p.gate, beside, y, saved.share});
      } else {
        rowwise::add(backend, beside, y);
      }
    }

    /// dx += the shared expert's gradient of x; adds to the gradients.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward_and_add(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                                 Saved<T, M>& saved, Parameters<M>& gradients) {
      const View<T> beside = saved.beside(dy.rows);
      Input<B> dnetwork = dy;
      if constexpr (gated) {
        const View<T> dbeside = saved.dbeside(dy.rows);
        const View<M> partial = saved.partial.middle_rows(0, rowwise::chunks(dy.rows));
        backend.launch(partial.rows,
                       kernels::AddGatedBackward<T, M>{saved.x, p.gate, dy, beside, dbeside, dx, saved.share, partial});
        rowwise::column_totals(backend, partial, gradients.gate);
        dnetwork = dbeside;
      }
      Network::backward(backend, pass, p.network, dnetwork, beside, saved.network, gradients.network);
      rowwise::add(backend, beside, dx);
    }
  };
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
