// Trains the variants of variants.hpp, each with the same budget, and compares them.
//
//   sweep --data stories.txt --validation more_stories.txt --minutes 3 --csv sweep.csv
//   sweep --only dense --only experts_8 --steps 500 --learning-rate 2e-3,5e-3,1e-2 --repeats 3
//   sweep --only dense --only experts_8 --steps 500 --learning-rate 2e-3,5e-3,1e-2 --repeats 3 --resume
//   sweep --group sizes --minutes 5 --learning-rate 1e-2,2e-2,4e-2 --evaluate-minutes 0.5 --report
//
// Each run that ends adds a row to the table and to the CSV, so that an interrupted sweep keeps its results. Each
// variant is trained once before any is trained again, so that what the machine does meanwhile meets all alike.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <tinymoe/analysis/run_report.hpp>
#include <tinymoe/analysis/sweep_files.hpp>
#include <tinymoe/analysis/sweep_results.hpp>
#include <tinymoe/core/number_text.hpp>
#include <tinymoe/core/random.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/text/data_order.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "compiled_variants.hpp"
#include "output_files.hpp"
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
  std::string group = "experts";
  Index steps = 0, repeats = 1, drawn = 0;
  Index batch = 0, warmup = -1;  // each variant's own
  double minutes = 0, evaluate_minutes = 0;
  std::vector<double> rates;  // empty: each variant's own
  std::uint64_t seed = 1337;
  examples::DeviceOptions device;
  bool overwrite = false, resume = false, report = false;
};

/// Keeps the evaluations, and shows how far the run is.
class Evaluations : public Observer {
 public:
  explicit Evaluations(std::string name) : name_(std::move(name)) {}

  void on_step(const StepReport& at, const ExpertLoads& /*loads*/) override { progress_.show(name_, at.fraction); }
  void on_evaluation_progress(const StepReport& /*last*/, Index done, Index all) override {
    progress_.show(name_ + ", validation", static_cast<double>(done) / static_cast<double>(all));
  }
  void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    last = evaluation;
    curve.push_back({.step = at.step,
                     .tokens = at.tokens,
                     .seconds = at.seconds,
                     .loss = evaluation.loss,
                     .bits_per_byte = evaluation.bits_per_byte});
  }
  void on_end(const StepReport& /*last*/, const EndReport& /*end*/) override { progress_.end(); }

  EvaluationReport last;
  std::vector<SweepPoint> curve;

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

/// The learning rates that all variants are tried with: those that were given, or numbers drawn between the lowest and
/// the highest of them, evenly by their logarithm. None: each variant has its own.
std::vector<double> learning_rates(const Arguments& arguments) {
  std::vector<double> rates = arguments.rates;
  std::sort(rates.begin(), rates.end());
  rates.erase(std::unique(rates.begin(), rates.end()), rates.end());
  if (arguments.drawn == 0) return rates;
  if (rates.size() != 2) {
    fail<OptionError>("--draw needs two values of --learning-rate, the lowest and the highest; found ", rates.size());
  }
  const double low = std::log(rates[0]), high = std::log(rates[1]);
  rates.clear();
  const RandomStream stream(Seed{arguments.seed}, 0, RandomSite::named("learning rates of a sweep"));
  for (Index i = 0; i < arguments.drawn; ++i) {
    const double drawn = std::exp(low + (high - low) * double(random_uniform(stream, static_cast<std::uint64_t>(i))));
    programs::read_number(tinymoe::detail::general_text(drawn, 4), rates.emplace_back());  // digits for a table
  }
  return rates;
}

/// The results: on the screen, as a CSV, and beside it as JSON and the curves as another CSV.
class Results {
 public:
  /// `runs`: those that are there already.
  Results(const path& csv, std::vector<SweepRun> runs)
      : csv_(csv), json_(json_beside(csv)), curves_(sweep_curves_file(csv)), runs_(std::move(runs)) {
    write();
    std::printf("%-14s %10s %10s %14s %13s %8s %9s %8s %13s %8s\n", "variant", "parameters", "active", "FLOPs a token",
                "learning rate", "seed", "tokens/s", "steps", "bits per byte", "load");
    for (const SweepRun& run : runs_) print(run);
  }

  static path json_beside(const path& csv) { return path(csv).replace_extension(".json"); }

  bool has(const std::string& variant, double rate, std::uint64_t seed) const {
    return std::any_of(runs_.begin(), runs_.end(), [&](const SweepRun& run) {
      return run.variant == variant && run.learning_rate == rate && run.seed == seed;
    });
  }

