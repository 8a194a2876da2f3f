// Padded batches and recomputation in a model: neither changes the losses and gradients of the real tokens.

#include <numeric>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "train/callbacks.hpp"
#include "train/descent.hpp"

namespace tinymoe_test::padded {

namespace {

/// Experts with a balancing bias, which no optimizer updates.
using Balanced = Transformer<Vocab<260>, Context<16>, Width<16>,
                             Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>,
                                                Router<4, 2, SigmoidScores, BalanceBias>, Expert<SwiGlu, Hidden<24>>>>>;

/// A mixture with each balance loss.
template <class... Options>
using Block = MoEBlock<RmsNorm, Attention<Heads<2>, Rope>, Router<4, 2, Options...>, Expert<SwiGlu, Hidden<8>>>;
using EveryBalance = Transformer<Vocab<260>, Context<16>, Width<8>, Layers<1, Block<>>, Layers<1, Block<GShardBalance>>,
                                 Layers<1, Block<CvBalance>>, Layers<1, Block<CvBalance, NoisyTopK>>,
                                 Layers<1, Block<SigmoidScores>>, Layers<1, Block<SigmoidScores, BalanceBias>>>;

template <class Arch, class B>
struct Step {
  std::vector<typename B::Master> gradient;
  StepReport report;
  std::vector<std::vector<Index>> loads;

  Step(B& backend, const std::vector<Token>& inputs, const std::vector<Token>& targets, Index batch, Index time,
       Settings settings = {}) {
    Model<Arch, B> model(backend, Seed{11}, settings);
    Trainer trainer(model, Descent{});
    const auto before = weights_of(model);
    report = trainer.train_step(inputs, targets, batch, time, {.clip = 0});
    loads = trainer.loads();
    gradient = weights_of(model);
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = before[i] - gradient[i];
  }
};

/// `rows` padded to `time` each.
std::vector<Token> padded(const std::vector<std::vector<Token>>& rows, Index time) {
  std::vector<Token> tokens;
  for (auto row : rows) {
    row.resize(static_cast<std::size_t>(time), pad_token);
    tokens.insert(tokens.end(), row.begin(), row.end());
  }
  return tokens;
}

std::vector<Token> joined(std::vector<Token> a, const std::vector<Token>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// A run on padded batches or with recomputation, from its checkpoint if there is one.
template <class Arch = Tiny>
std::vector<float> run(FitOptions options, Index stop = 1 << 30, std::vector<double>* losses = nullptr) {
  Cpu backend(1);
  Model<Arch, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AnyOptimizer<Cpu>(Muon{.lr = 1e-2}));
  if (!options.checkpoint.empty() && std::filesystem::exists(options.checkpoint)) trainer.resume(options.checkpoint);
  options.stop = [&] { return trainer.step() == stop; };
  auto watch = on_each_step([&](const StepReport& at) {
    if (losses != nullptr) losses->push_back(at.loss);
  });
  options.observers = {&watch};
  trainer.fit(tiny_data(), options);
  return weights_of(model);
}

FitOptions padded_options(Index steps, const std::filesystem::path& path = {}) {
  return {.batch = 4,
          .time = 16,
          .batching = Batching::padded,
          .accumulation = 2,
          .steps = steps,
          .checkpoint = path,
          .tokenizer = &tiny_tokenizer()};
}

}  // namespace

TEST_CASE("A padded row has the losses, gradients and loads of the row alone", "[padded]") {
  Reference<double> oracle;
  const auto inputs = random_tokens(10, 260, 1), targets = random_tokens(10, 260, 2);
  using TrialStep = Step<Tiny, Reference<double>>;
  const TrialStep alone(oracle, inputs, targets, 1, 10);
  const TrialStep one(oracle, padded({inputs}, 16), padded({targets}, 16), 1, 16);
  CHECK(greatest_difference(one.gradient, alone.gradient) < 1e-14);
  CHECK(one.report.loss == Approx(alone.report.loss).epsilon(1e-13));
  CHECK(one.report.balance_loss == Approx(alone.report.balance_loss).epsilon(1e-13));
  CHECK(one.report.z_loss == Approx(alone.report.z_loss).epsilon(1e-13));
  CHECK(one.report.tokens == 10);
  CHECK(one.loads == alone.loads);
  // A row of pads alone beside it changes nothing either.
  const TrialStep beside(oracle, padded({inputs, {}}, 16), padded({targets, {}}, 16), 2, 16);
  CHECK(greatest_difference(beside.gradient, alone.gradient) < 1e-14);
  CHECK(beside.loads == alone.loads);
}

TEST_CASE("In padded micro-batches every token counts the same", "[padded]") {
  Reference<double> oracle;
  const std::vector<std::vector<Token>> inputs = {random_tokens(3, 260, 1), random_tokens(16, 260, 2)};
  const std::vector<std::vector<Token>> targets = {random_tokens(3, 260, 3), random_tokens(16, 260, 4)};
  using TrialStep = Step<Tiny, Reference<double>>;
  const auto settings = no_router_losses;
  const TrialStep together(oracle, padded(inputs, 16), padded(targets, 16), 2, 16, settings);
  const TrialStep apart(oracle, padded(inputs, 16), padded(targets, 16), 1, 16, settings);
  CHECK(greatest_difference(apart.gradient, together.gradient) < 1e-14);
  const TrialStep first(oracle, inputs[0], targets[0], 1, 3, settings);
  const TrialStep second(oracle, inputs[1], targets[1], 1, 16, settings);
  auto expected = first.gradient;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i] = (3 * first.gradient[i] + 16 * second.gradient[i]) / 19;
  }
  CHECK(greatest_difference(together.gradient, expected) < 1e-14);
  CHECK(together.report.loss == Approx((3 * first.report.loss + 16 * second.report.loss) / 19).epsilon(1e-13));
}

