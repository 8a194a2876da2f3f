// Makes one HTML file of a run, or of several side by side, that opens in any browser without a network.
//
//   report runs/story                                      makes runs/story.html
//   report runs/story --data more_stories.txt
//   report runs/dense runs/mixture --out compared.html
//   report sweep.csv

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <tinymoe/analysis/run_report.hpp>
#include <tinymoe/analysis/sweep_files.hpp>
#include <tinymoe/files/paths.hpp>
#include <utility>
#include <vector>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "report_parts.hpp"
#include "run_paths.hpp"
#include "run_reports.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

struct Arguments {
  std::vector<path> runs, data;
  std::string field;
  path out, metrics, json_lines;
  Index tokens = 50000, worth_tokens = 10000;
  examples::DeviceOptions device;
};

/// What the checkpoint says.
template <class Arch>
void add_model(const Arguments& a, const path& run, std::string_view preset, RunReport& report) {
  examples::add_architecture<Arch>(report);
  if (a.runs.size() > 1 || a.tokens == 0 || !Arch::has_mixtures) return;
  if (const std::string weights = examples::stored_weights(run); !weights.empty()) {
    report.history.notes.push_back("The weights are " + weights +
                                   ", so nothing is told of what the experts take; make " +
                                   "the report of the checkpoint that they were made of.");
    return;
  }
  const Tokenizer tokenizer = load_tokenizer<Arch>(run);
  const auto stories = examples::unseen_stories(a.data, a.field, run, tokenizer, a.device.threads);
  if (!stories) {
    report.history.notes.push_back(
        examples::RunPaths(run).tokens.string() +
        ": has not what the run validated on, so nothing is told of what the experts take; give stories with --data");
    return;
  }
  examples::Device device = examples::open_device<Arch>(a.device, preset);
  examples::add_experts<Arch>(
      report, device,
      {.checkpoint = run, .data = &*stories, .profile_tokens = a.tokens, .worth_tokens = a.worth_tokens});
}

/// Whether a file is the results of a sweep, and not the metrics of a run.
bool is_sweep(const path& file) {
  std::string first;
  std::getline(std::ifstream(file, std::ios::binary), first);
  return first.starts_with("variant,");
}

/// Names that differ: whole paths where the last parts are the same.
void tell_apart(std::vector<RunReport>& reports, const std::vector<path>& paths) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    bool twice = false;
    for (std::size_t j = 0; j < reports.size(); ++j) twice = twice || (i != j && reports[i].name == reports[j].name);
    names.push_back(twice ? paths[i].string() : reports[i].name);
  }
  for (std::size_t i = 0; i < reports.size(); ++i) reports[i].name = names[i];
}

path default_out(const std::vector<path>& runs) {
  if (runs.size() > 1) return "compared.html";
  if (tinymoe::detail::look_at(runs[0]) == tinymoe::detail::Found::file)
    return path(runs[0]).replace_extension(".html");
  return examples::RunPaths(runs[0]).report;
}

void make_report(const Arguments& a) {
  if (a.runs.size() > 1 && (!a.metrics.empty() || !a.json_lines.empty())) {
    fail<OptionError>("--metrics and --json-lines are the logs of one run; give one run with them");
  }
  const path out = a.out.empty() ? default_out(a.runs) : a.out;
  examples::expect_page(out);
  std::vector<RunReport> reports;
  std::vector<path> paths;
  std::vector<SweepRun> sweep;
  for (const path& run : a.runs) {
    const bool is_file = tinymoe::detail::look_at(run) == tinymoe::detail::Found::file;
    if (is_file && is_sweep(run)) {
      std::vector<SweepRun> results = read_sweep(run);
      read_sweep_curves(run, results);
      if (results.empty()) fail<FileError>(run, ": has no results yet");
      for (SweepRun& one : results) sweep.push_back(std::move(one));
      continue;
    }
    examples::RunSources sources{
        .checkpoint = run, .metrics = a.metrics, .json_lines = a.json_lines, .compared = a.runs.size() > 1};
    if (is_file) sources.checkpoint.clear(), sources.metrics = run;
    RunReport report = examples::read_run(sources);
    if (!is_file && tinymoe::detail::folder_has(run, "config.json")) {
      try {
        examples::with_architecture_of(
            run, [&](auto named) { add_model<typename decltype(named)::Architecture>(a, run, named.name, report); });
      } catch (const MismatchError& error) {  // another program's model
        report.history.notes.push_back(error.what());
      }
    }
    reports.push_back(std::move(report));
    paths.push_back(run.has_filename() ? run : run.parent_path());
  }
  const bool single = reports.size() == 1 && sweep.empty();
  tell_apart(reports, paths);
  if (single) {
    write_report(out, report_html(reports[0]));
  } else {
    write_report(out, report_html("Models side by side", reports, sweep));
  }
  std::printf("report: %s\n", out.c_str());
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Makes one HTML file of a run, or of several side by side.");
  app.add_option("runs", a.runs, "checkpoint folders of train, or their CSV, or a CSV of sweep")->required();
  app.add_option("--out", a.out, "the HTML file; default: RUN.html, for several compared.html");
  app.add_option("--metrics", a.metrics, "the run's CSV, where it is not beside the folder");
  app.add_option("--json-lines", a.json_lines, "the run's JSON lines, where they are not beside the folder");
  app.add_option("--data", a.data, "stories to see what the experts do on; default: what the run validated on");
  examples::add_field_option(app, a.field);
  using programs::range::whole;
  programs::add_number(app, "--tokens", a.tokens, "of them, that are read; 0: nothing is told of the experts",
                       whole(0));
  programs::add_number(app, "--worth-tokens", a.worth_tokens,
                       "of them, that tell what each expert is worth; 0: that is not measured", whole(0));
  examples::add_device_options(app, a.device);
  return programs::run(app, count, values, [&] { make_report(a); });
}
