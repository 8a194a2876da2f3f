#include "tinymoe/layers/router.hpp"

#include <xtensor/xarray.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xview.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <vector>

#include "layers/router_trial.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::router {

namespace {

constexpr Index D = router_width;

template <class R>
using Double = Trial<Alone<R>, Reference<double>>;

/// A router whose logits for token n are row n of `logits`: x is the unit vectors, W the logits' transpose.
template <Index E, Index K>
struct GivenLogits : Double<Router<E, K>> {
  explicit GivenLogits(Reference<double>& backend, const std::vector<std::vector<double>>& logits)
      : Double<Router<E, K>>(backend, {.time = std::ssize(logits)}, D, K) {
    this->x.fill(0);
    this->w.fill(0);
    for (Index n = 0; n < std::ssize(logits); ++n) {
      this->x.view()(n, n % D) = 1;
      for (Index e = 0; e < E; ++e) {
        this->weights.weight.view()(e, n % D) = logits[static_cast<std::size_t>(n)][static_cast<std::size_t>(e)];
      }
    }
    this->forward();
  }
  std::vector<std::int32_t> selected() const {
    const auto view = this->saved.router.routing.selected;
    return {view.data, view.data + view.size()};
  }
  double balance() const { return this->saved.router.routing.losses.data[0]; }
  double z() const { return this->saved.router.routing.losses.data[1]; }
};

using Experts = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("the router takes the most probable experts and shares their weight", "[router]") {
  Reference<double> backend;
  const GivenLogits<4, 2> router(backend, {{std::log(1), std::log(5), std::log(3), std::log(1)}});
  CHECK(router.selected() == Experts{1, 2});
  CHECK(absolute_error(router.y.read(), {5.0 / 8, 3.0 / 8}) < 1e-15);
  const double* p = router.saved.router.routing.probability.data;
  CHECK(absolute_error({p, p + 4}, {0.1, 0.5, 0.3, 0.1}) < 1e-15);
  CHECK(router.z() == Approx(std::pow(std::log(10.0), 2)).epsilon(1e-14));
  CHECK(router.balance() == Approx(4 * (0.5 * 0.5 + 0.5 * 0.3)).epsilon(1e-14));
}

TEST_CASE("where experts tie, the lower one comes first", "[router]") {
  Reference<double> backend;
  CHECK(GivenLogits<5, 3>(backend, {{2, 2, 2, 2, 2}}).selected() == Experts{0, 1, 2});
  CHECK(GivenLogits<5, 3>(backend, {{1, 2, 1, 2, 1}}).selected() == Experts{1, 3, 0});
  CHECK(GivenLogits<5, 2>(backend, {{0, 0, 7, 0, 7}}).selected() == Experts{2, 4});
  CHECK(absolute_error(GivenLogits<5, 2>(backend, {{0, 0, 7, 0, 7}}).y.read(), {0.5, 0.5}) < 1e-15);
}

/// What a router chooses for one token with these logits, sorted into an offset table as a mixture needs it.
template <class R, class B>
void expect_experts_that_there_are(const std::array<double, 4>& logits) {
  B backend;
  Trial<Alone<R>, B> router(backend, {.time = 1}, D, R::choices);
  router.x.fill(0);
  router.w.fill(0);
  router.x.view()(0, 0) = 1;
  for (Index e = 0; e < 4; ++e) {
    router.weights.weight.view()(e, 0) = static_cast<typename B::Scalar>(logits[static_cast<std::size_t>(e)]);
  }
  router.forward();
  const auto& saved = router.saved;
  Experts chosen(saved.router.routing.selected.data, saved.router.routing.selected.data + R::choices);
  std::erase(chosen, -1);
  std::sort(chosen.begin(), chosen.end());
  for (const auto expert : chosen) CHECK((expert >= 0 && expert < 4));
  CHECK(std::adjacent_find(chosen.begin(), chosen.end()) == chosen.end());
  const std::int32_t* offsets = saved.dispatch.offsets.data;
  CHECK(offsets[0] == 0);
  CHECK(std::is_sorted(offsets, offsets + 5));
  CHECK(offsets[4] == std::ssize(chosen));
}

TEST_CASE("With logits that are infinite or no numbers a router takes experts that there are, or none", "[router]") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& logits :
       {std::array{inf, 1., 2., 3.}, std::array{1., 2., 3., -inf}, std::array{inf, inf, inf, inf},
        std::array{-inf, -inf, -inf, -inf}, std::array{inf, -inf, 0., 1.}, std::array{nan, nan, nan, nan},
        std::array{1., nan, 2., 3.}, std::array{3., 2., 1., nan}, std::array{nan, inf, -inf, 0.}}) {
    CAPTURE(logits);
    expect_experts_that_there_are<Router<4, 2>, Reference<double>>(logits);
    expect_experts_that_there_are<Router<4, 2>, Cpu>(logits);
    expect_experts_that_there_are<Router<4, 3, SigmoidScores>, Cpu>(logits);
    expect_experts_that_there_are<Router<4, 3, DynamicTopK>, Cpu>(logits);
    expect_experts_that_there_are<Router<4, 2, ExpertChoice>, Cpu>(logits);
  }
}

