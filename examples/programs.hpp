#pragma once
// The functions of an architecture on a device that the programs call. They are defined in program_templates.hpp and
// benchmark.hpp, and compiled for each architecture and backend in separate units: all cores share the work, and a
// program's main file compiles no model.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/analysis/expert_findings.hpp>
#include <tinymoe/checkpoint/model_tensors.hpp>
#include <tinymoe/model.hpp>
#include <tinymoe/train/any_communicator.hpp>
#include <tuple>
#include <variant>
#include <vector>

#include "devices.hpp"
#include "recipes.hpp"
#include "run_logs.hpp"

namespace examples {

using tinymoe::Index;

/// An optimizer for one backend.
template <class B>
tinymoe::AnyOptimizer<B> optimizer_for(const AnyRule& rule) {
  return std::visit([](const auto& one) -> tinymoe::AnyOptimizer<B> { return one; }, rule);
}

/// A communicator for each backend of this build; by default that of one process.
template <class Devices>
struct CommunicatorsOf;
template <class... B>
struct CommunicatorsOf<std::variant<B...>> {
  using Type = std::tuple<tinymoe::AnyCommunicator<B>...>;
};
using Communicators = CommunicatorsOf<Device>::Type;

/// How to train a model, independent of its architecture.
struct TrainRun {
  tinymoe::Settings settings;
  AnyRule optimizer;
  tinymoe::AnySchedule schedule;
  const tinymoe::TokenData* training;
  tinymoe::FitOptions options;
  std::filesystem::path resume = {};   // the checkpoint to resume from; empty: none
  std::filesystem::path weights = {};  // the checkpoint whose weights a new run starts with; empty: random ones
  LogPaths logs = {};
  Communicators communicators = {};
  Index expert_parallel = 1;      // how many processes share the experts
  std::uint64_t* bits = nullptr;  // two steps and no files; gets a hash of the weights' bits after them
};

/// Trains a new model, or resumes a run, and returns the last step's report.
template <class Arch, class B>
tinymoe::StepReport train(B& device, const TrainRun& run);

/// The options of `train --benchmark`.
struct BenchmarkRun {
  std::filesystem::path checkpoint = {};  // empty: a model with random weights
  tinymoe::Settings settings;
  AnyRule optimizer;
  Index batch = 4, time = 0, accumulation = 1;
  bool recompute = false;
  double seconds = 5;  // of training to measure
};

/// Measures a model's speed and memory, and prints them as a table.
template <class Arch, class B>
void benchmark(B& device, const BenchmarkRun& run);

/// A trained model that generates stories, whatever its architecture.
class Storyteller {
 public:
  virtual ~Storyteller() = default;
  virtual const tinymoe::Tokenizer& tokenizer() const = 0;

  /// Plans for `options.sequences` stories at once, with their experts traced if `options.trace`. Throws what Session
  /// throws; then nothing has changed.
  virtual void plan(const tinymoe::SessionOptions& options) = 0;

  /// Continues each prompt, as tinymoe::Generator does. `on_text(i, text)` gets the text of story i as it comes, and
  /// stops that story by returning false.
  virtual std::vector<tinymoe::Story> write(std::span<const std::string> prompts, const tinymoe::SampleOptions& options,
                                            const std::function<bool(Index, std::string_view)>& on_text) = 0;
};

/// Loads a checkpoint to the device, and plans for one story. `weights`: the format that they get, "int8" or "int4";
/// empty: numbers. The device must outlive the storyteller.
template <class Arch, class B>
std::unique_ptr<Storyteller> storyteller(B& device, const std::filesystem::path& checkpoint, std::string_view weights);

/// A model's weights, and its loss where there is a text to measure it on.
struct MeasuredModel {
  std::size_t bytes = 0;
  std::optional<tinymoe::EvaluationReport> evaluation = {};
};

/// Loads a checkpoint with weights of this format, measures the model, and saves it. No `data`: no loss; no `out`: it
/// is not saved.
template <class Arch, class B>
MeasuredModel convert(B& device, const std::filesystem::path& checkpoint, std::string_view weights,
                      const tinymoe::TokenData* data, const std::filesystem::path& out,
                      const tinymoe::EvaluationProgress& on_progress);

/// Loads a checkpoint with weights of this format, and calls `use` with its tensors.
template <class Arch, class B>
void with_tensors(B& device, const std::filesystem::path& checkpoint, std::string_view weights,
                  const std::function<void(const tinymoe::detail::ModelTensors&)>& use);

/// What to look at in a model's experts.
struct ExpertRun {
  std::filesystem::path checkpoint;
  const tinymoe::TokenData* data = nullptr;                             // encoded by the checkpoint's tokenizer
  Index profile_tokens = 50000;                                         // of it, that are read; 0: there is no profile
  Index worth_tokens = 10000;                                           // that each evaluation scores; 0: none is made
  std::function<void(const char* what, double done)> on_progress = {};  // a share
};
struct ExpertReport {
  tinymoe::ExpertProfile profile = {};
  tinymoe::ExpertWorths worths = {};
  std::string note = {};  // why there are no worths; empty: there are
};

/// Loads a checkpoint and looks at what its experts do.
template <class Arch, class B>
ExpertReport look_at_experts(B& device, const ExpertRun& run);

/// Where the weights of a model come from: `fetch` fills the tensor of a name.
struct ForeignModel {
  std::function<void(const std::string&, std::span<float>)> fetch;
  tinymoe::Settings settings;
  tinymoe::ModelTokens tokens;
};

/// Saves a foreign model as a checkpoint.
template <class Arch, class B>
void save_foreign(B& device, const ForeignModel& model, const tinymoe::Tokenizer& tokenizer,
                  const std::filesystem::path& out);

}  // namespace examples
