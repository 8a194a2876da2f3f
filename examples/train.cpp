// Trains a model on stories and saves it with its tokenizer; measures a model's speed and memory.
//
//   train --data stories.txt --validation more_stories.txt --minutes 5 --out runs/story
//   train --data stories.txt --resume runs/story --minutes 10
//   train --data stories.jsonl.gz --shuffle-seed 1 --stories 30000 --validation-stories 3000
//   train --preset sparse_moe --data stories.txt --steps 5000 --out runs/sparse_moe
//   train --data stories.txt --from runs/upcycled --out runs/mixture
//   train --benchmark runs/story
//   train --data stories.txt --device cpu --precision bfloat16
//   mpirun -n 4 train --data stories.txt --out runs/story
//
// Without --data it trains on the library's embedded stories. A preset's defaults are the published values of its
// architecture (rate, dropout, …); an option on the command line overrides them.

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tinymoe/core/number_text.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/atomic_folder.hpp>
#include <tinymoe/files/json.hpp>
#include <tinymoe/files/mapped_file.hpp>
#include <tinymoe/files/paths.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/interruption.hpp"
#include "programs/main.hpp"
#include "progress.hpp"
#include "ranks.hpp"
#include "report_parts.hpp"
#include "run_fields.hpp"
#include "run_paths.hpp"
#include "run_reports.hpp"
#include "setting_options.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;
using examples::Recipe;
using std::filesystem::path;

struct Arguments {
  std::string preset = "story";
  Recipe recipe;
  examples::DeviceOptions device;
  examples::StoryOptions stories;
  path out = "runs/story", metrics;
  examples::LogPaths logs;
  Index time = 0, steps = 0, evaluate_every = 0, checkpoint_every = FitOptions{}.checkpoint_every;
  double minutes = 0, evaluate_minutes = 0, checkpoint_minutes = FitOptions{}.checkpoint_minutes, average = 0;
  Batching batching = Batching::packed;
  std::uint64_t seed = 1337;
  bool resume = false, overwrite = false, benchmark = false, check_determinism = false, list = false, report = false,
       quiet = false, json = false;
  path resume_from, benchmark_of, from, report_to;
  Index expert_parallel = 1;  // processes that share the experts; no part of what a checkpoint stores
  std::string go_on;          // the command that resumes this run
};

/// A folder for files that are not the run's; it goes with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tinymoe.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail<FileError>(name, ": cannot be made: ", std::strerror(errno));
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const path& where() const { return path_; }

 private:
  path path_;
};

/// Throws FileError if training would replace the model of another run.
void check_out(const Arguments& arguments, const examples::RunPaths& paths) {
  using tinymoe::detail::folder_has;
  for (const path& folder : {paths.out, paths.best}) {
    if (folder_has(folder, "model.safetensors") && !folder_has(folder, "trainer.json")) {
      fail<FileError>(folder.string(), ": holds a model without training state, which training would replace; give ",
                      "another --out");
    }
  }
  if (arguments.overwrite || (arguments.resume && tinymoe::detail::is_same(arguments.resume_from, paths.out))) {
    return;
  }
  for (const path& folder : {paths.out, paths.best, paths.best_weights}) {
    if (!folder_has(folder, "model.safetensors")) continue;
    fail<FileError>(
        folder.string(),
        ": holds a checkpoint; give --resume to go on from it, --overwrite to replace it, or another --out");
  }
}

/// Throws FileError if a new run would replace the metrics of another one, which --metrics names. OUT's own, where OUT
/// has no checkpoint, belong to nobody.
void check_metrics(const Arguments& arguments, const path& own) {
  const path& metrics = arguments.metrics;
  if (metrics.empty() || arguments.overwrite || arguments.resume || tinymoe::detail::is_same(metrics, own)) return;
  if (tinymoe::detail::look_at(metrics) != tinymoe::detail::Found::file) return;
  std::ifstream file(metrics, std::ios::binary);
  const bool opened = static_cast<bool>(file);
  std::string header, row;
  std::getline(file, header), std::getline(file, row);
  if (!opened || file.bad()) fail<FileError>(metrics.string(), ": cannot be read; give another --metrics");
  if (header.find("step,tokens,seconds") == header.npos || row.empty()) return;
  fail<FileError>(metrics.string(),
                  ": holds the metrics of a run; give --overwrite to replace them, or another --metrics");
}

