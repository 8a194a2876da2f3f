#pragma once
/// @file
/// The feed-forward experts, all E of a layer at once; rows of x are sorted by expert.
///
///     SwiGlu (Shazeer 2020):  y = W₂ (silu(W₁ x + b₁) ⊙ (W₃ x + b₃)) + b₂
///     Gelu, GeluTanh, Relu:   y = W₂ act(W₁ x + b₁) + b₂
///
/// x, y (S, D), S = N·K pairs; W₁, W₃ (F, D); W₂ (D, F); hidden h (S, 2F) or (S, F), activated a (S, F).
/// A dense feed-forward layer is a bank of one expert, whose rows are all the tokens.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/activation_functions.hpp"
#include "tinymoe/layers/few_experts.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// Dropout within experts.
inline constexpr Setting expert_dropout{.name = "expert_dropout",  // Fedus et al. 2021, section 2.4
                                        .range = SettingRange::share,
                                        .about = "dropout rate of the experts' hidden activations",
                                        .draws = true};
}  // namespace setting

namespace random_site {
/// The dropout masks within experts.
inline constexpr RandomSite expert_dropout = RandomSite::in_layers(5);
}  // namespace random_site

/// Width of an expert's hidden layer, F. Required.
template <Index N>
struct Hidden : NumberOption<place::Hidden, N> {};

/// The feed-forward network of an expert or of a dense block, and its options: SwiGlu | Gelu | GeluTanh | Relu,
/// Hidden<F>, Bias.
template <class... Options>
struct Expert {
  using Known = KnownPlaces<place::Activation, place::Hidden, place::Bias>;
  static_assert(Known::know_all<Options...>,
                "tinymoe::Expert: unknown option; it takes SwiGlu, Gelu, GeluTanh or Relu, Hidden and Bias");
  static_assert(Known::each_once<Options...>, "tinymoe::Expert: an option is given twice");

  using Activation = option_t<place::Activation, SwiGlu, Options...>;
  static constexpr Index hidden = option_t<place::Hidden, Hidden<0>, Options...>::value;
  static_assert(hidden > 0, "tinymoe::Expert: Hidden is missing; give Hidden<F> with F of 1 or more");
  static constexpr bool has_bias = option_t<place::Bias, NoBias, Options...>::value;
  static constexpr std::array settings = {&setting::expert_dropout};

  /// A bank of E experts at width D.
  template <Index D, Index E>
  struct Layer {
    static constexpr Index input_width = Activation::gated ? 2 * hidden : hidden;

    /// The type in which its matrices are stored, in a dense block too.
    template <class W>
    using Matrix = MatrixOf<W, Part::expert>;

    /// The parameters of one expert.
    template <class W>
    struct One {
      Tensor<Matrix<W>, input_width, D> input;                                                 // (2F or F, D)
      Tensor<Matrix<W>, D, hidden> output;                                                     // (D, F)
      std::conditional_t<has_bias, Tensor<VectorOf<W>, input_width, 1>, NoTensor> input_bias;  // (2F or F)
      std::conditional_t<has_bias, Tensor<VectorOf<W>, 1, D>, NoTensor> output_bias;           // (D)

      template <class F, class... P>
      static constexpr void for_each(const Path& path, Part part, F&& f, P&... p) {
        // The names of Mixtral's experts, and of Llama's dense layer.
        const bool dense = part == Part::feed_forward;
        const detail::NamedRows gate{dense ? "gate_proj.weight" : "w1.weight", hidden};
        const detail::NamedRows up{dense ? "up_proj.weight" : "w3.weight", hidden};
        const detail::NamedRows gate_bias{dense ? "gate_proj.bias" : "w1.bias", hidden};
        const detail::NamedRows up_bias{dense ? "up_proj.bias" : "w3.bias", hidden};
        const std::string_view down = dense ? "down_proj" : "w2";
        if constexpr (Activation::gated) {
          f(ParameterInfo::stacked(path, {gate, up, {}}, D, part, Initial::fan_in), p.input...);
        } else {
          f(ParameterInfo::stacked(path, {dense ? detail::NamedRows{"up_proj.weight", hidden} : gate, {}, {}}, D, part,
                                   Initial::fan_in),
            p.input...);
        }
        f(ParameterInfo::matrix(path, dense ? "down_proj.weight" : "w2.weight", D, hidden, part, Initial::residual),
          p.output...);
        if constexpr (has_bias) {
          if constexpr (Activation::gated) {
            f(ParameterInfo::vectors(path, {gate_bias, up_bias, {}}, part, Initial::zeros), p.input_bias...);
          } else {
            f(ParameterInfo::vectors(path, {dense ? detail::NamedRows{"up_proj.bias", hidden} : gate_bias, {}, {}},
                                     part, Initial::zeros),
              p.input_bias...);
          }
          f(ParameterInfo::vector(path, down == "w2" ? "w2.bias" : "down_proj.bias", D, part, Initial::zeros),
            p.output_bias...);
        }
      }
    };

    /// The weights of all experts of the bank.
    template <class W>
    struct Parameters {
      std::array<One<W>, static_cast<std::size_t>(E)> experts;  // E

      template <class F, class... P>
      static constexpr void for_each(const Path& path, Index active, F&& f, P&... p) {
        for (Index e = 0; e < E; ++e) {
          [[maybe_unused]] const auto at = static_cast<std::size_t>(e);
          const Path one{&path, "experts", e, active, E};
          One<int>::for_each(one, Part::expert, f, p.experts[at]...);
        }
      }

