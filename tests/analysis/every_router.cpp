// A choice of a router may be none, and all code on the host that reads choices handles that: inspection, traces,
// reports and upcycling over every kind of router.

#include <algorithm>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/checkpoint/upcycle.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::every_router {

namespace {

using Feed = Expert<SwiGlu, Hidden<6>>;
template <class R>
using One = Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, R, Feed>>;

/// A layer for each kind of router.
using EveryRouter = Transformer<Vocab<260>, Context<16>, Width<8>, One<Router<4, 2>>, One<Router<4, 2, SigmoidScores>>,
                                One<Router<4, 2, DynamicTopK, ScoreGates>>, One<Router<5, 2, ExpertChoice>>,
                                One<Router<4, 2, Capacity<1, 2>>>, One<Router<4, 2, NoisyTopK, Bias, CvBalance>>,
                                One<Router<4, 1, Jitter>>, One<Router<4, 2, SigmoidScores, BalanceBias>>>;
constexpr std::size_t dynamic_top_k = 2, expert_choice = 3, capacity = 4;

/// Those that can start as a dense model.
using Upcycled = Transformer<Vocab<260>, Context<16>, Width<8>, One<Router<4, 2>>, One<Router<4, 2, SigmoidScores>>,
                             One<Router<4, 2, Capacity<1, 2>>>, One<Router<4, 2, NoisyTopK, Bias, CvBalance>>,
                             One<Router<4, 2, Jitter>>, One<Router<4, 2, SigmoidScores, BalanceBias>>>;
using Start = Transformer<Vocab<260>, Context<16>, Width<8>, Layers<6, DenseBlock<RmsNorm, Attention<Heads<2>>, Feed>>>;

std::vector<Token> some_tokens() {
  std::vector<Token> tokens;
  for (Token i = 0; i < 16; ++i) tokens.push_back(i * 37 % 260);
  return tokens;
}

xt::xtensor<Token, 2> some_array() {
  const auto tokens = some_tokens();
  auto array = xt::xtensor<Token, 2>::from_shape({1, tokens.size()});
  std::copy(tokens.begin(), tokens.end(), array.begin());
  return array;
}

/// Loads are the choices that are taken, and the others have no gate.
void check_routing(const std::vector<RoutingArrays>& all) {
  for (const RoutingArrays& routing : all) {
    INFO("layer " << routing.layer);
    std::vector<std::int32_t> loads(routing.load.size());
    for (std::size_t n = 0; n < routing.selected.shape(0); ++n) {
      for (std::size_t k = 0; k < routing.selected.shape(1); ++k) {
        const ChosenExpert chosen = routing.selected(n, k);
        if (chosen.taken()) {
          ++loads.at(static_cast<std::size_t>(chosen.expert()));
        } else {
          CHECK(routing.gate(n, k) == 0);
        }
      }
    }
    CHECK(std::equal(loads.begin(), loads.end(), routing.load.begin()));
  }
}

Index taken(const RoutingArrays& routing) {
  return std::count_if(routing.selected.begin(), routing.selected.end(), [](ChosenExpert c) { return c.taken(); });
}

}  // namespace

TEST_CASE("a choice on the host is an expert or none", "[inspect]") {
  CHECK_FALSE(ChosenExpert().taken());
  CHECK_FALSE(ChosenExpert(-1).taken());
  CHECK(ChosenExpert(0).taken());
  CHECK(ChosenExpert(3).expert() == 3);
  CHECK(ChosenExpert(-1) == ChosenExpert());
  CHECK(ChosenExpert(1) != ChosenExpert(2));
  const std::vector<ChosenExpert> choices = {ChosenExpert(2), {}, ChosenExpert(0), ChosenExpert(2), {}};
  CHECK(loads_of(choices, 4) == std::vector<Index>{1, 0, 2, 0});
}