/// Throws OptionError if two of the files that a run will write have one name. Empty ones are not written.
void expect_own_names(const std::vector<path>& files) {
  std::vector<path> seen;
  for (const path& file : files) {
    if (file.empty()) continue;
    std::error_code reason;
    path whole = std::filesystem::weakly_canonical(file, reason);
    if (reason) whole = file.lexically_normal();
    if (std::find(seen.begin(), seen.end(), whole) != seen.end()) {
      fail<OptionError>(file.string(), ": is the name of two files of this run; give --report, --json-lines and ",
                        "--metrics names of their own");
    }
    seen.push_back(std::move(whole));
  }
}

/// The recipe that checkpoints store and a resumed run continues, and the device and precision that it had.
Json to_json(const Arguments& a, const examples::Device& device) {
  Json kept = examples::fields_to_json(a);
  kept["device"] = examples::kind_of(device);
  kept["precision"] = examples::precision_of(device);
  return kept;
}

/// Reads the recipe that a checkpoint stores; missing fields stay as they are. Throws FileError for a value of the
/// wrong type.
void take_up(Arguments& a, const path& checkpoint) {
  const Json kept = training_recipe(checkpoint);
  a.recipe.growth = {};  // unless the file says more: a run of before sequences grew has none
  if (kept.is_null()) return;
  const std::string name = (checkpoint / "trainer.json").string();
  examples::fields_from_json(kept, name, a);
  a.device.last_device = json_field_or<std::string>(kept, "device", name, "");
  a.device.last_precision = json_field_or<std::string>(kept, "precision", name, "");
}

/// The pairs that each expert got of the last evaluation, beside the metrics, for scripts/plot.sh and reports; experts
/// count from 0, mixtures from 1. Without loads, as of a dense model, those of an old run are removed.
void write_loads(const path& metrics, const ExpertLoads& loads) {
  const path file = examples::loads_file(metrics);
  if (loads.empty()) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
    return;
  }
  std::string text = "mixture,expert,pairs,share_of_even\n";
  for (std::size_t m = 0; m < loads.size(); ++m) {
    const auto total = std::max<Index>(1, std::accumulate(loads[m].begin(), loads[m].end(), Index{0}));
    for (std::size_t e = 0; e < loads[m].size(); ++e) {
      const double share = double(loads[m][e]) * double(loads[m].size()) / double(total);
      text += std::to_string(m + 1) + ',' + std::to_string(e) + ',' + std::to_string(loads[m][e]) + ',' +
              tinymoe::detail::general_text(share, 6) + '\n';
    }
  }
  write_file_atomically(file, [&](FileWriter& out) { out.write(text); });
}

/// The files of a run that `fit` does not write.
class RunFiles : public Observer {
 public:
  /// `replaces`: the run replaces an older one, whose best checkpoints and loads go.
  RunFiles(examples::RunPaths paths, bool replaces, examples::Ranks& ranks)
      : paths_(std::move(paths)), replaces_(replaces), ranks_(&ranks) {
    expect_writable(examples::loads_file(paths_.metrics));
  }

  void on_step(const StepReport& /*report*/, const ExpertLoads& /*loads*/) override {
    if (!std::exchange(replaces_, false)) return;  // old files are removed only after the first step
    for (const path& folder : {paths_.best, paths_.best_weights}) remove_checkpoint(folder);
    write_loads(paths_.metrics, {});
  }
  void on_evaluation(const StepReport& /*last*/, const EvaluationReport& evaluation) override {
    write_loads(paths_.metrics, evaluation.loads);
  }
  void on_checkpoint(const StepReport& last, const CheckpointReport& checkpoint) override {
    if (checkpoint.kind != CheckpointReport::Kind::latest) return;
    ranks_->note_checkpoint(checkpoint.path.string() + " (step " + std::to_string(last.step) + ")");
  }
  void on_end(const StepReport& /*last*/, const EndReport& end) override {
    stopped_ = end.how == EndReport::How::stopped;
  }

  /// Whether the run was stopped; an interruption in the last evaluation finds nothing more to stop.
  bool stopped() const { return stopped_; }

 private:
  examples::RunPaths paths_;
  bool replaces_, stopped_ = false;
  examples::Ranks* ranks_;
};

/// A tokenizer as the text of its tokenizer.json.
std::string text_of(const Tokenizer& tokenizer) {
  const TemporaryFolder folder;
  const path file = folder.where() / "tokenizer.json";
  tokenizer.save(file);
  return std::string(MappedFile(file).text());
}

