#pragma once
/// @file
/// Routers: which experts each token goes to, and how much each counts.
///
///     h = W x + b;   p = softmax(h) or σ(h);   S = a choice by p;   g_k = s p_k / Σ_S p or s p_k
///
/// x (N, D); W (E, D); b (E); h, p (N, E); S, g (N, K); s is 1, or GateScale's. Of equal scores the lower expert comes
/// first. The options (router_options.hpp) change single steps of this. The kernels are in router_kernels.hpp, the
/// balance losses in balance.hpp.
///
/// `Router<E, K>` without options is Mixtral's (Jiang et al. 2024): softmax, top-k, renormalise, with Switch's balance
/// loss and the z-loss.
///
/// Backward, with d_e = dL/dp_e (from the gates for chosen e, from the balance loss for all):
///     normalised gates  d_e = (s dg_k − Σ_j dg_j g_j) / Σ_S p;   score gates  d_e = s dg_k
///     softmax           dh_e = p_e (d_e − Σ_j p_j d_j) + z_weight · 2 (log Σ exp h) p_e / R
///     sigmoid           dh_e = p_e (1 − p_e) d_e
///
/// Over 300 lines: all options of forward, losses and backward stand together, so that a gradient is read beside its
/// equation.

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/router_kernels.hpp"
#include "tinymoe/layers/router_options.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The noise on scores.
inline constexpr RandomSite router_noise = RandomSite::in_layers(7);
/// The factors of a router's input.
inline constexpr RandomSite jitter = RandomSite::in_layers(8);
}  // namespace random_site

/// E experts, of which each token takes K, and how: SoftmaxScores | SigmoidScores, NormalisedGates | ScoreGates,
/// GateScale<n, d>, TopK | DynamicTopK | ExpertChoice, NoisyTopK, Jitter, Capacity<n, d>, SwitchBalance | GShardBalance
/// | CvBalance | NoBalance, BalanceBias, Bias.
template <Index E, Index K, class... Options>
struct Router {
  using Known =
      KnownPlaces<place::Scores, place::Gates, place::GateScale, place::Selection, place::RouterNoise,
                  place::RouterJitter, place::RouterCapacity, place::Balance, place::BalanceBias, place::Bias>;
  static_assert(E >= 1, "tinymoe::Router: there must be at least one expert");
  static_assert(E < 1 || (K >= 1 && K <= E),
                "tinymoe::Router: a token takes at least one expert and no more than there are");
  static_assert(Known::template know_all<Options...>,
                "tinymoe::Router: unknown option; it takes SoftmaxScores, SigmoidScores, NormalisedGates, ScoreGates, "
                "GateScale, TopK, DynamicTopK, ExpertChoice, NoisyTopK, Jitter, Capacity, Dropless, SwitchBalance, "
                "GShardBalance, "
                "CvBalance, NoBalance, BalanceBias, Bias and NoBias");
  static_assert(Known::template each_once<Options...>, "tinymoe::Router: an option is given twice");

  using Scores = option_t<place::Scores, SoftmaxScores, Options...>;
  using Selection = option_t<place::Selection, TopK, Options...>;
  using CapacityOption = option_t<place::RouterCapacity, Dropless, Options...>;
  static constexpr bool dynamic = std::is_same_v<Selection, DynamicTopK>;
  static constexpr bool expert_choice = std::is_same_v<Selection, ExpertChoice>;
  static constexpr bool noisy = option_t<place::RouterNoise, detail::NotGiven, Options...>::value;
  static constexpr bool jitters = option_t<place::RouterJitter, detail::NotGiven, Options...>::value;
  static constexpr bool has_capacity = !std::is_same_v<CapacityOption, Dropless>;
  static constexpr bool balance_bias = option_t<place::BalanceBias, detail::NotGiven, Options...>::value;
  static constexpr bool has_bias = option_t<place::Bias, NoBias, Options...>::value;
  using DefaultGates = std::conditional_t<K == 1 || dynamic || expert_choice, ScoreGates, NormalisedGates>;
  static constexpr bool normalised = option_t<place::Gates, DefaultGates, Options...>::value;
  static constexpr double gate_scale = option_t<place::GateScale, GateScale<1>, Options...>::value;
  using DefaultBalance = std::conditional_t<balance_bias || expert_choice, NoBalance, SwitchBalance>;
  using Balance = option_t<place::Balance, DefaultBalance, Options...>;

