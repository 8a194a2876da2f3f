// Routers' choices, losses, noise and jitter against the published formulas, which are written out here once more: a
// wrong formula has a right gradient, and is the same on every backend.

#include <numeric>

#include "layers/router_trial.hpp"

namespace tinymoe_test::router_values {

namespace {

constexpr Index D = router_width;
using Matrix = std::vector<std::vector<double>>;

template <class R>
using Values = Trial<Alone<R>, Reference<double>>;

/// What a router is by its options: its scores and gates, and the mass at which a token has enough experts.
struct Kind {
  bool sigmoid = false, normalised = true;
  double mass = 1e9;
  std::vector<double> bias = {};  // in the selection alone
};

/// A micro-batch of real tokens.
struct Sample {
  std::size_t experts = 0, choices = 0;
  Matrix clean = {};                              // (R, E): W x + b
  Matrix deviation = {};                          // (R, E): of the noise; empty without
  Matrix h = {};                                  // (R, E): what scores are made from
  Matrix score = {};                              // (R, E)
  std::vector<std::vector<Index>> selected = {};  // the choices of each token, the best first
  Matrix gate = {};                               // their gates

  double tokens() const { return double(h.size()); }
};

/// Fills the scores, choices and gates that follow from h.
void decide(Sample& sample, const Kind& kind) {
  for (const auto& h : sample.h) {
    std::vector<double> score, gate;
    for (const double logit : h) score.push_back(kind.sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit));
    const double total = std::accumulate(score.begin(), score.end(), 0.0);
    if (!kind.sigmoid) {
      for (double& p : score) p /= total;
    }
    std::vector<Index> order(sample.experts);
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](Index e) {
      const auto at = static_cast<std::size_t>(e);
      return score[at] + (kind.bias.empty() ? 0 : kind.bias[at]);
    };
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return key(a) > key(b); });
    double kept = 0;
    std::vector<Index> selected;
    while (selected.size() < sample.choices && kept < kind.mass) {
      selected.push_back(order[selected.size()]);
      gate.push_back(score[static_cast<std::size_t>(selected.back())]);
      kept += gate.back();
    }
    if (kind.normalised) {
      for (double& g : gate) g /= kept;
    }
    sample.score.push_back(score);
    sample.selected.push_back(selected);
    sample.gate.push_back(gate);
  }
}

/// How often each expert is among the first `choices` of a token.
std::vector<double> counts(const Sample& sample, std::size_t choices) {
  std::vector<double> result(sample.experts);
  for (const auto& selected : sample.selected) {
    for (std::size_t k = 0; k < std::min(choices, selected.size()); ++k) {
      result[static_cast<std::size_t>(selected[k])] += 1;
    }
  }
  return result;
}

/// E Σ_e f_e P_e: f from counts, P the mean of scores that sum to one in each token.
double share_loss(const Sample& sample, const std::vector<double>& count) {
  const double all = std::accumulate(count.begin(), count.end(), 0.0);
  double loss = 0;
  for (const auto& score : sample.score) {
    const double total = std::accumulate(score.begin(), score.end(), 0.0);
    for (std::size_t e = 0; e < sample.experts; ++e) loss += count[e] / all * score[e] / total;
  }
  return double(sample.experts) * loss / sample.tokens();
}

/// Fedus et al. 2021, eq. 4, with K choices.
double switch_loss(const Sample& sample) { return share_loss(sample, counts(sample, sample.choices)); }
/// Lepikhin et al. 2020, algorithm 1, which looks at the first choice alone.
double gshard_loss(const Sample& sample) { return share_loss(sample, counts(sample, 1)); }

/// The variance over the squared mean.
double squared_variation(const std::vector<double>& v) {
  const auto count = double(v.size());
  const double mean = std::accumulate(v.begin(), v.end(), 0.0) / count;
  double square = 0;
  for (const double value : v) square += value * value / count;
  return square / (mean * mean) - 1;
}

