// The schedules against numbers computed by hand, and against PyTorch's formula.

#include "tinymoe/train/schedule.hpp"

#include "support/catch.hpp"

namespace tinymoe_test::schedule {

using namespace tinymoe;

TEST_CASE("Schedules have the values computed by hand", "[schedule]") {
  const Constant constant{.warmup = 4};
  CHECK(constant({0, 0}) == 0.25);
  CHECK(constant({3, 0}) == 1);
  CHECK(constant({4, 0}) == 1);
  CHECK(constant({1000000, 1}) == 1);
  CHECK(Constant{}({0, 0}) == 1);

  const WarmupCosine cosine{.warmup = 10, .steps = 110, .floor = 0.2};
  CHECK(cosine({0, 0}) == Approx(0.1));
  CHECK(cosine({9, 0}) == 1);
  CHECK(cosine({10, 0}) == 1);
  CHECK(cosine({35, 0}) == Approx(0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5))));  // a quarter
  CHECK(cosine({60, 0}) == Approx(0.6));                                     // the middle
  CHECK(cosine({110, 0}) == Approx(0.2));                                    // the end
  CHECK(cosine({5000, 0}) == Approx(0.2));                                   // past it: the floor
  CHECK(cosine({60, 0.99}) == Approx(0.6));                                  // given steps, the budget is no matter
  CHECK(WarmupCosine{.warmup = 0, .steps = 100, .floor = 0}({100, 0}) == Approx(0).margin(1e-12));

  // Without steps the cosine spans the budget, be it steps or minutes.
  const WarmupCosine budget{.warmup = 10, .floor = 0.1};
  CHECK(budget({4, 0.1}) == 0.5);           // the warm-up counts steps
  CHECK(budget({8, 0.5}) == Approx(0.55));  // in a short run it ends where it meets the cosine
  CHECK(budget({50, 0}) == 1);
  CHECK(budget({50, 0.5}) == Approx(0.55));
  CHECK(budget({50, 1}) == Approx(0.1));
  CHECK(budget({50, 1.7}) == Approx(0.1));
  // A warm-up as long as the schedule, and no warm-up at all, are no division by zero.
  CHECK(WarmupCosine{.warmup = 5, .steps = 5}({5, 0}) == 1);
  CHECK(WarmupCosine{.warmup = 0, .steps = 10}({0, 0}) == 1);
}

TEST_CASE("One cycle is PyTorch's", "[schedule]") {
  // torch.optim.lr_scheduler.OneCycleLR(SGD([p], 1), max_lr=1, total_steps=20): its phases end at 0.3 * 20 - 1 = 5 and
  // 19; within one, `annealing_cos` is end + (start - end) / 2 * (1 + cos(pi * share)).
  const OneCycle cycle{.steps = 20};
  CHECK(cycle({0, 0}) == Approx(0.04).epsilon(1e-12));
  CHECK(cycle({1, 0}) == Approx(1 - 0.96 / 2 * (1 + std::cos(M_PI / 5))).epsilon(1e-12));
  CHECK(cycle({1, 0}) == Approx(0.1316718).epsilon(1e-6));
  CHECK(cycle({4, 0}) == Approx(0.9083282).epsilon(1e-6));
  CHECK(cycle({5, 0}) == 1);
  CHECK(cycle({12, 0}) == Approx(0.500002).epsilon(1e-9));  // halfway down: (1 + 4e-6) / 2
  CHECK(cycle({19, 0}) == Approx(4e-6).epsilon(1e-9));
  CHECK(cycle({500, 0}) == Approx(4e-6).epsilon(1e-9));
  CHECK(cycle({5, 0.9}) == 1);  // given steps, the budget is no matter
  // Of a budget of any kind, the phases are shares.
  const OneCycle budget{.warmup = 0.25, .start_divisor = 10, .end_divisor = 100};
  CHECK(budget({7, 0}) == Approx(0.1));
  CHECK(budget({7, 0.125}) == Approx(0.55));
  CHECK(budget({7, 0.25}) == 1);
  CHECK(budget({7, 0.625}) == Approx(0.5005));
  CHECK(budget({7, 1}) == Approx(0.001));
  CHECK(budget({7, 1.5}) == Approx(0.001));
  // No warm-up, nothing but warm-up, and a single step are no division by zero.
  CHECK(OneCycle{.warmup = 0}({0, 0}) == 1);
  CHECK(OneCycle{.warmup = 1}({0, 1}) == 1);
  CHECK(OneCycle{.warmup = 1, .steps = 10}({9, 1}) == 1);
  CHECK(std::isfinite(OneCycle{.steps = 1}({0, 0})));
}

TEST_CASE("Warm-up, stable, decay rises, stays constant and falls", "[schedule]") {
  const WarmupStableDecay root{.warmup = 4, .steps = 100};
  CHECK(root({0, 0}) == 0.25);
  CHECK(root({3, 0}) == 1);
  CHECK(root({4, 0.99}) == 1);
  CHECK(root({80, 0}) == 1);
  CHECK(root({85, 0}) == Approx(0.5));  // a quarter of the fall: 1 - sqrt(0.25)
  CHECK(root({100, 0}) == Approx(0).margin(1e-12));
  CHECK(root({1000, 0}) == 0);
  const WarmupStableDecay line{.warmup = 0, .decay = 0.5, .shape = DecayShape::linear, .floor = 0.2};
  CHECK(line({0, 0}) == 1);
  CHECK(line({9, 0.5}) == 1);
  CHECK(line({9, 0.75}) == Approx(0.6));
  CHECK(line({9, 1}) == Approx(0.2));
  CHECK(line({9, 3}) == Approx(0.2));
  // Without a decay it is constant to the end, and with nothing else it falls from the start.
  CHECK(WarmupStableDecay{.warmup = 0, .decay = 0}({9, 1}) == 1);
  CHECK(WarmupStableDecay{.warmup = 0, .decay = 1, .shape = DecayShape::linear}({9, 0.5}) == Approx(0.5));
}

TEST_CASE("A schedule chosen at run time is the one that it holds", "[schedule]") {
  const WarmupCosine cosine{.warmup = 3};
  AnySchedule any = cosine;
  for (const Progress at : {Progress{0, 0}, {2, 0.1}, {50, 0.4}, {90, 1}}) CHECK(any(at) == cosine(at));
  any = OneCycle{};
  CHECK(any({0, 0}) == OneCycle{}({0, 0}));
}

}  // namespace tinymoe_test::schedule
