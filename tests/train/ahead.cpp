// The host runs ahead of the device: one read-back a step, uploads of the next batch while the device works on the
// current one, and the same bits as without.

#include <fstream>
#include <numeric>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/lagging.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::ahead {

namespace {

FitOptions options_for(Index steps, Index accumulation = 1, Batching batching = Batching::packed) {
  return {.batch = 3,
          .time = 16,
          .batching = batching,
          .accumulation = accumulation,
          .steps = steps,
          .seed = Seed{3},
          .tokenizer = &tiny_tokenizer()};
}

/// A communicator of one rank that fails where the gradients are complete.
struct Failing : Alone {
  template <class B>
  static void reduce_scatter(B&, View<typename B::Master> gradients, std::span<const Index>) {
    CHECK(std::any_of(gradients.data, gradients.data + gradients.cols, [](float g) { return g != 0; }));
    fail<DeviceError>("lost");
  }
};

/// What `fit` comes to, with all that may happen on the way.
template <class B>
struct Fitted {
  B backend;
  Model<Tiny, B> model;
  std::vector<StepReport> reports;
  std::vector<double> validation;

  explicit Fitted(B device, FitOptions options) : backend(std::move(device)), model(backend, Seed{5}) {
    Trainer trainer(model, AdamW{.lr = 1e-2});
    auto watch = on_each_step([&](const StepReport& report) { reports.push_back(report); });
    watch.evaluation = [&](const StepReport&, const EvaluationReport& at) { validation.push_back(at.loss); };
    options.observers = {&watch};
    trainer.fit(tiny_data(), options);
  }
};

/// The same steps by hand, each batch filled and given when its turn comes.
struct ByHand {
  Cpu backend{1};
  Model<Tiny, Cpu> model{backend, Seed{5}};
  std::vector<StepReport> reports;

  explicit ByHand(const FitOptions& options) {
    Trainer trainer(model, AdamW{.lr = 1e-2});
    const PaddedBatches padded(tiny_data(), tiny_tokenizer().end_of_story(), options.batch, options.time, options.seed);
    for (Index step = 0; step < options.steps; ++step) {
      const std::size_t stage = options.growth.stage_at(static_cast<double>(step) / static_cast<double>(options.steps));
      const bool full = stage == options.growth.size();
      const Index time = full ? options.time : options.growth.stages[stage].time;
      const Index batch = options.batch * options.time / time;
      const Batches packed(tiny_data(), batch, time, options.seed);
      const auto size = static_cast<std::size_t>(batch * time);
      std::vector<Token> inputs(size * static_cast<std::size_t>(options.accumulation)), targets(inputs.size());
      for (Index i = 0; i < options.accumulation; ++i) {
        const auto in = std::span(inputs).subspan(static_cast<std::size_t>(i) * size, size);
        const auto out = std::span(targets).subspan(static_cast<std::size_t>(i) * size, size);
        const Index number = step * options.accumulation + i;
        options.batching == Batching::packed ? packed.fill(number, in, out) : padded.fill(number, in, out);
      }
      reports.push_back(trainer.train_step(inputs, targets, batch, time, {.seed = options.seed}));
    }
  }
};

void check_same(const std::vector<StepReport>& found, const std::vector<StepReport>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO("step " << i + 1);
    CHECK(found[i].step == expected[i].step);
    CHECK(found[i].tokens == expected[i].tokens);
    CHECK(found[i].loss == expected[i].loss);
    CHECK(found[i].balance_loss == expected[i].balance_loss);
    CHECK(found[i].z_loss == expected[i].z_loss);
    CHECK(found[i].gradient_norm == expected[i].gradient_norm);
    CHECK(found[i].load_variation == expected[i].load_variation);
  }
}

}  // namespace