      auto input() const { return bank(&One<W>::input); }
      auto output() const { return bank(&One<W>::output); }
      Bank<VectorOf<W>> input_bias() const { return bias_bank(&One<W>::input_bias); }
      Bank<VectorOf<W>> output_bias() const { return bias_bank(&One<W>::output_bias); }

     private:
      template <class Stored>
      typename Stored::Format::Bank bank(Stored One<W>::*member) const {
        const auto& first = experts[0].*member;
        const auto next = E > 1 ? (experts[E > 1 ? 1 : 0].*member).data : first.data;
        return Stored::Format::bank(first.data, next, E, first.rows, first.cols);
      }
      template <class Member>
      Bank<VectorOf<W>> bias_bank(Member member) const {
        if constexpr (has_bias) {
          auto result = bank(member);
          result.cols *= result.rows;
          result.rows = 1;
          return result;
        } else {
          return {};
        }
      }
    };

    /// What backward reads.
    template <class T, class M>
    struct Saved {
      View<const T> x;              // (S, D), the caller's
      PerRow<T> hidden, activated;  // (S, 2F or F), (S, F)
      PerRow<T> dhidden, dactivated;
      View<M> partial;  // scratch of the biases' gradients
      RandomSite dropout = random_site::expert_dropout;
      Index planned = 0;  // S at most

      void plan(Plan& plan, Index pairs) {
        planned = pairs;
        hidden = plan.keep<T>(pairs, input_width);
        activated = plan.keep<T>(pairs, Expert::hidden);
        if (plan.purpose() == Plan::Purpose::inference) return;
        dhidden = plan.scratch<T>(pairs, input_width);
        dactivated = plan.scratch<T>(pairs, Expert::hidden);
        if constexpr (has_bias) {
          partial = plan.scratch<M>(1, rowwise::grouped_column_sum_scratch(pairs, E, std::max(D, input_width)));
        }
      }
    };

    /// y (S, D) = each expert's network over its rows of x (S, D). Rows of no expert are left as they are.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, const Dispatch& dispatch, Input<B> x,
                        Output<B> y, Saved<T, M>& saved) {
      saved.x = x;
      const View<T> h = saved.hidden(x.rows), activated = saved.activated(x.rows);
      backend.grouped_matmul(x, p.input(), p.input_bias(), dispatch, h);
      backend.launch(x.rows, kernels::ActivationForward<Activation, T>{h, activated, dropout(pass, saved)});
      backend.grouped_matmul(activated, p.output(), p.output_bias(), dispatch, y);
    }

    /// y[n] = residual[n] (0 if that is empty) + Σ_k gate[n, k] · expert_k(x[n]): the same as Gather, forward and
    /// Combine, in two launches. It is for so few tokens that a launch costs more than the arithmetic. Nothing is kept
    /// for backward. x, residual, y (N, D); gate (N, K)
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    requires std::same_as<Matrix<W>, T>  // the kernels read weights as plain numbers
    static void decode(B& backend, const Parameters<W>& p, const Dispatch& dispatch, View<const std::int32_t> selected,
                       MasterInput<B> gate, Input<B> x, Input<B> residual, Output<B> y, Saved<T, M>& saved) {
      const View<T> activated = saved.activated(dispatch.size());
      const View<const std::int32_t> taken(dispatch.offsets.data + E, 1, 1);
      backend.launch(activated.size(), kernels::FewExpertInputs<Activation, T, M>{
                                           x, p.input(), p.input_bias(), selected, dispatch.pairs, taken, activated});
      backend.launch(x.rows * D, kernels::FewExpertOutputs<T, M>{activated, p.output(), p.output_bias(), selected,
                                                                 dispatch.slots, gate, residual, y});
    }

    /// Overwrites dx (S, D), adds to the gradients.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, const Dispatch& dispatch, Input<B> dy,
                         Output<B> dx, Saved<T, M>& saved, Parameters<M>& gradients) {
      const View<T> dactivated = saved.dactivated(dy.rows), dhidden = saved.dhidden(dy.rows);
      backend.grouped_matmul_input(dy, p.output(), dispatch, dactivated);
      backend.grouped_matmul_weight(dy, saved.activated(dy.rows), dispatch, gradients.output());
      backend.launch(dy.rows, kernels::ActivationBackward<Activation, T>{saved.hidden(dy.rows), dactivated, dhidden,
                                                                         dropout(pass, saved)});
      if constexpr (has_bias) {
        rowwise::grouped_column_sum(backend, dy, dispatch, gradients.output_bias(), saved.partial);
        rowwise::grouped_column_sum(backend, dhidden, dispatch, gradients.input_bias(), saved.partial);
      }
      backend.grouped_matmul_weight(dhidden, saved.x, dispatch, gradients.input());
      backend.grouped_matmul_input(dhidden, p.input(), dispatch, dx);
    }

   private:
    /// Rows of the dropout mask are slots. Each micro-batch has `planned` rows of its own.
    template <class T, class M>
    static Dropout dropout(const Pass& pass, const Saved<T, M>& saved) {
      return pass.dropout(saved.dropout, pass.settings[setting::expert_dropout], saved.planned);
    }
  };
};

}  // namespace tinymoe::inline v0_1
