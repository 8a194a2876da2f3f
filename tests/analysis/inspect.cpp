// What a model computes, as arrays: shapes, sums, choices, and the logits of a session.

#include "tinymoe/analysis/inspect.hpp"

#include <xtensor/xmath.hpp>
#include <xtensor/xsort.hpp>
#include <xtensor/xview.hpp>

#include "analysis/architectures.hpp"
#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/files/npy.hpp"
#include "tinymoe/sample/session.hpp"

namespace tinymoe_test::inspect_tests {

namespace {

xt::xtensor<Token, 2> tokens_of(std::size_t batch, std::size_t time, Index vocabulary) {
  auto tokens = xt::xtensor<Token, 2>::from_shape({batch, time});
  const auto values = random_tokens(static_cast<Index>(batch * time), vocabulary);
  std::copy(values.begin(), values.end(), tokens.begin());
  return tokens;
}

/// The routing of one mixture, with E experts and K choices of N tokens.
void check_routing(const RoutingArrays& routing, std::size_t n, std::size_t experts, std::size_t choices) {
  REQUIRE(routing.probability.shape() == std::array{n, experts});
  REQUIRE(routing.selected.shape() == std::array{n, choices});
  REQUIRE(routing.gate.shape() == std::array{n, choices});
  REQUIRE(routing.load.shape() == std::array{experts});
  CHECK(xt::amin(routing.probability)() > 0);
  CHECK(xt::amax(xt::abs(xt::sum(routing.probability, {1}) - 1.0f))() < 1e-5);
  CHECK(xt::amax(xt::abs(xt::sum(routing.gate, {1}) - 1.0f))() < 1e-5);
  CHECK(xt::sum(routing.load)() == static_cast<std::int32_t>(n * choices));
  // Choice k has the k-th highest probability; the gates are the shares of the chosen.
  const xt::xtensor<float, 2> descending = -routing.probability;
  const xt::xtensor<std::size_t, 2> order = xt::argsort(descending, 1);
  std::vector<std::int32_t> load(experts);
  bool chosen = true;
  float worst = 0;
  for (std::size_t row = 0; row < n; ++row) {
    float total = 0;
    for (std::size_t k = 0; k < choices; ++k) total += routing.probability(row, order(row, k));
    for (std::size_t k = 0; k < choices; ++k) {
      chosen = chosen && routing.selected(row, k) == ChosenExpert(static_cast<std::int32_t>(order(row, k)));
      worst = std::max(worst, std::abs(routing.gate(row, k) - routing.probability(row, order(row, k)) / total));
      ++load[order(row, k)];
    }
  }
  CHECK(chosen);
  CHECK(worst < 1e-5f);
  CHECK(std::equal(load.begin(), load.end(), routing.load.begin()));
}

}  // namespace

TEST_CASE("Inspection has the shapes, sums and choices that it says", "[inspect]") {
  Cpu backend(2);
  const Model<Tiny, Cpu> model(backend, Seed{3});
  const auto found = inspect(model, tokens_of(3, 11, 260));
  CHECK(found.logits.shape() == std::array<std::size_t, 3>{3, 11, 260});
  REQUIRE(found.routing.size() == 2);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    CHECK(found.routing[layer].layer == static_cast<Index>(layer));
    check_routing(found.routing[layer], 33, 4, 2);
  }
  // All experts are in use, and the layers differ.
  CHECK(xt::amin(found.routing[0].load)() > 0);
  CHECK((found.routing[0].selected != found.routing[1].selected));
}

TEST_CASE("Inspection numbers layers as the model does, dense ones left out", "[inspect]") {
  Cpu backend(1);
  const Model<Mixed, Cpu> model(backend, Seed{3});
  const auto found = inspect(model, tokens_of(2, 12, 50));
  REQUIRE(found.routing.size() == 2);
  CHECK(found.routing[0].layer == 1);
  CHECK(found.routing[1].layer == 2);
  check_routing(found.routing[0], 24, 3, 2);
  check_routing(found.routing[1], 24, 3, 2);
}

TEST_CASE("A row's logits are those of a session, and of the row alone", "[inspect]") {
  Cpu backend(2);
  const Model<Tiny, Cpu> model(backend, Seed{3});
  const auto tokens = tokens_of(3, 16, 260);
  const auto logits = inspect(model, tokens).logits;
  Session session(model);
  for (std::size_t b = 0; b < 3; ++b) {
    session.reset();
    double worst = 0;
    for (std::size_t t = 0; t < 16; ++t) {
      const Token token = tokens(b, t);
      const auto found = session.feed(std::span(&token, 1));
      for (std::size_t v = 0; v < 260; ++v) worst = std::max(worst, std::abs(double(found[v]) - logits(b, t, v)));
    }
    CHECK(worst < 1e-5);
    const xt::xtensor<Token, 2> row = xt::view(tokens, xt::range(b, b + 1), xt::all());
    CHECK(xt::amax(xt::abs(inspect(model, row).logits - xt::view(logits, xt::range(b, b + 1))))() < 1e-5f);
  }
  CHECK(xt::amax(xt::abs(logits))() > 0.1f);
}

TEST_CASE("The oracle's inspection is the CPU's", "[inspect]") {
  Cpu cpu(2);
  Reference<double> oracle;
  const Model<Tiny, Cpu> model(cpu, Seed{3});
  const Model<Tiny, Reference<double>> expected(oracle, Seed{3});
  const auto tokens = tokens_of(2, 16, 260);
  const auto found = inspect(model, tokens), wanted = inspect(expected, tokens);
  CHECK(xt::amax(xt::abs(found.logits - wanted.logits))() < 1e-5f);
  CHECK(xt::amax(xt::abs(found.routing[1].probability - wanted.routing[1].probability))() < 1e-5f);
}

TEST_CASE("Inspection refuses what does not fit", "[inspect]") {
  Cpu backend(1);
  const Model<Tiny, Cpu> model(backend, Seed{3});
  check_message<ShapeError>([&] { inspect(model, tokens_of(1, 17, 260)); }, "1 to 16", "(1, 17)");
  check_message<ShapeError>([&] { inspect(model, tokens_of(0, 5, 260)); }, "(0, 5)");
  check_message<ShapeError>([&] { inspect(model, tokens_of(2, 0, 260)); }, "(2, 0)");
  auto tokens = tokens_of(2, 5, 260);
  tokens(1, 3) = 260;
  check_message<TextError>([&] { inspect(model, tokens); }, "token 260", "vocabulary of 260");
  tokens(1, 3) = -1;
  check_message<TextError>([&] { inspect(model, tokens); }, "token -1");
}

TEST_CASE("Logits and loads go to .npy and back", "[inspect]") {
  const TemporaryFolder root;
  Cpu backend(1);
  const Model<Tiny, Cpu> model(backend, Seed{3});
  const auto found = inspect(model, tokens_of(2, 7, 260));
  save_npy(root / "logits.npy", found.logits);
  save_npy(root / "load.npy", found.routing[0].load);
  const auto logits = load_npy<float>(root / "logits.npy");
  REQUIRE(logits.dimension() == 3);
  CHECK((logits == found.logits));
  CHECK((load_npy<std::int32_t>(root / "load.npy") == found.routing[0].load));
}

}  // namespace tinymoe_test::inspect_tests