/// The standard normal distribution.
double below(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

/// Shazeer et al. 2017, eq. 8 to 10: Σ_n Φ((clean − the k-th highest of the other h) / deviation).
std::vector<double> smooth_load(const Sample& sample) {
  std::vector<double> load(sample.experts);
  for (std::size_t n = 0; n < sample.h.size(); ++n) {
    for (std::size_t e = 0; e < sample.experts; ++e) {
      auto others = sample.h[n];
      others.erase(others.begin() + static_cast<Index>(e));
      std::sort(others.rbegin(), others.rend());
      const bool surely = others.size() < sample.choices;  // there are places for all
      load[e] += surely ? 1 : below((sample.clean[n][e] - others[sample.choices - 1]) / sample.deviation[n][e]);
    }
  }
  return load;
}

/// What experts get of the gates, and their load.
Matrix importance_and_load(const Sample& sample) {
  std::vector<double> importance(sample.experts);
  for (std::size_t n = 0; n < sample.h.size(); ++n) {
    for (std::size_t k = 0; k < sample.gate[n].size(); ++k) {
      importance[static_cast<std::size_t>(sample.selected[n][k])] += sample.gate[n][k];
    }
  }
  return {importance, sample.deviation.empty() ? counts(sample, sample.choices) : smooth_load(sample)};
}

/// Shazeer et al. 2017, eq. 6, 7 and 11, each with weight 1.
double variation_loss(const Sample& sample) {
  const auto sums = importance_and_load(sample);
  return squared_variation(sums[0]) + squared_variation(sums[1]);
}

/// Zoph et al. 2022, eq. 5.
double z_loss(const Sample& sample) {
  double loss = 0;
  for (const auto& h : sample.h) {
    double total = 0;
    for (const double logit : h) total += std::exp(logit);
    loss += std::log(total) * std::log(total) / sample.tokens();
  }
  return loss;
}

template <class R>
bool is_pad(const Values<R>& router, Index n) {
  return !router.pass.tokens.empty() && router.pass.tokens.data[n] < 0;
}

/// W x + b of the real tokens, for the E rows of W from `first` on.
template <class R>
Matrix products(const Values<R>& router, Index first = 0) {
  Matrix result;
  for (Index n = 0; n < router.pass.rows(); ++n) {
    if (is_pad<R>(router, n)) continue;
    result.emplace_back();
    for (Index o = first; o < first + R::experts; ++o) {
      double total = 0;
      if constexpr (R::has_bias) total = router.weights.bias.data[o];
      for (Index i = 0; i < D; ++i) total += router.x.view()(n, i) * router.weights.weight.view()(o, i);
      result.back().push_back(total);
    }
  }
  return result;
}

/// The logits that a pass with noise or jitter came to, from its scores.
template <class R>
Matrix noisy_logits(const Values<R>& router, bool sigmoid) {
  const auto& saved = router.saved.router;
  Matrix result;
  for (Index n = 0; n < router.pass.rows(); ++n) {
    if (is_pad<R>(router, n)) continue;
    result.emplace_back();
    for (Index e = 0; e < R::experts; ++e) {
      const double p = saved.routing.probability(n, e);
      result.back().push_back(sigmoid ? std::log(p / (1 - p)) : std::log(p) + saved.log_sum.data[n]);
    }
  }
  return result;
}

/// What forward came to, by the definitions.
template <class R>
Sample sample_of(const Values<R>& router, Kind kind) {
  Sample sample{.experts = R::experts, .choices = R::choices};
  sample.h = sample.clean = products<R>(router);
  if (R::noisy && router.pass.training) {
    sample.h = noisy_logits<R>(router, kind.sigmoid);
    sample.deviation = products<R>(router, R::experts);
    for (auto& row : sample.deviation) {
      for (double& value : row) value = std::log(1 + std::exp(value));
    }
  }
  if constexpr (R::balance_bias) {
    kind.bias.assign(router.weights.offset.data, router.weights.offset.data + R::experts);
  }
  decide(sample, kind);
  return sample;
}

double balance_of(const auto& router) { return router.saved.router.routing.losses.data[0]; }
double z_of(const auto& router) { return router.saved.router.routing.losses.data[1]; }

/// The choices, gates and losses of a pass are those of the definitions.
template <class R>
void check_values(const Values<R>& router, const Kind& kind, double (*balance)(const Sample&), double tolerance) {
  const auto sample = sample_of<R>(router, kind);
  const auto& routing = router.saved.router.routing;
  std::size_t real = 0;
  for (Index n = 0; n < router.pass.rows(); ++n) {
    std::vector<Index> selected;
    std::vector<double> gate;
    if (!is_pad<R>(router, n)) selected = sample.selected[real], gate = sample.gate[real], ++real;
    selected.resize(static_cast<std::size_t>(R::choices), -1);
    gate.resize(static_cast<std::size_t>(R::choices));
    CHECK(std::equal(selected.begin(), selected.end(), routing.selected.row(n)));
    CHECK(absolute_error({routing.gate.row(n), routing.gate.row(n) + R::choices}, gate) < 1e-13);
  }
  CHECK(balance_of(router) == Approx(balance(sample)).epsilon(tolerance));
  if (kind.sigmoid) {
    CHECK(z_of(router) == 0);  // logits of each expert by itself have no common sum to keep small
  } else {
    CHECK(z_of(router) == Approx(z_loss(sample)).epsilon(1e-12));
  }
}

// Tokens 2, 7 and 11 of twelve are pads.
const Token padded_tokens[] = {1, 1, -1, 1, 1, 1, 1, -1, 1, 1, 1, -1};

/// In evaluation, in training, and in training with pads, whose rows hold what would be seen in any sum.
template <class R>
void check_router(const Kind& kind, double (*balance)(const Sample&), double tolerance = 1e-12) {
  Reference<double> backend;
  Pass pass{.batch = 2, .time = 6, .settings = {setting::routing_mass = kind.mass}, .seed = Seed{5}, .step = 3};
  for (const char* what : {"evaluation", "training", "pads"}) {
    INFO(what);
    Values<R> router(backend, pass, D, R::choices);
    for (Index n = 0; n < 12; ++n) {
      for (Index i = 0; i < D && is_pad<R>(router, n); ++i) router.x.view()(n, i) = 30;
    }
    router.forward();
    check_values<R>(router, kind, balance, tolerance);
    if (pass.training) pass.tokens = {padded_tokens, 1, 12}, pass.pads = 3;
    pass.training = true;
  }
}

/// A router whose token n has the probabilities of row n.
template <class R>
struct GivenProbabilities : Values<R> {
  GivenProbabilities(Reference<double>& backend, const Matrix& probability)
      : Values<R>(backend, {.time = std::ssize(probability)}, D, R::choices) {
    this->x.fill(0), this->w.fill(0);
    for (Index n = 0; n < std::ssize(probability); ++n) {
      this->x.view()(n, n) = 1;
      for (Index e = 0; e < R::experts; ++e) {
        this->weights.weight.view()(e, n) =
            std::log(probability[static_cast<std::size_t>(n)][static_cast<std::size_t>(e)]);
      }
    }
    this->forward();
  }
};

/// First choices 0, 0, 2; second choices 1, 3, 1.
const Matrix three_tokens = {{.4, .3, .2, .1}, {.4, .1, .2, .3}, {.1, .2, .6, .1}};

const auto mean_of = [](const std::vector<double>& values, auto&& f) {
  double total = 0;
  for (const double value : values) total += f(value);
  return total / double(values.size());
};

/// The numbers are independent: neighbours, and those two and three apart, do not go together.
void check_independent(const std::vector<double>& values, double mean, double variance) {
  for (const std::size_t apart : {1u, 2u, 3u}) {
    double together = 0;
    for (std::size_t i = apart; i < values.size(); ++i) together += (values[i] - mean) * (values[i - apart] - mean);
    CHECK(std::abs(together / double(values.size()) / variance) < 4 / std::sqrt(double(values.size())));
  }
}

/// Scores, gates and losses.
std::vector<double> numbers_of(const auto& router) {
  auto all = router.y.read();
  const auto& routing = router.saved.router.routing;
  all.insert(all.end(), routing.probability.data, routing.probability.data + routing.probability.size());
  all.insert(all.end(), routing.losses.data, routing.losses.data + 2);
  return all;
}
std::vector<std::int32_t> selected_by(const auto& router) {
  const auto& selected = router.saved.router.routing.selected;
  return {selected.data, selected.data + selected.size()};
}

/// Outside of training a router is that without its noise, to the bit; in training it is another, each time.
template <class With, class Without>
void check_training_alone() {
  Reference<double> backend;
  const Pass pass{.batch = 2, .time = 100, .settings = {setting::jitter = 0.2}, .seed = Seed{5}};
  Values<With> with(backend, pass, D, With::choices);
  Values<Without> without(backend, pass, D, With::choices);
  std::copy_n(with.weights.weight.data, without.weights.weight.size(), without.weights.weight.data);
  if constexpr (With::has_bias) std::copy_n(with.weights.bias.data, Without::experts, without.weights.bias.data);
  with.forward(), without.forward();
  CHECK(same_bits(numbers_of(with), numbers_of(without)));
  CHECK(selected_by(with) == selected_by(without));

  with.pass.training = without.pass.training = true;
  with.forward(), without.forward();
  const auto first = numbers_of(with);
  CHECK(absolute_error(first, numbers_of(without)) > 0.01);
  CHECK(balance_of(with) != balance_of(without));
  CHECK(selected_by(with) != selected_by(without));
  with.forward();
  CHECK(same_bits(numbers_of(with), first));
  const Pass trained = with.pass;
  for (const auto& change : std::vector<void (*)(Pass&)>{[](Pass& p) { p.seed = Seed{6}; }, [](Pass& p) { ++p.step; },
                                                         [](Pass& p) { ++p.micro_batch; }, [](Pass& p) { ++p.layer; },
                                                         [](Pass& p) { p.training = false; }}) {
    with.pass = trained;
    change(with.pass);
    with.forward();
    CHECK(absolute_error(numbers_of(with), first) > 0.01);
  }
}

}  // namespace

