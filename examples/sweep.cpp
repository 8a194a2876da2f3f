// Trains the variants of variants.hpp, each with the same budget, and compares them.
//
//   sweep --data stories.txt --validation more_stories.txt --minutes 3 --csv sweep.csv
//   sweep --only dense --only experts_8 --steps 500
//
// Each variant that ends adds a row to the table and to the CSV, so that an interrupted sweep keeps its results.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <tinymoe/core/number_text.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "compiled_variants.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "progress.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;

using std::filesystem::path;

struct Arguments {
  examples::StoryOptions stories;
  path csv = "sweep.csv";
  std::vector<std::string> only;
  Index steps = 0, batch = 4, warmup = 60;
  double minutes = 0, rate = 5e-3;
  std::uint64_t seed = 1337;
  examples::DeviceOptions device;
  bool overwrite = false;
};

/// A trained variant.
struct Result {
  Count cost;
  StepReport last;
  EvaluationReport evaluation;
};

/// Keeps the last evaluation, and shows how far the run is.
class LastEvaluation : public Observer {
 public:
  explicit LastEvaluation(std::string name) : name_(std::move(name)) {}

  void on_step(const StepReport& at, const ExpertLoads& /*loads*/) override { progress_.show(name_, at.fraction); }
  void on_evaluation_progress(const StepReport& /*last*/, Index done, Index all) override {
    progress_.show(name_ + ", validation", static_cast<double>(done) / static_cast<double>(all));
  }
  void on_evaluation(const StepReport& /*last*/, const EvaluationReport& evaluation) override { report = evaluation; }
  void on_end(const StepReport& /*last*/, const EndReport& /*end*/) override { progress_.end(); }

  EvaluationReport report;

 private:
  std::string name_;
  examples::Percent progress_;
};

/// f(variant) for each variant of this build (TINYMOE_EXAMPLE_VARIANTS).
template <class F>
void for_each_variant(F f) {
  const auto if_compiled = [&](auto variant) {
    if constexpr (examples::compiled<typename decltype(variant)::Architecture, Cpu>) f(variant);
  };
  std::apply([&](auto... variant) { (if_compiled(variant), ...); }, examples::variants);
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for_each_variant([&](auto variant) { all.emplace_back(variant.name); });
  return all;
}

/// Opens the device. All variants of this build are compiled for the same devices.
examples::Device open_device(const examples::DeviceOptions& options) {
  examples::CompiledFor compiled{};
  for_each_variant([&](auto variant) {
    using Arch = typename decltype(variant)::Architecture;
    compiled = {
        .cpu = true, .narrow = examples::compiled_for_narrow<Arch>(), .cuda = examples::compiled_for_cuda<Arch>()};
  });
  return examples::open_device(options, "sweep", compiled);
}

/// The table on the screen and the CSV.
class Table {
 public:
  /// Replaces the file.
  explicit Table(const path& csv) : path_(csv) {
    add_line(
        "variant,parameters,active,flops_per_token,tokens_per_second,steps,tokens,validation_loss,"
        "validation_bits_per_byte,load_variation\n");
    std::printf("%-14s %10s %10s %14s %9s %8s %13s %8s\n", "variant", "parameters", "active", "FLOPs a token",
                "tokens/s", "steps", "bits per byte", "load");
    programs::flush_output();
  }

  void add(const std::string& name, const Result& result) {
    const auto& [cost, last, evaluation] = result;
    const double speed = last.seconds > 0 ? double(last.tokens) / last.seconds : 0;
    std::printf("%-14s %9.2fM %9.2fM %13.2fM %9.0f %8td %13.4f %+6.0f %%\n", name.c_str(), double(cost.total) / 1e6,
                double(cost.active) / 1e6, double(cost.flops_forward) / 1e6, speed, last.step, evaluation.bits_per_byte,
                100 * evaluation.load_variation());
    std::string row = name;
    using tinymoe::detail::fixed_text;
    for (const std::string& field :
         {std::to_string(cost.total), std::to_string(cost.active), std::to_string(cost.flops_forward),
          fixed_text(speed, 1), std::to_string(last.step), std::to_string(last.tokens), fixed_text(evaluation.loss, 6),
          fixed_text(evaluation.bits_per_byte, 6), fixed_text(evaluation.load_variation(), 4)}) {
      row += ',' + field;
    }
    add_line(row + '\n');
    programs::flush_output();
  }