  static_assert(
      K != 1 || !normalised,
      "tinymoe::Router: top-1 with the softmax after the selection has the constant gate 1, so that the router "
      "gets no gradient; take ScoreGates, or K of 2 or more");
  static_assert(!Scores::sigmoid || !dynamic,
                "tinymoe::Router: DynamicTopK adds up probabilities, which SigmoidScores are not; take SoftmaxScores");
  static_assert(
      !dynamic || !normalised,
      "tinymoe::Router: with NormalisedGates a token whose first expert reaches DynamicTopK's probability has "
      "the constant gate 1, so that the router gets no gradient; take ScoreGates");
  static_assert(!expert_choice || !(normalised || noisy || has_capacity || balance_bias),
                "tinymoe::Router: with ExpertChoice loads are even as they are; leave out NormalisedGates, NoisyTopK, "
                "Capacity and BalanceBias");

  static_assert(!expert_choice || gate_scale == 1,
                "tinymoe::Router: GateScale acts where tokens choose their experts; leave it out with ExpertChoice");

  static_assert(
      !(noisy && Balance::kind == BalanceKind::variation) || !(dynamic || balance_bias),
      "tinymoe::Router: with NoisyTopK, CvBalance asks which logits another draw must beat to be among the top "
      "K; leave out DynamicTopK and BalanceBias, or take another balance loss");
  static_assert(
      !(expert_choice && Balance::kind == BalanceKind::first_choices),
      "tinymoe::Router: with ExpertChoice a token has no first choice, which GShardBalance counts; take another "
      "balance loss");

  static constexpr Index experts = E;
  /// The columns of `selected`: the maximum number of experts of a token.
  static constexpr Index choices = expert_choice ? E : K;
  /// The experts of a token; an average with ExpertChoice, a maximum with DynamicTopK.
  static constexpr Index active = K;
  /// Whether what it moves after a step is the same on all ranks of a run.
  static constexpr bool moves_alike = !expert_choice;
  /// Whether it obeys `Pass::limit`.
  static constexpr bool limits_experts = true;
  /// Whether a token's gates sum to one.
  static constexpr bool gates_sum_to_one = normalised && gate_scale == 1;

  /// The settings of all options: config.json keeps them, in use or not.
  static constexpr std::array settings = {&setting::balance_weight, &setting::z_weight,  &setting::balance_over_step,
                                          &setting::jitter,         &setting::bias_rate, &setting::routing_mass};

  /// What a layer with Capacity has besides.
  struct DropsPairs {
    /// The choices (N, K) within their experts' capacity, once all are sorted; empty where this pass has no limit.
    template <Backend B, class Saved>
    static View<const std::int32_t> within_capacity(B& backend, const Pass& pass, const Dispatch& dispatch,
                                                    Saved& saved) {
      if (!pass.training) return {};
      const View<std::int32_t> kept = saved.kept(saved.x.rows);
      backend.launch(kept.rows, kernels::CopyRow<std::int32_t>{saved.routing.selected, kept});
      const Index capacity = CapacityOption::of(pass.real_rows(), K, E);
      backend.launch(E, kernels::DropPairs{dispatch.offsets, dispatch.pairs, kept, capacity});
      return kept;
    }
  };

  /// What a layer with BalanceBias or ExpertChoice has besides.
  struct Moves {
    /// After an optimizer step: moves what no gradient trains, in the masters and in the layers' copy.
    template <Backend B, class Parameters, class Masters, class Saved>
    static void after_step(B& backend, const Pass& pass, const Parameters& p, const Masters& masters, Saved& saved) {
      using T = typename B::Scalar;
      using M = typename B::Master;
      if constexpr (balance_bias) {
        if (pass.counts != nullptr) sum_loads(backend, *pass.counts, saved.balance.step_loads);
        backend.launch(1, kernels::MoveBalanceBias<T, M>{saved.balance.step_loads, masters.offset, p.offset,
                                                         pass.settings[setting::bias_rate]});
      }
      if constexpr (expert_choice) {
        backend.launch(E, kernels::MoveThresholds<T, M>{saved.least, masters.threshold, p.threshold});
      }
    }