TEST_CASE("the router is exact with extreme logits", "[router]") {
  Reference<double> backend;
  const GivenLogits<3, 2> far(backend, {{-1e4, 1e4, 0}});
  CHECK(far.selected() == Experts{1, 0});  // the other two tie at zero
  CHECK(absolute_error(far.y.read(), {1, 0}) == 0);
  CHECK(far.z() == Approx(1e8).epsilon(1e-14));
  GivenLogits<3, 2> again(backend, {{-1e4, 1e4, 0}});
  again.backward();
  CHECK(absolute_error(again.dx.read(), again.dx.read()) == 0);  // finite
}

TEST_CASE("with as many choices as experts the gates are the softmax, sorted", "[router]") {
  Reference<double> backend;
  const GivenLogits<3, 3> router(backend, {{0.1, 0.7, 0.4}, {2, 1, 0}});
  CHECK(router.selected() == Experts{1, 2, 0, 0, 1, 2});
  const double total = std::exp(0.1) + std::exp(0.7) + std::exp(0.4), other = std::exp(2) + std::exp(1) + 1;
  CHECK(absolute_error(router.y.read(), {std::exp(0.7) / total, std::exp(0.4) / total, std::exp(0.1) / total,
                                         std::exp(2) / other, std::exp(1) / other, 1 / other}) < 1e-15);
}

TEST_CASE("a single expert has gate 1 and gets no gradient but z's", "[router]") {
  Reference<double> backend;
  Double<Router<1, 1>> router(backend, {.time = 3, .settings = {setting::balance_weight = 1, setting::z_weight = 0}}, D,
                              1);
  router.forward();
  CHECK(absolute_error(router.y.read(), {1, 1, 1}) == 0);
  CHECK(router.saved.router.routing.losses.data[0] == Approx(1).epsilon(1e-15));
  router.backward();
  CHECK(absolute_error(router.dx.read(), std::vector<double>(3 * D, 0.0)) < 1e-15);
  CHECK(absolute_error(router.g.read(), std::vector<double>(16, 0.0)) < 1e-15);
}

TEST_CASE("the balance loss is 1 when tokens are spread evenly, and E / K when K experts have all", "[router]") {
  Reference<double> backend;
  // Each expert is chosen twice, and by symmetry each has a quarter of the probability.
  const GivenLogits<4, 2> even(backend, {{3, 2, 0, 0}, {0, 3, 2, 0}, {0, 0, 3, 2}, {2, 0, 0, 3}});
  CHECK(even.balance() == Approx(1).epsilon(1e-14));
  const GivenLogits<4, 2> same(backend, {{0, 0, 0, 0}});  // ties: two experts have all pairs, but probability is even
  CHECK(same.balance() == Approx(1).epsilon(1e-14));
  const GivenLogits<4, 2> collapsed(backend, {{90, 90, 0, 0}, {90, 90, 0, 0}});
  CHECK(collapsed.balance() == Approx(2).epsilon(1e-14));
}