 private:
  /// Writes the file again: it is small, and no moment has half a row.
  void add_line(const std::string& line) {
    text_ += line;
    write_file_atomically(path_, [this](FileWriter& file) { file.write(text_); });
  }

  path path_;
  std::string text_;
};

template <class Arch>
Result train(const Arguments& arguments, const std::string& name, examples::Device& device,
             const examples::Stories& stories) {
  LastEvaluation evaluation(name);
  examples::TrainRun run{.settings = {},
                         .optimizer = AdamW{.lr = arguments.rate},
                         .schedule = WarmupCosine{.warmup = arguments.warmup, .floor = 0.02},
                         .training = &stories.training,
                         .options = {.batch = arguments.batch,
                                     .steps = arguments.steps,
                                     .minutes = arguments.minutes,
                                     .seed = Seed{arguments.seed},
                                     .validation = &stories.validation,
                                     .observers = {&evaluation}}};
  const StepReport last =
      examples::on<Arch>(device, [&](auto& backend) -> StepReport { return examples::train<Arch>(backend, run); });
  return {.cost = count<Arch>(), .last = last, .evaluation = evaluation.report};
}

void sweep(const Arguments& arguments) {
  path token_folder = arguments.csv;
  token_folder += "-data";
  constexpr Index vocabulary = examples::VariantAt<0>::vocab;
  if (!arguments.overwrite && std::filesystem::is_regular_file(arguments.csv)) {
    fail<FileError>(arguments.csv.string(), ": is there already; give --overwrite to replace it, or another --csv");
  }
  expect_writable(arguments.csv);
  const WriteLock lock = lock_file(arguments.csv);
  examples::Device device = open_device(arguments.device);
  std::printf("device %s\n", examples::about(device).c_str());
  const auto stories = examples::load_stories(arguments.stories, vocabulary, token_folder, arguments.device.threads);
  Table table(arguments.csv);  // replaces old results only after the data has been read
  bool failed = false;
  const auto run = [&](auto variant) {
    const std::string name(variant.name);
    const auto& only = arguments.only;
    if (!only.empty() && std::find(only.begin(), only.end(), name) == only.end()) return;
    using Arch = typename decltype(variant)::Architecture;
    static_assert(Arch::vocab == vocabulary, "the variants share one tokenizer");
    try {
      table.add(name, train<Arch>(arguments, name, device, stories));
    } catch (const TrainingError& error) {  // the others are still worth training
      std::printf("%-14s failed: %s\n", name.c_str(), error.what());
      failed = true;
    }
  };
  for_each_variant(run);
  std::printf("results: %s\n", arguments.csv.c_str());
  if (failed) fail<TrainingError>("a variant could not be trained");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Trains variants of an architecture with the same budget and compares them.");
  examples::add_story_options(app, a.stories);
  app.add_option("--only", a.only, "a variant to train, may be given several times; default: all of this build")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names()));
  using namespace programs::range;
  programs::add_number(app, "--minutes", a.minutes, "minutes of training for each; default: 1, if no --steps are given",
                       from_0, false);
  programs::add_number(app, "--steps", a.steps, "steps of training for each", whole(0), false);
  programs::add_number(app, "--batch", a.batch, "sequences of a step", whole(1, 1 << 20));
  programs::add_number(app, "--learning-rate", a.rate, "max learning rate", above_0);
  programs::add_number(app, "--warmup", a.warmup, "steps until the max rate", whole(0));
  app.add_option("--csv", a.csv, "the results as a CSV")->capture_default_str();
  app.add_flag("--overwrite", a.overwrite, "replace the CSV, if there is one");
  programs::add_number(app, "--seed", a.seed, "of weights and data order", whole(0));
  examples::add_device_options(app, a.device);
  return programs::run(app, argc, argv, [&] {
    if (a.steps == 0 && a.minutes == 0) a.minutes = 1;
    sweep(a);
  });
}
