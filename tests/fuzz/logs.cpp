// Harnesses of what runs and sweeps wrote, read back, and of the page that is made of it.

#include "fuzz/harness.hpp"
#include "tinymoe/analysis/run_history.hpp"
#include "tinymoe/analysis/run_report.hpp"
#include "tinymoe/analysis/sweep_files.hpp"
#include "tinymoe/analysis/sweep_results.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/train/json_lines.hpp"
#include "tinymoe/train/metrics.hpp"

namespace tinymoe_fuzz {

namespace logs {

// A run's metrics, its JSON lines and the loads of its experts: which of them, and its bytes.
void run_history(std::string_view input) {
  Bytes bytes(input);
  const std::size_t kind = bytes.below(3);
  const auto path = write_scratch("log", bytes.rest());
  if (kind == 2) {
    for (const auto& mixture : tinymoe::detail::read_loads(path)) {
      for (const Index load : mixture) expect(load >= 0, "an expert has a load below zero");
    }
    return;
  }
  RunReport run{.name = "run"};
  if (!accepts([&] { run.history = kind == 0 ? read_run_history(path) : read_run_history({}, path); })) return;
  expect(run.history.steps.size() + run.history.evaluations.size() + run.history.stories.size() <= input.size(),
         "a log has more rows than bytes");
  const std::string page = report_html(run);
  expect(page.find("<polyline points=\"nan") == std::string::npos && page.find("\"inf\"") == std::string::npos &&
             page.find("\"nan\"") == std::string::npos,
         "a page has a place that is no number");
}

void run_history_seeds(const TakeSeed& take) {
  const auto csv = scratch() / "seed.csv", lines = scratch() / "seed.jsonl";
  for (const auto& path : {csv, lines}) std::filesystem::remove(path);
  {
    MetricsFile metrics(csv, 0);
    JsonLines json(lines, 0);
    for (Index step = 1; step <= 3; ++step) {
      const StepReport report{.step = step,
                              .tokens = 64 * step,
                              .loss = 5.0 / static_cast<double>(step),
                              .load_variation = 0.25,
                              .gradient_norm = 1,
                              .learning_rate = 1e-3,
                              .seconds = 0.5 * static_cast<double>(step),
                              .tokens_per_second = 128,
                              .state_bytes = 4000,
                              .activation_bytes = 8000};
      metrics.on_step(report, {{30, 34}}), json.on_step(report, {{30, 34}});
      const EvaluationReport evaluation{.loss = 2, .bits_per_byte = 1.5, .tokens = 100, .loads = {{60, 40}}};
      metrics.on_evaluation(report, evaluation), json.on_evaluation(report, evaluation);
    }
    json.story(3, "Once upon a time");
  }
  take(numbered(0, read_file(csv))), take(numbered(1, read_file(lines)));
  take(numbered(2, "mixture,expert,pairs,share_of_even\n1,0,60,1.2\n1,1,40,0.8\n2,0,5,1\n"));
}

void sweep(std::string_view input) {
  const auto path = write_scratch("sweep.csv", input);
  accepts([&] {
    const std::vector<SweepRun> runs = read_sweep(path);
    parse_json(sweep_json(runs), "sweep");
    const auto results = sweep_results(runs);
    expect(best_of_variants(results).size() <= results.size() && results.size() <= runs.size(),
           "more results than runs");
    for (const SweepResult& one : results) {
      expect(one.mean.steps >= 0 && one.mean.tokens >= 0 && one.runs > 0, "a mean below zero");
    }
    report_html("sweep", {}, runs);
    std::string again = sweep_header();
    for (const SweepRun& run : runs) again += sweep_row(run);
    const auto read = read_sweep(write_scratch("again.csv", again));
    expect(read.size() == runs.size(), "a sweep that is written again has other rows");
    for (std::size_t i = 0; i < runs.size(); ++i) {
      expect(read[i].variant == runs[i].variant && read[i].learning_rate == runs[i].learning_rate &&
                 read[i].seed == runs[i].seed && read[i].tokens == runs[i].tokens,
             "a row that is written again is another one");
    }
  });
}

/// The curves of two runs: what is read is written and read again as it is.
void sweep_curves_csv(std::string_view input) {
  const auto path = write_scratch("curved.csv", sweep_header());
  std::vector<SweepRun> runs(2);
  runs[0].variant = "dense", runs[0].learning_rate = 1e-3, runs[0].seed = 7;
  runs[1].variant = "mix", runs[1].learning_rate = 0.5;
  write_scratch("curved-curves.csv", input);
  accepts([&] {
    read_sweep_curves(path, runs);
    parse_json(sweep_json(runs), "sweep");
    report_html("sweep", {}, runs);
    const std::string text = sweep_curves(runs);
    write_scratch("curved-curves.csv", text);
    auto again = runs;
    read_sweep_curves(path, again);
    expect(sweep_curves(again) == text, "curves that are written again are others");
  });
}

void sweep_curves_seeds(const TakeSeed& take) {
  SweepRun run{.variant = "dense", .learning_rate = 1e-3, .seed = 7};
  run.curve = {{.step = 5, .tokens = 500, .seconds = 1.5, .loss = 4, .bits_per_byte = 2},
               {.step = 9, .tokens = 900, .seconds = 3, .loss = 3, .bits_per_byte = 1.5}};
  SweepRun other = run;
  other.variant = "mix", other.learning_rate = 0.5, other.seed = 0;
  take(sweep_curves({run, other}));
}

void sweep_seeds(const TakeSeed& take) {
  SweepRun run{.variant = "dense", .parameters = 100, .active = 50, .flops_forward = 200, .tokens_per_second = 10.5};
  run.steps = 3, run.tokens = 300, run.loss = 2.5, run.bits_per_byte = 1.25, run.learning_rate = 1e-3, run.seed = 7;
  run.budget = {.batch = 4, .warmup = 1, .steps = 3, .minutes = 0, .precision = "float32", .data = 12345};
  SweepRun other = run;
  other.variant = "experts_8", other.loss = 2.4, other.seed = 8;
  take(sweep_header() + sweep_row(run) + sweep_row(other) + sweep_row(run));
}

constexpr Harness harnesses[] = {
    {"run_history", run_history, run_history_seeds, 1 << 11, 2 * json_memory_factor, "json"},
    {"sweep", sweep, sweep_seeds, 1 << 10, 2 * json_memory_factor},
    {"sweep_curves", sweep_curves_csv, sweep_curves_seeds, 1 << 10, 2 * json_memory_factor},
};

}  // namespace logs

std::span<const Harness> logs_harnesses() { return logs::harnesses; }

}  // namespace tinymoe_fuzz
