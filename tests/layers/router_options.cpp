#include "layers/router_trial.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/layers/moe.hpp"

namespace tinymoe_test::router_options {

namespace {

constexpr Index D = router_width;
const Settings losses{setting::balance_weight = 0.7, setting::z_weight = 0.3, setting::jitter = 0.2,
                      setting::routing_mass = 0.6};
// Tokens 2 and 7 of eight are pads.
const Token padded_tokens[] = {1, 1, -1, 1, 1, 1, 1, -1};

Pass training(const Settings& settings = losses) {
  return {.batch = 2,
          .time = 4,
          .settings = settings,
          .router_loss_scale = 0.5,
          .training = true,
          .seed = Seed{5},
          .step = 3,
          .micro_batch = 1};
}
Pass padded(Pass pass = training()) {
  pass.tokens = {padded_tokens, 1, 8};
  pass.pads = 2;
  return pass;
}

/// The gradients of a router in training, in evaluation and with pads.
template <class R>
void check_router() {
  check_gradients<Alone<R>>(training(), D, R::choices);
  check_gradients<Alone<R>>(padded(), D, R::choices);
  if constexpr (!R::noisy && !R::expert_choice) {
    Pass evaluation = training();
    evaluation.training = false;
    check_gradients<Alone<R>>(evaluation, D, R::choices);
  }
  Cpu cpu(2);
  check_agreement<Alone<R>>(cpu, training(), D, R::choices, 2e-5);
  check_agreement<Alone<R>>(cpu, padded(), D, R::choices, 2e-5);
}

}  // namespace

// A router's layer has the optional members that its options ask for, and no others.
static_assert(CapacityRouter<Router<4, 2, Capacity<5, 4>>> && !CapacityRouter<Router<4, 2>> &&
              !CapacityRouter<Router<4, 2, BalanceBias>>);
static_assert(MovingRouter<Router<4, 2, BalanceBias>> && MovingRouter<Router<4, 2, ExpertChoice>> &&
              !MovingRouter<Router<4, 2>> && !MovingRouter<Router<4, 2, Capacity<5, 4>>>);

TEST_CASE("every kind of router has the gradients of complex steps", "[router][gradient]") {
  SECTION("score gates") { check_router<Router<5, 1>>(); }
  SECTION("score gates of two") { check_router<Router<5, 2, ScoreGates>>(); }
  SECTION("a bias on the logits") { check_router<Router<5, 2, Bias>>(); }
  SECTION("GShard's balance") { check_router<Router<5, 2, GShardBalance>>(); }
  SECTION("the coefficients of variation") { check_router<Router<5, 2, CvBalance>>(); }
  SECTION("sigmoid scores") { check_router<Router<5, 2, SigmoidScores>>(); }
  SECTION("sigmoid scores as gates, with a balancing bias") {
    check_router<Router<5, 2, SigmoidScores, ScoreGates, BalanceBias, SwitchBalance>>();
  }
  SECTION("noise") { check_router<Router<5, 2, NoisyTopK>>(); }
  SECTION("noise, biases, and the smooth load") { check_router<Router<5, 2, NoisyTopK, Bias, CvBalance>>(); }
  SECTION("noise and sigmoid scores") { check_router<Router<5, 2, NoisyTopK, SigmoidScores, CvBalance>>(); }
  SECTION("all experts of the smooth load") { check_router<Router<3, 3, NoisyTopK, CvBalance>>(); }
  SECTION("jitter") { check_router<Router<5, 2, Jitter>>(); }
  SECTION("dynamic top-k") { check_router<Router<5, 3, DynamicTopK>>(); }
  SECTION("expert choice") { check_router<Router<5, 2, ExpertChoice>>(); }
  SECTION("expert choice with a balance loss") { check_router<Router<5, 2, ExpertChoice, SwitchBalance>>(); }
}

}  // namespace tinymoe_test::router_options