TEST_CASE("GShard's loss counts first choices", "[router]") {
  Reference<double> backend;
  // f = (2/3, 0, 1/3, 0), P = (0.3, 0.2, 1/3, 1/6)
  const GivenProbabilities<Router<4, 2, GShardBalance>> router(backend, three_tokens);
  CHECK(balance_of(router) == Approx(4 * (2.0 / 3 * 0.3 + 1.0 / 3 * 1.0 / 3)).epsilon(1e-14));
  // Of all choices, f = (1/3, 1/3, 1/6, 1/6).
  const GivenProbabilities<Router<4, 2>> all(backend, three_tokens);
  CHECK(balance_of(all) == Approx(4 * ((0.3 + 0.2) / 3 + (1.0 / 3 + 1.0 / 6) / 6)).epsilon(1e-14));
  check_router<Router<5, 2, GShardBalance>>({}, gshard_loss);
  check_router<Router<5, 2, GShardBalance, SigmoidScores, BalanceBias>>({.sigmoid = true}, gshard_loss);
}

TEST_CASE("the variation loss is the squared variation of importance and of load", "[router]") {
  Reference<double> backend;
  // Importance (8/7, 19/28, 3/4, 3/7), of mean 3/4; load (2, 2, 1, 1), of mean 3/2.
  const GivenProbabilities<Router<4, 2, CvBalance>> router(backend, three_tokens);
  const double importance = (std::pow(8.0 / 7 - 0.75, 2) + std::pow(19.0 / 28 - 0.75, 2) + std::pow(3.0 / 7 - 0.75, 2));
  CHECK(balance_of(router) == Approx(importance / 4 / (0.75 * 0.75) + 0.25 / 2.25).epsilon(1e-14));
  check_router<Router<5, 2, CvBalance>>({}, variation_loss);
  check_router<Router<5, 2, CvBalance, SigmoidScores, ScoreGates>>({.sigmoid = true, .normalised = false},
                                                                   variation_loss);
}

