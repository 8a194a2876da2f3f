// The best checkpoint, weights alone, how often the latest is written, and resuming with other optimizers.

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/csv_rows.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::best {

namespace {

using TinyModel = Model<Tiny, Cpu>;

/// Trains with a rate at which the validation loss soon rises again, from the checkpoint if there is one.
StepReport run(const FitOptions& options, const AnyOptimizer<Cpu>& optimizer = AdamW{.lr = 1e-2},
               const std::filesystem::path& from = {}) {
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model, optimizer);
  const auto path = from.empty() ? options.checkpoint : from;
  if (!path.empty() && std::filesystem::exists(path)) trainer.resume(path);
  return trainer.fit(tiny_data(), options);
}

Json state_of(const std::filesystem::path& path) { return read_json(path / "trainer.json"); }

FitOptions options_for(const TemporaryFolder& root, Index steps) {
  return {.batch = 2,
          .time = 16,
          .steps = steps,
          .evaluate_every = 2,
          .checkpoint = root / "latest",
          .best = root / "best",
          .best_weights = root / "weights",
          .tokenizer = &tiny_tokenizer()};
}

}  // namespace

TEST_CASE("The best checkpoint has the lowest validation loss", "[checkpoint]") {
  const TemporaryFolder root;
  // Validation on what training makes less likely: random tokens; the loss falls at first, then rises.
  const auto tokens = random_tokens(200, 256, 3);
  const auto validation = TokenData::from_tokens(tokens, 260);
  auto options = options_for(root, 20);
  options.validation = &validation;
  std::map<Index, double> losses;
  Callbacks watch;
  watch.evaluation = [&](const StepReport& at, const EvaluationReport& evaluation) {
    losses[at.step] = evaluation.loss;
  };
  options.observers = {&watch};
  run(options);
  REQUIRE(losses.size() == 10);
  const auto best =
      std::min_element(losses.begin(), losses.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  REQUIRE(best->first < 20);  // or the test would see nothing
  CHECK(state_of(root / "best")["step"] == best->first);
  CHECK(state_of(root / "latest")["step"] == 20);
  for (const char* name : {"best", "latest"}) {
    CHECK(state_of(root / name)["best_step"] == best->first);
    CHECK(state_of(root / name)["best_loss"].number() == best->second);
  }
  CHECK(read_bytes(root / "weights/model.safetensors") == read_bytes(root / "best/model.safetensors"));
  CHECK(entries_in(root / "weights") == 6);

  Cpu backend(1);
  TinyModel model(backend, Seed{6});
  Trainer trainer(model);
  trainer.resume(root / "best");
  CHECK(trainer.step() == best->first);
  CHECK(trainer.evaluate(validation, 2, 16).loss == best->second);

  // A resumed run knows the best loss so far.
  const auto kept = read_bytes(root / "best/model.safetensors");
  options.steps = 24;
  run(options);
  CHECK(losses.size() == 12);
  CHECK(read_bytes(root / "best/model.safetensors") == kept);
  CHECK(state_of(root / "latest")["best_step"] == best->first);
}

TEST_CASE("A run can be resumed from the best checkpoint as from the latest", "[checkpoint]") {
  const TemporaryFolder root;
  auto options = options_for(root, 8);
  options.validation = &tiny_data();  // falls all the time
  options.evaluate_every = 3;
  run(options);
  CHECK(state_of(root / "best")["step"] == 8);  // the last evaluation's
  CHECK(state_of(root / "latest")["best_step"] == 8);
  const auto whole = read_bytes(root / "latest/model.safetensors");
  // Again, stopped after the first evaluation, and on from what that left.
  const TemporaryFolder second;
  auto again = options_for(second, 8);
  again.validation = &tiny_data();
  again.evaluate_every = 3;
  Index steps = 0;
  again.stop = [&] { return ++steps == 4; };
  run(again);
  CHECK(state_of(second / "best")["step"] == 3);
  again.stop = {};
  run(again, AdamW{.lr = 1e-2}, second / "best");
  CHECK(read_bytes(second / "latest/model.safetensors") == whole);
}

TEST_CASE("However often a run is resumed, its CSV has the rows of an undisturbed run", "[checkpoint][metrics]") {
  const TemporaryFolder root, other;
  const auto options = [](const TemporaryFolder& folder) {
    auto all = options_for(folder, 9);
    all.validation = &tiny_data();
    all.metrics = folder / "run.csv";
    return all;
  };
  run(options(root));
  const auto expected = rows_without_times(root / "run.csv");
  CHECK(expected.size() == 1 + 9 + 5);
  auto parts = options(other);
  for (const Index stop : {1, 2, 4, 5, 8}) {  // at steps with an evaluation, too
    Index step = 0;
    auto count = on_each_step([&](const StepReport& at) { step = at.step; });
    parts.observers = {&count};
    parts.stop = [&] { return step == stop; };
    run(parts);
    const auto rows = rows_without_times(parts.metrics);
    REQUIRE(std::ssize(rows) == 1 + stop + (stop - 1) / 2);  // an evaluation at the last step is made by the next run
    CHECK(std::equal(rows.begin(), rows.end(), expected.begin()));
  }
  parts.observers = {}, parts.stop = {};
  for (int i = 0; i < 3; ++i) {  // the finished run, too
    run(parts);
    CHECK(rows_without_times(parts.metrics) == expected);
  }
  for (const char* file : {"latest/model.safetensors", "best/model.safetensors"}) {
    CHECK(read_bytes(other / file) == read_bytes(root / file));
  }
  // A best checkpoint that is older than the latest: its later rows are made again.
  run(parts, AdamW{.lr = 1e-2}, other / "best");
  CHECK(rows_without_times(parts.metrics) == expected);
  // The CSV of another run is not continued.
  auto longer = options(other);
  longer.steps = 12, longer.metrics = root / "other.csv";
  const std::string theirs = std::string(MetricsFile::header) + "\n9,288,99.000,2.5,0.001,0.75,20,1,0.5,0.125,,\n";
  write_bytes(longer.metrics, theirs);
  check_message<FileError>([&] { run(longer); }, "other.csv", "another run", "step 9");
  CHECK(read_bytes(longer.metrics) == theirs);
}

TEST_CASE("Weights alone start a new run and are refused for resuming", "[checkpoint]") {
  const TemporaryFolder root;
  auto options = options_for(root, 2);
  options.validation = &tiny_data();
  run(options);
  Cpu backend(1);
  TinyModel model(backend, Seed{6});
  Trainer trainer(model);
  const auto before = weights_of(model);
  check_message<FileError>([&] { trainer.resume(root / "weights"); }, "weights", "trainer.json", "load_model");
  CHECK(same_bits(weights_of(model), before));
  load_model(root / "weights", model);
  CHECK_FALSE(same_bits(weights_of(model), before));
  CHECK(trainer.fit(tiny_data(), {.batch = 2, .steps = 2}).step == 2);
}

TEST_CASE("The latest checkpoint is written by steps, by time and at the end", "[checkpoint]") {
  const TemporaryFolder root;
  const auto saved_at = [&](Index steps, Index every, double minutes) {
    std::filesystem::remove_all(root / "latest");
    std::vector<Index> saved;
    Callbacks watch;
    watch.checkpoint = [&](const StepReport& at, const CheckpointReport& checkpoint) {
      CHECK(checkpoint.kind == CheckpointReport::Kind::latest);
      CHECK(checkpoint.path == root / "latest");
      saved.push_back(at.step);
    };
    run({.batch = 1,
         .time = 4,
         .steps = steps,
         .checkpoint_every = every,
         .checkpoint_minutes = minutes,
         .checkpoint = root / "latest",
         .tokenizer = &tiny_tokenizer(),
         .observers = {&watch}});
    return saved;
  };
  CHECK(saved_at(4, 0, 1e-9) == std::vector<Index>{1, 2, 3, 4});
  CHECK(saved_at(4, 0, 0) == std::vector<Index>{4});
  CHECK(saved_at(5, 2, 0) == std::vector<Index>{2, 4, 5});
  CHECK(saved_at(502, FitOptions{}.checkpoint_every, 0) == std::vector<Index>{500, 502});
  CHECK(FitOptions{}.checkpoint_minutes == 10);
}

TEST_CASE("Checkpoints name their optimizer, and no other optimizer resumes them", "[checkpoint]") {
  const AnyOptimizer<Cpu> optimizers[] = {AdamW{.lr = 1e-2}, Lion{.lr = 1e-3}, Muon{.lr = 1e-2}};
  for (const auto& optimizer : optimizers) {
    const TemporaryFolder root;
    const auto options = [&](const char* name, Index steps) {
      return FitOptions{
          .batch = 2, .time = 16, .steps = steps, .checkpoint = root / name, .tokenizer = &tiny_tokenizer()};
    };
    run(options("whole", 6), optimizer);
    run(options("parts", 3), optimizer);
    CHECK(state_of(root / "parts")["optimizer"] == optimizer.name);
    for (const auto& other : optimizers) {
      if (other.name == optimizer.name) continue;
      check_message<MismatchError>([&] { run(options("parts", 6), other); }, "trainer.json", optimizer.name,
                                   other.name);
    }
    run(options("parts", 6), optimizer);
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
      CHECK(read_bytes(root / "parts" / file) == read_bytes(root / "whole" / file));
    }
  }
  // Whoever names the type reads the same checkpoints.
  const TemporaryFolder root;
  run({.batch = 2, .steps = 2, .checkpoint = root / "run", .tokenizer = &tiny_tokenizer()}, AdamW{});
  Cpu backend(1);
  TinyModel model(backend, Seed{6});
  Trainer named(model, AdamW{});
  named.resume(root / "run");
  CHECK(named.step() == 2);
}