/// The stories of a run, the same on all ranks. The first rank of each machine reads and encodes the texts, rank 0
/// before the others, which may have the same files; the rest open what it has made.
examples::Stories load_stories(examples::Ranks& ranks, examples::StoryOptions texts, Index vocabulary,
                               const path& token_folder, int threads) {
  ranks.expect_same("choice between --data and embedded stories", texts.data.empty() ? "embedded" : "data");
  ranks.expect_same("source of the tokenizer", texts.tokenizer.empty() && texts.checkpoint.empty() ? "learnt" : "read");
  if (ranks.size() == 1 || texts.data.empty()) {
    return examples::load_stories(texts, vocabulary, token_folder, ranks.threads(threads));
  }
  std::optional<examples::Stories> stories;
  const auto load = [&] { stories.emplace(examples::load_stories(texts, vocabulary, token_folder, threads)); };
  if (ranks.first()) load();
  if (texts.tokenizer.empty() && texts.checkpoint.empty()) {
    const std::string text = ranks.of_first(ranks.first() ? text_of(stories->tokenizer) : "");
    const std::string name = "the tokenizer of rank 0";
    if (!ranks.first()) texts.learnt = Tokenizer::from_json(parse_json(text, name), text, name);
  }
  ranks.meet();
  if (!ranks.first() && ranks.first_here()) load();
  ranks.meet();
  texts.encoded = true;
  if (!stories) load();
  return *std::move(stories);
}

/// Two steps, twice from the same state. Throws TrainingError if a bit differs.
template <class Arch>
void check_determinism(examples::Device& device, examples::TrainRun run) {
  std::uint64_t bits[2] = {};
  StepReport reports[2];
  for (const int i : {0, 1}) {
    run.bits = &bits[i];
    reports[i] =
        examples::on<Arch>(device, [&](auto& backend) -> StepReport { return examples::train<Arch>(backend, run); });
  }
  const bool same_reports = reports[0].loss == reports[1].loss && reports[0].gradient_norm == reports[1].gradient_norm;
  if (bits[0] != bits[1] || !same_reports) {
    fail<TrainingError>("two steps from the same state gave other bits the second time: a loss of ", reports[0].loss,
                        " and of ", reports[1].loss, "; a part of the model or of the machine is not deterministic");
  }
  std::printf("two steps gave the same bits twice; after step %td the loss is %.6f and the weights are %016llx\n",
              reports[0].step, reports[0].loss, static_cast<unsigned long long>(bits[0]));
}

