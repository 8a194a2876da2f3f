// float16's loss scale: what it changes and what it does not, steps that are skipped, and that a resumed run goes on
// with it.

#include "tinymoe/core/loss_scale.hpp"

#include <fstream>
#include <numeric>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/descent.hpp"

namespace tinymoe_test::loss_scale {

namespace {

using Half = Reference<float16, float>;
using HalfModel = Model<Tiny, Half>;

static_assert(detail::needs_loss_scale<float16> && !detail::needs_loss_scale<bfloat16> &&
              !detail::needs_loss_scale<float>);

constexpr float infinite = std::numeric_limits<float>::infinity();

Json state_of(const std::filesystem::path& path) { return read_json(path / "trainer.json"); }

/// Makes a checkpoint look as if its run had come to another scale.
void set_scale(const std::filesystem::path& path, double scale, Index good_steps) {
  auto state = state_of(path);
  state["loss_scale"] = scale, state["loss_scale_steps"] = good_steps;
  write_bytes(path / "trainer.json", state.dump());
}

}  // namespace

TEST_CASE("The scale halves where gradients overflow and doubles after good steps", "[loss_scale]") {
  LossScale scale;
  CHECK(scale.value == 65536);
  for (Index i = 0; i < LossScale::patience - 1; ++i) scale.succeed();
  CHECK(scale.value == 65536);
  CHECK(scale.valid());
  scale.succeed();
  CHECK(scale.value == 131072);
  CHECK(scale.good_steps == 0);
  scale.succeed();
  scale.shrink(7);
  CHECK(scale.value == 65536);
  CHECK(scale.good_steps == 0);
  for (int i = 0; i < 12; ++i) {
    for (Index j = 0; j < LossScale::patience; ++j) scale.succeed();
  }
  CHECK(scale.value == LossScale::max_value);
  for (int i = 0; i < 24; ++i) scale.shrink(7);
  CHECK(scale.value == 1);
  CHECK(scale.valid());
  check_message<TrainingError>([&] { scale.shrink(7); }, "step 7", "float16", "learning rate", "bfloat16");
  CHECK_FALSE(LossScale{.value = 3}.valid());
  CHECK_FALSE(LossScale{.value = 0.5}.valid());
  CHECK_FALSE(LossScale{.good_steps = 2000}.valid());
}

TEST_CASE("The norm, the clip and the step do not depend on the loss scale", "[loss_scale]") {
  const double squares[3] = {9, 16, 144};
  double result[2];
  kernels::ClipScale<double>{squares, 3, 0, result, 4}(SerialGroup{}, 0);
  CHECK(result[0] == 3.25);
  CHECK(result[1] == 0.25);
  kernels::ClipScale<double>{squares, 3, 1.625, result, 4}(SerialGroup{}, 0);
  CHECK(result[0] == 3.25);
  CHECK(result[1] == 0.125);
  kernels::ClipScale<double>{squares, 3, 4, result, 4}(SerialGroup{}, 0);  // 13 would be above, 3.25 is not
  CHECK(result[1] == 0.25);

  // The whole step, the router's losses among it, against float32.
  const auto tokens = random_tokens(64, 260);
  const Settings settings{setting::balance_weight = 0.5, setting::z_weight = 0.25};
  for (const double clip : {0.0, 0.5}) {
    const auto change = [&](auto backend, StepReport& report) {
      Model<Tiny, decltype(backend)> model(backend, Seed{1}, settings);
      Trainer trainer(model, Descent{});
      const auto before = weights_of(model);
      report = trainer.train_step(tokens, tokens, 2, 16, {.clip = clip});
      auto change = weights_of(model);
      for (std::size_t i = 0; i < change.size(); ++i) change[i] -= before[i];
      return change;
    };
    StepReport expected, found;
    const auto whole = change(Reference<float>(), expected), half = change(Half(), found);
    CHECK(found.loss_scale == 65536);
    CHECK(expected.loss_scale == 1);
    CHECK_FALSE(found.skipped);
    CHECK(found.loss == Approx(expected.loss).epsilon(2e-3));
    CHECK(found.balance_loss == Approx(expected.balance_loss).epsilon(2e-3));
    CHECK(found.z_loss == Approx(expected.z_loss).epsilon(2e-3));
    CHECK(found.gradient_norm == Approx(expected.gradient_norm).epsilon(5e-3));
    CHECK(greatest_difference(half, whole) < 2e-3);
    CHECK(greatest_difference(whole, std::vector<float>(whole.size())) > 1e-2);
  }
}

TEST_CASE("A step in float16 whose gradients overflow is skipped, with a smaller scale after it", "[loss_scale]") {
  Half backend;
  HalfModel model(backend, Seed{1}), other(backend, Seed{1});
  Trainer trainer(model);
  trainer.average(0.5);
  const auto tokens = random_tokens(32, 260);
  const auto before = weights_of(model);
  trainer.gradients().data[3] = infinite;
  auto report = trainer.train_step(tokens, tokens, 2, 16);
  CHECK(report.skipped);
  CHECK(report.loss_scale == 65536);
  CHECK(report.step == 0);
  CHECK(report.tokens == 0);
  CHECK_FALSE(std::isfinite(report.gradient_norm));
  CHECK(std::isfinite(report.loss));
  CHECK(trainer.step() == 0);
  CHECK(same_bits(weights_of(model), before));
  CHECK(std::accumulate(trainer.loads()[0].begin(), trainer.loads()[0].end(), Index{0}) == 64);
  const auto* gradients = trainer.gradients().data;
  CHECK(std::all_of(gradients, gradients + HalfModel::size, [](float g) { return g == 0; }));
  CHECK(trainer.state().loss_scale.value == 32768);
  report = trainer.train_step(tokens, tokens, 2, 16);
  CHECK_FALSE(report.skipped);
  CHECK(report.loss_scale == 32768);
  CHECK(report.step == 1);
  CHECK(report.tokens == 32);
  CHECK(trainer.state().loss_scale.good_steps == 1);
  CHECK(trainer.state().averages == 0);  // as of the last save
  // The optimizer knows of one step only: this is the first step of a run with that scale.
  Trainer alone(other);
  const TemporaryFolder root;
  alone.save(root / "start", tiny_tokenizer());
  set_scale(root / "start", 32768, 0);
  alone.resume(root / "start");
  CHECK(alone.train_step(tokens, tokens, 2, 16).gradient_norm == report.gradient_norm);
  CHECK(same_bits(weights_of(model), weights_of(other)));

  // A NaN is treated like an overflow; a loss that is not finite is an error, whatever the scale.
  trainer.gradients().data[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(trainer.train_step(tokens, tokens, 2, 16).skipped);
  const auto kept = weights_of(model);
  auto spoilt = kept;
  spoilt[5] = std::numeric_limits<float>::quiet_NaN();
  set_weights(model, std::vector<float>(spoilt.size(), std::numeric_limits<float>::quiet_NaN()));
  check_message<TrainingError>([&] { trainer.train_step(tokens, tokens, 2, 16); }, "step 2", "loss is nan");
  set_weights(model, kept);
  CHECK(trainer.state().loss_scale.value == 16384);
  CHECK(trainer.train_step(tokens, tokens, 2, 16).step == 2);
}

TEST_CASE("Gradients that overflow find a scale at which they fit", "[loss_scale]") {
  Half backend;
  HalfModel model(backend, Seed{1});
  // A last norm whose gain is great makes the gradients behind it great, and logits too: one target alone is scored.
  auto weights = weights_of(model);
  const auto gain = model.weights().norm.weight.data - model.buffer().data;
  for (Index i = 0; i < 16; ++i) weights[static_cast<std::size_t>(gain + i)] = 40;
  set_weights(model, weights);
  Trainer trainer(model, AdamW{.lr = 1e-3});
  const auto tokens = random_tokens(16, 260);
  std::vector<Token> targets(16, -1);
  targets[9] = 7;
  Index skipped = 0;
  StepReport report;
  while ((report = trainer.train_step(tokens, targets, 1, 16)).skipped) ++skipped;
  CHECK(skipped >= 1);
  CHECK(skipped <= 16);
  CHECK(report.loss_scale == std::ldexp(65536.0, -int(skipped)));
  CHECK(std::isfinite(report.gradient_norm));
  CHECK(trainer.step() == 1);

  Reference<float> whole;
  Model<Tiny, Reference<float>> same(whole, Seed{1});
  set_weights(same, weights);
  Trainer exact(same, AdamW{.lr = 1e-3});
  CHECK(report.gradient_norm == Approx(exact.train_step(tokens, targets, 1, 16).gradient_norm).epsilon(0.02));
}

TEST_CASE("A run in float16 goes on after skipped steps, with the same batches", "[loss_scale]") {
  const TemporaryFolder root;
  const auto run = [&](const char* name, Index stop, double* scale = nullptr) {
    Half backend;
    HalfModel model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    const auto path = root / name;
    if (std::filesystem::exists(path)) trainer.resume(path);
    std::vector<StepReport> reports;
    bool spoilt = trainer.step() >= 2;
    auto watch = on_each_step([&](const StepReport& report) {
      reports.push_back(report);
      if (report.step != 2 || spoilt) return;
      spoilt = true;
      trainer.gradients().data[3] = infinite;
    });
    trainer.fit(tiny_data(), {.batch = 2,
                              .time = 16,
                              .accumulation = 2,
                              .steps = 6,
                              .seed = Seed{3},
                              .evaluate_every = 2,
                              .validation = &tiny_data(),
                              .checkpoint_every = 1,
                              .checkpoint = path,
                              .tokenizer = &tiny_tokenizer(),
                              .metrics = root / (std::string(name) + ".csv"),
                              .observers = {&watch},
                              .stop = [&] { return trainer.step() == stop; }});
    if (scale != nullptr) *scale = trainer.state().loss_scale.value;
    return reports;
  };
  const auto content = [&](const char* name) {
    return read_bytes(root / name / "model.safetensors") + read_bytes(root / name / "optimizer.safetensors");
  };
  double scale = 0;
  const auto reports = run("whole", 100, &scale);
  REQUIRE(reports.size() == 7);
  for (std::size_t i = 0; i < reports.size(); ++i) {
    CHECK(reports[i].skipped == (i == 2));
    CHECK(reports[i].step == static_cast<Index>(i < 2 ? i + 1 : i));
    CHECK(reports[i].loss_scale == (i < 3 ? 65536 : 32768));
  }
  CHECK(reports[2].loss == reports[3].loss);  // the same tokens again
  CHECK(reports[2].tokens == reports[1].tokens);
  CHECK(reports.back().tokens == 6 * 64);
  CHECK(scale == 32768);
  // A row for each step, and for each of three evaluations: the skipped one is none.
  const auto rows = read_bytes(root / "whole.csv");
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 1 + 6 + 3);

  run("parts", 4);
  const auto state = state_of(root / "parts");
  CHECK(state["step"] == 4);
  CHECK(state["loss_scale"] == 32768.0);
  CHECK(state["loss_scale_steps"] == 2);
  CHECK(content("parts") != content("whole"));
  run("parts", 100);
  CHECK(content("parts") == content("whole"));
  CHECK(state_of(root / "parts")["loss_scale_steps"] == state_of(root / "whole")["loss_scale_steps"]);
}

TEST_CASE("Gradients that no scale makes finite end the run and leave the weights", "[loss_scale]") {
  Half backend;
  HalfModel model(backend, Seed{5});
  Trainer trainer(model);
  const auto before = weights_of(model);
  Index reports = 0;
  const auto spoil = [&] { trainer.gradients().data[3] = infinite; };
  spoil();
  auto watch = on_each_step([&](const StepReport& report) {
    CHECK(report.skipped);
    ++reports, spoil();
  });
  check_message<TrainingError>(
      [&] { trainer.fit(tiny_data(), {.batch = 1, .time = 16, .steps = 3, .observers = {&watch}}); }, "step 1",
      "not finite in float16", "none yet");
  CHECK(reports == 16);  // 65536 … 2; at 1 it is an error
  CHECK(trainer.step() == 0);
  CHECK(same_bits(weights_of(model), before));
  // A run can be told to stop before that.
  Trainer stopped(model);
  stopped.gradients().data[3] = infinite;
  CHECK(stopped.fit(tiny_data(), {.batch = 1, .time = 16, .steps = 3, .stop = [] { return true; }}).skipped);
}

TEST_CASE("The scale is stored in checkpoints, and other types ignore it", "[loss_scale]") {
  const TemporaryFolder root;
  const auto path = root / "run";
  const auto step = [&]<class B>(std::type_identity<B>) {
    B backend;
    Model<Tiny, B> model(backend, Seed{5});
    Trainer trainer(model);
    if (std::filesystem::exists(path)) trainer.resume(path);
    const auto tokens = random_tokens(32, 260);
    const auto report = trainer.train_step(tokens, tokens, 2, 16);
    trainer.save(path, tiny_tokenizer());
    return report;
  };
  step(std::type_identity<Cpu>{});
  CHECK(state_of(path)["loss_scale"] == 65536.0);
  CHECK(state_of(path)["loss_scale_steps"] == 0);
  set_scale(path, 1024, 1999);
  CHECK(step(std::type_identity<Reference<bfloat16, float>>{}).loss_scale == 1);
  CHECK(state_of(path)["loss_scale"] == 1024.0);
  CHECK(state_of(path)["loss_scale_steps"] == 1999);
  CHECK(step(std::type_identity<Half>{}).loss_scale == 1024);
  CHECK(state_of(path)["loss_scale"] == 2048.0);
  CHECK(state_of(path)["loss_scale_steps"] == 0);
  CHECK(step(std::type_identity<Half>{}).loss_scale == 2048);
  CHECK(state_of(path)["loss_scale_steps"] == 1);
  // A checkpoint from before there was float16 has none, and begins as a new run does.
  auto state = state_of(path);
  state.erase("loss_scale"), state.erase("loss_scale_steps");
  write_bytes(path / "trainer.json", state.dump());
  CHECK(step(std::type_identity<Half>{}).loss_scale == 65536);
  const std::pair<double, Index> wrong[] = {{3.0, 0}, {0.0, 0}, {0.5, 0}, {1e300, 0}, {2.0, -1}, {2.0, 2000}};
  for (const auto& [scale, steps] : wrong) {
    set_scale(path, scale, steps);
    check_message<FileError>([&] { step(std::type_identity<Cpu>{}); }, "trainer.json", "loss_scale", "power of two");
  }
}

}  // namespace tinymoe_test::loss_scale
