#include "run_reports.hpp"

#include <optional>
#include <string>
#include <tinymoe/checkpoint/training_state_json.hpp>
#include <tinymoe/core/error.hpp>
#include <tinymoe/files/atomic_folder.hpp>
#include <tinymoe/files/paths.hpp>
#include <utility>
#include <vector>

#include "run_paths.hpp"

namespace examples {

using namespace tinymoe;
using std::filesystem::path;

namespace {

/// The first step that the JSON lines tell of; 0 without them.
Index first_logged(const RunHistory& history) {
  if (!history.memory.empty()) return history.memory.front().step;
  return history.loads.parts().empty() ? 0 : history.loads.parts().front().first_step;
}

}  // namespace

RunReport read_run(const RunSources& sources) {
  using tinymoe::detail::is_there;
  RunReport report;
  path metrics = sources.metrics, json_lines = sources.json_lines;
  std::optional<TrainingState> state;
  if (!sources.checkpoint.empty()) {
    const RunPaths paths(sources.checkpoint);
    report.name = paths.out.filename().string();
    const bool is_model = tinymoe::detail::folder_has(paths.out, "config.json");
    if (metrics.empty() && is_there(paths.metrics)) metrics = paths.metrics;
    if (json_lines.empty() && is_there(paths.json_lines)) json_lines = paths.json_lines;
    if (!is_model && metrics.empty() && json_lines.empty()) {
      fail<FileError>(sources.checkpoint.string(), ": holds no checkpoint, and ", paths.metrics.string(),
                      " is not there; give the OUT of train, or its log with --metrics");
    }
    if (tinymoe::detail::folder_has(paths.out, "trainer.json")) {
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
  if (json_lines.empty() && !sources.compared) {
    report.history.notes.push_back(report.name +
                                   ": its JSON lines are not there, so the loads over time, the memory and the stories "
                                   "are left out; train --report or --json-lines writes them");
  }
  if (metrics.empty() && json_lines.empty()) return report;
  std::vector<std::string> notes = std::move(report.history.notes);
  report.history = read_run_history(metrics, json_lines, state ? &*state : nullptr);
  if (const Index first = first_logged(report.history);
      first > 0 && !report.history.steps.empty() && first > report.history.steps.front().step) {
    notes.push_back(json_lines.filename().string() + ": begins at step " + std::to_string(first) +
                    ", so the loads, the memory and the stories before it are left out; give --json-lines or --report "
                    "to train from its first step");
  }
  auto& all = report.history.notes;
  all.insert(all.begin(), notes.begin(), notes.end());
  if (report.history.validation_loads.empty()) {
    report.history.validation_loads = tinymoe::detail::read_loads(loads_file(metrics));
  }
  return report;
}

}  // namespace examples