  void add(SweepRun run) {
    runs_.push_back(std::move(run));
    write();
    print(runs_.back());
  }

  const std::vector<SweepRun>& runs() const { return runs_; }

  /// What several runs of each variant say together, if there are such. Differences are to the first variant's best.
  void print_means() const {
    const std::vector<SweepResult> all = sweep_results(runs_);
    if (all.size() == runs_.size() &&
        std::all_of(all.begin(), all.end(), [](auto& one) { return one.learning_rates == 1; }))
      return;
    const std::vector<SweepResult> best = best_of_variants(all);
    std::printf("\n%-14s %13s %6s %17s %19s\n", "variant", "best rate", "runs", "bits per byte",
                ("against " + best[0].mean.variant).c_str());
    for (const SweepResult& result : best) {
      const SweepRun& mean = result.mean;
      std::printf("%-14s %13.4g %6td %8.4f", mean.variant.c_str(), mean.learning_rate, result.runs, result.value());
      if (result.runs > 1) {
        std::printf(" ± %.4f", result.error);
      } else {
        std::printf("%9s", "");
      }
      char difference[48] = "";
      if (&result != &best[0]) {
        const double by = result.value() - best[0].value();
        if (result.runs > 1 && best[0].runs > 1) {
          std::snprintf(difference, sizeof difference, "%+.4f ± %.4f", by, std::hypot(result.error, best[0].error));
        } else {
          std::snprintf(difference, sizeof difference, "%+.4f", by);
        }
      }
      const int width = std::string_view(difference).find("±") == std::string_view::npos ? 19 : 20;  // ± has two bytes
      std::printf("  %*s", width, difference);
      const auto [low, high] = rates_of(all, mean.variant);
      if (result.learning_rates > 2 && (mean.learning_rate == low || mean.learning_rate == high)) {
        std::printf("  the %s rate tried", mean.learning_rate == low ? "lowest" : "highest");
      }
      std::printf("\n");
    }
    programs::flush_output();
  }

 private:
  static std::pair<double, double> rates_of(const std::vector<SweepResult>& all, const std::string& variant) {
    double low = 1e300, high = 0;
    for (const SweepResult& one : all) {
      if (one.mean.variant == variant)
        low = std::min(low, one.mean.learning_rate), high = std::max(high, one.mean.learning_rate);
    }
    return {low, high};
  }

  static void print(const SweepRun& run) {
    std::printf("%-14s %9.2fM %9.2fM %13.2fM %13.4g %8llu %9.0f %8td %13.4f %+6.0f %%\n", run.variant.c_str(),
                double(run.parameters) / 1e6, double(run.active) / 1e6, double(run.flops_forward) / 1e6,
                run.learning_rate, static_cast<unsigned long long>(run.seed), run.tokens_per_second, run.steps,
                run.bits_per_byte, 100 * run.load_variation);
    programs::flush_output();
  }

  /// Writes the files again: they are small, and no moment has half a row. The CSV comes after the curves, so that no
  /// run that it has lacks its curve.
  void write() const {
    write_file_atomically(curves_, [&](FileWriter& file) { file.write(sweep_curves(runs_)); });
    std::string text = sweep_header();
    for (const SweepRun& run : runs_) text += sweep_row(run);
    write_file_atomically(csv_, [&](FileWriter& file) { file.write(text); });
    write_file_atomically(json_, [&](FileWriter& file) { file.write(sweep_json(runs_)); });
  }

  path csv_, json_, curves_;
  std::vector<SweepRun> runs_;
};

/// The budget of a variant's runs: `common`, with the variant's own batch and warm-up if none were given.
template <class Arch>
SweepBudget budget_of(const examples::NamedVariant<Arch>& variant, SweepBudget common) {
  if (common.batch == 0) common.batch = variant.recipe.batch;
  if (common.warmup < 0) common.warmup = variant.recipe.warmup;
  common.recipe = examples::fingerprint(variant.recipe, settings_of<Arch>());
  return common;
}

