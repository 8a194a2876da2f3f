#pragma once
/// @file
/// The losses that keep experts evenly used, over the real tokens of a micro-batch (R of them; pads never count):
///
///     SwitchBalance  E Σ_e f_e P_e,  f_e = share of the pairs sent to e            (Fedus et al. 2021, eq. 4)
///
///     GShardBalance  the same, f_e = share of the tokens whose first choice is e   (Lepikhin et al. 2020, algorithm 1)
///
///     CvBalance      CV²(importance) + CV²(load)                                   (Shazeer et al. 2017, eq. 6 to 11)
///
///     z              mean_n (log Σ_e exp logit_ne)²                                (Zoph et al. 2022, eq. 5)
///
/// Evenly used experts give 1 in the first two and 0 in the third.
///
/// - P_e = mean_n p_ne; sigmoid scores are normalised first, p_ne / Σ_j p_nj.
/// - importance_e = Σ_n g_ne.
/// - load_e is the number of pairs that e got. With noise it is Σ_n of the probability that another draw of e's noise
///   puts e among the top K.
/// - f, and load without noise, are counts and have no gradient.
///
/// **A step of several micro-batches** weighs the losses of each by its share of the step's real tokens
/// (`Pass::router_loss_scale`). z is a mean over tokens, so its figure and its gradient are those of one batch, however
/// the step is cut. A balance loss is no mean over tokens but a product or quotient of such means. Its figure in a
/// report is that of all tokens of the step, however they are cut (`balance_of`). Its gradient is that of each
/// micro-batch's own f and P, because f of the whole step is known only after the last forward. It is the gradient of
/// one batch where the micro-batches have the same f (where they have the same sums, for CvBalance), and comes near it
/// as they grow.
///
/// With `setting::balance_over_step`, f counts all micro-batches of the step so far (Qiu et al. 2025), and importance
/// and load are summed over them. The earlier micro-batches get no gradient. The slope of CV² falls as its sums grow:
/// over n micro-batches CvBalance pulls about (1 + 1/2 + … + 1/n) / n times as hard.

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/router_options.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// The weight of each mixture's balance loss.
inline constexpr Setting balance_weight{.name = "balance_weight",  // Fedus et al. 2021
                                        .initial = 0.01,
                                        .range = SettingRange::weight,
                                        .max = 1000,
                                        .about = "weight of each mixture's balance loss",
                                        .hub = "router_aux_loss_coef"};
/// The weight of each router's z-loss.
inline constexpr Setting z_weight{.name = "z_weight",  // Zoph et al. 2022
                                  .initial = 0.001,
                                  .range = SettingRange::weight,
                                  .max = 1000,
                                  .about = "weight of each router's z-loss",
                                  .hub = "router_z_loss_coef"};
/// Whether the balance loss is that of a whole step's loads.
inline constexpr Setting balance_over_step{
    .name = "balance_over_step",
    .range = SettingRange::flag,
    .about = "the balance loss counts the whole step, not each micro-batch alone"};
}  // namespace setting

/// The shares of all pairs times the mean scores; the default.
struct SwitchBalance {
  using Place = place::Balance;
  static constexpr const char* name = "switch";
  static constexpr BalanceKind kind = BalanceKind::shares;
};
/// The shares of first choices times the mean scores.
struct GShardBalance {
  using Place = place::Balance;
  static constexpr const char* name = "gshard";
  static constexpr BalanceKind kind = BalanceKind::first_choices;
};
/// The squared coefficients of variation of importance and load; 0 when even.
struct CvBalance {
  using Place = place::Balance;
  static constexpr const char* name = "cv";
  static constexpr BalanceKind kind = BalanceKind::variation;
};
/// No balance loss; the default beside BalanceBias and ExpertChoice.
struct NoBalance {
  using Place = place::Balance;
  static constexpr const char* name = "none";
  static constexpr BalanceKind kind = BalanceKind::none;
};

