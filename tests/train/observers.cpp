// Observers: which calls they get, in which order, and what happens if one throws or is slow.

#include "tinymoe/train/observer.hpp"

#include <chrono>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::observers {

namespace {

/// Logs its calls.
struct Recorder : Observer {
  std::vector<std::string> told;
  std::vector<ExpertLoads> loads;
  std::vector<std::pair<Index, Index>> batches;  // of evaluations: done, all
  StepReport last_step;
  EvaluationReport last_evaluation;
  EndReport end;

  void on_step(const StepReport& report, const ExpertLoads& of_step) override {
    told.push_back("step " + std::to_string(report.step));
    loads.push_back(of_step);
    last_step = report;
  }
  void on_evaluation_progress(const StepReport& /*last*/, Index done, Index all) override {
    batches.emplace_back(done, all);
  }
  void on_evaluation(const StepReport& last, const EvaluationReport& evaluation) override {
    told.push_back("evaluation " + std::to_string(last.step));
    last_evaluation = evaluation;
  }
  void on_checkpoint(const StepReport& last, const CheckpointReport& checkpoint) override {
    const char* const kinds[] = {"latest ", "best ", "weights "};
    told.push_back(kinds[static_cast<int>(checkpoint.kind)] + std::to_string(last.step));
    CHECK(std::filesystem::exists(checkpoint.path / "model.safetensors"));
    CHECK(checkpoint.seconds > 0);
  }
  void on_end(const StepReport& last, const EndReport& report) override {
    const char* const kinds[] = {"budget ", "stopped ", "error "};
    told.push_back(kinds[static_cast<int>(report.how)] + std::to_string(last.step));
    end = report;
  }
};

struct Run {
  Cpu backend{1};
  Model<Tiny, Cpu> model{backend, Seed{5}};
  Trainer<Model<Tiny, Cpu>> trainer{model, AdamW{.lr = 1e-2}};
};

FitOptions options_for(const TemporaryFolder& root, Index steps, std::vector<Observer*> observers) {
  return {.batch = 2,
          .time = 16,
          .steps = steps,
          .evaluate_every = 2,
          .validation = &tiny_data(),  // falls all the time
          .checkpoint_every = 3,
          .checkpoint = root / "latest",
          .best = root / "best",
          .best_weights = root / "weights",
          .tokenizer = &tiny_tokenizer(),
          .metrics = root / "run.csv",
          .observers = std::move(observers)};
}

Index step_in(const std::filesystem::path& checkpoint) {
  Run run;
  run.trainer.resume(checkpoint);
  return run.trainer.step();
}

using Told = std::vector<std::string>;

}  // namespace

TEST_CASE("Observers get a call for each event of a run, in order", "[observers]") {
  const TemporaryFolder root;
  Recorder first, second;
  Run run;
  const auto report = run.trainer.fit(tiny_data(), options_for(root, 4, {&first, &second}));
  CHECK(first.told == Told{"step 1", "step 2", "evaluation 2", "weights 2", "best 2", "step 3", "latest 3", "step 4",
                           "evaluation 4", "weights 4", "best 4", "latest 4", "budget 4"});
  CHECK(second.told == first.told);
  CHECK_FALSE(first.end.error);
  CHECK(first.end.message.empty());
  REQUIRE(first.loads.size() == 4);
  for (const auto& loads : first.loads) {
    REQUIRE(loads.size() == 2);
    for (const auto& layer : loads) CHECK(std::accumulate(layer.begin(), layer.end(), Index{0}) == 2 * 16 * 2);
  }
  const Index all = EvaluationWindows(tiny_data(), 2, 16).batches();
  REQUIRE(std::ssize(first.batches) == 2 * all);
  for (Index i = 0; i < 2 * all; ++i) {
    CHECK(first.batches[static_cast<std::size_t>(i)] == std::pair(i % all + 1, all));
  }
  CHECK(first.last_step.loss == report.loss);
  CHECK(first.last_step.learning_rate == 1e-2);
  CHECK(first.last_step.gradient_norm > 0);
  CHECK(first.last_step.tokens_per_second > 0);
  CHECK(first.last_step.fraction == 1);
  CHECK(first.last_step.state_bytes == run.trainer.state_bytes());
  CHECK(first.last_step.activation_bytes == run.trainer.activation_bytes());
  CHECK(first.last_evaluation.loss == run.trainer.state().best_loss);

  // One that is told to stop.
  Recorder stopped;
  Run other;
  auto options = options_for(root, 9, {&stopped});
  options.stop = [&] { return other.trainer.step() == 1; };
  other.trainer.fit(tiny_data(), options);
  CHECK(stopped.told == Told{"step 1", "latest 1", "stopped 1"});
  check_message<OptionError>([&] { other.trainer.fit(tiny_data(), options_for(root, 9, {nullptr})); }, "null");
}