TEST_CASE("Batches that are read ahead give the bits of batches that are not", "[ahead]") {
  // Sequences grow in steps 2 and 4: of 48 tokens 12, 6 (of 42 tokens) and 3.
  constexpr SequenceGrowth growing{{{{4, 0.3}, {7, 0.6}}}};
  for (const auto& [batching, growth] : {std::pair(Batching::packed, SequenceGrowth{}),
                                         {Batching::packed, growing},
                                         {Batching::padded, SequenceGrowth{}}}) {
    for (const Index accumulation : {1, 2, 3}) {
      INFO("padded " << (batching == Batching::padded) << ", accumulation " << accumulation << ", growth "
                     << growth.text());
      auto options = options_for(6, accumulation, batching);
      options.growth = growth;
      const ByHand expected(options);
      const auto weights = weights_of(expected.model);
      const auto check = [&](const auto& found) {
        check_same(found.reports, expected.reports);
        CHECK(same_bits(weights_of(found.model), weights));
      };
      check(Fitted(Cpu(1), options));
      check(Fitted(Lagging(), options));
      // Evaluations between steps use the same memory, or plan another.
      options.evaluate_every = 2;
      options.validation = &tiny_data();
      const Fitted<Cpu> evaluated(Cpu(1), options);
      check(evaluated);
      const Fitted<Lagging> lagging(Lagging(), options);
      check(lagging);
      CHECK(lagging.validation == evaluated.validation);
      CHECK(lagging.validation.size() == 3);
    }
  }
}

TEST_CASE("Evaluations between a prefetched batch and its step change nothing", "[ahead]") {
  const auto options = options_for(6, 2);
  const ByHand expected(options);
  Lagging backend;
  Model<Tiny, Lagging> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  auto disturbed = options;
  std::vector<StepReport> reports;
  auto disturb = on_each_step([&](const StepReport& report) {
    reports.push_back(report);
    if (report.step == 1) trainer.evaluate(tiny_data(), 3, 16);  // the same plan
    if (report.step == 2) trainer.evaluate(tiny_data(), 5, 13);  // another plan
    if (report.step == 3) trainer.evaluate(tiny_data(), 3, 16), trainer.evaluate(tiny_data(), 2, 16);
  });
  disturbed.observers = {&disturb};
  trainer.fit(tiny_data(), disturbed);
  check_same(reports, expected.reports);
  CHECK(same_bits(weights_of(model), weights_of(expected.model)));
}

TEST_CASE("A run that stops and is resumed reads the batches of an uninterrupted run", "[ahead]") {
  const TemporaryFolder root;
  const auto run = [&](const char* name, Index stop) {
    Lagging backend;
    Model<Tiny, Lagging> model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    if (std::filesystem::exists(root / name)) trainer.resume(root / name);
    auto options = options_for(7, 2, Batching::padded);
    options.checkpoint = root / name;
    options.stop = [&] { return trainer.step() == stop; };
    trainer.fit(tiny_data(), options);
    return weights_of(model);
  };
  const auto whole = run("whole", 100);
  run("parts", 3);
  run("parts", 4);
  CHECK(same_bits(run("parts", 100), whole));
  CHECK(read_bytes(root / "parts/optimizer.safetensors") == read_bytes(root / "whole/optimizer.safetensors"));
  // One trainer that stops and then continues.
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  auto options = options_for(7, 2, Batching::padded);
  options.stop = [&] { return trainer.step() == 3; };
  trainer.fit(tiny_data(), options);
  CHECK(trainer.step() == 3);
  options.stop = {};
  trainer.fit(tiny_data(), options);
  CHECK(same_bits(weights_of(model), whole));
}

TEST_CASE("A step is read back once, after the upload of the next batch", "[ahead]") {
  Lagging backend;
  Model<Tiny, Lagging> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  const auto log = [&](const FitOptions& options) {
    trainer.fit(tiny_data(), {.batch = 3, .time = 16, .steps = trainer.step() + 1});  // plans
    backend.log.clear();
    Trainer fresh(model);
    backend.log.clear();
    std::string steps;
    auto watched = options;
    auto watch = on_each_step([&](const StepReport&) { steps += backend.log + '|', backend.log.clear(); });
    watched.observers = {&watch};
    fresh.fit(tiny_data(), watched);
    return steps;
  };
  // Inputs and targets are two uploads. The first step sends its own, and planning may wait; then each step sends the
  // next one's before it reads, and the last has none to send.
  const auto plain = log(options_for(4));
  CHECK(plain.substr(plain.find('u')) == "uuuur|uur|uur|r|");
  // Of a step of three micro-batches the first is sent ahead.
  const auto accumulated = log(options_for(3, 3));
  CHECK(accumulated.substr(accumulated.find('u')) == "uuuuuuuur|uuuuuur|uuuur|");

  const auto tokens = random_tokens(6 * 16, 260);
  trainer.train_step(tokens, tokens, 2, 16);
  backend.log.clear();
  const auto report = trainer.train_step(tokens, tokens, 2, 16);
  CHECK(backend.log == "uuuuuur");
  CHECK(report.loss > 0);
  CHECK(report.balance_loss > 0);
  CHECK(report.gradient_norm > 0);
  CHECK(std::accumulate(trainer.loads()[1].begin(), trainer.loads()[1].end(), Index{0}) == 6 * 16 * 2);

  trainer.evaluate(tiny_data(), 2, 16);
  const auto loads = trainer.loads();
  backend.log.clear();
  const auto evaluation = trainer.evaluate(tiny_data(), 2, 16);
  CHECK(std::count(backend.log.begin(), backend.log.end(), 'r') == 1);
  CHECK(backend.log.find('d') == std::string::npos);
  CHECK(backend.log.back() == 'r');
  CHECK(evaluation.loads == loads);
  CHECK(trainer.loads() == loads);
  CHECK(std::accumulate(loads[0].begin(), loads[0].end(), Index{0}) == 2 * (tiny_data().size() - 1));
}