TEST_CASE("Whatever ends a run, its error names the last good checkpoint", "[checkpoint]") {
  const TemporaryFolder root;
  const FitOptions options{
      .batch = 2, .steps = 5, .checkpoint_every = 2, .checkpoint = root / "run", .tokenizer = &tiny_tokenizer()};
  const auto note = "last good checkpoint: " + (root / "run").string() +
                    " (step 3)";  // the steps since the last one are good, and kept
  const auto failing = [&](auto thrower) {
    return [&, thrower] {
      auto watch = on_each_step([=](const StepReport& at) {
        if (at.step == 3) thrower();
      });
      auto bad = options;
      bad.observers = {&watch};
      std::filesystem::remove_all(root / "run");
      run(bad);
    };
  };
  check_message<FileError>(failing([] { fail<FileError>("a file"); }), "a file; the", note);
  check_message<DeviceError>(failing([] { fail<DeviceError>("a device"); }), "a device; the", note);
  check_message<TextError>(failing([] { fail<TextError>("a text"); }), "a text; the", note);
  check_message<MismatchError>(failing([] { fail<MismatchError>("a mismatch"); }), "a mismatch; the", note);
  // An exception of another library passes unchanged.
  CHECK(message_of<std::logic_error>(failing([] { throw std::logic_error("mine"); })) == "mine");
}