template <class Arch>
void train(const Arguments& arguments, examples::Ranks& ranks) {
  examples::DeviceOptions device_options = arguments.device;
  device_options.threads = ranks.threads(device_options.threads);
  device_options.gpu = static_cast<int>(ranks.local_rank());
  examples::Device device = examples::open_device<Arch>(device_options, arguments.preset);
  std::printf("preset %s\ndevice %s\n", arguments.preset.c_str(), examples::about(device).c_str());
  if (ranks.size() > 1) {
    std::printf("%td processes share the %td micro-batches of a step\n", ranks.size(), arguments.recipe.accumulation);
  }
  if (arguments.expert_parallel > 1) {
    std::printf("the experts are spread over groups of %td processes\n", arguments.expert_parallel);
  }
  print_count(std::cout, count<Arch>());
  programs::catch_end_of_pipe();
  programs::flush_progress();
  if (!programs::interrupted()) programs::flush_output();  // before any work
  examples::RunPaths paths(arguments.out);
  if (!arguments.metrics.empty()) paths.metrics = arguments.metrics;
  // Before the text is read, which may take minutes: a folder that cannot be written, or that another run writes to.
  std::optional<FolderLock> lock;
  std::optional<TemporaryFolder> temporary;  // a check must not replace the tokens of a run
  if (arguments.check_determinism) paths.tokens = temporary.emplace().where();
  examples::LogPaths logs;
  const path report = arguments.report_to.empty() ? paths.report : arguments.report_to;
  if (ranks.first() && !arguments.check_determinism) {
    lock.emplace(paths.out, tinymoe::detail::checkpoint_files, WriteUse::ahead);
    check_out(arguments, paths);
    check_metrics(arguments, examples::RunPaths(arguments.out).metrics);
    logs = arguments.logs;
    if (arguments.report) {
      if (logs.json_lines.empty()) logs.json_lines = paths.json_lines;
      examples::expect_page(report);
    }
    logs.check();
    expect_own_names(
        {paths.metrics, examples::loads_file(paths.metrics), logs.json_lines, arguments.report ? report : path()});
    if (!lock->supported()) {
      std::printf("%s: this file system has no locks; start no second run in it\n", paths.out.c_str());
    }
  }
  ranks.meet();
  examples::StoryOptions texts = arguments.stories;
  texts.dropout.seed = Seed{arguments.seed};
  // Not before the lock: it puts files in place that a killed run had not.
  if (const path& checkpoint = arguments.resume ? arguments.resume_from : arguments.from; texts.tokenizer.empty()) {
    texts.checkpoint = checkpoint;
  }
  const examples::Stories stories = load_stories(ranks, texts, Arch::vocab, paths.tokens, arguments.device.threads);

  const Recipe& recipe = arguments.recipe;
  examples::TrainRun run{.settings = recipe.settings,
                         .optimizer = examples::optimizer_of(recipe),
                         .schedule = examples::schedule_of(recipe),
                         .training = &stories.training,
                         .options = {.batch = recipe.batch,
                                     .time = arguments.time,
                                     .growth = recipe.growth,
                                     .batching = arguments.batching,
                                     .accumulation = recipe.accumulation,
                                     .recompute = recipe.recompute,
                                     .steps = arguments.steps,
                                     .minutes = arguments.minutes,
                                     .clip = recipe.clip,
                                     .average = arguments.average,
                                     .seed = Seed{arguments.seed},
                                     .evaluate_every = arguments.evaluate_every,
                                     .evaluate_minutes = arguments.evaluate_minutes,
                                     .validation = &stories.validation,
                                     .checkpoint_every = arguments.checkpoint_every,
                                     .checkpoint_minutes = arguments.checkpoint_minutes,
                                     .checkpoint = paths.out,
                                     .best = paths.best,
                                     .best_weights = paths.best_weights,
                                     .tokenizer = &stories.tokenizer,
                                     .metrics = paths.metrics,
                                     .recipe = to_json(arguments, device)},
                         .resume = arguments.resume_from,
                         .weights = arguments.from,
                         .logs = logs,
                         .communicators = ranks.communicators(device),
                         .expert_parallel = arguments.expert_parallel};
  if (arguments.check_determinism) return check_determinism<Arch>(device, run);
  auto& options = run.options;
  std::optional<RunFiles> of_first;
  examples::Progress progress;
  if (ranks.first()) {
    of_first.emplace(paths, arguments.overwrite && !arguments.resume, ranks);
    options.observers = {&*of_first, &progress};
  }
  options.stop = programs::interrupted;
  programs::catch_interruptions();
  ranks.expect_answers(true);
  const StepReport last =
      examples::on<Arch>(device, [&](auto& backend) -> StepReport { return examples::train<Arch>(backend, run); });
  ranks.expect_answers(false);
  if (!ranks.first()) return;
  const RunFiles& files = *of_first;
  if (programs::interrupted()) {
    programs::flush_progress();
    programs::print_to_error_if_cut();
  }
  if (files.stopped()) {
    std::printf("interrupted by %s; --resume goes on from step %td\n", programs::interruption(), last.step);
  }
  std::printf("trained on %td tokens in %s; checkpoint: %s", last.tokens, examples::clock_time(last.seconds).c_str(),
              options.checkpoint.c_str());
  for (const auto& [what, folder] : {std::pair("the best", options.best), {"for use", options.best_weights}}) {
    if (!folder.empty() && tinymoe::detail::folder_has(folder, "model.safetensors"))
      std::printf(", %s: %s", what, folder.c_str());
  }
  std::printf(", metrics: %s\n", options.metrics.c_str());
  const auto tell_how_to_go_on = [&] {
    if (files.stopped()) std::printf("to go on: %s\n", arguments.go_on.c_str());
  };
  if (!arguments.report) return tell_how_to_go_on();
  programs::flush_progress();
  RunReport page = examples::read_run({paths.out, options.metrics, logs.json_lines});
  examples::add_architecture<Arch>(page);
  if (files.stopped()) {
    page.history.notes.emplace_back(
        "The run was stopped, so nothing is told of what the experts take; the program report does it.");
  } else {
    examples::add_experts<Arch>(page, device, {.checkpoint = paths.out, .data = &stories.validation});
  }
  write_report(report, report_html(page));
  std::printf("report: %s\n", report.c_str());
  tell_how_to_go_on();
}

