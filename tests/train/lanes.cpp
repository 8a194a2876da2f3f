// The kernels of training by groups of several lanes, as on a GPU: whole runs give what the oracle gives with one lane.

#include "support/lanes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/optimizer_trial.hpp"

namespace tinymoe_test::lanes {

namespace {

struct Result {
  std::vector<double> weights;
  std::vector<StepReport> reports;
  EvaluationReport evaluation;
  std::vector<std::vector<Index>> loads;
};

template <class B, class O>
Result train(O optimizer) {
  B backend;
  Model<Tiny, B> model(backend, Seed{1});
  Trainer trainer(model, optimizer);
  trainer.average(0.5);
  Result result;
  auto tokens = random_tokens(48, 260), targets = random_tokens(48, 260, 2);
  tokens[7] = targets[7] = -1;  // a pad at the end of a sequence of 8
  for (int step = 0; step < 2; ++step) {
    result.reports.push_back(trainer.train_step(tokens, targets, 3, 8, {.clip = 0.5}));
  }
  result.loads = trainer.loads();
  result.evaluation = trainer.evaluate(tiny_data().first(100), 3, 8);
  result.weights = weights_of(model);
  return result;
}

template <class O>
void check(O optimizer) {
  const auto expected = train<Reference<double>>(optimizer), found = train<Laned>(optimizer);
  CHECK(greatest_difference(found.weights, expected.weights) < 1e-9);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(found.reports[i].loss == Approx(expected.reports[i].loss).epsilon(1e-12));
    CHECK(found.reports[i].balance_loss == Approx(expected.reports[i].balance_loss).epsilon(1e-12));
    CHECK(found.reports[i].z_loss == Approx(expected.reports[i].z_loss).epsilon(1e-12));
    CHECK(found.reports[i].gradient_norm == Approx(expected.reports[i].gradient_norm).epsilon(1e-10));
  }
  CHECK(found.loads == expected.loads);
  CHECK(found.evaluation.loads == expected.evaluation.loads);
  CHECK(found.evaluation.loss == Approx(expected.evaluation.loss).epsilon(1e-9));
}

}  // namespace

TEST_CASE("Groups of several lanes train as one lane does", "[lanes]") {
  check(AdamW{.lr = 1e-2});
  check(Lion{});
  check(Muon{.lr = 1e-2});
}

TEST_CASE("A step of each optimizer by several lanes is that of one", "[lanes]") {
  Reference<double> one;
  Laned many;
  CHECK(weights_after(many, AdamW{}, 3) == weights_after(one, AdamW{}, 3));
  CHECK(weights_after(many, Lion{}, 3) == weights_after(one, Lion{}, 3));
  CHECK(greatest_difference(weights_after(many, Muon{}, 3), weights_after(one, Muon{}, 3)) < 1e-9);
}

}  // namespace tinymoe_test::lanes