TEST_CASE("If the best checkpoint cannot be written, the latest does not name it", "[checkpoint]") {
  const TemporaryFolder root;
  auto options = options_for(root, 8);
  options.best = root / "place/best";
  options.validation = &tiny_data();  // falls all the time
  Callbacks disturb;
  disturb.evaluation = [&](const StepReport& at, const EvaluationReport&) {
    if (at.step != 4) return;
    std::filesystem::rename(root / "place", root / "moved");  // and a file in its place
    write_bytes(root / "place", "");
  };
  options.observers = {&disturb};
  check_message<FileError>([&] { run(options); }, "place/best", "last good checkpoint");
  CHECK(state_of(root / "latest")["step"] == 4);
  CHECK(state_of(root / "latest")["best_step"] == 2);
  CHECK(state_of(root / "moved/best")["step"] == 2);
}

TEST_CASE("An observer may evaluate with a shape of its own", "[trainer]") {
  const TemporaryFolder root;
  const auto weights_of = [&](const char* name, auto&& callback) {
    Cpu backend(1);
    TinyModel model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    auto options = options_for(root, 4);
    options.checkpoint = root / name;
    options.best.clear(), options.best_weights.clear();
    options.checkpoint_every = 1;
    auto watch = on_each_step([&](const StepReport&) { callback(trainer); });
    options.observers = {&watch};
    trainer.fit(tiny_data(), options);
    return read_bytes(root / name / "model.safetensors");
  };
  const auto expected = weights_of("plain", [](auto&) {});
  CHECK(weights_of("smaller", [](auto& trainer) { trainer.evaluate(tiny_data(), 1, 8); }) == expected);
  CHECK(weights_of("greater", [](auto& trainer) { trainer.evaluate(tiny_data(), 5, 16); }) == expected);
}

TEST_CASE("Settings outside their ranges are refused before the first step", "[trainer]") {
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model);
  const auto refuse = [&](const Setting& setting, double value, const char* name) {
    model.settings() = {};
    model.settings().set(setting = value);
    check_message<OptionError>([&] { trainer.fit(tiny_data(), {.batch = 2, .time = 16, .steps = 1}); }, name);
  };
  refuse(setting::dropout, 1, "dropout");
  refuse(setting::attention_dropout, -0.1, "attention_dropout");
  refuse(setting::expert_dropout, std::nan(""), "expert_dropout");
  refuse(setting::jitter, 1.5, "jitter");
  refuse(setting::norm_epsilon, 0, "norm_epsilon");
  refuse(setting::rope_theta, INFINITY, "rope_theta");
  refuse(setting::balance_weight, -1, "balance_weight");
  refuse(setting::z_weight, std::nan(""), "z_weight");
  refuse(setting::bias_rate, -1, "bias_rate");
  refuse(setting::routing_mass, 1.1, "routing_mass");
  CHECK(trainer.step() == 0);
  model.settings() = {};
  CHECK(trainer.fit(tiny_data(), {.batch = 2, .time = 16, .steps = 1}).step == 1);
}

}  // namespace tinymoe_test::best