TEST_CASE("the balance loss of a batch follows from its sums", "[router]") {
  // Of variance 1 around 2, and of variance 16 around 4.
  const std::vector<double> variations = {1, 3, 1, 3, 0, 8, 0, 8};
  CHECK(detail::balance_of(BalanceKind::variation, variations, 8) == Approx(0.25 + 1).epsilon(1e-14));
  const std::vector<double> nothing(8, 0.0);
  CHECK(detail::balance_of(BalanceKind::variation, nothing, 0) == 0);
  CHECK(detail::balance_of(BalanceKind::shares, nothing, 0) == 0);
  // f = (1/8, 3/8, 1/8, 3/8), P = (0, 8, 0, 8) / 16
  CHECK(detail::balance_of(BalanceKind::shares, variations, 16) == Approx(4 * (3.0 / 8)).epsilon(1e-14));
}

TEST_CASE("with noise the variation is that of the load that another draw would give", "[router]") {
  // Deviations have a minimum that the formula does not have.
  check_router<Router<5, 2, NoisyTopK, Bias, CvBalance>>({}, variation_loss, 1e-4);
  check_router<Router<5, 2, NoisyTopK, SigmoidScores, CvBalance>>({.sigmoid = true}, variation_loss, 1e-4);
  check_router<Router<3, 3, NoisyTopK, CvBalance>>({}, variation_loss);  // all are surely taken
}