/// The rows that a resumed sweep keeps. Throws MismatchError if they were trained otherwise than `common` says.
std::vector<SweepRun> kept_runs(const path& csv, const SweepBudget& common) {
  std::vector<SweepRun> runs = read_sweep(csv);
  read_sweep_curves(csv, runs);
  for (const SweepRun& run : runs) {
    SweepBudget budget = run.budget;  // of a variant that this build lacks
    Count cost{.total = run.parameters, .active = run.active, .flops_forward = run.flops_forward};
    std::uint64_t recipe = run.budget.recipe;
    for_each_variant([&]<class Arch>(const examples::NamedVariant<Arch>& variant) {
      if (variant.name != run.variant) return;
      budget = budget_of(variant, common), cost = count<Arch>();
      if (recipe == 0) recipe = examples::fingerprint(examples::Recipe{}, settings_of<Arch>());  // all had that before
    });
    const auto same = [&](const char* what, const auto& there, const auto& wanted) {
      if (there != wanted) {
        fail<MismatchError>(csv, ": a run of ", run.variant, " has ", what, " ", there, ", and this sweep ", wanted,
                            "; give the options of the sweep to resume, or another --csv");
      }
    };
    same("--batch", run.budget.batch, budget.batch);
    same("--warmup", run.budget.warmup, budget.warmup);
    same("--steps", run.budget.steps, common.steps);
    same("--minutes", run.budget.minutes, common.minutes);
    same("--precision", run.budget.precision, common.precision);
    same("data of the fingerprint", run.budget.data, common.data);
    same("a recipe of the fingerprint", recipe, budget.recipe);
    same("parameters", run.parameters, cost.total);
    same("active parameters", run.active, cost.active);
    same("FLOPs a token", run.flops_forward, cost.flops_forward);
  }
  return runs;
}

template <class Arch>
SweepRun train(const Arguments& arguments, const examples::NamedVariant<Arch>& variant, examples::Device& device,
               const examples::Stories& stories, const SweepBudget& budget, double rate, std::uint64_t seed) {
  const std::string name(variant.name);
  Evaluations evaluations(name);
  examples::Recipe recipe = variant.recipe;
  recipe.rate = rate, recipe.warmup = budget.warmup;
  examples::TrainRun run{.settings = recipe.settings,
                         .optimizer = examples::optimizer_of(recipe),
                         .schedule = examples::schedule_of(recipe),
                         .training = &stories.training,
                         .options = {.batch = budget.batch,
                                     .growth = recipe.growth,
                                     .accumulation = recipe.accumulation,
                                     .recompute = recipe.recompute,
                                     .steps = arguments.steps,
                                     .minutes = arguments.minutes,
                                     .clip = recipe.clip,
                                     .seed = Seed{seed},
                                     .evaluate_minutes = arguments.evaluate_minutes,
                                     .validation = &stories.validation,
                                     .observers = {&evaluations}}};
  const StepReport last =
      examples::on<Arch>(device, [&](auto& backend) -> StepReport { return examples::train<Arch>(backend, run); });
  const Count cost = count<Arch>();
  return {.variant = name,
          .parameters = cost.total,
          .active = cost.active,
          .flops_forward = cost.flops_forward,
          .tokens_per_second = last.seconds > 0 ? double(last.tokens) / last.seconds : 0,
          .steps = last.step,
          .tokens = last.tokens,
          .loss = evaluations.last.loss,
          .bits_per_byte = evaluations.last.bits_per_byte,
          .load_variation = evaluations.last.load_variation(),
          .learning_rate = rate,
          .seed = seed,
          .seconds = last.seconds,
          .budget = budget,
          .curve = std::move(evaluations.curve)};
}