TEST_CASE("However a step of uneven rows is cut, its report is the same", "[padded]") {
  Reference<double> oracle;
  const std::vector<std::vector<Token>> inputs = {random_tokens(15, 260, 1), random_tokens(2, 260, 2)};
  const std::vector<std::vector<Token>> targets = {random_tokens(15, 260, 3), random_tokens(2, 260, 4)};
  const std::vector<std::vector<Token>> more_inputs = {inputs[0], inputs[1], {}, {}};  // rows of pads alone
  const std::vector<std::vector<Token>> more_targets = {targets[0], targets[1], {}, {}};
  using TrialStep = Step<EveryBalance, Reference<double>>;
  const auto check = [&](const Settings& settings, bool same_gradient) {
    const TrialStep together(oracle, padded(inputs, 16), padded(targets, 16), 2, 16, settings);
    const auto same = [&](const TrialStep& found) {
      CHECK(found.report.loss == Approx(together.report.loss).epsilon(1e-13));
      CHECK(found.report.z_loss == Approx(together.report.z_loss).epsilon(1e-13));
      CHECK(found.report.balance_loss == Approx(together.report.balance_loss).epsilon(1e-13));
      CHECK(found.report.load_variation == Approx(together.report.load_variation).epsilon(1e-13));
      CHECK(found.report.tokens == together.report.tokens);
      CHECK(found.loads == together.loads);
      CHECK((greatest_difference(found.gradient, together.gradient) < 1e-14) == same_gradient);
      if (same_gradient) {
        CHECK(found.report.gradient_norm == Approx(together.report.gradient_norm).epsilon(1e-13));
      }
    };
    same(TrialStep(oracle, padded(inputs, 16), padded(targets, 16), 1, 16, settings));
    same(TrialStep(oracle, padded(more_inputs, 16), padded(more_targets, 16), 1, 16, settings));
    const TrialStep pairs(oracle, padded(more_inputs, 16), padded(more_targets, 16), 2, 16, settings);
    CHECK(greatest_difference(pairs.gradient, together.gradient) < 1e-14);
    CHECK(pairs.report.balance_loss == Approx(together.report.balance_loss).epsilon(1e-13));
    CHECK(pairs.report.z_loss == Approx(together.report.z_loss).epsilon(1e-13));
  };
  check({setting::balance_weight = 0, setting::z_weight = 0.5}, true);
  // A balance loss is no mean over tokens. Its gradient is that of each micro-batch, weighted by its tokens.
  const Settings both{setting::balance_weight = 0.5, setting::z_weight = 0.5};
  check(both, false);
  check({setting::balance_weight = 0.5, setting::balance_over_step = true}, false);
  using Plain = Step<Tiny, Reference<double>>;
  const Plain apart(oracle, padded(inputs, 16), padded(targets, 16), 1, 16, both);
  const Plain long_row(oracle, inputs[0], targets[0], 1, 15, both),
      short_row(oracle, inputs[1], targets[1], 1, 2, both);
  auto expected = long_row.gradient;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i] = (15 * long_row.gradient[i] + 2 * short_row.gradient[i]) / 17;
  }
  CHECK(greatest_difference(apart.gradient, expected) < 1e-14);
}

TEST_CASE("Padded batches agree on the CPU and the oracle", "[padded]") {
  Reference<double> oracle;
  Cpu cpu(2);
  const auto inputs = padded({random_tokens(7, 260, 1), {}, random_tokens(16, 260, 2)}, 16);
  const auto targets = padded({random_tokens(7, 260, 3), {}, random_tokens(16, 260, 4)}, 16);
  const Step<Tiny, Reference<double>> expected(oracle, inputs, targets, 3, 16);
  const Step<Tiny, Cpu> found(cpu, inputs, targets, 3, 16);
  CHECK(greatest_difference(std::vector<double>(found.gradient.begin(), found.gradient.end()), expected.gradient) <
        1e-5);
  CHECK(found.loads == expected.loads);
}

