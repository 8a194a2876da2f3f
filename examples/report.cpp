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
#include <system_error>
#include <tinymoe/analysis/run_report.hpp>
#include <tinymoe/files/atomic.hpp>
#include <utility>
#include <vector>

#include "architectures.hpp"
#include "programs/main.hpp"
#include "run_paths.hpp"
#include "run_reports.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

struct Arguments {
  std::vector<path> runs;
  path out, metrics, json_lines;
};

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
  std::error_code ignored;
  if (runs.size() > 1) return "compared.html";
  if (std::filesystem::is_regular_file(runs[0], ignored)) return path(runs[0]).replace_extension(".html");
  return examples::RunPaths(runs[0]).report;
}

void make_report(const Arguments& a) {
  if (a.runs.size() > 1 && (!a.metrics.empty() || !a.json_lines.empty())) {
    fail<OptionError>("--metrics and --json-lines are the logs of one run; give one run with them");
  }
  std::vector<RunReport> reports;
  std::vector<path> paths;
  std::vector<ComparedModel> models;
  for (const path& run : a.runs) {
    std::error_code ignored;
    const bool is_file = std::filesystem::is_regular_file(run, ignored);
    if (is_file && is_sweep(run)) {
      for (ComparedModel& model : read_sweep(run)) models.push_back(std::move(model));
      continue;
    }
    examples::RunSources sources{.checkpoint = run, .metrics = a.metrics, .json_lines = a.json_lines};
    if (is_file) sources.checkpoint.clear(), sources.metrics = run;
    RunReport report = examples::read_run(sources);
    if (!is_file && std::filesystem::exists(run / "config.json", ignored)) {
      try {
        examples::with_architecture_of(
            run, [&](auto named) { examples::add_architecture<typename decltype(named)::Architecture>(report); });
      } catch (const MismatchError& error) {
        report.history.notes.push_back(error.what());
      }
    }
    reports.push_back(std::move(report));
    paths.push_back(run);
  }
  const bool single = reports.size() == 1 && models.empty();
  const path out = a.out.empty() ? default_out(a.runs) : a.out;
  expect_writable(out);
  tell_apart(reports, paths);
  if (single) {
    write_report(out, report_html(reports[0]));
  } else {
    write_report(out, report_html("Models side by side", reports, models));
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
  return programs::run(app, count, values, [&] { make_report(a); });
}
