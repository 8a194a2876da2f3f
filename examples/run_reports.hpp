#pragma once
// The reports of runs, for `train --report` and `report`.

#include <filesystem>
#include <string>
#include <tinymoe/analysis/run_report.hpp>

namespace examples {

/// Where a run's logs are; empty: where `train` writes them by itself, if they are there.
struct RunSources {
  std::filesystem::path checkpoint, metrics, json_lines;
  bool compared = false;  // beside others, on a page that has nothing of the JSON lines
};

/// What the logs of a run say, and its recipe. What is missing is a note in the report. Throws FileError if there is
/// neither a checkpoint nor a log, or for one that cannot be read; MismatchError for the log of another run.
tinymoe::RunReport read_run(const RunSources& sources);

}  // namespace examples