TEST_CASE("the router agrees with sorting and xtensor's formulas", "[router]") {
  constexpr Index E = 7, K = 3, N = 10;
  Reference<double> backend;
  Double<Router<E, K>> router(backend, {.batch = 2, .time = N / 2}, D, K);
  router.forward();
  const auto& routing = router.saved.router.routing;

  xt::xarray<double> logits = xt::zeros<double>({N, E}), share = xt::zeros<double>({E});
  std::vector<double> gates;
  std::vector<std::int32_t> selected;
  for (Index n = 0; n < N; ++n) {
    for (Index e = 0; e < E; ++e) {
      for (Index i = 0; i < D; ++i) logits(n, e) += router.x.view()(n, i) * router.weights.weight.view()(e, i);
    }
    std::vector<std::int32_t> order(E);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits(n, a) > logits(n, b); });
    double kept = 0;  // a softmax over the chosen logits alone is the renormalised one
    for (Index k = 0; k < K; ++k) kept += std::exp(logits(n, order[static_cast<std::size_t>(k)]));
    for (Index k = 0; k < K; ++k) {
      const auto expert = order[static_cast<std::size_t>(k)];
      selected.push_back(expert);
      gates.push_back(std::exp(logits(n, expert)) / kept);
      share(expert) += 1.0 / double(N * K);
    }
  }
  const xt::xarray<double> powers = xt::exp(logits);
  const xt::xarray<double> totals = xt::sum(powers, {1}, xt::keep_dims);
  const xt::xarray<double> probability = powers / totals;
  const xt::xarray<double> mean_probability = xt::mean(probability, {0});
  const double balance = double(E) * xt::sum(share * mean_probability)(), z = xt::mean(xt::square(xt::log(totals)))();

  CHECK(absolute_error(router.y.read(), gates) < 1e-14);
  CHECK(std::equal(selected.begin(), selected.end(), routing.selected.data));
  CHECK(absolute_error({routing.probability.data, routing.probability.data + N * E},
                       {probability.begin(), probability.end()}) < 1e-14);
  CHECK(routing.losses.data[0] == Approx(balance).epsilon(1e-13));
  CHECK(routing.losses.data[1] == Approx(z).epsilon(1e-13));
}

TEST_CASE("the router has the gradients of complex steps", "[router][gradient]") {
  const Settings both{setting::balance_weight = 0.7, setting::z_weight = 0.3};
  SECTION("two of five, with both losses") {
    check_gradients<Alone<Router<5, 2>>>({.batch = 2, .time = 3, .settings = both, .router_loss_scale = 0.5}, D, 2);
  }
  SECTION("the gates alone") {
    check_gradients<Alone<Router<5, 2>>>({.time = 3, .settings = {setting::balance_weight = 0, setting::z_weight = 0}},
                                         D, 2);
  }
  SECTION("the balance loss alone") {
    check_gradients<Alone<Router<5, 2>>>({.time = 3, .settings = {setting::balance_weight = 2, setting::z_weight = 0}},
                                         D, 2, [](auto& trial) { trial.dy.fill(0); });
  }
  SECTION("the z loss alone") {
    check_gradients<Alone<Router<5, 2>>>({.time = 3, .settings = {setting::balance_weight = 0, setting::z_weight = 2}},
                                         D, 2, [](auto& trial) { trial.dy.fill(0); });
  }
  SECTION("all experts") { check_gradients<Alone<Router<3, 3>>>({.time = 4, .settings = both}, D, 3); }
}

TEST_CASE("the router on the CPU agrees with the oracle", "[router][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    const Pass pass{.batch = 3, .time = 21, .settings = {setting::balance_weight = 0.7, setting::z_weight = 0.3}};
    check_agreement<Alone<Router<5, 2>>>(backend, pass, D, 2);
    check_agreement<Alone<Router<3, 3>>>(backend, {.time = 1}, D, 3);
  }
}

TEST_CASE("the router on the CPU chooses as the oracle does", "[router][cpu]") {
  Cpu backend(2);
  Reference<double> oracle;
  Trial<Alone<Router<5, 2>>, Cpu> router(backend, {.time = 500}, D, 2);
  Double<Router<5, 2>> expected(oracle, {.time = 500}, D, 2);
  router.forward();
  expected.forward();
  CHECK(std::equal(router.saved.router.routing.selected.data, router.saved.router.routing.selected.data + 1000,
                   expected.saved.router.routing.selected.data));
  router.w.fill(0);  // all experts tie
  router.forward();
  bool lowest = true;
  for (Index pair = 0; pair < 1000; ++pair) {
    lowest = lowest && router.saved.router.routing.selected.data[pair] == pair % 2;
  }
  CHECK(lowest);
}

}  // namespace tinymoe_test::router
