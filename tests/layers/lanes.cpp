// Kernels by groups of several lanes, as on a GPU: whole models give what the oracle gives with one lane.

#include "support/lanes.hpp"

#include "layers/decoder.hpp"

namespace tinymoe_test::lanes {

namespace {

constexpr Index D = 6;
using Feed = Expert<SwiGlu, Hidden<5>, Bias>;

/// Each kind of layer and router at least once.
using Plain =
    Transformer<Vocab<11>, Context<12>, Width<D>, TiedHead, HeadBias,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Learned, Bias>, Expert<Gelu, Hidden<5>, Bias>>>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, KvHeads<1>, HeadDim<4>, PartialRope<1, 2>, QkNorm>,
                                   Router<4, 2, Bias, GateScale<3, 2>>, Feed>>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<3>, KvHeads<1>, QkNormAcrossHeads>,
                                   Router<4, 2, SigmoidScores, BalanceBias, CvBalance>, Feed,
                                   Shared<Expert<Relu, Hidden<3>>, Gated>>>>;
using Chosen =
    Transformer<Vocab<11>, Context<8>, Width<D>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<1>>, Router<4, 2, NoisyTopK, CvBalance, Jitter>, Feed>>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<1>>, Router<4, 1, Capacity<1, 2>, GShardBalance>, Feed>>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<1>>, Router<3, 1, ExpertChoice>, Feed>>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<1>>, Router<4, 3, DynamicTopK>, Feed>>>;

const Pass pass{.batch = 3,
                .time = 7,
                .settings = {setting::balance_weight = 0.7, setting::z_weight = 0.3, setting::dropout = 0.3,
                             setting::attention_dropout = 0.25, setting::expert_dropout = 0.4, setting::jitter = 0.2},
                .router_loss_scale = 0.5,
                .training = true,
                .seed = Seed{5}};

/// The weights at first, the loss, the gradients, and the weights after what routers move by themselves.
template <class Arch, class B>
std::vector<std::vector<double>> run(B& backend) {
  ModelTrial<Arch, B> trial(backend, pass);
  for (const std::size_t n : {3u, 11u}) trial.tokens[n] = trial.targets[n] = -1;
  trial.pass.tokens = trial.ids(), trial.pass.pads = 2;
  std::vector<std::vector<double>> result(4);
  const auto weights = [&] {
    const auto buffer = trial.model.buffer();
    return std::vector<double>(buffer.data, buffer.data + buffer.cols);
  };
  result[0] = weights();
  result[1] = {trial.loss()};
  trial.backward();
  result[2] = trial.g.read();
  const auto& parameters = trial.model.weights();
  Arch::after_step(backend, trial.pass, parameters, parameters, *trial.activations);
  result[3] = weights();
  return result;
}

template <class Arch>
void check_lanes() {
  Laned lanes;
  Reference<double> oracle;
  const auto found = run<Arch>(lanes), expected = run<Arch>(oracle);
  CHECK(same_bits(found[0], expected[0]));
  CHECK(relative_error(found[1], expected[1]) < 1e-13);
  CHECK(relative_error(found[2], expected[2]) < 1e-12);
  CHECK(absolute_error(found[3], expected[3]) < 1e-13);
}

/// Mixtures of few pairs use kernels that gather, activate and combine in one.
struct FewByLanes : Laned {
  static constexpr Index max_fused_pairs = 16;
};
struct FewByOracle : Reference<double> {
  static constexpr Index max_fused_pairs = 16;
};
static_assert(FewTokenBackend<FewByLanes> && FewTokenBackend<FewByOracle> && !FewTokenBackend<Laned>);

template <class Arch, class B>
void check_few(const std::vector<Index>& chunks) {
  B backend;
  ModelTrial<Arch, B> trial(backend, {.batch = 2, .time = 7});
  trial.forward();
  check_decoding(trial, chunks, 1e-12);
}

}  // namespace

TEST_CASE("a training pass by groups of several lanes", "[lanes]") {
  SECTION("dense blocks, biases, normalised queries, sigmoid scores") { check_lanes<Plain>(); }
  SECTION("noise, capacity, experts that choose") { check_lanes<Chosen>(); }
}

TEST_CASE("decoding by groups of several lanes", "[lanes]") {
  Laned lanes;
  ModelTrial<Plain, Laned> trial(lanes, {.batch = 2, .time = 11});
  trial.forward();
  check_decoding(trial, {1, 3}, 1e-12);
  check_decoding(trial, {9, 2}, 1e-12);  // as products
}

TEMPLATE_TEST_CASE("few tokens' mixtures without gathering", "[lanes]", FewByOracle, FewByLanes) {
  SECTION("gated and plain experts, with biases and a shared one") { check_few<Plain, TestType>({1, 3, 5}); }
  SECTION("one, three and any number of choices, some of them not taken") { check_few<Chosen, TestType>({1, 2}); }
}

}  // namespace tinymoe_test::lanes