TEST_CASE("A run on padded stories learns, counts their tokens and resumes to the bit", "[padded]") {
  std::vector<double> losses;
  run(padded_options(40), 1 << 30, &losses);
  REQUIRE(losses.size() == 40);
  CHECK(losses.back() < 0.3 * losses.front());

  const TemporaryFolder root;
  const auto whole = run(padded_options(6, root / "whole"));
  run(padded_options(6, root / "parts"), 3);
  CHECK(same_bits(run(padded_options(6, root / "parts")), whole));
  CHECK(read_bytes(root / "parts/optimizer.safetensors") == read_bytes(root / "whole/optimizer.safetensors"));
  const Json state = read_json(root / "whole/trainer.json");
  CHECK(state["batching"] == "padded");
  // Stories of fewer than 16 tokens, and longer ones that are cut.
  Index tokens = 0;
  const PaddedBatches batches(tiny_data(), tiny_tokenizer().end_of_story(), 4, 16, Seed{});
  std::vector<Token> inputs(64), targets(64);
  for (Index i = 0; i < 12; ++i) {
    batches.fill(i, inputs, targets);
    tokens += std::count_if(inputs.begin(), inputs.end(), [](Token token) { return token >= 0; });
  }
  CHECK(state["tokens"] == tokens);
  // Packed batches are another order.
  auto packed = padded_options(8, root / "parts");
  packed.batching = Batching::packed;
  check_message<MismatchError>([&] { run(packed); }, "padded", "packed");
}

TEST_CASE("Recomputation saves memory and changes no bit", "[recompute]") {
  Cpu backend(2);
  const auto inputs = padded({random_tokens(16, 260, 1), random_tokens(9, 260, 2)}, 16);
  const auto targets = padded({random_tokens(16, 260, 3), random_tokens(9, 260, 4)}, 16);
  const auto twice_in = joined(inputs, inputs), twice_out = joined(targets, targets);
  const auto train = [&]<class Arch>(std::type_identity<Arch>, bool recompute) {
    struct Result {
      std::vector<float> weights;
      std::vector<std::vector<Index>> loads;
      std::vector<double> reports;
      std::size_t bytes;
    } result;
    Model<Arch, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    for (int step = 0; step < 4; ++step) {
      const auto report = trainer.train_step(twice_in, twice_out, 2, 16, {.seed = Seed{3}, .recompute = recompute});
      for (const double value : {report.loss, report.balance_loss, report.z_loss, report.load_variation}) {
        result.reports.push_back(value);
      }
      if (step == 1) result.reports.push_back(trainer.evaluate(tiny_data(), 2, 16).loss);
      if (step == 2) trainer.evaluate(tiny_data(), 3, 16);  // another shape, and back
    }
    result.loads = trainer.loads();
    result.weights = weights_of(model);
    result.bytes = trainer.activation_bytes();
    return result;
  };
  const auto check = [&](auto arch) {
    const auto plain = train(arch, false), again = train(arch, true);
    CHECK(same_bits(plain.weights, again.weights));
    CHECK(plain.loads == again.loads);
    CHECK(plain.reports == again.reports);
    CHECK(again.bytes < plain.bytes);
  };
  check(std::type_identity<Tiny>{});
  check(std::type_identity<Balanced>{});

  // A resumed run may turn recomputation on or off and has the same bits: checkpoints do not store the option.
  const TemporaryFolder root;
  auto options = padded_options(4, root / "run");
  const auto whole = run(padded_options(4));
  run(options, 2);
  options.recompute = true;
  CHECK(same_bits(run(options), whole));
}

TEST_CASE("A balancing bias is updated after a step, is in no optimizer's chunks, and is resumed", "[trainer]") {
  Cpu backend(1);
  const AnyOptimizer<Cpu> optimizers[] = {AdamW{.lr = 1e-2}, Lion{.lr = 1e-3}, Muon{.lr = 1e-2}};
  const auto tokens = random_tokens(64, 260);
  for (const auto& optimizer : optimizers) {
    INFO(optimizer.name);
    Model<Balanced, Cpu> model(backend, Seed{5}, {setting::bias_rate = 0.25});
    Trainer trainer(model, optimizer);
    bool moved = false;
    for (int step = 1; step <= 3; ++step) {
      trainer.train_step(tokens, tokens, 4, 16);
      Index layer = 0;
      for (const auto& block : std::get<0>(model.weights().layers)) {
        const auto& loads = trainer.loads()[static_cast<std::size_t>(layer++)];
        for (std::size_t e = 0; e < 4; ++e) {
          const float bias = block.network.gate.offset.data[e];
          CHECK(bias * 4 == std::round(bias * 4));  // whole steps of the rate, and nothing else
          CHECK(std::abs(bias) <= 0.25f * static_cast<float>(step));
          if (step == 1) CHECK(bias == (loads[e] < 32 ? 0.25f : (loads[e] > 32 ? -0.25f : 0.0f)));
          moved = moved || bias != 0;
        }
      }
    }
    CHECK(moved);
    const TemporaryFolder root;
    trainer.save(root / "run", tiny_tokenizer());
    Model<Balanced, Cpu> other(backend, Seed{6});
    Trainer resumed(other, optimizer);
    resumed.resume(root / "run");
    CHECK(same_bits(weights_of(other), weights_of(model)));
  }
}

}  // namespace tinymoe_test::padded