   private:
    /// The loads of the step on all ranks.
    template <Backend B>
    [[gnu::cold]] static void sum_loads(B& backend, RankCounts& counts, View<std::int32_t> loads) {
      std::vector<std::int32_t> own(static_cast<std::size_t>(E));
      backend.copy_to_host(own.data(), loads.data, own.size() * sizeof(own[0]));
      std::vector<double> all(own.begin(), own.end());
      counts.sum(all);
      std::transform(all.begin(), all.end(), own.begin(), [](double load) { return static_cast<std::int32_t>(load); });
      backend.copy_to_device(loads.data, own.data(), own.size() * sizeof(own[0]));
    }
  };
  // The other layers do not have these names, so that CapacityRouter and MovingRouter say what a router does.
  template <int>
  struct Without {};

  /// The router at width D.
  template <Index D>
  struct Layer : std::conditional_t<has_capacity, DropsPairs, Without<0>>,
                 std::conditional_t<balance_bias || expert_choice, Moves, Without<1>> {
    static constexpr Index rows = noisy ? 2 * E : E;

    /// The maximum number of pairs that N tokens send.
    static constexpr Index max_pairs(Index tokens) {
      if (!expert_choice) return tokens * K;
      return std::max(tokens * rule.max_experts, E * taken_by_expert(tokens));
    }

    /// The matrix of the scores, and its biases.
    template <class W>
    struct Parameters {
      Tensor<MatrixOf<W, Part::router>, rows, D> weight;  // (E, D), with those of the noise (2E, D)
      std::conditional_t<has_bias, Tensor<VectorOf<W>, rows, 1>, NoTensor> bias;         // (E) or (2E)
      std::conditional_t<balance_bias, Tensor<VectorOf<W>, 1, E>, NoTensor> offset;      // (E), not trained
      std::conditional_t<expert_choice, Tensor<VectorOf<W>, 1, E>, NoTensor> threshold;  // (E), not trained

      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        constexpr Index noise = noisy ? E : 0;
        f(ParameterInfo::stacked(path, {{{"weight", E}, {"noise.weight", noise}, {}}}, D, Part::router,
                                 Initial::fan_in),
          p.weight...);
        if constexpr (has_bias) {
          f(ParameterInfo::vectors(path, {{{"bias", E}, {"noise.bias", noise}, {}}}, Part::router, Initial::zeros),
            p.bias...);
        }
        if constexpr (balance_bias) f(untrained(path, "e_score_correction_bias"), p.offset...);
        if constexpr (expert_choice) f(untrained(path, "threshold"), p.threshold...);
      }

     private:
      static constexpr ParameterInfo untrained(const Path& path, std::string_view name) {
        ParameterInfo info = ParameterInfo::vector(path, name, E, Part::router, Initial::zeros);
        info.trained = false;
        return info;
      }
    };

    /// What backward reads.
    template <class T, class M>
    struct Saved {
      View<const T> x;            // (N, D), the caller's
      PerRow<T> jittered;         // (N, D), only with Jitter
      Routing<M> routing;         // what was decided
      PerRow<std::int32_t> kept;  // (N, K): `selected` within the experts' capacity, only with Capacity
      View<M> log_sum;            // (1, N at most): log Σ exp h, or Σ p for sigmoid scores
      PerRow<M> chance;           // (N, E), only where the balance loss looks at noisy loads
      View<M> least;              // (1, E), only where experts choose
      PerRow<T> logits, dlogits;  // (N, E) or (N, 2E)
      View<M> partial;            // scratch of the bias's gradient
      detail::BalanceState<M> balance;

      void plan(Plan& plan, const Pass& pass) {
        const Index n = pass.rows();
        routing.plan(plan, pass, E, choices);
        routing.balance = Balance::kind;
        balance.plan(plan, E);
        log_sum = plan.keep<M>(1, n);
        if constexpr (jitters) jittered = plan.keep<T>(n, D);
        if constexpr (has_capacity) kept = plan.keep<std::int32_t>(n, choices);
        if constexpr (smooth_load) chance = plan.keep<M>(n, E);
        if constexpr (expert_choice) least = plan.persist<M>(1, E);
        logits = noisy ? plan.keep<T>(n, rows) : plan.scratch<T>(n, rows);
        dlogits = noisy ? PerRow<T>(plan.scratch<T>(n, rows)) : logits;
        if (has_bias && plan.purpose() == Plan::Purpose::training) partial = plan.scratch<M>(rowwise::chunks(n), rows);
      }
    };