void sweep(const Arguments& arguments) {
  path token_folder = arguments.csv;
  token_folder += "-data";
  constexpr Index vocabulary = examples::VariantAt<0>::vocab;
  const std::vector<double> rates = learning_rates(arguments);
  const path json = Results::json_beside(arguments.csv), curves = sweep_curves_file(arguments.csv);
  const path page = path(arguments.csv).replace_extension(".html");
  if (json == arguments.csv)
    fail<OptionError>("--csv: expected a name that does not end in .json, where the same results go as JSON");
  const auto is_file = [](const path& file) { return tinymoe::detail::look_at(file) == tinymoe::detail::Found::file; };
  const bool resumed = arguments.resume && is_file(arguments.csv);
  for (const path& file : {arguments.csv, curves, json}) {
    if (!arguments.overwrite && !resumed && is_file(file)) {
      fail<FileError>(
          file.string(),
          ": is there already; give --resume to go on with it, --overwrite to replace it, or another --csv");
    }
  }
  examples::expect_sweep(arguments.csv, curves, json);
  if (arguments.report) examples::expect_page(page);
  const WriteLock lock = lock_file(arguments.csv);
  const auto chosen = [&](const auto& variant) {
    const auto& only = arguments.only;
    return only.empty() ? variant.group == arguments.group
                        : std::find(only.begin(), only.end(), variant.name) != only.end();
  };
  bool any = false;
  for_each_variant([&](const auto& variant) { any = any || chosen(variant); });
  if (!any) {
    fail<OptionError>("this build has no variant of the group ", arguments.group,
                      "; configure it with -DTINYMOE_EXAMPLE_VARIANTS= for all of them");
  }
  examples::Device device = open_device(arguments.device);
  std::printf("device %s\n", examples::about(device).c_str());
  const auto stories = examples::load_stories(arguments.stories, vocabulary, token_folder, arguments.device.threads);
  const SweepBudget budget{.batch = arguments.batch,
                           .warmup = arguments.warmup,
                           .steps = arguments.steps,
                           .minutes = arguments.minutes,
                           .precision = examples::precision_of(device),
                           .data = fingerprint(stories.training) ^ std::rotl(fingerprint(stories.validation), 1)};
  // Old results are replaced only after the data has been read.
  Results results(arguments.csv, resumed ? kept_runs(arguments.csv, budget) : std::vector<SweepRun>{});
  bool failed = false;
  for (Index repeat = 0; repeat < arguments.repeats; ++repeat) {
    const std::uint64_t seed = arguments.seed + static_cast<std::uint64_t>(repeat);
    for_each_variant([&](auto variant) {
      const std::string name(variant.name);
      if (!chosen(variant)) return;
      static_assert(decltype(variant)::Architecture::vocab == vocabulary, "the variants share one tokenizer");
      for (const double rate : rates.empty() ? std::vector{variant.recipe.rate} : rates) {
        if (results.has(name, rate, seed)) continue;
        try {
          results.add(train(arguments, variant, device, stories, budget_of(variant, budget), rate, seed));
        } catch (const TrainingError& error) {  // the others are still worth training
          std::printf("%-14s failed with the learning rate %.4g and seed %llu: %s\n", name.c_str(), rate,
                      static_cast<unsigned long long>(seed), error.what());
          failed = true;
        }
      }
    });
  }
  results.print_means();
  std::printf("results: %s, %s, %s\n", arguments.csv.c_str(), curves.c_str(), json.c_str());
  if (arguments.report && !results.runs().empty()) {
    write_report(page, report_html("A sweep", {}, results.runs()));
    std::printf("report: %s\n", page.c_str());
  }
  if (failed) fail<TrainingError>("a variant could not be trained");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Trains variants of an architecture with the same budget and compares them.");
  examples::add_story_options(app, a.stories);
  app.add_option(
         "--group", a.group,
         "the variants to train: experts, which change one thing at a time, or sizes, mixtures and dense models "
         "of five sizes, trained as the preset story is")
      ->check(CLI::IsMember({"experts", "sizes"}))
      ->capture_default_str();
  app.add_option("--only", a.only,
                 "a variant to train, may be given several times; default: all of --group that this build has")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names()));
  using namespace programs::range;
  programs::add_number(app, "--minutes", a.minutes, "minutes of training for each; default: 1, if no --steps are given",
                       from_0, false);
  programs::add_number(app, "--steps", a.steps, "steps of training for each", whole(0), false);
  programs::add_number(app, "--batch", a.batch, "sequences of a step; default: the variant's own", whole(1, 1 << 20),
                       false);
  programs::add_numbers(app, "--learning-rate", a.rates,
                        "max learning rates to try each variant with; default: the variant's own", above_0);
  programs::add_number(app, "--draw", a.drawn,
                       "learning rates to draw between two values of --learning-rate; 0: those that are given",
                       whole(0, 1000));
  programs::add_number(app, "--repeats", a.repeats, "runs of each variant and learning rate, with the next seeds",
                       whole(1, 1000));
  programs::add_number(app, "--warmup", a.warmup, "steps until the max rate; default: the variant's own", whole(0),
                       false);
  programs::add_number(app, "--evaluate-minutes", a.evaluate_minutes,
                       "minutes of training between validations, which go to the results' curves; 0: only at the end",
                       from_0);
  app.add_option(
         "--csv", a.csv,
         "the results as a CSV; beside it the same as JSON, and NAME-curves.csv with the validations on the way")
      ->capture_default_str();
  auto* overwrite = app.add_flag("--overwrite", a.overwrite, "replace the results, if there are some");
  app.add_flag("--resume", a.resume, "keep the results that are there, and train what is missing")->excludes(overwrite);
  app.add_flag("--report", a.report, "end with an HTML page of the results beside the CSV");
  programs::add_number(app, "--seed", a.seed, "of weights and data order, of the first run", whole(0));
  examples::add_device_options(app, a.device);
  return programs::run(app, argc, argv, [&] {
    if (a.steps == 0 && a.minutes == 0) a.minutes = 1;
    sweep(a);
  });
}