void benchmark(const Arguments& arguments) {
  const Recipe& recipe = arguments.recipe;
  const examples::BenchmarkRun run{.checkpoint = arguments.benchmark_of,
                                   .settings = recipe.settings,
                                   .optimizer = examples::optimizer_of(recipe),
                                   .batch = recipe.batch,
                                   .time = arguments.time,
                                   .accumulation = recipe.accumulation,
                                   .recompute = recipe.recompute};
  const auto measure = [&](auto named) {
    using Arch = typename decltype(named)::Architecture;
    examples::Device device = examples::open_device<Arch>(arguments.device, named.name);
    std::printf("%s: %s\ndevice %s\n", std::string(named.name).c_str(), std::string(named.about).c_str(),
                examples::about(device).c_str());
    examples::on<Arch>(device, [&](auto& backend) -> void { examples::benchmark<Arch>(backend, run); });
  };
  if (run.checkpoint.empty()) {
    examples::with_architecture(arguments.preset, measure);
  } else {
    examples::with_architecture_of(run.checkpoint, measure);
  }
}

void list() {
  std::printf("%-22s %12s %12s   %s\n", "preset", "parameters", "a token uses", "what it is");
  std::apply(
      [](auto... named) {
        const auto print = [](auto one) {
          constexpr Count cost = count<typename decltype(one)::Architecture>();
          std::printf("%-22s %10.1f M %10.1f M   %s\n", std::string(one.name).c_str(), double(cost.total) / 1e6,
                      double(cost.active) / 1e6, std::string(one.about).c_str());
        };
        (print(named), ...);
      },
      examples::architectures);
}

/// --json: the standard output's place is taken by the standard error's, and JSON lines go to what it was. --quiet:
/// what people read goes nowhere.
void choose_output(Arguments& a) {
  if (a.json) {
    a.logs.json_output = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (a.logs.json_output < 0 || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
      fail<FileError>("the standard output cannot be written: ", std::strerror(errno));
    }
  }
  if (!a.quiet) return;
  const int nothing = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nothing < 0 || ::dup2(nothing, STDOUT_FILENO) < 0) {
    fail<FileError>("/dev/null cannot be opened: ", std::strerror(errno));
  }
  ::close(nothing);
}

/// The settings of all presets' models.
SettingList all_settings() {
  SettingList list;
  std::apply([&](auto... named) { (list.add(settings_of<typename decltype(named)::Architecture>()), ...); },
             examples::architectures);
  return list;
}

/// The run whose best checkpoint this is: resuming from it continues the run, in the run's folder. Empty if there is no
/// such run: a folder may have any name.
path run_of_best(const path& checkpoint) {
  const std::string name = checkpoint.filename().string();
  path run;
  if (name == "best") run = checkpoint.parent_path();
  if (name.size() > 5 && name.ends_with("-best"))
    run = path(checkpoint).replace_filename(name.substr(0, name.size() - 5));
  const bool is_run = !run.empty() && tinymoe::detail::folder_has(run, "trainer.json");
  return is_run && examples::RunPaths(run).best == checkpoint ? run : path();
}

/// A word of a command as a shell reads it.
std::string quoted(const std::string& word) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

/// The command that resumes the run in `out`: the options of this one, but for `kept`, which its checkpoint has.
std::string command_to_go_on(const CLI::App& app, const char* program, const path& out,
                             const std::vector<std::string>& kept) {
  std::string command = quoted(program) + " --resume " + quoted(out.string());
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (option->count() == 0 || std::find(kept.begin(), kept.end(), name) != kept.end()) continue;
    if (option->get_items_expected_max() == 0) {  // a flag
      const std::string off = "--no-" + name.substr(2);
      const bool on = option->results().back() != "false";
      if (on || option->check_name(off)) command += " " + (on ? name : off);
      continue;
    }
    command += " " + name;
    for (const std::string& value : option->results()) command += value.empty() ? "" : " " + quoted(value);
  }
  return command;
}