namespace detail {

/// What the losses are computed from, and what backward reads of them.
template <class M>
struct BalanceState {
  View<M> counts;                 // (1, E): what f counts; with CvBalance (2, E): importance and load so far
  View<M> before;                 // (2, E): `counts` of the step's earlier micro-batches
  View<std::int32_t> step_loads;  // (1, E): pairs chosen in this step so far
  View<M> total;                  // (2, E): Σ_n of scores, or importance and load
  View<M> slope;                  // (2, E): derivatives of the balance loss by each p̃_ne, or by each g_ne and load

  void plan(Plan& plan, Index experts) {
    counts = plan.persist<M>(2, experts);
    before = plan.persist<M>(2, experts);
    step_loads = plan.persist<std::int32_t>(1, experts);
    total = plan.keep<M>(2, experts);
    slope = plan.keep<M>(2, experts);
  }
};

/// Whether a balance loss is Σ f P.
TINYMOE_EVERYWHERE constexpr bool looks_at_shares(BalanceKind kind) {
  return kind == BalanceKind::shares || kind == BalanceKind::first_choices;
}

/// The balance loss of `tokens` real tokens from their sums (2, E), which may have been added up over micro-batches and
/// processes: counts and Σ p, or importance and load.
inline double balance_of(BalanceKind kind, std::span<const double> sums, double tokens) {
  const std::size_t experts = sums.size() / 2;
  const auto first = sums.first(experts), second = sums.subspan(experts);
  const auto total = [](std::span<const double> row) { return std::accumulate(row.begin(), row.end(), 0.0); };
  if (kind == BalanceKind::variation) {
    const auto variation = [&](std::span<const double> row) {
      const double mean = total(row) / static_cast<double>(experts);
      double square = 0;
      for (const double value : row) square += (value - mean) * (value - mean);
      return mean == 0 ? 0 : square / static_cast<double>(experts) / (mean * mean);
    };
    return variation(first) + variation(second);
  }
  const double all = total(first);
  if (!looks_at_shares(kind) || all == 0 || tokens == 0) return 0;
  return static_cast<double>(experts) * std::inner_product(first.begin(), first.end(), second.begin(), 0.0) / all /
         tokens;
}

}  // namespace detail

namespace kernels {

/// The sums of each expert: kernel row e is expert e.
template <class M>
struct BalanceTotals {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  BalanceKind kind;
  Routing<M> routing;
  View<const M> row_total;  // (1, N): Σ_j p_nj of sigmoid scores; empty for softmax
  View<const M> chance;     // (N, E): probability of being chosen; empty without noise
  View<const std::int32_t> offsets;
  detail::BalanceState<M> state;
  bool over_step, first, second_run;  // first: of the step's micro-batches
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index expert) const {
    const Index tokens = routing.probability.rows, choices = routing.selected.cols;
    const std::int32_t sent = offsets.data[expert + 1] - offsets.data[expert];
    const std::int32_t* selected = routing.selected.data;
    double counted = sent;
    if (kind == BalanceKind::first_choices) {
      counted = group.sum(tokens, [=](Index n) { return selected[n * choices] == expert ? 1.0 : 0.0; });
    }
    const bool variation = kind == BalanceKind::variation;
    M score(0), load(0);
    if (detail::looks_at_shares(kind)) {
      const View<const M> p = routing.probability;
      const M* row = row_total.data;
      score = group.sum(tokens, [=](Index n) {
        const M value = p.data[n * p.stride + expert];
        return row == nullptr || real_part(row[n]) == 0 ? value : value / row[n];
      });
    }
    if (variation) {
      const M* gate = routing.gate.data;
      score = group.sum(tokens * choices, [=](Index i) { return selected[i] == expert ? gate[i] : M(0); });
      const View<const M> c = chance;
      load = c.empty() ? M(double(sent)) : group.sum(tokens, [=](Index n) { return c.data[n * c.stride + expert]; });
    }
    group.once([&] {
      const bool goes_on = over_step && !first;
      routing.sums.data[expert] = M(real_part(variation ? score : M(counted)));
      routing.sums.row(1)[expert] = M(real_part(variation ? load : score));
      if (variation) {
        M *sums = state.counts.data + expert, *loads = state.counts.row(1) + expert;
        M *old_sum = state.before.data + expert, *old_load = state.before.row(1) + expert;
        if (!second_run) *old_sum = goes_on ? *sums : M(0), *old_load = goes_on ? *loads : M(0);
        score += *old_sum, load += *old_load;
        *sums = M(real_part(score)), *loads = M(real_part(load));
      }
      state.total.data[expert] = score;
      state.total.row(1)[expert] = load;
      if (second_run) return;
      if (!variation) {
        M& count = state.counts.data[expert];
        count = (goes_on ? count : M(0)) + M(counted);
      }
      std::int32_t& in_step = state.step_loads.data[expert];
      in_step = (first ? 0 : in_step) + sent;
    });
  }
};

