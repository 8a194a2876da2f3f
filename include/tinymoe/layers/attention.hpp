#pragma once
/// @file
/// Causal grouped-query attention (Ainslie et al. 2023), with an optional sliding window (Child et al. 2019).
///
///     [q | k | v] = x Wᵀ_qkv + b_qkv;   q, k normalised with QkNorm, then rotated by their positions;
///     o_h = softmax(q_h k_gᵀ / sqrt(d)) v_g over the visible keys;   y = o Wᵀ_o + b_o
///
/// x, y (N, D); q, o (N, H·d); k, v (N, G·d); query head h uses key-value head g = h·G/H.
///
/// Over 300 lines: forward, backward and decoding with a cache share the projection and its split, and stand together.

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/cached_attention.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/position.hpp"
#include "tinymoe/layers/qk_norm.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// Dropout of attention's probabilities.
inline constexpr Setting attention_dropout{.name = "attention_dropout",
                                           .range = SettingRange::share,
                                           .about = "dropout rate of the attention's probabilities",
                                           .hub = "attention_dropout",
                                           .draws = true};
}  // namespace setting

namespace random_site {
/// The dropout masks of attention's probabilities.
inline constexpr RandomSite attention_dropout = RandomSite::in_layers(2);
}  // namespace random_site

/// Query heads, H. Required.
template <Index N>
struct Heads : NumberOption<place::Heads, N> {};
/// Key-value heads, G; as many as heads by default.
template <Index N>
struct KvHeads : NumberOption<place::KvHeads, N> {};
/// Width of a head, d; D / H by default.
template <Index N>
struct HeadDim : NumberOption<place::HeadDim, N> {};
/// Tokens that a query attends to, itself included; by default all up to itself.
template <Index N>
struct SlidingWindow : NumberOption<place::Window, N> {
  static_assert(N >= 1, "tinymoe::Attention: SlidingWindow must be 1 or more tokens");
};
/// Biases on q, k and v.
struct QkvBias {
  using Place = place::QkvBias;
  static constexpr bool value = true;
};
/// A bias on the output projection.
struct OutputBias {
  using Place = place::OutputBias;
  static constexpr bool value = true;
};

/// Each head of q and k is divided by its root mean square and multiplied by a gain, before it is rotated (Henry et
/// al. 2020; the form of Qwen3).
struct QkNorm {
  using Place = place::QkNorm;
  static constexpr bool value = true, across_heads = false;
};
/// The same over all heads together: q is divided by its own root mean square and k by its own, and each number has a
/// gain (the form of OLMoE, Muennighoff et al. 2024).
struct QkNormAcrossHeads {
  using Place = place::QkNorm;
  static constexpr bool value = true, across_heads = true;
};

namespace detail {
struct NoQkNorm {
  static constexpr bool value = false, across_heads = false;
};
}  // namespace detail

/// Attention and its options: Heads<H>, KvHeads<G>, HeadDim<d>, Rope | PartialRope<n, d> | Learned | NoPosition,
/// SlidingWindow<W>, Bias, QkvBias, OutputBias, QkNorm | QkNormAcrossHeads.
template <class... Options>
struct Attention {
  using Known = KnownPlaces<place::Heads, place::KvHeads, place::HeadDim, place::Position, place::Window,
                            place::QkvBias, place::OutputBias, place::Bias, place::QkNorm>;
  static_assert(Known::know_all<Options...>,
                "tinymoe::Attention: unknown option; it takes Heads, KvHeads, HeadDim, Rope, PartialRope, Learned, "
                "NoPosition, SlidingWindow, Bias, QkvBias, OutputBias, QkNorm and QkNormAcrossHeads");
  static_assert(Known::each_once<Options...>, "tinymoe::Attention: an option is given twice");