/// Reads the command line again, with the defaults of the preset, of the weights, or of the run that goes on.
/// Throws OptionError for options that contradict each other, CLI::ParseError for others.
void parse(CLI::App& app, Arguments& a, const std::vector<std::string>& settings, int count, char** values,
           Index processes) {
  const auto given = [&](const std::string& name) { return app.count(name) > 0; };
  if (a.resume && a.resume_from.empty()) a.resume_from = a.out;
  if (a.resume && !given("--out")) {
    a.out = a.resume_from.has_filename() ? a.resume_from : a.resume_from.parent_path();
    if (const path run = run_of_best(a.out); !run.empty()) a.out = run;
  }
  const auto take_recipe = [&](auto named) {
    a.preset = named.name;
    a.recipe = named.recipe;
  };
  // A checkpoint stores its preset.
  const path& checkpoint = a.resume ? a.resume_from : (a.from.empty() ? a.benchmark_of : a.from);
  if (!checkpoint.empty() && !given("--preset")) {
    examples::with_architecture_of(checkpoint, take_recipe);
  } else {
    examples::with_architecture(a.preset, take_recipe);
  }
  if (const std::string weights = checkpoint.empty() ? "" : examples::stored_weights(checkpoint); !weights.empty()) {
    fail<MismatchError>(checkpoint.string(), ": its weights are ", weights,
                        ", which are for inference alone; take the ", "checkpoint that they were made of");
  }
  if (!a.from.empty()) {  // these settings are part of the function that the weights compute
    examples::with_architecture(a.preset, [&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      const Settings of_weights =
          examples::of_one_save(a.from, [](const path& folder) { return read_config<Arch>(folder / "config.json"); });
      for (const Setting* setting : settings_of<Arch>()) {
        if (setting->use == SettingUse::always) a.recipe.settings.set(*setting = of_weights[*setting]);
      }
    });
  }
  if (a.resume) {  // a resumed run keeps its recipe; options on the command line override it
    take_up(a, a.resume_from);
    if (given("--steps") && !given("--minutes")) a.minutes = 0;
    if (given("--minutes") && !given("--steps")) a.steps = 0;
  } else {
    a.recipe.accumulation *= processes;
  }
  const Arguments before = a;
  app.parse(count, values);
  a.preset = before.preset, a.out = before.out, a.resume_from = before.resume_from;
  if (!a.resume && a.recipe.optimizer != before.recipe.optimizer) {  // the preset's figures are of its optimizer
    const Recipe plain;
    if (!given("--rates")) a.recipe.rates = plain.rates;
    if (!given("--decays")) a.recipe.decays = plain.decays;
    if (!given("--learning-rate") && before.recipe.optimizer == examples::OptimizerKind::muon) {
      a.recipe.rate = plain.rate;
    }
  }
  examples::with_architecture(a.preset, [&](auto named) {
    const Index full = a.time > 0 ? a.time : decltype(named)::Architecture::context;
    if (!a.resume && !given("--growth")) {  // the preset's lengths that this run can have
      // A model that was trained before knows what a sentence is.
      const bool grows = a.batching == Batching::packed && a.from.empty();
      a.recipe.growth = grows ? a.recipe.growth.below(full) : SequenceGrowth{};
    }
    a.recipe.growth.check(full, "--growth");
  });
  if (!a.resume && a.recipe.optimizer == examples::OptimizerKind::lion) {  // Chen et al. 2023, section 5
    if (!given("--learning-rate")) a.recipe.rate /= 5;
    if (!given("--weight-decay")) a.recipe.decay *= 5;
    if (!given("--beta2")) a.recipe.beta2 = 0.99;
  }
  auto kept = settings;
  kept.push_back("--tokenizer");
  auto left_out = kept;
  left_out.insert(left_out.end(), {"--resume", "--from", "--overwrite", "--out"});
  a.go_on = command_to_go_on(app, values[0], a.out, left_out);
  if (!a.resume) return;
  for (const std::string& name : kept) {
    if (given(name)) fail<OptionError>(name, " cannot be given with --resume: a run keeps that of its checkpoint");
  }
  const auto muon_of = [](const Recipe& recipe) { return std::pair(recipe.muon_experts, recipe.muon_feed_forward); };
  const bool muon =
      before.recipe.optimizer == examples::OptimizerKind::muon && a.recipe.optimizer == before.recipe.optimizer;
  if (muon && muon_of(a.recipe) != muon_of(before.recipe)) {
    fail<OptionError>(
        "--muon-experts and --muon-feed-forward cannot be changed with --resume: the optimizer's state is ",
        "of what the run had");
  }
  a.stories.tokenizer.clear();  // the checkpoint's
}