TEST_CASE("inspection counts the choices of every router", "[inspect]") {
  Cpu backend(1);
  const Model<EveryRouter, Cpu> model(backend, Seed{3});
  const auto routing = inspect(model, some_array()).routing;
  REQUIRE(routing.size() == 8);
  check_routing(routing);
  for (std::size_t i = 0; i < routing.size(); ++i) {
    const Index all = static_cast<Index>(routing[i].selected.size());
    INFO("layer " << i);
    if (i == dynamic_top_k || i == expert_choice) {
      CHECK(taken(routing[i]) < all);
      CHECK(taken(routing[i]) >= 16);
    } else {
      CHECK(taken(routing[i]) == all);
    }
  }
}

TEST_CASE("a trace of every router is what inspection finds", "[inspect]") {
  Cpu backend(1);
  const Model<EveryRouter, Cpu> model(backend, Seed{3});
  const auto routing = inspect(model, some_array()).routing;
  Session session(model, {.trace = true});
  session.feed(some_tokens());
  REQUIRE(session.experts().size() == routing.size());
  for (std::size_t i = 0; i < routing.size(); ++i) {
    const auto& choices = session.experts()[i];
    CHECK(std::equal(choices.selected.begin(), choices.selected.end(), routing[i].selected.begin(),
                     routing[i].selected.end()));
    const auto loads = loads_of(choices.selected, choices.experts);
    CHECK(std::equal(loads.begin(), loads.end(), routing[i].load.begin()));
    // Scores are those of the logits.
    const auto experts = static_cast<std::size_t>(choices.experts);
    REQUIRE(choices.score.size() == 16 * experts);
    REQUIRE(choices.logit.size() == choices.score.size());
    const bool sigmoid = i == 1 || i == 7;
    for (std::size_t n = 0; n < 16; ++n) {
      double total = 0;
      for (std::size_t e = 0; e < experts; ++e) total += std::exp(double(choices.logit[n * experts + e]));
      for (std::size_t e = 0; e < experts; ++e) {
        const std::size_t at = n * experts + e;
        const double logit = choices.logit[at];
        CHECK(choices.score[at] == Approx(sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit) / total).margin(1e-5));
        CHECK(choices.score[at] == Approx(routing[i].probability(n, e)).margin(1e-5));
      }
    }
  }
}

TEST_CASE("a model leaves experts out as if it did not have them", "[limits]") {
  Cpu backend(1);
  Model<EveryRouter, Cpu> model(backend, Seed{3});
  const auto all = inspect(model, some_array());
  ExpertLimits limits;
  for (Index layer = 0; layer < 8; ++layer) limits.left_out.push_back({layer, layer % 4});
  limits.left_out.push_back({3, 3});  // given twice
  const auto check = [&](Index choices) {
    limits.choices = choices;
    model.limit_experts(limits);
    const auto found = inspect(model, some_array());
    Session session(model, {.trace = true});
    session.feed(some_tokens());
    for (std::size_t i = 0; i < found.routing.size(); ++i) {
      INFO("layer " << i << ", at most " << choices);
      const RoutingArrays& routing = found.routing[i];
      const bool expert_chooses = i == expert_choice;
      const auto out = static_cast<Index>(i % 4);
      const std::size_t experts = routing.probability.shape(1);
      CHECK(routing.load(static_cast<std::size_t>(out)) == 0);
      const Index most = std::min<Index>(choices == 0 ? 4 : choices, expert_chooses ? 4 : i == 6 ? 1 : 2);
      for (std::size_t n = 0; n < 16; ++n) {
        CHECK(routing.probability(n, static_cast<std::size_t>(out)) < 1e-30f);
        double total = 0, gates = 0;
        Index taken = 0;
        for (std::size_t e = 0; e < experts; ++e) total += routing.probability(n, e);
        for (std::size_t k = 0; k < routing.gate.shape(1); ++k) {
          taken += routing.selected(n, k).taken() ? 1 : 0, gates += routing.gate(n, k);
        }
        if (i != 1 && i != 7) CHECK(total == Approx(1).margin(1e-5));
        if (i != dynamic_top_k && !expert_chooses) CHECK(taken == most);
        CHECK(taken <= most);
        // Gates that sum to one still do.
        if (i != dynamic_top_k && !expert_chooses && i != 6) CHECK(gates == Approx(1).margin(1e-5));
      }
      // One pass over all tokens is the cached one.
      CHECK(std::equal(routing.selected.begin(), routing.selected.end(), session.experts()[i].selected.begin()));
    }
    // Token by token, too.
    session.reset();
    std::vector<ChosenExpert> stepped;
    for (const Token token : some_tokens()) {
      session.feed(std::span(&token, 1));
      const auto& choices_of = session.experts()[7].selected;
      stepped.insert(stepped.end(), choices_of.begin(), choices_of.end());
    }
    CHECK(std::equal(stepped.begin(), stepped.end(), found.routing[7].selected.begin()));
  };
  check(0);
  check(1);
  model.limit_experts({});
  CHECK(model.limits_by_layer() == nullptr);
  CHECK((inspect(model, some_array()).logits == all.logits));
}