TEST_CASE("A step that was begun can be given up, explicitly or by another call", "[ahead]") {
  const auto tokens = random_tokens(32, 260), others = random_tokens(32, 260, 2);
  const auto steps = [&](auto&& between) {
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{1});
    Trainer trainer(model);
    const auto before = weights_of(model);
    trainer.begin_step(others, others, 1, 16);
    between(trainer);
    CHECK(trainer.step() == 0);
    CHECK(same_bits(weights_of(model), before));
    check_message<TrainingError>([&] { trainer.finish_step(); }, "not begun");
    const auto report = trainer.train_step(tokens, tokens, 1, 16);
    return std::pair(report.gradient_norm, weights_of(model));
  };
  Cpu backend(1);
  Model<Tiny, Cpu> alone(backend, Seed{1});
  Trainer expected(alone);
  const auto norm = expected.train_step(tokens, tokens, 1, 16).gradient_norm;
  const auto check = [&](const auto& found) {
    CHECK(found.first == norm);
    CHECK(same_bits(found.second, weights_of(alone)));
  };
  check(steps([](auto& trainer) {
    trainer.give_up_step();
    const auto* gradients = trainer.gradients().data;
    CHECK(std::all_of(gradients, gradients + Model<Tiny, Cpu>::size, [](float g) { return g == 0; }));
  }));
  check(steps([](auto& trainer) { trainer.evaluate(tiny_data(), 1, 16); }));
  check(steps([&](auto& trainer) {
    trainer.begin_step(tokens, tokens, 2, 16);
    trainer.give_up_step();
  }));
  // Calls between the halves of a step do not change it.
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  trainer.begin_step(others, others, 2, 16);
  trainer.begin_step(tokens, tokens, 1, 16);
  CHECK(trainer.finish_step().gradient_norm == norm);
  CHECK(same_bits(weights_of(model), weights_of(alone)));
}

TEST_CASE("After a step whose first half throws, the gradients are zero at once", "[ahead]") {
  const auto tokens = random_tokens(16, 260);
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, Failing{});
  CHECK_THROWS_AS(trainer.begin_step(tokens, tokens, 1, 16), DeviceError);
  const auto* gradients = trainer.gradients().data;
  CHECK(std::all_of(gradients, gradients + Model<Tiny, Cpu>::size, [](float g) { return g == 0; }));
  check_message<TrainingError>([&] { trainer.finish_step(); }, "not begun");
}

TEST_CASE("Data that is damaged during a run ends it at the step that needs the data", "[ahead]") {
  const TemporaryFolder root;
  const GeneratedStories stories(60, [](Index) { return std::string("the cat sat on the mat."); });
  const auto file = root / "tokens.bin", path = root / "run";
  const auto data = TokenData::encode_to_file(stories, tiny_tokenizer(), file, 1);
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model);
  auto options = options_for(9);
  options.checkpoint = path;
  auto spoiling = on_each_step([&](const StepReport& report) {
    if (report.step != 2) return;
    std::fstream spoil(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto size = std::filesystem::file_size(file);
    spoil.seekp(static_cast<std::streamoff>(size / 4));
    spoil << std::string(size / 2, '\xff');
  });
  options.observers = {&spoiling};
  check_message<FileError>([&] { trainer.fit(data, options); }, "expected tokens from 0 to 259");
  // The step after the damage had its batch already; those done are kept.
  CHECK(trainer.step() >= 3);
  Model<Tiny, Cpu> restored(backend, Seed{6});
  Trainer next(restored);
  next.resume(path);
  CHECK(next.step() == trainer.step());
  CHECK(same_bits(weights_of(restored), weights_of(model)));
}

}  // namespace tinymoe_test::ahead
