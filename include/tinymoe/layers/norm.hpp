#pragma once
/// @file
/// Normalisation of each token's activations.
///
///     RmsNorm (Zhang and Sennrich 2019):  y = x · r · g,            r = 1 / sqrt(mean(x²) + ε)
///     LayerNorm (Ba et al. 2016):         y = (x − μ) · r · g + b,  r = 1 / sqrt(var(x) + ε)
///
/// x, y (N, D); g, b (D); r, μ (N)

#include <array>
#include <cmath>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// ε, which a norm adds under the square root.
inline constexpr Setting norm_epsilon{.name = "norm_epsilon",
                                      .initial = 1e-5,
                                      .range = SettingRange::positive,
                                      .about = "epsilon that norms add under the square root",
                                      .hub = "rms_norm_eps",
                                      .use = SettingUse::always};
}  // namespace setting

namespace kernels {

/// Both norms; an empty `mean` makes it RmsNorm.
template <class T, class M>
struct NormForward {
  View<const T> x, gain, bias;
  View<T> y;
  View<M> mean, inverse;
  double epsilon;
  TINYMOE_EVERYWHERE Index row_elements() const { return x.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const T* in = x.row(n);
    const auto out = write_only(y.row(n));
    const Index width = x.cols;
    M centre(0);
    const auto value = [](T v) { return M(v); };
    if (!mean.empty()) centre = group.sum(width, value, in) / M(width);
    const auto squared = [=](T v) { return (M(v) - centre) * (M(v) - centre); };
    const M r = M(1) / std::sqrt(group.sum(width, squared, in) / M(width) + M(epsilon));
    if (bias.empty()) {
      const auto scale = [=](T& to, T v, T g) { to = T((M(v) - centre) * r * M(g)); };
      group.each(width, scale, out, in, gain.data);
    } else {
      const auto scale = [=](T& to, T v, T g, T b) { to = T((M(v) - centre) * r * M(g) + M(b)); };
      group.each(width, scale, out, in, gain.data, bias.data);
    }
    group.once([&] {
      inverse.data[n] = r;
      if (!mean.empty()) mean.data[n] = centre;
    });
  }
};

/// sum += residual, then NormForward of the sum.
template <class T, class M>
struct AddNormForward {
  View<const T> residual;
  View<T> sum;
  NormForward<T, M> norm;  // of the sum
  TINYMOE_EVERYWHERE Index row_elements() const { return sum.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    Add<T>{residual, sum}(group, n);
    norm(group, n);
  }
};

/// One chunk of rows. With x̂ = (x − μ) r and ĝ = dy · g:  dx = r (ĝ − x̂ · mean(ĝ x̂) − mean(ĝ)) + `beside`, the
/// gradient of a residual connection. RmsNorm has no term mean(ĝ). Also the chunk's part of dg = Σ_n dy · x̂ and
/// db = Σ_n dy.
template <class T, class M>
struct NormBackward {
  View<const T> x, gain, dy;
  View<const T> beside;  // (N, D), or empty: 0
  View<T> dx;            // may be dy or `beside`
  View<const M> mean, inverse;
  View<M> partial;  // (rowwise::chunks(N), D), or (rowwise::chunks(N), 2D) where there is a bias
  TINYMOE_EVERYWHERE Index row_elements() const { return x.cols; }
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index chunk) const {
    const Index width = x.cols, first = chunk * rowwise::chunk_size;
    const Index last = x.rows - first < rowwise::chunk_size ? x.rows : first + rowwise::chunk_size;
    const T* g = gain.data;
    M *dgain = partial.row(chunk), *dbias = dgain + width;
    const bool biased = partial.cols > width;
    const auto clear = [](M& sum) { sum = M(0); };
    group.each(partial.cols, clear, write_only(dgain));
    for (Index n = first; n < last; ++n) {
      const T *in = x.row(n), *d = dy.row(n);
      const auto out = write_only(dx.row(n));
      const M r = inverse.data[n], centre = mean.empty() ? M(0) : mean.data[n];
      const auto dot = [=](T dv, T gv, T v) { return M(dv) * M(gv) * (M(v) - centre) * r; };
      const M along = group.sum(width, dot, d, g, in) / M(width);
      M shift(0);
      if (!mean.empty()) {
        const auto slope = [](T dv, T gv) { return M(dv) * M(gv); };
        shift = group.sum(width, slope, d, g) / M(width);
      }
      const auto add = [](M& sum, T dv) { sum += M(dv); };
      if (biased) group.each(width, add, dbias, d);
      const auto back = [=](M& sum, T dv, T gv, T v) {
        const M slope = M(dv), centred = M(v) - centre;
        sum += slope * centred * r;
        return r * (slope * M(gv) - centred * r * along - shift);
      };
      if (beside.empty()) {
        const auto alone = [=](T& to, M& sum, T dv, T gv, T v) { to = T(back(sum, dv, gv, v)); };
        group.each(width, alone, out, dgain, d, g, in);
      } else {
        const auto and_beside = [=](T& to, M& sum, T dv, T gv, T v, T b) { to = T(M(b) + back(sum, dv, gv, v)); };
        group.each(width, and_beside, out, dgain, d, g, in, beside.row(n));
      }
    }
  }
};

}  // namespace kernels