TEST_CASE("limits that a model cannot have are refused, and the old ones stay", "[limits]") {
  Cpu backend(1);
  Model<EveryRouter, Cpu> model(backend, Seed{3});
  model.limit_experts({.choices = 1});
  check_message<OptionError>([&] { model.limit_experts({.left_out = {{8, 0}}}); }, "layer 8 has no experts");
  check_message<OptionError>([&] { model.limit_experts({.left_out = {{0, 4}}}); }, "experts 0 to 3, found 4");
  check_message<OptionError>(
      [&] {
        model.limit_experts({.left_out = {{0, 0}, {0, 1}, {0, 2}, {0, 3}}});
      },
      "all experts of layer 0");
  check_message<OptionError>([&] { model.limit_experts({.choices = -1}); }, "a limit of -1");
  CHECK(model.expert_limits() == ExpertLimits{.choices = 1});
}

TEST_CASE("a training step reports the pairs of every router", "[inspect]") {
  Cpu backend(1);
  Model<EveryRouter, Cpu> model(backend, Seed{3});
  Trainer trainer(model);
  auto tokens = some_tokens(), next = tokens;
  tokens[7] = next[7] = -1, tokens[15] = next[15] = -1;  // pads, which no expert sees
  const StepReport report = trainer.train_step(tokens, next, 2, 8);
  CHECK(std::isfinite(report.loss));
  const auto loads = trainer.loads();
  REQUIRE(loads.size() == 8);
  for (std::size_t i = 0; i < loads.size(); ++i) {
    Index pairs = 0;
    for (const auto load : loads[i]) pairs += load;
    INFO("layer " << i);
    const Index choices = i == 6 ? 1 : 2;
    if (i == dynamic_top_k || i == capacity) {
      CHECK(pairs < 14 * choices);
      CHECK(pairs > 0);
    } else if (i == expert_choice) {
      CHECK(pairs == 5 * 6);  // ⌈14 · 2 / 5⌉ tokens of each expert
    } else {
      CHECK(pairs == 14 * choices);
    }
  }
}

TEST_CASE("upcycling starts every router whose gates sum to one as the dense model", "[inspect]") {
  Cpu backend(1);
  const Model<Start, Cpu> dense(backend, Seed{3});
  Model<Upcycled, Cpu> mixture(backend, Seed{4});
  upcycle(dense, mixture);
  const auto found = inspect(mixture, some_array()), expected = inspect(dense, some_array());
  CHECK(expected.routing.empty());
  REQUIRE(found.routing.size() == 6);
  check_routing(found.routing);
  double worst = 0;
  for (std::size_t i = 0; i < found.logits.size(); ++i) {
    worst = std::max(worst, std::abs(double(found.logits.data()[i]) - double(expected.logits.data()[i])));
  }
  CHECK(worst < 1e-5);
}

}  // namespace tinymoe_test::every_router