  static constexpr Index heads = option_t<place::Heads, Heads<0>, Options...>::value;
  static_assert(heads > 0, "tinymoe::Attention: Heads is missing; give Heads<H> with H of 1 or more");
  static constexpr Index kv_heads = option_t<place::KvHeads, KvHeads<heads>, Options...>::value;
  static_assert(heads <= 0 || (kv_heads > 0 && heads % (kv_heads > 0 ? kv_heads : 1) == 0),
                "tinymoe::Attention: Heads must be a multiple of KvHeads");
  static constexpr Index window = option_t<place::Window, NumberOption<place::Window, 0>, Options...>::value;
  using Position = option_t<place::Position, Rope, Options...>;
  static constexpr bool both_biases = option_t<place::Bias, NoBias, Options...>::value;
  static constexpr bool qkv_bias = both_biases || option_t<place::QkvBias, detail::NotGiven, Options...>::value;
  static constexpr bool output_bias = both_biases || option_t<place::OutputBias, detail::NotGiven, Options...>::value;
  using NormOption = option_t<place::QkNorm, detail::NoQkNorm, Options...>;
  static constexpr bool qk_norm = NormOption::value, norm_across_heads = NormOption::across_heads;
  static constexpr bool learned_positions = Position::learned;
  /// The norms of q and k use norm_epsilon.
  static constexpr std::array settings = {&setting::rope_theta, &setting::attention_dropout, &setting::norm_epsilon};

  /// Attention at width D.
  template <Index D>
  struct Layer {
    static constexpr Index given_dim = option_t<place::HeadDim, HeadDim<0>, Options...>::value;
    static_assert(given_dim > 0 || heads <= 0 || D % (heads > 0 ? heads : 1) == 0,
                  "tinymoe::Attention: Width must be a multiple of Heads, unless HeadDim is given");
    static constexpr Index head_dim = given_dim > 0 ? given_dim : D / (heads > 0 ? heads : 1);
    static constexpr Index rotated = [] {
      if constexpr (Position::rotary) return Position::rotated(head_dim);
      return Index{0};
    }();
    static_assert(!Position::rotary || (rotated > 0 && rotated % 2 == 0),
                  "tinymoe::Attention: Rope rotates pairs, so HeadDim, or PartialRope's part of it, must be even");
    static constexpr Index query_width = heads * head_dim, key_width = kv_heads * head_dim;
    static constexpr Index qkv_width = query_width + 2 * key_width;
    /// Numbers that are normalised together, and how many such groups q and k have.
    static constexpr Index query_gains = norm_across_heads ? query_width : head_dim;
    static constexpr Index key_gains = norm_across_heads ? key_width : head_dim;
    static constexpr Index query_groups = norm_across_heads ? 1 : heads, key_groups = norm_across_heads ? 1 : kv_heads;
    /// The columns of the widest sum over tokens in backward; 0: there is none.
    static constexpr Index summed_width =
        std::max({qkv_bias ? qkv_width : 0, output_bias ? D : 0, qk_norm ? query_gains + key_gains : 0});

    /// The shape of this attention over `pass`.
    static AttentionShape shape(const Pass& pass) {
      return {
          pass.batch,
          pass.time,
          heads,
          kv_heads,
          head_dim,
          window,
          1.0 / std::sqrt(double(head_dim)),
          pass.dropout(random_site::attention_dropout, pass.settings[setting::attention_dropout], pass.rows() * heads)};
    }
    /// Keys that position t sees, itself included.
    static constexpr Index visible(Index t) { return window > 0 && t + 1 > window ? window : t + 1; }

    /// The projections, and the weights of normalised queries and keys.
    template <class W>
    struct Parameters {
      Tensor<MatrixOf<W, Part::attention>, qkv_width, D> qkv;                                 // (H·d + 2·G·d, D)
      Tensor<MatrixOf<W, Part::attention>, D, query_width> output;                            // (D, H·d)
      std::conditional_t<qkv_bias, Tensor<VectorOf<W>, qkv_width, 1>, NoTensor> qkv_bias_;    // (H·d + 2·G·d)
      std::conditional_t<output_bias, Tensor<VectorOf<W>, 1, D>, NoTensor> output_bias_;      // (D)
      std::conditional_t<qk_norm, Tensor<VectorOf<W>, 1, query_gains>, NoTensor> query_gain;  // (d) or (H·d)
      std::conditional_t<qk_norm, Tensor<VectorOf<W>, 1, key_gains>, NoTensor> key_gain;      // (d) or (G·d)

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        constexpr auto part = Part::attention;
        f(ParameterInfo::stacked(
              path, {{{"q_proj.weight", query_width}, {"k_proj.weight", key_width}, {"v_proj.weight", key_width}}}, D,
              part, Initial::fan_in),
          p.qkv...);
        f(ParameterInfo::matrix(path, "o_proj.weight", D, query_width, part, Initial::residual), p.output...);
        if constexpr (qkv_bias) {
          f(ParameterInfo::vectors(
                path, {{{"q_proj.bias", query_width}, {"k_proj.bias", key_width}, {"v_proj.bias", key_width}}}, part,
                Initial::zeros),
            p.qkv_bias_...);
        }
        if constexpr (output_bias)
          f(ParameterInfo::vector(path, "o_proj.bias", D, part, Initial::zeros), p.output_bias_...);
        if constexpr (qk_norm) {
          f(ParameterInfo::vector(path, "q_norm.weight", query_gains, Part::norm, Initial::ones), p.query_gain...);
          f(ParameterInfo::vector(path, "k_norm.weight", key_gains, Part::norm, Initial::ones), p.key_gain...);
        }
      }
    };