TEST_CASE("losses of other scores and choices are those of their formulas", "[router]") {
  check_router<Router<5, 2, NoisyTopK>>({}, switch_loss);
  check_router<Router<5, 2, SigmoidScores>>({.sigmoid = true}, switch_loss);
  check_router<Router<5, 1>>({.normalised = false}, switch_loss);
  check_router<Router<5, 3, DynamicTopK>>({.normalised = false, .mass = 0.6}, switch_loss);
}

TEST_CASE("over a step, loads are those of its micro-batches so far", "[router]") {
  // `sums_of` are what micro-batches add up, `loss_of` the loss that sums and one micro-batch's scores give.
  const auto check = []<class R>(std::type_identity<R>, auto sums_of, auto loss_of, double tolerance = 1e-13) {
    constexpr Index rows = 6;
    const Token tokens[rows] = {1, -1, 1, 1, 1, -1};
    Reference<double> backend;
    const Settings alone{setting::balance_weight = 1, setting::z_weight = 0};
    Settings settings = alone;
    settings.set(setting::balance_over_step = true);
    Values<R> router(backend, {.batch = 2, .time = 3, .settings = settings, .training = true}, D, R::choices);
    Values<R> each(backend, {.batch = 2, .time = 3, .settings = alone, .training = true}, D, R::choices);
    router.dy.fill(0);  // what backward gives is then the balance loss's gradient alone
    Matrix before;      // the sums of the step's earlier micro-batches
    const auto with_before = [&](Matrix sums) {
      for (std::size_t i = 0; i < before.size(); ++i) {
        for (std::size_t e = 0; e < R::experts; ++e) sums[i][e] += before[i][e];
      }
      return sums;
    };
    std::uint64_t turn = 0;
    for (const Index micro_batch : {0, 1, 2, 0, 1}) {
      INFO("turn " << turn);
      for (auto* trial : {&router, &each}) {
        trial->pass.micro_batch = micro_batch;
        trial->pass.tokens = turn == 1 ? View<const Token>(tokens, 1, rows) : View<const Token>();
        trial->pass.pads = turn == 1 ? 2 : 0;
        trial->x.fill_normal(100 + turn);
        trial->forward();
      }
      ++turn;
      if (micro_batch == 0) before.clear();
      const auto sample = sample_of<R>(router, {});
      const auto own = sums_of(sample);
      CHECK(balance_of(router) == Approx(loss_of(sample, with_before(own))).epsilon(tolerance));
      CHECK(balance_of(each) == Approx(loss_of(sample, own)).epsilon(tolerance));
      if (micro_batch > 0) CHECK(std::abs(balance_of(router) - balance_of(each)) > 1e-3);

      // The gradient is that of this micro-batch's tokens alone: differences of the formula.
      if constexpr (!R::noisy) {
        router.backward();
        std::vector<double> expected;
        for (Index i = 0; i < rows * D; ++i) {
          double& x = router.x.view().data[i];
          const double kept = x, step = 1e-5;
          const auto loss_at = [&](double value) {
            x = value;
            const auto moved = sample_of<R>(router, {});
            return loss_of(moved, with_before(sums_of(moved)));
          };
          expected.push_back((loss_at(kept + step) - loss_at(kept - step)) / (2 * step));
          x = kept;
        }
        CHECK(absolute_error(router.dx.read(), expected) < 1e-8);
      }
      before = with_before(own);
    }
  };
  const auto pairs = [](const Sample& sample) { return Matrix{counts(sample, 2)}; };
  const auto firsts = [](const Sample& sample) { return Matrix{counts(sample, 1)}; };
  const auto shares = [](const Sample& sample, const Matrix& sums) { return share_loss(sample, sums[0]); };
  const auto variations = [](const Sample&, const Matrix& sums) {
    return squared_variation(sums[0]) + squared_variation(sums[1]);
  };
  check(std::type_identity<Router<5, 2>>{}, pairs, shares);
  check(std::type_identity<Router<5, 2, GShardBalance>>{}, firsts, shares);
  check(std::type_identity<Router<5, 2, CvBalance>>{}, importance_and_load, variations);
  check(std::type_identity<Router<5, 2, NoisyTopK, CvBalance>>{}, importance_and_load, variations, 1e-4);
}