TEST_CASE("All observers of a step see its loads, whatever one of them does with the trainer", "[observers]") {
  const TemporaryFolder root;
  Run run;
  auto evaluates = on_each_step([&](const StepReport&) { run.trainer.evaluate(tiny_data(), 2, 16); });
  Recorder behind;
  run.trainer.fit(tiny_data(), options_for(root, 2, {&evaluates, &behind}));
  REQUIRE(behind.loads.size() == 2);
  for (const auto& loads : behind.loads) {
    for (const auto& layer : loads) CHECK(std::accumulate(layer.begin(), layer.end(), Index{0}) == 2 * 16 * 2);
  }
}

TEST_CASE("An observer that throws ends the run; other observers get their calls, and the steps done are saved",
          "[observers]") {
  // Whatever it throws in, before or behind another.
  enum class In { step, evaluation, checkpoint };
  const auto run = [&](In where, bool before, auto&& thrower, Told expected, Index latest, Index best) {
    const TemporaryFolder root;
    Recorder other;
    Callbacks bad;
    bool thrown = false;
    const auto at_two = [&](const StepReport& last) {
      if (last.step == 2 && !std::exchange(thrown, true)) thrower();
    };
    if (where == In::step) bad.step = at_two;
    if (where == In::evaluation) bad.evaluation = [&](const auto& last, const auto&) { at_two(last); };
    if (where == In::checkpoint) bad.checkpoint = [&](const auto& last, const auto&) { at_two(last); };
    EndReport end;
    bad.end = [&](const StepReport&, const EndReport& report) { end = report; };
    Run its;
    const auto options =
        options_for(root, 9, before ? std::vector<Observer*>{&bad, &other} : std::vector<Observer*>{&other, &bad});
    std::string message;
    try {
      its.trainer.fit(tiny_data(), options);
      FAIL("nothing was thrown");
    } catch (const FileError& error) {
      message = error.what();
      CHECK(message.find("mine; the last good checkpoint: " + (root / "latest").string() + " (step 2)") == 0);
    } catch (const std::logic_error& error) {
      message = error.what();
      CHECK(message == "mine");
    }
    CHECK(other.told == expected);
    CHECK(other.end.message == message);
    CHECK(other.end.error);
    CHECK(end.message == message);  // it is told too, once
    CHECK(step_in(root / "latest") == latest);
    CHECK(std::filesystem::exists(root / "best") == (best > 0));
    if (best > 0) CHECK(step_in(root / "best") == best);
    const auto rows = read_bytes(root / "run.csv");
    CHECK(std::count(rows.begin(), rows.end(), '\n') == (best > 0 ? 4 : 3));  // of the CSV, an observer as well
  };
  const auto file_error = [] { fail<FileError>("mine"); };
  const auto foreign = [] { throw std::logic_error("mine"); };
  const auto check = [&](auto&& thrower) {
    for (const bool before : {true, false}) {
      run(In::step, before, thrower, {"step 1", "step 2", "latest 2", "error 2"}, 2, 0);
      // The checkpoints of an evaluation that was the best are written all the same, and so is the latest.
      const Told all = {"step 1", "step 2", "evaluation 2", "weights 2", "best 2", "latest 2", "error 2"};
      run(In::evaluation, before, thrower, all, 2, 2);
      run(In::checkpoint, before, thrower, all, 2, 2);
    }
  };
  check(file_error);
  check(foreign);
}