/// The losses (1, 2) and their slopes; one kernel row.
template <class M>
struct BalanceLosses {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  BalanceKind kind;
  View<const M> log_sum;  // (1, N); empty for sigmoid scores, which have no z-loss
  detail::BalanceState<M> state;
  View<M> losses;
  double tokens;  // R
  bool load_moves;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const Index experts = state.counts.cols;
    const M *count = state.counts.data, *total = state.total.data, *s = log_sum.data;
    M* slope = state.slope.data;
    M balance(0);
    if (detail::looks_at_shares(kind)) {
      const M all = group.sum(experts, [=](Index e) { return count[e]; });
      const M factor = real_part(all) > 0 && tokens > 0 ? M(double(experts) / tokens) / all : M(0);
      group.each(experts, [=](Index e) { slope[e] = factor * count[e]; });
      balance = group.sum(experts, [=](Index e) { return slope[e] * total[e]; });
    }
    if (kind == BalanceKind::variation) {
      balance = variation(group, total, slope, experts, true) +
                variation(group, state.total.row(1), state.slope.row(1), experts, load_moves);
    }
    M z(0);
    const Index rows = log_sum.cols;
    if (s != nullptr) z = group.sum(rows, [=](Index n) { return s[n] * s[n]; });
    group.once([&] {
      losses.data[0] = balance;
      losses.data[1] = tokens > 0 ? z / M(tokens) : M(0);
    });
  }

  /// CV²(v) = mean((v − m)²) / m² and its slopes 2 (v_e − m − CV² m) / (E m²), which are 0 unless `moves`.
  template <class Group>
  TINYMOE_EVERYWHERE static M variation(Group group, const M* v, M* slope, Index experts, bool moves) {
    const M count = M(double(experts));
    const M mean = group.sum(experts, [=](Index e) { return v[e]; }) / count;
    if (real_part(mean) == 0) {
      group.each(experts, [=](Index e) { slope[e] = M(0); });
      return M(0);
    }
    const M square = group.sum(experts, [=](Index e) { return (v[e] - mean) * (v[e] - mean); }) / count / (mean * mean);
    const M factor = moves ? M(2) / (count * mean * mean) : M(0);
    group.each(experts, [=](Index e) { slope[e] = factor * (v[e] - mean - square * mean); });
    return square;
  }
};

/// Adds what micro-batches on other ranks have counted before this one: kernel row e is expert e.
template <class M>
struct AddCountsBefore {
  BalanceKind kind;
  detail::BalanceState<M> state;  // `before` has the counts
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index expert) const {
    group.once([&] {
      state.counts.data[expert] += state.before.data[expert];
      if (kind != BalanceKind::variation) return;
      state.counts.row(1)[expert] += state.before.row(1)[expert];
      state.total.data[expert] += state.before.data[expert];
      state.total.row(1)[expert] += state.before.row(1)[expert];
    });
  }
};

/// b_e += rate · sign(mean load − load_e); one kernel row.
template <class T, class M>
struct MoveBalanceBias {
  static constexpr bool compiled_once = true;
  View<const std::int32_t> loads;
  View<M> master;
  View<T> copy;  // what layers read; may be the master
  double rate;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const std::int32_t* load = loads.data;
    M* to = master.data;
    T* read = copy.data;
    const Index experts = loads.cols;
    const double by = rate, mean = group.sum(experts, [=](Index e) { return double(load[e]); }) / double(experts);
    group.each(experts, [=](Index e) {
      const double sign = load[e] < mean ? 1.0 : (load[e] > mean ? -1.0 : 0.0);
      to[e] = to[e] + M(by * sign);
      read[e] = T(to[e]);
    });
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