    /// What backward reads.
    template <class T, class M>
    struct Saved {
      View<const T> x;    // (N, D), the caller's
      PerRow<T> qkv;      // (N, H·d + 2·G·d), q and k already rotated
      PerRow<T> out;      // (N, H·d)
      PerRow<M> log_sum;  // (N, H)
      PerRow<T> dqkv, dout;
      View<T> scratch;    // for the backend's attention
      RopeTable<M> rope;  // (T, r)
      PerRow<T> raw;      // (N, H·d + G·d): q and k before their norm, only with QkNorm
      PerRow<M> inverse;  // (N, H + G), or (N, 2) across heads
      View<M> partial;    // scratch of sums over tokens

      template <Backend B>
      void plan(Plan& plan, const Pass& pass, const B& backend) {
        const Index n = pass.rows();
        if constexpr (Position::rotary) rope.plan(plan, pass, rotated);
        qkv = plan.keep<T>(n, qkv_width);
        out = plan.keep<T>(n, query_width);
        if constexpr (qk_norm) {
          raw = plan.keep<T>(n, query_width + key_width);
          inverse = plan.keep<M>(n, query_groups + key_groups);
        }
        if (plan.purpose() == Plan::Purpose::inference) return;
        log_sum = plan.keep<M>(n, heads);
        dqkv = plan.scratch<T>(n, qkv_width);
        dout = plan.scratch<T>(n, query_width);
        scratch = plan.scratch<T>(1, static_cast<Index>(backend.attention_scratch(shape(pass))));
        if constexpr (summed_width > 0) partial = plan.scratch<M>(rowwise::chunks(n), summed_width);
      }
    };

