#pragma once
// What the programs ask of an architecture. Each function is defined in programs_of_one.hpp and compiled for each
// architecture in a unit of its own, so that all cores share the work and a program's main file stays quick to compile.

#include <filesystem>
#include <functional>
#include <string>
#include <tinymoe/model.hpp>
#include <vector>

namespace examples {

using tinymoe::Index;

/// What the functions below do for a preset that this build does without.
[[noreturn]] inline void left_out(const char* preset) {
  tinymoe::fail<tinymoe::OptionError>("the preset ", preset, " was left out of this build; build without ",
                                      "TINYMOE_EXAMPLE_PRESETS, or name it there");
}

/// For each mixture, the pairs that each of its experts got.
using Loads = std::vector<std::vector<Index>>;

/// How a model is trained, whichever it is.
struct TrainRun {
  tinymoe::Settings settings;
  tinymoe::AnyOptimizer<tinymoe::Cpu> optimizer;
  tinymoe::AnySchedule schedule;
  const tinymoe::TokenData* training;
  tinymoe::FitOptions options;
  std::function<void(const tinymoe::StepReport&, const Loads&)> on_step = {};
  std::filesystem::path resume = {};   // the checkpoint to go on from; empty: none
  std::filesystem::path weights = {};  // the checkpoint whose weights a new run starts with; empty: random ones
  int threads = 0;
};

/// Trains a new model, or goes on with a run, and returns the last step's report.
template <class Arch>
tinymoe::StepReport train(const TrainRun& run);

/// What `train --benchmark` measures.
struct BenchmarkRun {
  std::filesystem::path checkpoint = {};  // empty: a model with random weights
  tinymoe::Settings settings;
  tinymoe::AnyOptimizer<tinymoe::Cpu> optimizer;
  Index batch = 4, time = 0, accumulation = 1;
  bool recompute = false;
  double seconds = 5;  // of training that are measured
  int threads = 0;
};

/// Measures a model's speed and memory, and prints them as a table.
template <class Arch>
void benchmark(const BenchmarkRun& run);

/// The stories that `sample` writes.
struct SampleRun {
  std::filesystem::path checkpoint;
  std::vector<std::string> prompts = {"Once upon a time"};
  Index stories = 1;  // of each prompt
  tinymoe::SampleOptions options = {};
  int threads = 0;
  bool quiet = false;
};

/// Writes stories to the standard output, and the speed to the standard error.
template <class Arch>
void sample(const SampleRun& run);

}  // namespace examples
