#pragma once
/// @file
/// The kernels of routers; router.hpp has the equations.
///
/// Over 300 lines: what forward and backward of a token share stands above both.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// The noise of one pass: ε ~ N(0, 1) for each token and expert.
struct RouterNoise {
  RandomStream stream;
  std::uint64_t first_row = 0;
  bool active = false;

  template <class M>
  TINYMOE_EVERYWHERE M draw(Index n, Index expert, Index experts) const {
    const auto index = (first_row + static_cast<std::uint64_t>(n)) * static_cast<std::uint64_t>(experts);
    return M(random_normal(stream, index + static_cast<std::uint64_t>(expert)));
  }
};

/// log(1 + e^x), without overflow.
template <class M>
TINYMOE_EVERYWHERE M softplus(M x) {
  return real_part(x) > 0 ? x + std::log(M(1) + exponential(-x)) : std::log(M(1) + exponential(x));
}

/// Added to the noise's standard deviation where it is a divisor.
inline constexpr double least_deviation = 1e-6;

/// Added to a sum of scores where it is a divisor: sigmoid scores may all be 0.
inline constexpr double least_total = 1e-20;

/// The options of a Router, as its kernels see them: at run time, so that they are compiled once for all routers.
struct RouterRule {
  Index experts = 1, choices = 1;  // E, K
  Index max_experts = 1;           // ExpertChoice outside training: maximum number of experts of a token
  bool sigmoid = false, normalised = false, noisy = false, dynamic = false, expert_choice = false;
  BalanceKind balance = BalanceKind::none;
  double gate_scale = 1;
};

/// What forward and backward of a token share.
template <class T, class M>
struct RouterRow {
  RouterRule rule;
  View<const T> logits;      // (N, E), or (N, 2E) with those of the noise
  View<const Token> tokens;  // (1, N); empty: no pads
  RouterNoise noise;

  TINYMOE_EVERYWHERE bool pad(Index n) const { return !tokens.empty() && tokens.data[n] < 0; }
  /// The logit of the n-th token for an expert, noise included.
  TINYMOE_EVERYWHERE M logit(Index n, Index e) const {
    const T* in = logits.row(n);
    if (!rule.noisy || !noise.active) return M(in[e]);
    return M(in[e]) + noise.template draw<M>(n, e, rule.experts) * softplus(M(in[rule.experts + e]));
  }
};