TEST_CASE("An exception in on_end reaches the caller of a successful run", "[observers]") {
  const TemporaryFolder root;
  Recorder other;
  Callbacks bad;
  bad.end = [](const StepReport&, const EndReport&) { throw std::logic_error("mine"); };
  Run run;
  const auto options = options_for(root, 2, {&bad, &other});
  CHECK(message_of<std::logic_error>([&] { run.trainer.fit(tiny_data(), options); }) == "mine");
  CHECK(other.told.back() == "budget 2");
  CHECK(step_in(root / "latest") == 2);
  // After an error of the run, the exception is dropped: the run's error is thrown.
  auto poison = on_each_step([](const StepReport&) { fail<TextError>("first"); });
  Run second;
  CHECK_THROWS_AS(second.trainer.fit(tiny_data(), options_for(root, 2, {&bad, &poison})), TextError);
}

TEST_CASE("A run evaluates after minutes of training", "[observers]") {
  std::vector<Index> evaluated;
  Callbacks watch;
  watch.evaluation = [&](const StepReport& last, const EvaluationReport&) { evaluated.push_back(last.step); };
  FitOptions options{
      .batch = 2, .time = 16, .steps = 6, .evaluate_minutes = 1e-9, .validation = &tiny_data(), .observers = {&watch}};
  Run often;
  often.trainer.fit(tiny_data(), options);
  CHECK(evaluated == std::vector<Index>{1, 2, 3, 4, 5, 6});
  evaluated.clear();
  // A clock of 20 seconds a step, and an evaluation a minute.
  options.evaluate_minutes = 1;
  options.steps = 8;
  const TemporaryFolder root;
  const auto run = [&](Index stop) {
    Run its;
    if (std::filesystem::exists(root / "run")) its.trainer.resume(root / "run");
    watch.step = [&](const StepReport&) { its.trainer.add_seconds(20); };
    options.stop = [&] { return its.trainer.step() == stop; };
    options.checkpoint = root / "run", options.tokenizer = &tiny_tokenizer();
    its.trainer.fit(tiny_data(), options);
  };
  evaluated.clear();
  run(100);
  CHECK(evaluated == std::vector<Index>{3, 6, 8});
  // A run that is stopped when an evaluation is due makes it when it goes on, and no other is made anew.
  std::filesystem::remove_all(root / "run");
  evaluated.clear();
  run(3);
  CHECK(evaluated.empty());
  run(4);
  CHECK(evaluated == std::vector<Index>{3});
  run(100);
  CHECK(evaluated == std::vector<Index>{3, 6, 8});
}

TEST_CASE("A slow observer costs no training seconds and no checkpoint", "[observers]") {
  const TemporaryFolder root;
  std::vector<Index> saved;
  auto slow = on_each_step([](const StepReport&) { std::this_thread::sleep_for(std::chrono::milliseconds(100)); });
  slow.checkpoint = [&](const StepReport& last, const CheckpointReport&) { saved.push_back(last.step); };
  Run run;
  const auto report = run.trainer.fit(tiny_data(), {.batch = 2,
                                                    .time = 16,
                                                    .steps = 5,
                                                    .checkpoint_every = 0,
                                                    .checkpoint_minutes = 0.05 / 60,
                                                    .checkpoint = root / "run",
                                                    .tokenizer = &tiny_tokenizer(),
                                                    .observers = {&slow}});
  CHECK(report.seconds < 0.4);  // five times 0.1 s were not counted
  CHECK(report.tokens_per_second > 32 / 0.1);
  CHECK(saved == std::vector<Index>{1, 2, 3, 4, 5});  // the clock of checkpoints goes on
}

}  // namespace tinymoe_test::observers
