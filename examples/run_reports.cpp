#include "run_reports.hpp"

#include <optional>
#include <system_error>
#include <tinymoe/checkpoint/training_state_json.hpp>
#include <tinymoe/core/error.hpp>
#include <utility>

#include "run_paths.hpp"

namespace examples {

using namespace tinymoe;
using std::filesystem::path;

RunReport read_run(const RunSources& sources) {
  const auto is_there = [](const path& file) {
    std::error_code ignored;
    return std::filesystem::exists(file, ignored);
  };
  RunReport report;
  path metrics = sources.metrics, json_lines = sources.json_lines;
  std::optional<TrainingState> state;
  if (!sources.checkpoint.empty()) {
    const RunPaths paths(sources.checkpoint);
    report.name = paths.out.filename().string();
    const bool is_model = is_there(paths.out / "config.json") || is_there(paths.out / tinymoe::detail::new_files_name);
    if (metrics.empty() && is_there(paths.metrics)) metrics = paths.metrics;
    if (json_lines.empty() && is_there(paths.json_lines)) json_lines = paths.json_lines;
    if (!is_model && metrics.empty() && json_lines.empty()) {
      fail<FileError>(sources.checkpoint.string(), ": holds no checkpoint, and ", paths.metrics.string(),
                      " is not there; give the OUT of train, or its log with --metrics");
    }
    if (is_there(paths.out / "trainer.json") || is_there(paths.out / tinymoe::detail::new_files_name)) {
      state = tinymoe::detail::open_together(paths.out, "trainer.json", tinymoe::detail::read_state);
      report.recipe = state->recipe;
    }
    if (metrics.empty()) {
      report.history.notes.push_back(paths.metrics.string() +
                                     ": is not there, so the training is left out; --metrics "
                                     "names a run's log");
    }
  } else {
    report.name = metrics.stem().string();
  }
  if (metrics.empty() && json_lines.empty()) return report;
  report.history = read_run_history(metrics, json_lines, state ? &*state : nullptr);
  if (report.history.validation_loads.empty()) {
    report.history.validation_loads = tinymoe::detail::read_loads(loads_file(metrics));
  }
  return report;
}

}  // namespace examples