/// One token: its scores, and unless experts choose, its experts and gates.
template <class T, class M>
struct RouterForward {
  static constexpr bool compiled_once = true;
  RouterRow<T, M> row;
  View<const T> offset;  // (1, E): what counts in the selection alone, a balancing bias or thresholds; or empty
  View<M> chance;        // (N, E): probability of being chosen for another draw of the expert's noise; or empty
  View<M> log_sum;       // (1, N): log Σ exp h, or Σ p for sigmoid scores
  Routing<M> routing;
  double mass;        // DynamicTopK
  bool by_threshold;  // ExpertChoice outside of training
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const RouterRule rule = row.rule;
    const Index experts = rule.experts, choices = routing.selected.cols;
    M *p = routing.probability.row(n), *g = routing.gate.row(n);
    std::int32_t* chosen = routing.selected.row(n);
    group.each(choices, [=](Index k) { chosen[k] = -1, g[k] = M(0); });
    if (row.pad(n)) {
      group.each(experts, [=](Index e) { p[e] = M(0); });
      if (!chance.empty()) group.each(experts, [=, c = chance.row(n)](Index e) { c[e] = M(0); });
      group.once([&] { log_sum.data[n] = M(0); });
      return;
    }
    if (rule.noisy) {
      const auto from = row;
      group.each(experts, [=](Index e) { p[e] = from.logit(n, e); });
    } else {
      const T* in = row.logits.row(n);
      group.each(experts, [=](Index e) { p[e] = M(in[e]); });
    }
    if (!chance.empty()) chances(group, n);
    M total;
    if (rule.sigmoid) {
      group.each(experts, [=](Index e) { p[e] = sigmoid(p[e]); });
      total = group.sum(experts, [=](Index e) { return p[e]; });
    } else {
      const M max = M(group.max(experts, [=](Index e) { return p[e]; }));
      const M denominator = group.sum(experts, [=](Index e) { return p[e] = exponential(p[e] - max); });
      group.each(experts, [=](Index e) { p[e] = p[e] / denominator; });
      total = max + std::log(denominator);
    }
    group.once([&] {
      log_sum.data[n] = total;
      if (!rule.expert_choice) {
        choose(p, chosen, g);
      } else if (by_threshold) {
        choose_by_threshold(p, chosen, g);
      }
    });
  }

 private:
  /// The expert after `last` in the order of falling keys, of equal keys the lower number first; −1: there is none.
  /// `last` −1 gives the first.
  template <class Key>
  TINYMOE_EVERYWHERE Index next_best(Key key, Index last) const {
    const Index experts = row.rule.experts;
    Index best = -1;
    for (Index e = 0; e < experts; ++e) {
      const bool left = last < 0 || key(e) < key(last) || (key(e) == key(last) && e > last);
      if (left && (best < 0 || key(e) > key(best))) best = e;
    }
    return best;
  }

  TINYMOE_EVERYWHERE void choose(const M* p, std::int32_t* chosen, M* g) const {
    const T* bias = offset.data;
    const auto key = [=](Index e) { return real_part(p[e]) + (bias == nullptr ? 0 : real_part(M(bias[e]))); };
    const RouterRule rule = row.rule;
    M kept(0);
    Index last = -1;
    for (Index k = 0; k < rule.choices; ++k) {
      last = next_best(key, last);
      if (last < 0) break;  // only where scores are NaN
      chosen[k] = static_cast<std::int32_t>(last);
      g[k] = p[last];
      kept += p[last];
      if (rule.dynamic && real_part(kept) >= mass) break;
    }
    if (rule.normalised) {
      for (Index k = 0; k < rule.choices; ++k) g[k] = chosen[k] < 0 ? M(0) : g[k] / (kept + M(least_total));
    }
    if (rule.gate_scale != 1) {
      for (Index k = 0; k < rule.choices; ++k) g[k] *= M(rule.gate_scale);
    }
  }

  /// Column e of a token is expert e. It is taken if its score reaches its threshold; at most `max_experts` are, the
  /// highest scores first.
  TINYMOE_EVERYWHERE void choose_by_threshold(const M* p, std::int32_t* chosen, M* g) const {
    const auto key = [=](Index e) { return real_part(p[e]); };
    Index last = -1;
    for (Index taken = 0; taken < row.rule.max_experts;) {
      last = next_best(key, last);
      if (last < 0) break;
      if (key(last) < real_part(M(offset.data[last]))) continue;
      chosen[last] = static_cast<std::int32_t>(last);
      g[last] = p[last];
      ++taken;
    }
  }

  /// Φ((clean − the logit it must beat) / deviation) (Shazeer et al. 2017, eq. 9); p holds the noisy logits.
  template <class Group>
  TINYMOE_EVERYWHERE void chances(Group group, Index n) const {
    const M* h = routing.probability.row(n);
    const T* in = row.logits.row(n);
    M* to = chance.row(n);
    const Index experts = row.rule.experts, choices = row.rule.choices;
    const auto key = [=](Index e) { return real_part(h[e]); };
    Index kth = -1;
    for (Index k = 0; k < choices; ++k) kth = next_best(key, kth);
    const Index next = choices < experts ? next_best(key, kth) : -1;
    if (kth < 0 || next < 0) return group.each(experts, [=](Index e) { to[e] = M(1); });
    group.each(experts, [=](Index e) {
      const bool in_front = key(e) > key(kth) || (key(e) == key(kth) && e <= kth);
      const M z = (M(in[e]) - h[in_front ? next : kth]) / (softplus(M(in[experts + e])) + M(least_deviation));
      to[e] = M(0.5) * (M(1) + error_function(z * M(0.70710678118654752)));
    });
  }
};

/// Leaves experts out of a choice, rows n < N of their logits and row N for what counts in the selection alone: a logit
/// of −∞ gives them no score, a key of −∞ or a threshold of ∞ no token.
template <class T>
struct LeaveOut {
  static constexpr bool compiled_once = true;
  View<const std::uint8_t> left_out;  // (1, E)
  View<T> logits;                     // (N, E) or more columns
  View<const T> from;                 // (1, E): a balancing bias or thresholds; or empty: 0
  View<T> offset;                     // (1, E)
  bool thresholds;                    // that scores must reach, instead of a bias on them
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const std::uint8_t* gone = left_out.data;
    const float infinite = std::numeric_limits<float>::infinity();
    if (n < logits.rows) {
      T* to = logits.row(n);
      group.each(left_out.cols, [=](Index e) { to[e] = gone[e] != 0 ? T(-infinite) : to[e]; });
      return;
    }
    const T out = T(thresholds ? infinite : -infinite);
    group.each(left_out.cols, [=, to = offset.data, own = from.data](Index e) {
      to[e] = gone[e] != 0 ? out : own != nullptr ? own[e] : T(0.0f);
    });
  }
};

