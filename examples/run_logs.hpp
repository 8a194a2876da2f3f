#pragma once
// The logs of a run that other tools read.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <tinymoe/core/platform.hpp>
#include <tinymoe/files/json.hpp>
#include <tinymoe/train/fit_options.hpp>
#include <tinymoe/train/observer.hpp>

namespace examples {

/// Where the logs go; empty: none.
struct LogPaths {
  std::filesystem::path json_lines, tensorboard;
  int json_output = -1;  // a descriptor that gets the JSON lines as they come; −1: none

  /// Before any work: throws FileError for a file that cannot be written.
  void check() const;
};

/// The logs of a run that begins or goes on behind `step`; null if there are none. `story` writes one with the model as
/// it is; the logs have that of each evaluation. Throws FileError.
std::unique_ptr<tinymoe::Observer> open_logs(const LogPaths& paths, tinymoe::Index step, const tinymoe::Json& recipe,
                                             std::function<std::string()> story);

}  // namespace examples