namespace detail {

/// What RmsNorm and LayerNorm share; `centred` is LayerNorm.
template <Index D, bool centred>
struct NormLayer {
  template <class W>
  struct Parameters {
    Tensor<VectorOf<W>, 1, D> weight;                                       // g (D)
    std::conditional_t<centred, Tensor<VectorOf<W>, 1, D>, NoTensor> bias;  // b (D)

    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      f(ParameterInfo::vector(path, "weight", D, Part::norm, Initial::ones), p.weight...);
      if constexpr (centred) f(ParameterInfo::vector(path, "bias", D, Part::norm, Initial::zeros), p.bias...);
    }
  };

  template <class T, class M>
  struct Saved {
    View<const T> x;        // (N, D), the caller's
    View<M> mean, inverse;  // (N)
    View<M> partial;        // (rowwise::chunks(N), D or 2D): of the gain's gradient, and of the bias's

    void plan(Plan& plan, const Pass& pass) {
      inverse = plan.keep<M>(1, pass.rows());
      if constexpr (centred) mean = plan.keep<M>(1, pass.rows());
      if (plan.purpose() == Plan::Purpose::inference) return;
      partial = plan.scratch<M>(rowwise::chunks(pass.rows()), centred ? 2 * D : D);
    }
  };

  /// y = norm(x).
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                      Saved<T, M>& saved) {
    saved.x = x;
    backend.launch(x.rows, kernel<T, M>(pass, p, x, y, saved));
  }

  /// sum += residual, then y = norm(sum), in one pass over memory.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void add_and_forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> residual, Output<B> sum,
                              Output<B> y, Saved<T, M>& saved) {
    saved.x = sum;
    backend.launch(sum.rows, kernels::AddNormForward<T, M>{residual, sum, kernel<T, M>(pass, p, sum, y, saved)});
  }

  /// dx = the gradient of x; dx may be dy. Adds to the gradients of gain and bias.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                       Saved<T, M>& saved, Parameters<M>& gradients) {
    backward_and_add(backend, pass, p, dy, {}, dx, saved, gradients);
  }

  /// dx = the gradient of x + `beside`, the gradient of a residual connection; dx may be `beside`.
  template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
  static void backward_and_add(B& backend, const Pass&, const Parameters<W>& p, Input<B> dy, Input<B> beside,
                               Output<B> dx, Saved<T, M>& saved, Parameters<M>& gradients) {
    const auto partial = saved.partial.middle_rows(0, rowwise::chunks(dy.rows));
    backend.launch(partial.rows,
                   kernels::NormBackward<T, M>{saved.x, p.weight, dy, beside, dx, saved.mean, saved.inverse, partial});
    rowwise::column_totals(backend, partial.middle_cols(0, D), gradients.weight);
    if constexpr (centred) rowwise::column_totals(backend, partial.middle_cols(D, D), gradients.bias);
  }

 private:
  template <class T, class M, class W>
  static kernels::NormForward<T, M> kernel(const Pass& pass, const Parameters<W>& p, View<const T> x, View<T> y,
                                           const Saved<T, M>& saved) {
    return {x, p.weight, p.bias, y, saved.mean, saved.inverse, pass.settings[setting::norm_epsilon]};
  }
};

}  // namespace detail

/// Root-mean-square norm with a gain, as in Llama and Mixtral.
struct RmsNorm {
  static constexpr const char* name = "rms_norm";
  static constexpr std::array settings = {&setting::norm_epsilon};
  template <Index D>
  using Layer = detail::NormLayer<D, false>;
};

/// Layer norm with a gain and a bias, as in GPT-2.
struct LayerNorm {
  static constexpr const char* name = "layer_norm";
  static constexpr std::array settings = {&setting::norm_epsilon};
  template <Index D>
  using Layer = detail::NormLayer<D, true>;
};

}  // namespace tinymoe::inline v0_1