/// One expert takes its `count` best tokens, the earlier first where scores are equal.
template <class M>
struct ExpertChooses {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  View<const Token> tokens;
  Routing<M> routing;
  View<M> least;  // (1, E): the lowest score taken
  Index count;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index expert) const {
    using Real = decltype(real_part(M{}));
    using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    const View<M> p = routing.probability;
    const Index rows = p.rows;
    if (count == 0) return;  // nothing but pads: no choice, and the thresholds stay
    const Token* ids = tokens.data;
    // Scores are not negative, so their bits have the same order as they. Pads come last.
    const auto key = [=](Index n) -> Bits {
      if (ids != nullptr && ids[n] < 0) return 0;
      return std::bit_cast<Bits>(static_cast<Real>(real_part(p.data[n * p.stride + expert]))) + 1;
    };
    // The highest bound that `count` keys reach, found bit by bit; then how many of the keys equal to it are taken.
    Bits bound = 0;
    for (int bit = 8 * int(sizeof(Bits)) - 1; bit >= 0; --bit) {
      const Bits trial = bound | (Bits{1} << bit);
      if (group.sum(rows, [=](Index n) { return Index{key(n) >= trial}; }) >= count) bound = trial;
    }
    const Index above = group.sum(rows, [=](Index n) { return Index{key(n) > bound}; });
    Index last = rows - 1;  // the last token that an equal score may have
    for (Index low = 0, high = rows - 1; low <= high;) {
      const Index middle = (low + high) / 2;
      if (group.sum(middle + 1, [=](Index n) { return Index{key(n) == bound}; }) >= count - above) {
        last = middle, high = middle - 1;
      } else {
        low = middle + 1;
      }
    }
    const View<std::int32_t> selected = routing.selected;
    const View<M> gate = routing.gate;
    const auto number = static_cast<std::int32_t>(expert);
    group.each(rows, [=](Index n) {
      const Bits k = key(n);
      const bool taken = k > 0 && (k > bound || (k == bound && n <= last));
      selected.data[n * selected.stride + expert] = taken ? number : -1;
      gate.data[n * gate.stride + expert] = taken ? p.data[n * p.stride + expert] : M(0);
    });
    group.once([&] { least.data[expert] = M(bound > 0 ? std::bit_cast<Real>(Bits(bound - 1)) : Real(0)); });
  }
};

/// Sets the choices beyond an expert's capacity to −1. An expert's pairs are in the order of tokens.
struct DropPairs {
  static constexpr bool compiled_once = true;
  View<const std::int32_t> offsets, pairs;
  View<std::int32_t> sent;  // (N, K)
  Index capacity;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index expert) const {
    const std::int32_t *pair = pairs.data, *at = offsets.data;
    std::int32_t* to = sent.data;
    const Index first = at[expert] + capacity, count = at[expert + 1] - first;
    if (count > 0) group.each(count, [=](Index i) { to[pair[first + i]] = -1; });
  }
};

