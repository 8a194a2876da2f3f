#include "tinymoe/layers/moe.hpp"

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::moe {

namespace {

constexpr Index D = 4, F = 3;

template <Index E, Index K>
using Moe = typename Mixture<Router<E, K>, Expert<SwiGlu, Hidden<F>, Bias>>::template Layer<D>;
template <Index E, Index K>
using Double = Trial<Moe<E, K>, Reference<double>>;

/// One expert's network over one token, by its definition.
template <class One>
std::vector<double> network(const One& one, const double* x) {
  const auto linear = [&](Index o) {
    double total = one.input_bias.data[o];
    for (Index i = 0; i < D; ++i) total += one.input.data[o * D + i] * x[i];
    return total;
  };
  std::vector<double> y(one.output_bias.data, one.output_bias.data + D);
  for (Index o = 0; o < D; ++o) {
    for (Index f = 0; f < F; ++f) {
      y[static_cast<std::size_t>(o)] +=
          one.output.data[o * F + f] * linear(f) / (1 + std::exp(-linear(f))) * linear(F + f);
    }
  }
  return y;
}

/// The mixture by its definition: every expert works on every token, weighted by its gate or by zero.
template <Index E, Index K>
std::vector<double> by_definition(const Double<E, K>& trial) {
  std::vector<double> result;
  for (Index n = 0; n < trial.pass.rows(); ++n) {
    const double* x = trial.x.view().row(n);
    std::vector<std::pair<double, Index>> order;  // highest first, then the lower expert
    for (Index e = 0; e < E; ++e) {
      double logit = 0;
      for (Index i = 0; i < D; ++i) logit += trial.weights.gate.weight.data[e * D + i] * x[i];
      order.emplace_back(-logit, e);
    }
    std::sort(order.begin(), order.end());
    double total = 0;
    for (Index k = 0; k < K; ++k) total += std::exp(-order[static_cast<std::size_t>(k)].first);
    std::vector<double> y(D);
    for (Index k = 0; k < K; ++k) {
      const auto [negative, e] = order[static_cast<std::size_t>(k)];
      const auto part = network(trial.weights.experts.experts[static_cast<std::size_t>(e)], x);
      for (std::size_t i = 0; i < D; ++i) y[i] += std::exp(-negative) / total * part[i];
    }
    result.insert(result.end(), y.begin(), y.end());
  }
  return result;
}

const Settings losses{setting::balance_weight = 0.7, setting::z_weight = 0.3};

/// Sends every token to experts 0 and 1: with a gate of zero, all experts tie.
const auto all_to_the_first = [](auto& trial) {
  for (Index i = 0; i < trial.weights.gate.weight.size(); ++i) trial.weights.gate.weight.data[i] = 0;
};

}  // namespace

TEST_CASE("a mixture of hand-computed experts", "[moe]") {
  Reference<double> backend;
  Trial<Mixture<Router<3, 2>, Expert<Relu, Hidden<1>>>::Layer<1>, Reference<double>> trial(backend, {.time = 1}, 1, 1);
  trial.x.write({2});
  const double gates[3] = {0, std::log(3) / 2, std::log(2) / 2};  // logits 0, log 3, log 2
  for (std::size_t e = 0; e < 3; ++e) {
    trial.weights.gate.weight.data[e] = gates[e];
    trial.weights.experts.experts[e].input.data[0] = 1;
    trial.weights.experts.experts[e].output.data[0] = std::pow(10, double(e));
  }
  trial.forward();
  CHECK(trial.y.read()[0] == Approx(2 * (0.6 * 10 + 0.4 * 100)).epsilon(1e-14));
}

TEST_CASE("a mixture agrees with its definition", "[moe]") {
  Reference<double> backend;
  Double<5, 2> two(backend, {.batch = 2, .time = 6}, D, D);
  Double<4, 3> three(backend, {.time = 7}, D, D);
  Double<3, 3> all(backend, {.time = 4}, D, D);
  Double<1, 1> one(backend, {.time = 4}, D, D);
  two.forward(), three.forward(), all.forward(), one.forward();
  CHECK(absolute_error(two.y.read(), by_definition<5, 2>(two)) < 1e-13);
  CHECK(absolute_error(three.y.read(), by_definition<4, 3>(three)) < 1e-13);
  CHECK(absolute_error(all.y.read(), by_definition<3, 3>(all)) < 1e-13);
  CHECK(absolute_error(one.y.read(), by_definition<1, 1>(one)) < 1e-13);
}

TEST_CASE("a shared expert is added, behind its gate if it has one", "[moe]") {
  Reference<double> backend;
  using Plain = Mixture<Router<3, 2>, Expert<SwiGlu, Hidden<F>, Bias>, Shared<Expert<SwiGlu, Hidden<F>, Bias>>>;
  using Behind = Mixture<Router<3, 2>, Expert<SwiGlu, Hidden<F>, Bias>, Shared<Expert<SwiGlu, Hidden<F>, Bias>, Gated>>;
  Double<3, 2> without(backend, {.time = 7}, D, D);
  Trial<Plain::Layer<D>, Reference<double>> plain(backend, {.time = 7}, D, D);
  Trial<Behind::Layer<D>, Reference<double>> behind(backend, {.time = 7}, D, D);
  const auto expect = [&](auto& trial, auto share) {
    trial.forward();
    std::copy_n(trial.w.view().data, without.size, without.w.view().data);  // the shared expert lies behind the rest
    without.forward();
    auto wanted = without.y.read();
    for (Index n = 0; n < 7; ++n) {
      const double* x = trial.x.view().row(n);
      const auto added = network(trial.weights.shared.network.network.experts[0], x);
      for (Index i = 0; i < D; ++i) wanted[std::size_t(n * D + i)] += share(x) * added[std::size_t(i)];
    }
    CHECK(absolute_error(trial.y.read(), wanted) < 1e-13);
  };
  expect(plain, [](const double*) { return 1.0; });
  expect(behind, [&](const double* x) {
    double h = 0;
    for (Index i = 0; i < D; ++i) h += behind.weights.shared.gate.data[i] * x[i];
    return 1 / (1 + std::exp(-h));
  });
}

TEST_CASE("a mixture has the gradients of complex steps", "[moe][gradient]") {
  const Pass pass{.batch = 2, .time = 4, .settings = losses, .router_loss_scale = 0.5};
  const auto as_is = [](auto&) {};
  SECTION("two of three") { check_gradients<Moe<3, 2>>(pass, D, D); }
  SECTION("three of four") { check_gradients<Moe<4, 3>>(pass, D, D, as_is, false); }
  SECTION("all tokens on two experts, none on the third") {
    check_gradients<Moe<3, 2>>(pass, D, D, all_to_the_first, false);
  }
  SECTION("a single expert") { check_gradients<Moe<1, 1>>(pass, D, D, as_is, false); }
}

TEST_CASE("experts without a token get no gradient at all", "[moe]") {
  Reference<double> backend;
  Double<3, 2> trial(backend, {.time = 5, .settings = losses}, D, D);
  all_to_the_first(trial);
  trial.forward();
  CHECK(std::vector<std::int32_t>(trial.saved.dispatch.offsets.data, trial.saved.dispatch.offsets.data + 4) ==
        std::vector<std::int32_t>{0, 5, 10, 10});
  CHECK(absolute_error(trial.y.read(), by_definition<3, 2>(trial)) < 1e-13);
  trial.backward();
  const auto& third = trial.gradients.experts.experts[2];
  const auto& first = trial.gradients.experts.experts[0];
  CHECK(std::count(third.input.data, third.input.data + third.input.size(), 0.0) == third.input.size());
  CHECK(std::count(third.output.data, third.output.data + third.output.size(), 0.0) == third.output.size());
  CHECK(std::count(first.input.data, first.input.data + first.input.size(), 0.0) == 0);
}

TEST_CASE("a mixture of one expert is that expert", "[moe]") {
  Reference<double> backend;
  using DenseLayer = Dense<Expert<SwiGlu, Hidden<F>, Bias>>::Layer<D>;
  const Pass pass{.time = 5, .settings = {setting::balance_weight = 0, setting::z_weight = 0}};
  Double<1, 1> mixture(backend, pass, D, D);
  Trial<DenseLayer, Reference<double>> dense(backend, pass, D, D);
  // The mixture's gate comes first in its buffer; the rest is laid out as the dense layer's.
  std::copy_n(mixture.w.view().data + aligned_size(D), dense.size, dense.w.view().data);
  mixture.forward(), mixture.backward();
  dense.forward(), dense.backward();
  CHECK(absolute_error(mixture.y.read(), dense.y.read()) < 1e-14);
  CHECK(absolute_error(mixture.dx.read(), dense.dx.read()) < 1e-13);
  const double* g = mixture.g.view().data + aligned_size(D);
  CHECK(absolute_error(std::vector<double>(g, g + dense.size), dense.g.read()) < 1e-13);
}

TEST_CASE("tokens in another order give the same results in that order", "[moe]") {
  constexpr Index N = 9;
  Reference<double> backend;
  Double<5, 2> straight(backend, {.time = N, .settings = losses}, D, D);
  Double<5, 2> turned(backend, {.time = N, .settings = losses}, D, D);
  const auto reverse = [](const View<double>& rows) {
    for (Index n = 0; n < N / 2; ++n) std::swap_ranges(rows.row(n), rows.row(n) + D, rows.row(N - 1 - n));
  };
  reverse(turned.x.view());
  reverse(turned.dy.view());
  straight.forward(), straight.backward();
  turned.forward(), turned.backward();
  reverse(turned.y.view());
  reverse(turned.dx.view());
  CHECK(absolute_error(turned.y.read(), straight.y.read()) < 1e-13);
  CHECK(absolute_error(turned.dx.read(), straight.dx.read()) < 1e-13);
  CHECK(absolute_error(turned.g.read(), straight.g.read()) < 1e-12);
}

TEST_CASE("every pair has one slot, and its expert's slots keep the order of tokens", "[moe]") {
  Reference<double> backend;
  Double<5, 2> trial(backend, {.time = 20}, D, D);
  trial.forward();
  const auto& dispatch = trial.saved.dispatch;
  const auto& selected = trial.saved.router.routing.selected;
  REQUIRE(dispatch.offsets.data[0] == 0);
  REQUIRE(dispatch.offsets.data[5] == 40);
  for (Index e = 0; e < 5; ++e) {
    for (Index slot = dispatch.offsets.data[e]; slot < dispatch.offsets.data[e + 1]; ++slot) {
      const auto pair = dispatch.pairs.data[slot];
      CHECK(selected.data[pair] == e);
      CHECK(dispatch.slots.data[pair] == slot);
      if (slot > dispatch.offsets.data[e]) CHECK(pair > dispatch.pairs.data[slot - 1]);
    }
  }
}

TEST_CASE("a mixture on the CPU agrees with the oracle", "[moe][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    check_agreement<Moe<3, 2>>(backend, {.batch = 3, .time = 33, .settings = losses}, D, D);
    check_agreement<Moe<4, 3>>(backend, {.time = 1, .settings = losses}, D, D);
  }
}

TEST_CASE("a mixture and a dense layer name their tensors as the hub does", "[moe]") {
  using Names = std::vector<std::string>;
  CHECK(tensor_names<Mixture<Router<2, 2>, Expert<SwiGlu, Hidden<F>>>::Layer<D>::Parameters<double>>() ==
        Names{"gate.weight", "experts.0.w1.weight+w3.weight", "experts.0.w2.weight", "experts.1.w1.weight+w3.weight",
              "experts.1.w2.weight"});
  CHECK(tensor_names<Dense<Expert<SwiGlu, Hidden<F>, Bias>>::Layer<D>::Parameters<double>>() ==
        Names{"gate_proj.weight+up_proj.weight", "down_proj.weight", "gate_proj.bias+up_proj.bias", "down_proj.bias"});
  CHECK(tensor_names<Dense<Expert<Gelu, Hidden<F>, Bias>>::Layer<D>::Parameters<double>>() ==
        Names{"up_proj.weight", "down_proj.weight", "up_proj.bias", "down_proj.bias"});
}

}  // namespace tinymoe_test::moe