/// An option whose value may be left out: `given` tells of the option, `value` is empty without one.
CLI::Option* add_with_or_without(CLI::App& app, const std::string& name, bool& given, path& value,
                                 const std::string& kind, const std::string& about) {
  const auto take = [&](const std::string& text) {
    given = true;
    value = text;
  };
  return app.add_option_function<std::string>(name, take, about)->expected(0, 1)->type_name("[" + kind + "]");
}

void add_options(CLI::App& app, Arguments& a) {
  app.add_option("--preset", a.preset, "architecture; --list describes each: " + examples::names())
      ->capture_default_str();
  app.add_flag("--list", a.list, "print the presets and end");
  examples::add_story_options(app, a.stories);
  app.add_option(
         "--out", a.out,
         "folder of the checkpoint; the best ones go to OUT-best and OUT-best-weights, or into OUT if that is a volume")
      ->capture_default_str();
  app.add_option("--metrics", a.metrics, "CSV of the run; default: OUT.csv");
  app.add_option("--json-lines", a.logs.json_lines, "also log the run into this file, one JSON object a line");
  app.add_option("--tensorboard", a.logs.tensorboard, "also log the run into this folder, for TensorBoard");
  app.add_flag("--quiet", a.quiet, "print nothing but errors");
  app.add_flag("--json", a.json, "print the run as JSON lines as it goes; other lines go to the standard error");
  add_with_or_without(app, "--report", a.report, a.report_to, "FILE",
                      "at the end make a page of the run, for a browser, and log JSON lines for it; default: OUT.html");
  examples::add_device_options(app, a.device);
  examples::add_fields(app, a);
  auto* resume = add_with_or_without(app, "--resume", a.resume, a.resume_from, "FOLDER",
                                     "resume the run in FOLDER; default: the run in OUT");
  app.add_option("--from", a.from, "start with the weights of a checkpoint, trained or upcycled, and its tokenizer")
      ->excludes(resume);
  programs::add_number(app, "--expert-parallel", a.expert_parallel,
                       "processes, in order, of which each has a part of the experts: a number that divides the "
                       "processes and the experts; 1: each process has all",
                       programs::range::whole(1, 1 << 20));
  app.add_flag("--overwrite", a.overwrite,
               "replace the checkpoints of OUT, the best ones too, and what --metrics names");
  add_with_or_without(app, "--benchmark", a.benchmark, a.benchmark_of, "CHECKPOINT",
                      "measure speed and memory of the model in CHECKPOINT, or of the preset, and end")
      ->excludes(resume);
  app.add_flag("--check-determinism", a.check_determinism,
               "train two steps twice, compare the bits, print a hash of the weights, and end; writes no checkpoint");
}

}  // namespace

int main(int count, char** values) {
  programs::hold_standard_streams();
  examples::Ranks ranks;
  Arguments a;
  CLI::App app(
      "Trains a Mixture-of-Experts language model on stories, or measures one. Started by mpirun or srun, several "
      "processes train it together.");
  add_options(app, a);
  const auto settings = examples::add_settings(app, a.recipe.settings, all_settings());
  const auto work = [&] {
    ranks.expect_joined();
    parse(app, a, settings, count, values, ranks.size());
    ranks.expect_same(examples::Ranks::kind_of_work, a.list ? "list" : a.benchmark ? "benchmark" : "training");
    ranks.expect_same("number of processes that share experts", std::to_string(a.expert_parallel));
    if (ranks.size() % a.expert_parallel != 0) {  // before any text is read
      fail<OptionError>("--expert-parallel: expert parallelism in groups of ", a.expert_parallel,
                        " needs a number of processes that is a multiple of it; found ", ranks.size(),
                        "; start them with mpirun -n ", a.expert_parallel);
    }
    if (ranks.first()) choose_output(a);
    if (a.list) {
      list();
    } else if (a.benchmark) {
      if (ranks.size() > 1) fail<OptionError>("--benchmark measures one process; start it without a launcher");
      benchmark(a);
    } else {
      if (a.check_determinism && ranks.size() > 1) {
        fail<OptionError>("--check-determinism checks one process; start it without a launcher");
      }
      if (a.steps == 0 && a.minutes == 0) a.minutes = 5;
      examples::with_architecture(a.preset,
                                  [&](auto named) { train<typename decltype(named)::Architecture>(a, ranks); });
    }
  };
  return programs::run(app, count, values, work,
                       [&](int status, const std::string& sentence) { return ranks.end(status, sentence, values[0]); });
}