    /// y = attention(x) over B separate sequences of T tokens.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                        Saved<T, M>& saved) {
      project(backend, pass, p, x, saved);
      const View<T> qkv = saved.qkv(x.rows), out = saved.out(x.rows);
      if constexpr (Position::rotary) rotate(backend, pass, qkv, saved, M(1));
      const auto [q, k, v] = split(qkv);
      backend.attention_forward(shape(pass), q, k, v, out, saved.log_sum(x.rows), saved.scratch);
      backend.matmul(out, p.output.weights(), bias<T>(p.output_bias_), y);
    }

    /// Overwrites dx, adds to the gradients.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> dy, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const View<T> out = saved.out(dy.rows), dout = saved.dout(dy.rows), dqkv = saved.dqkv(dy.rows);
      if constexpr (output_bias) rowwise::column_sum(backend, dy, gradients.output_bias_, saved.partial);
      backend.matmul_weight(dy, out, gradients.output);
      backend.matmul_input(dy, p.output.weights(), dout, Write::overwrite);
      const auto [q, k, v] = split(saved.qkv(dy.rows));
      const auto [dq, dk, dv] = split(dqkv);
      backend.attention_backward(shape(pass), q, k, v, out, saved.log_sum(dy.rows), dout, dq, dk, dv, saved.scratch);
      if constexpr (Position::rotary) rotate(backend, pass, dqkv, saved, M(-1));
      if constexpr (qk_norm) {
        const auto turned = turning(dqkv);
        const View<M> partial(saved.partial.data, rowwise::chunks(dy.rows), query_gains + key_gains);
        backend.launch(partial.rows, kernels::QkNormBackward<T, M>{turned, saved.raw(dy.rows), p.query_gain, p.key_gain,
                                                                   saved.inverse(dy.rows), query_groups, partial});
        rowwise::column_totals(backend, partial.middle_cols(0, query_gains), gradients.query_gain);
        rowwise::column_totals(backend, partial.middle_cols(query_gains, key_gains), gradients.key_gain);
      }
      if constexpr (qkv_bias) rowwise::column_sum(backend, dqkv, flat(gradients.qkv_bias_), saved.partial);
      backend.matmul_weight(dqkv, saved.x, gradients.qkv);
      backend.matmul_input(dqkv, p.qkv.weights(), dx, Write::overwrite);
    }

    /// Rows of the KV cache for one sequence: the whole context, or with a window W + chunk − 1, so that a pass of up
    /// to `chunk` tokens overwrites no key that its first token still sees. With a window a sequence may be longer than
    /// the context.
    static constexpr Index cache_rows(Index context, Index chunk) {
      return window > 0 && window <= context ? window + chunk - 1 : context;
    }

    /// y = attention of new tokens to those in the cache and to each other; their keys and values are stored in it.
    /// `probability` is scratch of `cached_attention_scratch` elements.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward_cached(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Output<B> y,
                               Saved<T, M>& saved, const KvCache<T>& cache, MasterOutput<B> probability) {
      project(backend, pass, p, x, saved);
      const View<T> qkv = saved.qkv(x.rows), out = saved.out(x.rows);
      const auto [q, k, v] = split(qkv);
      const kernels::CacheStore<T> store{k, v, cache, RowPositions(pass)};
      if constexpr (Position::rotary) {
        const kernels::RotateIntoCache<T, M> rotate{
            turning(qkv), store, head_dim, kernels::RopeAngle(pass.settings[setting::rope_theta], rotated / 2)};
        rotate_and_attend(backend, rotate, shape(pass), pass, q, cache, out, probability);
      } else {
        backend.launch(x.rows, store);
        cached_attention(backend, shape(pass), pass, q, cache, out, probability);
      }
      backend.matmul(out, p.output.weights(), bias<T>(p.output_bias_), y);
    }

   private:
    template <class V>
    struct Split {
      V q, k, v;
    };
    template <class T>
    static Split<View<T>> split(View<T> qkv) {
      return {qkv.middle_cols(0, query_width), qkv.middle_cols(query_width, key_width),
              qkv.middle_cols(query_width + key_width, key_width)};
    }
    /// q and k: the columns that are rotated.
    template <class T>
    static View<T> turning(View<T> qkv) {
      return qkv.middle_cols(0, query_width + key_width);
    }
    /// A bias as products take it, (1, O).
    template <class T, class Stored>
    static View<const T> bias(const Stored& stored) {
      if constexpr (std::is_same_v<Stored, NoTensor>) {
        return {};
      } else {
        return flat(stored);
      }
    }
    template <class Stored>
    static auto flat(const Stored& stored) {
      return View(stored.data, 1, stored.size());
    }

    /// q, k and v: normalised with QkNorm, not yet rotated.
    template <Backend B, class W, class T, class M>
    static void project(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Saved<T, M>& saved) {
      saved.x = x;
      const View<T> qkv = saved.qkv(x.rows);
      backend.matmul(x, p.qkv.weights(), bias<T>(p.qkv_bias_), qkv);
      if constexpr (qk_norm) {
        backend.launch(x.rows, kernels::QkNormForward<T, M>{turning(qkv), saved.raw(x.rows), p.query_gain, p.key_gain,
                                                            saved.inverse(x.rows), query_groups,
                                                            pass.settings[setting::norm_epsilon]});
      }
    }
    template <Backend B, class T, class M>
    static void rotate(B& backend, const Pass& pass, Output<B> qkv, Saved<T, M>& saved, M direction) {
      backend.launch(qkv.rows, kernels::Rotate<T, M>{turning(qkv), saved.rope.at(backend, pass), head_dim, direction});
    }
  };
};

}  // namespace tinymoe::inline v0_1