TEST_CASE("noise and jitter act in training alone", "[router]") {
  SECTION("noise") { check_training_alone<Router<5, 2, NoisyTopK>, Router<5, 2>>(); }
  SECTION("noise with biases and another loss") {
    check_training_alone<Router<5, 2, NoisyTopK, Bias, CvBalance>, Router<5, 2, Bias, CvBalance>>();
  }
  SECTION("jitter") { check_training_alone<Router<5, 2, Jitter>, Router<5, 2>>(); }
}

TEST_CASE("noise is normal, of the deviation softplus(W_noise x)", "[router]") {
  constexpr Index N = 4000;
  using R = Router<3, 2, NoisyTopK>;
  Reference<double> backend;
  Values<R> router(backend, {.time = N, .training = true, .seed = Seed{5}}, D, 2);
  // Expert 1 has no noise, so that the others' logits follow from probabilities: h_e = h_1 + log(p_e / p_1).
  const double clean[] = {-0.2, 0.3, 0.5}, deviation[] = {0.5, 0, 2};
  router.w.fill(0), router.x.fill(0);
  for (Index n = 0; n < N; ++n) router.x.view()(n, 1) = 1;
  for (Index e = 0; e < 3; ++e) {
    router.weights.weight.view()(e, 1) = clean[e];
    router.weights.weight.view()(3 + e, 1) = e == 1 ? -800 : std::log(std::exp(deviation[e]) - 1);
  }
  router.forward();
  const auto p = router.saved.router.routing.probability;
  std::vector<double> noise;
  Sample sample{.experts = 3, .choices = 2};
  for (Index n = 0; n < N; ++n) {
    sample.h.emplace_back();
    for (Index e = 0; e < 3; ++e) {
      sample.h.back().push_back(clean[1] + std::log(p(n, e) / p(n, 1)));
      if (e != 1) noise.push_back((sample.h.back().back() - clean[e]) / deviation[e]);
    }
  }
  const auto count = double(noise.size());
  CHECK(std::abs(mean_of(noise, [](double x) { return x; })) < 4 / std::sqrt(count));
  CHECK(std::abs(mean_of(noise, [](double x) { return x * x; }) - 1) < 4 * std::sqrt(2 / count));
  CHECK(std::abs(mean_of(noise, [](double x) { return x * x * x; })) < 4 * std::sqrt(15 / count));
  CHECK(std::abs(mean_of(noise, [](double x) { return x * x * x * x; }) - 3) < 4 * std::sqrt(96 / count));
  check_independent(noise, 0, 1);
  // Each deviation is that of its own expert.
  for (const std::size_t expert : {0u, 1u}) {
    double square = 0;
    for (std::size_t i = expert; i < noise.size(); i += 2) square += noise[i] * noise[i];
    CHECK(std::abs(square / N - 1) < 4 * std::sqrt(2.0 / N));
  }
  // Choices, gates and both losses go by the noisy logits.
  decide(sample, {});
  std::vector<double> gates;
  bool selected = true;
  for (std::size_t n = 0; n < sample.gate.size(); ++n) {
    gates.insert(gates.end(), sample.gate[n].begin(), sample.gate[n].end());
    const auto* chosen = router.saved.router.routing.selected.row(static_cast<Index>(n));
    selected = selected && std::equal(chosen, chosen + 2, sample.selected[n].begin());
  }
  CHECK(selected);
  CHECK(absolute_error(router.y.read(), gates) < 1e-13);
  CHECK(balance_of(router) == Approx(switch_loss(sample)).epsilon(1e-12));
  CHECK(z_of(router) == Approx(z_loss(sample)).epsilon(1e-12));
}

