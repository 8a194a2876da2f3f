// What acts in training alone: dropout, capacity, experts' choices, what routers move after a step; pads;
// recomputation.

#include "layers/model_trial.hpp"
#include "layers/router_trial.hpp"
#include "tinymoe/layers/moe.hpp"

namespace tinymoe_test::training {

namespace {

constexpr Index D = 8;

const Settings all_dropouts{setting::balance_weight = 0.7,     setting::z_weight = 0.3,       setting::dropout = 0.3,
                            setting::attention_dropout = 0.25, setting::expert_dropout = 0.4, setting::jitter = 0.2};

Pass training(Index batch, Index time, const Settings& settings = all_dropouts) {
  return {.batch = batch,
          .time = time,
          .settings = settings,
          .router_loss_scale = 0.5,
          .training = true,
          .seed = Seed{5},
          .step = 3,
          .micro_batch = 1};
}

using Feed = Expert<SwiGlu, Hidden<5>>;
using Rich = MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, QkNormAcrossHeads, Bias>,
                      Router<3, 2, Jitter, NoisyTopK>, Feed, Shared<Expert<Gelu, Hidden<3>, Bias>, Gated>>::Layer<D>;
using Learner = DenseBlock<LayerNorm, Attention<Heads<2>, Learned, QkNorm, SlidingWindow<3>>, Feed>::Layer<D>;

/// All kinds of blocks in one model.
using Mixed = Transformer<
    Vocab<11>, Context<16>, Width<D>, TiedHead, Bigrams<7>, PerLayerEmbeddings,
    Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>, Learned>, Feed>>,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, QkNorm>,
                       Router<4, 2, SigmoidScores, BalanceBias, GateScale<5, 2>>, Feed, Shared<Feed, Gated>>>,
    Layers<1, MoEBlock<LayerNorm, Attention<Heads<2>>, Router<4, 1, Capacity<1, 2>, Jitter>, Feed>>,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, SlidingWindow<3>>, Router<3, 1, ExpertChoice>, Feed>>>;

using Double = ModelTrial<Mixed, Reference<double>>;

template <class R>
using RouterTrial = Trial<Alone<R>, Reference<double>>;

/// The loss and gradients of one pass, with random tokens of which `pads` at the end of each sequence are pads.
template <class B>
std::pair<double, std::vector<double>> loss_and_gradients(B& backend, Pass pass, Index pads = 0) {
  ModelTrial<Mixed, B> trial(backend, pass);
  if (pads > 0) {
    for (Index n = 0; n < pass.rows(); ++n) {
      if (n % pass.time < pass.time - pads) continue;
      trial.tokens[static_cast<std::size_t>(n)] = -1;
      trial.targets[static_cast<std::size_t>(n)] = -1;
    }
    trial.pass.tokens = trial.ids();
    trial.pass.pads = pads * pass.batch;
  }
  trial.scale = 0.1;
  const double loss = static_cast<double>(real_part(trial.loss()));
  trial.g.fill(0);
  trial.backward();
  return {loss, trial.g.read()};
}

}  // namespace

TEST_CASE("blocks in training have the gradients of complex steps", "[training][gradient]") {
  SECTION("a mixture with everything") { check_gradients<Rich>(training(2, 4), D, D); }
  SECTION("a dense block") { check_gradients<Learner>(training(2, 4), D, D); }
  SECTION("the CPU agrees") {
    Cpu cpu(2);
    check_agreement<Rich>(cpu, training(2, 70), D, D, 2e-5);
    check_agreement<Learner>(cpu, training(2, 70), D, D, 2e-5);
  }
}

TEST_CASE("mixtures that drop, choose and share have the gradients of complex steps", "[training][gradient]") {
  const auto check = [](auto mixture) {
    using Layer = typename decltype(mixture)::template Layer<D>;
    check_gradients<Layer>(
        training(2, 5), D, D, [](auto&) {}, false);
    Cpu cpu(2);
    check_agreement<Layer>(cpu, training(2, 33), D, D, 2e-5);
  };
  check(Mixture<Router<4, 2, Capacity<1>>, Feed>());
  check(Mixture<Router<4, 1, Capacity<1, 2>, GShardBalance>, Feed>());
  check(Mixture<Router<4, 3, DynamicTopK, GateScale<1, 2>>, Feed>());
  check(Mixture<Router<4, 2, SigmoidScores, GateScale<5, 2>, CvBalance>, Feed, Shared<Feed, Gated>>());
  check(Mixture<Router<4, 2, ExpertChoice>, Feed, Shared<Feed>>());
}

TEST_CASE("dropout zeroes its share, keeps the mean, and has another mask in each place", "[training]") {
  const Index width = 1001;
  const auto mask = [&](const Pass& pass, RandomSite site, Index row) {
    std::vector<double> factors(static_cast<std::size_t>(width), -1);
    pass.dropout(site, 0.3, 4).each<double>(SerialGroup{}, row, width, 0, width, [&](Index i, double factor) {
      factors[static_cast<std::size_t>(i)] = factor;
    });
    return factors;
  };
  Pass pass = training(1, 4);
  const auto first = mask(pass, random_site::residual_dropout, 0);
  Index zeros = 0;
  for (const double factor : first) {
    CHECK((factor == 0 || factor == 1 / (1 - 0.3)));
    zeros += factor == 0;
  }
  CHECK(std::abs(double(zeros) / double(width) - 0.3) < 0.05);
  CHECK(mask(pass, random_site::residual_dropout, 0) == first);
  std::vector<std::vector<double>> others = {mask(pass, random_site::network_dropout, 0),
                                             mask(pass, random_site::residual_dropout, 1)};
  Pass other = pass;
  other.layer = 1, others.push_back(mask(other, random_site::residual_dropout, 0));
  other = pass, other.step = 4, others.push_back(mask(other, random_site::residual_dropout, 0));
  other = pass, other.micro_batch = 2, others.push_back(mask(other, random_site::residual_dropout, 0));
  other = pass, other.seed = Seed{6}, others.push_back(mask(other, random_site::residual_dropout, 0));
  for (const auto& mask : others) CHECK(mask != first);
  // A part of a row is that part of the whole row.
  pass.dropout(random_site::residual_dropout, 0.3, 4)
      .each<double>(SerialGroup{}, 0, width, 333, 338,
                    [&](Index i, double factor) { CHECK(factor == first[static_cast<std::size_t>(i)]); });
  pass.training = false;
  CHECK_FALSE(pass.dropout(random_site::residual_dropout, 0.3, 4).active());
}

TEST_CASE("a recomputed pass gives the bits of one that kept everything, in less memory", "[training]") {
  const auto check = [](auto&& backend) {
    Pass pass = training(2, 6);
    const auto kept = loss_and_gradients(backend, pass);
    pass.recompute = true;
    const auto again = loss_and_gradients(backend, pass);
    CHECK(again.first == kept.first);
    CHECK(same_bits(again.second, kept.second));
  };
  check(Reference<double>());
  check(Cpu(2));
  // A loss that adds up over the step's micro-batches counts a block that runs twice once.
  using Summed = Transformer<Vocab<11>, Context<16>, Width<D>, TiedHead,
                             Layers<3, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2, CvBalance>, Feed>>>;
  const auto two_micro_batches = [](bool recompute) {
    Reference<double> backend;
    Pass pass = training(2, 6);
    pass.settings.set(setting::balance_over_step = true);
    pass.settings.set(setting::balance_weight = 10);
    pass.recompute = recompute;
    pass.micro_batch = 0;
    ModelTrial<Summed, Reference<double>> trial(backend, pass);
    trial.g.fill(0);
    for (std::uint32_t i = 0; i < 2; ++i) {
      trial.pass.micro_batch = i;
      trial.forward();
      trial.backward();
    }
    return trial.g.read();
  };
  CHECK(same_bits(two_micro_batches(true), two_micro_batches(false)));
  using Deep =
      Transformer<Vocab<11>, Context<64>, Width<32>, TiedHead,
                  Layers<16, MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 2>, Expert<SwiGlu, Hidden<32>>>>>;
  Cpu cpu(1);
  Pass pass{.batch = 4, .time = 64};
  const Activations<Deep, Cpu> all(cpu, Plan::Purpose::training, pass);
  pass.recompute = true;
  const Activations<Deep, Cpu> inputs(cpu, Plan::Purpose::training, pass);
  CHECK(all.bytes() > 4 * inputs.bytes());
}

TEST_CASE("a pass that shows its results computes what a pass computes", "[training]") {
  Reference<double> backend;
  const Pass pass = training(2, 6);
  Double trial(backend, pass);
  const auto outputs = [&] {
    std::vector<std::vector<double>> all;
    const auto add = [&](const auto& rows) {
      const auto view = rows(pass.rows());
      all.emplace_back(view.data, view.data + view.size());
    };
    for (const auto& x : trial.activations->x) add(x);
    add(trial.activations->normed);
    return all;
  };
  trial.forward();
  const auto expected = outputs();
  Index shown = 0;
  Mixed::forward_and_look(backend, pass, trial.model.weights(), trial.ids(), *trial.activations,
                          [&](const char* operation, Index layer, const auto& values) {
                            ++shown;
                            const std::string_view name = operation;
                            // To the inputs of further blocks their tables are added.
                            if (name != "the experts" || layer != Mixed::layers - 1) return;
                            const auto& y = expected[static_cast<std::size_t>(layer + 1)];
                            CHECK(std::equal(y.begin(), y.end(), values.data));
                          });
  CHECK(outputs() == expected);
  CHECK(shown > 2 + 2 * std::ssize(expected));
}

TEST_CASE("routers count a recomputed pass once", "[training]") {
  Reference<double> backend;
  Pass pass = training(2, 6);
  pass.settings.set(setting::balance_over_step = true);
  pass.recompute = true;
  pass.micro_batch = 0;
  Double trial(backend, pass);
  const auto counted = [&] {
    Index total = 0;
    Mixed::for_each_mixture(*trial.activations, [&](auto& mixture, Index) {
      const auto& loads = mixture.router.balance.step_loads;
      for (Index e = 0; e < loads.cols; ++e) total += loads.data[e];
    });
    return total;
  };
  trial.forward();
  trial.backward();
  const Index once = counted();
  CHECK(once == 12 * (2 + 2 + 1 + 1));
  trial.pass.micro_batch = 1;
  trial.forward();
  trial.backward();
  CHECK(counted() == 2 * once);
}

TEST_CASE("pads change nothing but their own rows", "[training]") {
  // The loss and gradients of two sequences of 5, and of the same with 3 pads behind each. Dropout's masks are another
  // for another shape, and capacity and experts' choices go by the number of real tokens, which is the same.
  Settings settings = all_dropouts;
  for (const Setting* dropout : {&setting::dropout, &setting::attention_dropout, &setting::expert_dropout}) {
    settings.set(*dropout = 0);
  }
  settings.set(setting::jitter = 0);
  Reference<double> backend;
  ModelTrial<Mixed, Reference<double>> exact(backend, training(2, 5, settings)),
      wide(backend, training(2, 8, settings));
  for (auto* trial : {&exact, &wide}) trial->scale = 0.1;
  for (Index n = 0; n < 16; ++n) {
    const auto at = static_cast<std::size_t>(n), from = static_cast<std::size_t>(n / 8 * 5 + n % 8);
    wide.tokens[at] = n % 8 < 5 ? exact.tokens[from] : -1;
    wide.targets[at] = n % 8 < 5 ? exact.targets[from] : -1;
  }
  wide.pass.tokens = wide.ids();
  wide.pass.pads = 6;
  CHECK(wide.loss() == Approx(exact.loss()).epsilon(1e-13));
  wide.g.fill(0), exact.g.fill(0);
  wide.backward(), exact.backward();
  CHECK(absolute_error(wide.g.read(), exact.g.read()) < 1e-13);
  Mixed::for_each_mixture(*wide.activations, [&](auto& mixture, Index) {
    const auto& routing = mixture.routing();
    for (Index n = 0; n < 16; ++n) {
      for (Index k = 0; k < routing.selected.cols; ++k) {
        if (n % 8 >= 5) CHECK(routing.selected(n, k) == -1);
      }
    }
  });
  Cpu cpu(2);
  const auto on_cpu = loss_and_gradients(cpu, training(2, 8), 3),
             expected = loss_and_gradients(backend, training(2, 8), 3);
  CHECK(on_cpu.first == Approx(expected.first).epsilon(1e-5));
  CHECK(relative_error(on_cpu.second, expected.second) < 5e-5);
}

TEST_CASE("an expert takes its capacity, of the first tokens", "[training][router]") {
  using Layer = Mixture<Router<4, 1, Capacity<3, 2>>, Feed>::Layer<D>;
  Reference<double> backend;
  Pass pass = training(1, 8);
  Trial<Layer, Reference<double>> trial(backend, pass, D, D);
  std::fill_n(trial.weights.gate.weight.data, 4 * D, 0.0);  // all tie: expert 0 gets every token, and takes 3 of 8
  trial.forward();
  const auto& routing = trial.saved.router.routing;
  CHECK(std::vector<std::int32_t>(routing.loads.data, routing.loads.data + 4) == std::vector<std::int32_t>{3, 0, 0, 0});
  CHECK(routing.losses.data[0] == Approx(1));  // f counts what was chosen, not what was taken
  for (Index n = 0; n < 8; ++n) {
    double size = 0;
    for (Index i = 0; i < D; ++i) size += std::abs(trial.y.view()(n, i));
    CHECK((size > 0) == (n < 3));
  }
  trial.backward();
  trial.pass.training = false;
  trial.forward();
  CHECK(routing.loads.data[0] == 8);
}

TEST_CASE("dynamic top-k takes experts until the mass is reached", "[training][router]") {
  using R = Router<4, 3, DynamicTopK>;
  Reference<double> backend;
  RouterTrial<R> router(backend, {.time = 4, .settings = {setting::routing_mass = 0.6}}, router_width, 3);
  router.x.fill(0), router.w.fill(0);
  const double probability[4][4] = {{.7, .1, .1, .1}, {.1, .4, .3, .2}, {.25, .25, .25, .25}, {.3, .1, .29, .31}};
  for (Index n = 0; n < 4; ++n) {
    router.x.view()(n, n) = 1;
    for (Index e = 0; e < 4; ++e) router.weights.weight.view()(e, n) = std::log(probability[n][e]);
  }
  router.forward();
  const auto& routing = router.saved.router.routing;
  CHECK(std::vector<std::int32_t>(routing.selected.data, routing.selected.data + 12) ==
        std::vector<std::int32_t>{0, -1, -1, 1, 2, -1, 0, 1, 2, 3, 0, -1});
  CHECK(absolute_error(router.y.read(), {.7, 0, 0, .4, .3, 0, .25, .25, .25, .31, .3, 0}) < 1e-15);
}

TEST_CASE("experts choose their best tokens, of equal ones the earlier, and by thresholds outside training",
          "[training][router]") {
  using R = Router<2, 1, ExpertChoice>;
  Reference<double> backend;
  Pass pass = training(1, 6);
  RouterTrial<R> router(backend, pass, router_width, 2);
  router.x.fill(0), router.w.fill(0);
  const double logit[6] = {0.5, -1, 2, 0.5, 0.5, -3};  // of expert 0; expert 1 has none, so p₁ = 1 − p₀
  router.weights.weight.view()(0, 0) = 1;
  for (Index n = 0; n < 6; ++n) router.x.view()(n, 0) = logit[n];
  router.forward();
  const auto& routing = router.saved.router.routing;
  const auto selected = [&] { return std::vector<std::int32_t>(routing.selected.data, routing.selected.data + 12); };
  // Three each: expert 0 takes token 2 and the first two of three equals, expert 1 the two lowest and the first equal.
  CHECK(selected() == std::vector<std::int32_t>{0, 1, -1, 1, 0, -1, 0, -1, -1, -1, -1, 1});
  CHECK(router.y.read()[0] == Approx(1 / (1 + std::exp(-0.5))));
  typename R::Layer<router_width>::Parameters<double> masters = router.weights;
  masters.threshold.data[0] = masters.threshold.data[1] = 0;
  R::Layer<router_width>::after_step(backend, pass, router.weights, masters, router.saved.router);
  CHECK(router.weights.threshold.data[0] == Approx(1 / (1 + std::exp(-0.5))));
  CHECK(router.weights.threshold.data[1] == Approx(1 / (1 + std::exp(0.5))));
  router.pass.training = false;
  router.forward();  // now all equals are above the threshold
  CHECK(selected() == std::vector<std::int32_t>{0, 1, -1, 1, 0, -1, 0, 1, 0, 1, -1, 1});
}

TEST_CASE("a balancing bias moves against the loads and decides the selection alone", "[training][router]") {
  using R = Router<3, 1, SigmoidScores, BalanceBias>;
  Reference<double> backend;
  Pass pass = training(1, 6);
  pass.micro_batch = 0;
  pass.settings.set(setting::bias_rate = 0.125);
  RouterTrial<R> router(backend, pass, router_width, 1);
  router.w.fill(0), router.x.fill(1);
  for (Index i = 0; i < router_width; ++i) router.weights.weight.view()(1, i) = 0.1;
  router.forward();
  const auto bias = [&] { return std::vector<double>(router.weights.offset.data, router.weights.offset.data + 3); };
  CHECK(router.saved.router.routing.selected.data[0] == 1);
  R::Layer<router_width>::after_step(backend, pass, router.weights, router.weights, router.saved.router);
  CHECK(bias() == std::vector<double>{0.125, -0.125, 0.125});
  router.forward();
  CHECK(router.saved.router.routing.selected.data[0] == 0);
  CHECK(router.y.read()[0] == Approx(0.5));  // the gate is the score without the bias
}

}  // namespace tinymoe_test::training
