#pragma once
/// @file
/// Normalisation of each token's activations.
///
///     RmsNorm (Zhang and Sennrich 2019):  y = x · r · g,            r = 1 / sqrt(mean(x²) + ε)
///     LayerNorm (Ba et al. 2016):         y = (x − μ) · r · g + b,  r = 1 / sqrt(var(x) + ε)
///
/// x, y (N, D); g, b (D); r, μ (N)

#include "tinymoe/backend/rows.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe {

namespace kernels {

/// Both norms; an empty `mean` makes it RmsNorm.
template <class T, class M>
struct NormForward {
  View<const T> x, gain, bias;
  View<T> y;
  View<M> mean, inverse;
  double epsilon;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const T* in = x.row(n);
    const auto out = write_only(y.row(n));
    const Index width = x.cols;
    M centre(0);
    if (!mean.empty())
      centre = group.sum(
                   width, [](T v) { return M(v); }, in) /
               M(width);
    const M square = group.sum(
        width, [=](T v) { return (M(v) - centre) * (M(v) - centre); }, in);
    const M r = M(1) / std::sqrt(square / M(width) + M(epsilon));
    if (!bias.empty()) {
      group.each(
          width, [=](T& to, T v, T g, T b) { to = T((M(v) - centre) * r * M(g) + M(b)); }, out, in, gain.data,
          bias.data);
    } else {
      group.each(
          width, [=](T& to, T v, T g) { to = T((M(v) - centre) * r * M(g)); }, out, in, gain.data);
    }
    group.once([&] {
      inverse.data[n] = r;
      if (!mean.empty()) mean.data[n] = centre;
    });
  }
};

/// NormForward of a sum that is formed first: sum += residual.
template <class T, class M>
struct AddNormForward {
  View<const T> residual;
  View<T> sum;
  NormForward<T, M> norm;  // of the sum
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    Add<T>{residual, sum}(group, n);
    norm(group, n);
  }
};

/// One chunk of rows. With x̂ = (x − μ) r and ĝ = dy · g:  dx = r (ĝ − x̂ · mean(ĝ x̂) − mean(ĝ)), where RmsNorm lacks
/// the last term; and the chunk's part of dg = Σ_n dy · x̂ and db = Σ_n dy.
template <class T, class M>
struct NormBackward {
  View<const T> x, gain, dy;
  View<T> dx;  // may be dy
  View<const M> mean, inverse;
  View<M> partial;  // (row_chunks(N), D), or (row_chunks(N), 2D) where there is a bias
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index chunk) const {
    const Index width = x.cols, first = chunk * row_chunk;
    const Index last = x.rows - first < row_chunk ? x.rows : first + row_chunk;
    const T* g = gain.data;
    M *dgain = partial.row(chunk), *dbias = dgain + width;
    const bool biased = partial.cols > width;
    group.each(partial.cols, [=](Index i) { dgain[i] = M(0); });
    for (Index n = first; n < last; ++n) {
      const T *in = x.row(n), *d = dy.row(n);
      T* out = dx.row(n);
      const M r = inverse.data[n], centre = mean.empty() ? M(0) : mean.data[n];
      const M along = group.sum(
                          width, [=](T dv, T gv, T v) { return M(dv) * M(gv) * (M(v) - centre) * r; }, d, g, in) /
                      M(width);
      M shift(0);
      if (!mean.empty())
        shift = group.sum(
                    width, [](T dv, T gv) { return M(dv) * M(gv); }, d, g) /
                M(width);
      if (biased)
        group.each(
            width, [](M& total, T dv) { total += M(dv); }, dbias, d);
      const auto back = [=](T& to, M& total, T dv, T gv, T v) {
        const M slope = M(dv), centred = M(v) - centre;
        total += slope * centred * r;
        to = T(r * (slope * M(gv) - centred * r * along - shift));
      };
      group.each(width, back, write_only(out), dgain, d, g, in);
    }
  }
};

}  // namespace kernels

namespace detail {

/// What RmsNorm and LayerNorm share; `centred` is LayerNorm.
template <Index D, bool centred>
struct NormLayer {
  template <class T>
  struct Parameters {
    Tensor<T, 1, D> weight;                                       // g (D)
    std::conditional_t<centred, Tensor<T, 1, D>, NoTensor> bias;  // b (D)

    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      f(vector(path, "weight", D, Part::norm, Initial::ones), p.weight...);
      if constexpr (centred) f(vector(path, "bias", D, Part::norm, Initial::zeros), p.bias...);
    }
  };

  template <class T, class M>
  struct Saved {
    View<const T> x;        // (N, D), the caller's
    View<M> mean, inverse;  // (N)
    View<M> partial;        // (row_chunks(N), D or 2D): of the gain's gradient, and of the bias's

    void plan(Plan& plan, const Pass& pass) {
      inverse = plan.keep<M>(1, pass.rows());
      if constexpr (centred) mean = plan.keep<M>(1, pass.rows());
      if (plan.purpose() == Plan::Purpose::inference) return;
      partial = plan.scratch<M>(row_chunks(pass.rows()), centred ? 2 * D : D);
    }
  };

  /// y = norm(x).
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void forward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> x, Output<B> y,
                      Saved<T, M>& saved) {
    saved.x = x;
    backend.launch(x.rows, kernel<T, M>(pass, p, x, y, saved));
  }

  /// sum += residual, then y = norm(sum), row by row in one go.
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void add_and_forward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> residual, Output<B> sum,
                              Output<B> y, Saved<T, M>& saved) {
    saved.x = sum;
    backend.launch(sum.rows, kernels::AddNormForward<T, M>{residual, sum, kernel<T, M>(pass, p, sum, y, saved)});
  }

  /// dx = the gradient of x, which may be written over dy; the gain's and bias's gradients are added to.
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass&, const Parameters<T>& p, Input<B> dy, Output<B> dx, Saved<T, M>& saved,
                       Parameters<M>& gradients) {
    const auto partial = saved.partial.middle_rows(0, row_chunks(dy.rows));
    backend.launch(partial.rows,
                   kernels::NormBackward<T, M>{saved.x, p.weight, dy, dx, saved.mean, saved.inverse, partial});
    column_totals(backend, partial.middle_cols(0, D), gradients.weight);
    if constexpr (centred) column_totals(backend, partial.middle_cols(D, D), gradients.bias);
  }

 private:
  template <class T, class M>
  static kernels::NormForward<T, M> kernel(const Pass& pass, const Parameters<T>& p, View<const T> x, View<T> y,
                                           const Saved<T, M>& saved) {
    return {x, p.weight, p.bias, y, saved.mean, saved.inverse, pass.settings.norm_epsilon};
  }
};

}  // namespace detail

/// Root-mean-square norm with a gain, as in Llama and Mixtral.
struct RmsNorm {
  static constexpr const char* name = "rms_norm";
  template <Index D>
  using Layer = detail::NormLayer<D, false>;
};

/// Layer norm with a gain and a bias, as in GPT-2.
struct LayerNorm {
  static constexpr const char* name = "layer_norm";
  template <Index D>
  using Layer = detail::NormLayer<D, true>;
};

}  // namespace tinymoe