TEST_CASE("the lower of two noisy logits wins as often as their deviations say", "[router]") {
  constexpr Index N = 10000;
  Reference<double> backend;
  Values<Router<2, 1, NoisyTopK>> router(backend, {.time = N, .training = true, .seed = Seed{5}}, D, 1);
  router.w.fill(0), router.x.fill(1);
  router.weights.weight.view()(0, 2) = 0.5;
  router.weights.weight.view()(2, 0) = std::log(std::exp(0.6) - 1);
  router.weights.weight.view()(3, 0) = std::log(std::exp(0.8) - 1);
  router.forward();
  double share = 0;
  for (const auto expert : selected_by(router)) share += expert / double(N);
  const double expected = below(-0.5 / std::hypot(0.6, 0.8));
  CHECK(std::abs(share - expected) < 4 * std::sqrt(expected * (1 - expected) / N));
}

TEST_CASE("jitter multiplies each input by a uniform number around 1", "[router]") {
  constexpr Index N = 2000;
  constexpr double jitter = 0.2;
  Reference<double> backend;
  const Pass pass{.time = N, .settings = {setting::jitter = jitter}, .training = true, .seed = Seed{5}};
  Values<Router<4, 2, Jitter>> router(backend, pass, D, 2);
  // Logit e is input e, and that of expert 3 is 0: x_e u_e = log(p_e / p_3).
  router.w.fill(0);
  for (Index e = 0; e < 3; ++e) router.weights.weight.view()(e, e) = 1;
  router.forward();
  const auto p = router.saved.router.routing.probability;
  std::vector<double> factor;
  for (Index n = 0; n < N; ++n) {
    for (Index e = 0; e < 3; ++e) factor.push_back(std::log(p(n, e) / p(n, 3)) / router.x.view()(n, e));
  }
  const auto [min, max] = std::minmax_element(factor.begin(), factor.end());
  const double rounding = 1e-6, variance = jitter * jitter / 3, count = double(factor.size());
  CHECK(*min > 1 - jitter - rounding);
  CHECK(*min < 1 - 0.99 * jitter);
  CHECK(*max < 1 + jitter + rounding);
  CHECK(*max > 1 + 0.99 * jitter);
  CHECK(std::abs(mean_of(factor, [](double u) { return u; }) - 1) < 4 * std::sqrt(variance / count));
  CHECK(std::abs(mean_of(factor, [](double u) { return (u - 1) * (u - 1); }) - variance) <
        4 * jitter * jitter * std::sqrt(4.0 / 45 / count));
  check_independent(factor, 1, variance);
}

}  // namespace tinymoe_test::router_values
