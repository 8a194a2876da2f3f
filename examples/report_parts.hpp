#pragma once
// The parts of a report that come from a model.

#include <tinymoe/analysis/count.hpp>
#include <tinymoe/analysis/run_report.hpp>
#include <tinymoe/checkpoint/config.hpp>
#include <utility>

#include "devices.hpp"
#include "programs.hpp"
#include "progress.hpp"

namespace examples {

/// The architecture's part of a report.
template <class Arch>
void add_architecture(tinymoe::RunReport& report) {
  report.architecture = tinymoe::describe<Arch>();
  report.counted = tinymoe::count<Arch>();
}

/// The experts' part of a report, from some of `data`; on a device that was opened for the architecture.
template <class Arch>
void add_experts(tinymoe::RunReport& report, Device& device, ExpertRun run) {
  if (!Arch::has_mixtures) return;
  Percent progress;
  run.on_progress = [&](const char* what, double done) { progress.show(what, done); };
  ExpertReport found = on<Arch>(device, [&](auto& backend) { return look_at_experts<Arch>(backend, run); });
  report.profile = std::move(found.profile), report.worths = std::move(found.worths);
  if (!found.note.empty()) {
    report.history.notes.push_back("What each expert is worth was not measured: " + found.note);
  }
}

}  // namespace examples