/// From dg (N, K) to the logits' gradient, the losses' parts included.
template <class T, class M>
struct RouterBackward {
  static constexpr bool compiled_once = true;
  RouterRow<T, M> row;
  Routing<M> routing;
  View<const M> dgate, log_sum, slope, chance;
  View<T> dlogits;                  // (N, E) or (N, 2E)
  double balance_weight, z_weight;  // z_weight: divided by R
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const RouterRule rule = row.rule;
    const Index experts = rule.experts;
    T* out = dlogits.row(n);
    if (row.pad(n)) return group.each(dlogits.cols, [=](Index i) { out[i] = T(0); });
    const Index choices = routing.gate.cols;
    const M *p = routing.probability.row(n), *g = routing.gate.row(n), *dg = dgate.row(n), *a = slope.data;
    const std::int32_t* chosen = routing.selected.row(n);
    const M weight = M(balance_weight), scale = M(rule.gate_scale);
    const bool variation = rule.balance == BalanceKind::variation, shares = detail::looks_at_shares(rule.balance);
    const auto gate_slope = [=](Index k) { return variation ? dg[k] + weight * a[chosen[k]] : dg[k]; };
    M kept(0), along(0);
    if (rule.normalised) {
      for (Index k = 0; k < choices; ++k) {
        if (chosen[k] < 0) continue;
        kept += p[chosen[k]];
        along += gate_slope(k) * g[k];
      }
    }
    // The share losses look at p for softmax, and at p / Σ p for sigmoid scores.
    M row_total(1), share_mean(0);
    if (shares && rule.sigmoid) {
      if (real_part(log_sum.data[n]) != 0) row_total = log_sum.data[n];  // scores that are all 0 stay as they are
      share_mean = group.sum(experts, [=](Index e) { return p[e] * a[e]; }) / row_total;
    }
    const auto slope_of = [=](Index e) {  // dL/dp_e
      M d(0);
      if (shares) d = weight * (a[e] - share_mean) / row_total;
      if (rule.expert_choice) {
        if (chosen[e] >= 0) d += gate_slope(e);
      } else {
        for (Index k = 0; k < choices; ++k) {
          if (chosen[k] != e) continue;
          const M slope_k = scale * gate_slope(k);
          d += rule.normalised ? (slope_k - along) / (kept + M(least_total)) : slope_k;
        }
      }
      return d;
    };
    if (rule.sigmoid) {
      group.each(experts, [=](Index e) { out[e] = T(p[e] * (M(1) - p[e]) * slope_of(e)); });
    } else {
      const M mean = group.sum(experts, [=](Index e) { return p[e] * slope_of(e); });
      const M z = M(2 * z_weight) * log_sum.data[n];
      group.each(experts, [=](Index e) { out[e] = T(p[e] * (slope_of(e) - mean + z)); });
    }
    if (rule.noisy) noise_backward(group, n, out);
  }

 private:
  /// The gradient of the noise's logits, and what the smooth load adds to both.
  template <class Group>
  TINYMOE_EVERYWHERE void noise_backward(Group group, Index n, T* out) const {
    const Index experts = row.rule.experts, choices = row.rule.choices;
    const T* in = row.logits.row(n);
    const auto from = row;
    if (!row.noise.active) return group.each(experts, [=](Index e) { out[experts + e] = T(0); });
    if (chance.empty()) {
      return group.each(experts, [=](Index e) {
        const M noise = from.noise.template draw<M>(n, e, experts);
        out[experts + e] = T(M(out[e]) * noise * sigmoid(M(in[experts + e])));
      });
    }
    // Φ(z) with z = (clean − beaten) / s and s = deviation + least_deviation. Its derivative is φ(z) / s by clean,
    // −φ(z) / s by the logit to be beaten, the K-th or the next expert's, and −z φ(z) / s by the deviation.
    const std::int32_t* chosen = routing.selected.row(n);
    const Index kth = chosen[choices - 1];
    const auto selected = [=](Index e) {
      for (Index k = 0; k < choices; ++k) {
        if (chosen[k] == e) return true;
      }
      return false;
    };
    Index next = -1;
    for (Index e = 0; e < experts; ++e) {
      if (!selected(e) && (next < 0 || real_part(from.logit(n, e)) > real_part(from.logit(n, next)))) next = e;
    }
    const M* load_slope = slope.row(1);
    const M weight = M(balance_weight);
    const bool moves = kth >= 0 && next >= 0;
    const auto deviation = [=](Index e) { return softplus(M(in[experts + e])) + M(least_deviation); };
    const auto z_of = [=](Index e) { return (M(in[e]) - from.logit(n, selected(e) ? next : kth)) / deviation(e); };
    const auto density = [=](Index e) {
      if (!moves) return M(0);
      const M z = z_of(e);
      return weight * load_slope[e] * exponential(-z * z * M(0.5)) * M(0.39894228040143268) / deviation(e);
    };
    const M against_next = group.sum(experts, [=](Index e) { return selected(e) ? density(e) : M(0); });
    const M against_kth = group.sum(experts, [=](Index e) { return selected(e) ? M(0) : density(e); });
    group.each(experts, [=](Index e) {
      M dh = M(out[e]);
      if (moves && e == next) dh -= against_next;
      if (moves && e == kth) dh -= against_kth;
      const M d = density(e), noise = from.noise.template draw<M>(n, e, experts);
      out[experts + e] = T((dh * noise - (moves ? d * z_of(e) : M(0))) * sigmoid(M(in[experts + e])));
      out[e] = T(dh + d);
    });
  }
};

/// out[n] = x[n] · U(1 − jitter, 1 + jitter), element by element; out may be x.
template <class T>
struct JitterRows {
  View<const T> x;
  View<T> out;
  RandomStream stream;
  std::uint64_t first_row;
  double jitter;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    using C = Compute<T>;
    const T* from = x.row(n);
    T* to = out.row(n);
    const std::uint64_t base = (first_row + static_cast<std::uint64_t>(n)) * static_cast<std::uint64_t>(x.cols);
    const RandomStream numbers = stream;
    const float width = static_cast<float>(2 * jitter), low = static_cast<float>(1 - jitter);
    group.each(x.cols, [=](Index i) {
      to[i] = T(C(from[i]) * C(low + width * random_uniform(numbers, base + static_cast<std::uint64_t>(i))));
    });
  }
};

/// A threshold is a moving average of the lowest score that its expert took: it moves by a twentieth of the difference,
/// the first time by all of it.
template <class T, class M>
struct MoveThresholds {
  static constexpr bool compiled_once = true;
  View<const M> least;
  View<M> master;
  View<T> copy;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index e) const {
    group.once([&] {
      const M old = master.data[e], moved = real_part(old) == 0 ? least.data[e] : old + (least.data[e] - old) * M(0.05);
      master.data[e] = moved;
      copy.data[e] = T(moved);
    });
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