    /// Fills `saved.routing` except losses and loads.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Saved<T, M>& saved) {
      const Index n = x.rows;
      saved.x = x;
      if constexpr (jitters) {
        if (jitter(pass) > 0) {
          const View<T> jittered = saved.jittered(n);
          backend.launch(n, jitter_rows<T>(pass, x, jittered));
          saved.x = jittered;
        }
      }
      backend.matmul(saved.x, p.weight.weights(), bias(p), saved.logits(n));
      auto chooses = choosing(pass, p, saved);
      if (const ExpertLimit* limit = pass.limit()) limit_choice(backend, *limit, saved.logits(n), chooses);
      backend.launch(n, chooses);
      if constexpr (expert_choice) {
        if (!chosen_by_experts(pass)) return;
        backend.launch(E, kernels::ExpertChooses<M>{pass.tokens, saved.routing, saved.least,
                                                    std::min(pass.real_rows(), taken_by_expert(pass.real_rows()))});
      }
    }

    /// The same for few tokens in inference. It also sorts the chosen pairs by expert.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void decode(B& backend, const Pass& pass, const Parameters<W>& p, Input<B> x, Dispatch& dispatch,
                       Saved<T, M>& saved) {
      assert(!pass.training && pass.limits == nullptr);
      saved.x = x;
      detail::route(backend, x, p.weight.weights(), bias(p), saved.logits(x.rows), choosing(pass, p, saved),
                    saved.routing.selected, dispatch);
    }

    /// Computes the losses, once the chosen pairs are sorted.
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void losses(B& backend, const Pass& pass, const Dispatch& dispatch, Saved<T, M>& saved) {
      const auto chances = chance(pass, saved);
      const View<const M> row_total = Scores::sigmoid ? View<const M>(saved.log_sum) : View<const M>();
      const bool over_step = pass.settings[setting::balance_over_step] != 0, alone = pass.counts == nullptr;
      backend.launch(
          E, kernels::BalanceTotals<M>{Balance::kind, saved.routing, row_total, chances, dispatch.offsets,
                                       saved.balance, over_step && alone, pass.first_of_step(), pass.second_run});
      if (over_step && !alone && !pass.second_run) add_counts_of_ranks(backend, pass, saved);
      const View<const M> log_sum =
          Scores::sigmoid ? View<const M>() : View<const M>(saved.log_sum.middle_cols(0, saved.x.rows));
      backend.launch(1, kernels::BalanceLosses<M>{Balance::kind, log_sum, saved.balance, saved.routing.losses,
                                                  static_cast<double>(pass.real_rows()), !chances.empty()});
    }

    /// From dgate (N, K), which is 0 for a pair that was not sent: overwrites dx, adds to the gradients. Those of the
    /// weighted losses are included.
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const Parameters<W>& p, MasterInput<B> dgate, Output<B> dx,
                         Saved<T, M>& saved, Parameters<M>& gradients) {
      const View<T> dlogits = saved.dlogits(dx.rows);
      const double tokens = static_cast<double>(std::max<Index>(1, pass.real_rows()));
      backend.launch(dx.rows,
                     kernels::RouterBackward<T, M>{row(pass, saved), saved.routing, dgate, saved.log_sum,
                                                   saved.balance.slope, chance(pass, saved), dlogits,
                                                   pass.settings[setting::balance_weight] * pass.router_loss_scale,
                                                   pass.settings[setting::z_weight] * pass.router_loss_scale / tokens});
      if constexpr (has_bias) {
        rowwise::column_sum(backend, dlogits, View(gradients.bias.data, 1, rows), saved.partial);
      }
      backend.matmul_weight(dlogits, saved.x, gradients.weight);
      backend.matmul_input(dlogits, p.weight.weights(), dx, Write::overwrite);
      if constexpr (jitters) {
        if (jitter(pass) > 0) backend.launch(dx.rows, jitter_rows<T>(pass, dx, dx));
      }
    }

   private:
    /// Adds what the micro-batches before this one have counted, on all ranks.
    template <Backend B, class T, class M>
    [[gnu::cold]] static void add_counts_of_ranks(B& backend, const Pass& pass, Saved<T, M>& saved) {
      std::vector<M> numbers(static_cast<std::size_t>(2 * E));
      backend.copy_to_host(numbers.data(), saved.routing.sums.data, numbers.size() * sizeof(M));
      std::vector<double> counts(numbers.size());
      std::transform(numbers.begin(), numbers.end(), counts.begin(),
                     [](M number) { return static_cast<double>(real_part(number)); });
      pass.counts->before(pass.layer, pass.first_of_step(), counts);
      std::transform(counts.begin(), counts.end(), numbers.begin(), [](double number) { return M(number); });
      backend.copy_to_device(saved.balance.before.data, numbers.data(), numbers.size() * sizeof(M));
      backend.launch(E, kernels::AddCountsBefore<M>{Balance::kind, saved.balance});
    }

    static constexpr kernels::RouterRule rule{.experts = E,
                                              .choices = K,
                                              .max_experts = std::min(E, 2 * K),
                                              .sigmoid = Scores::sigmoid,
                                              .normalised = normalised,
                                              .noisy = noisy,
                                              .dynamic = dynamic,
                                              .expert_choice = expert_choice,
                                              .balance = Balance::kind,
                                              .gate_scale = gate_scale};
    static constexpr bool smooth_load = noisy && Balance::kind == BalanceKind::variation;

    /// How many of N tokens each expert takes.
    static constexpr Index taken_by_expert(Index tokens) { return (tokens * K + E - 1) / E; }

    template <class W>
    static View<const VectorOf<W>> bias(const Parameters<W>& p) {
      if constexpr (has_bias) {
        return View<const VectorOf<W>>(p.bias.data, 1, rows);
      } else {
        return {};
      }
    }
    static constexpr bool chosen_by_experts(const Pass& pass) { return expert_choice && pass.training; }
    /// The kernel that chooses by the logits.
    template <class W, class T, class M>
    static kernels::RouterForward<T, M> choosing(const Pass& pass, const Parameters<W>& p, const Saved<T, M>& saved) {
      View<const T> offset;
      if constexpr (balance_bias) offset = p.offset;
      if constexpr (expert_choice) offset = p.threshold;
      return {row(pass, saved),        offset,        chance(pass, saved),
              saved.log_sum,           saved.routing, pass.settings[setting::routing_mass],
              !chosen_by_experts(pass)};
    }
    /// Chooses among the experts that are left alone.
    template <Backend B, class T, class M>
    [[gnu::cold]] static void limit_choice(B& backend, const ExpertLimit& limit, View<T> logits,
                                           kernels::RouterForward<T, M>& chooses) {
      kernels::RouterRule& own = chooses.row.rule;
      const Index most = limit.choices > 0 ? limit.choices : E;
      own.choices = std::min({own.choices, most, limit.kept});
      own.max_experts = std::min(own.max_experts, most);
      if (limit.left_out.empty()) return;
      const View<T> offset(reinterpret_cast<T*>(limit.scratch), 1, E);
      backend.launch(logits.rows + 1,
                     kernels::LeaveOut<T>{limit.left_out, logits, chooses.offset, offset, expert_choice});
      chooses.offset = offset;
    }
    template <class T, class M>
    static kernels::RouterRow<T, M> row(const Pass& pass, const Saved<T, M>& saved) {
      const auto first = static_cast<std::uint64_t>(pass.micro_batch * pass.rows());
      return {rule,
              saved.logits(saved.x.rows),
              pass.tokens,
              {pass.random(random_site::router_noise), first, pass.training}};
    }
    template <class T, class M>
    static View<M> chance(const Pass& pass, const Saved<T, M>& saved) {
      return smooth_load && pass.training ? saved.chance(saved.x.rows) : View<M>();
    }
    static double jitter(const Pass& pass) { return pass.training ? pass.settings[setting::jitter] : 0; }
    template <class T>
    static kernels::JitterRows<T> jitter_rows(const Pass& pass, View<const T> x, View<T> out) {
      const auto first = static_cast<std::uint64_t>(pass.micro_batch * pass.rows());
      return {x, out, pass.random(random_site::jitter), first, pass.settings[setting::jitter]};
    }
  };
};

}  // namespace tinymoe::inline v0_1
