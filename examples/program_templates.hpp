#pragma once
// The templates behind programs.hpp, except `benchmark`. Only the units that CMake makes from unit.cpp.in include them.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/analysis/expert_profile.hpp>
#include <tinymoe/analysis/expert_worth.hpp>
#include <tinymoe/core/block_weights.hpp>
#include <tinymoe/model.hpp>
#include <tuple>
#include <type_traits>
#include <vector>

#include "programs.hpp"

namespace examples {

/// Trains two steps and writes nothing.
template <class TrainerType>
tinymoe::StepReport two_steps(TrainerType& trainer, const TrainRun& run) {
  using namespace tinymoe;
  FitOptions options = run.options;
  options.steps = trainer.step() + 2, options.minutes = 0;
  options.validation = nullptr, options.evaluate_every = 0, options.evaluate_minutes = 0;
  options.checkpoint = options.best = options.best_weights = options.metrics = std::filesystem::path();
  options.observers = {};
  const StepReport report = trainer.fit(*run.training, options);
  std::vector<typename TrainerType::Master> weights(static_cast<std::size_t>(TrainerType::Model::size));
  trainer.model().backend().copy_to_host(weights.data(), trainer.model().masters().data,
                                         weights.size() * sizeof(weights[0]));
  tinymoe::detail::Xxh64 hash;
  hash.bytes(std::as_bytes(std::span(weights)));
  *run.bits = hash.value();
  return report;
}

template <class Arch, class B>
tinymoe::StepReport train(B& device, const TrainRun& run) {
  using namespace tinymoe;
  Model<Arch, B> model(device, run.options.seed, run.settings);
  if (!run.weights.empty()) {
    load_model(run.weights, model);
    model.settings() = run.settings;  // the run's, not the file's
    const auto other_tokenizer = [&](const std::filesystem::path& folder) {
      const auto file = folder / "tokenizer.json";
      return tinymoe::detail::is_there(file) && Tokenizer::load(file) != *run.options.tokenizer;
    };
    if (tinymoe::detail::open_together(run.weights, tinymoe::detail::checkpoint_files[0], other_tokenizer)) {
      model.special_tokens() = {};  // they are numbers of the other vocabulary
    }
    std::printf("starting with the weights of %s\n", run.weights.c_str());
  }
  Trainer trainer(model, optimizer_for<B>(run.optimizer), run.schedule, std::get<AnyCommunicator<B>>(run.communicators),
                  run.expert_parallel);
  if (!run.resume.empty()) {
    trainer.resume(run.resume);
    std::printf("going on from %s, step %td\n", run.resume.c_str(), trainer.step());
  }
  if (run.bits != nullptr) return two_steps(trainer, run);
  FitOptions options = run.options;
  const auto logs = open_logs(run.logs, trainer.step(), options.recipe, [&] {
    return generate(model, *options.tokenizer, "", {.tokens = 200, .seed = options.seed});
  });
  if (logs != nullptr) options.observers.push_back(logs.get());
  return trainer.fit(*run.training, options);
}

/// f(type_identity of the weights of this name) on a device.
template <class Arch, class B, class F>
auto with_weights(const B&, std::string_view weights, F&& f) {
  using tinymoe::Int4, tinymoe::Int8;
  if constexpr (compiled_for_narrow<Arch>() && tinymoe::MultipliesBy<B, Int8> && tinymoe::MultipliesBy<B, Int4>) {
    if (weights == tinymoe::WeightFormat<Int8>::name) return f(std::type_identity<Int8>{});
    if (weights == tinymoe::WeightFormat<Int4>::name) return f(std::type_identity<Int4>{});
  }
  if (!weights.empty()) tinymoe::fail<tinymoe::OptionError>("this program has no weights of the format ", weights);
  return f(std::type_identity<typename B::Scalar>{});
}

/// The storyteller of an architecture with weights of type W.
template <class Arch, class B, class W>
class StorytellerOf : public Storyteller {
 public:
  StorytellerOf(B& device, const std::filesystem::path& checkpoint) : model_(device) {
    tinymoe::load_model(checkpoint, model_);
    tokenizer_.emplace(tinymoe::load_tokenizer<Arch>(checkpoint));
    StorytellerOf::plan({});
  }

  const tinymoe::Tokenizer& tokenizer() const override { return *tokenizer_; }

  void plan(const tinymoe::SessionOptions& options) override {
    generator_ = std::make_unique<Generator>(model_, *tokenizer_, options);
  }

  std::vector<tinymoe::Story> write(std::span<const std::string> prompts, const tinymoe::SampleOptions& options,
                                    const std::function<bool(Index, std::string_view)>& on_text) override {
    return generator_->write(prompts, options, on_text);
  }

 private:
  using ModelType = tinymoe::Model<Arch, B, W>;
  using Generator = tinymoe::Generator<ModelType>;

  ModelType model_;
  std::optional<tinymoe::Tokenizer> tokenizer_;
  std::unique_ptr<Generator> generator_;
};

template <class Arch, class B>
std::unique_ptr<Storyteller> storyteller(B& device, const std::filesystem::path& checkpoint, std::string_view weights) {
  return with_weights<Arch>(device, weights, [&]<class W>(std::type_identity<W>) -> std::unique_ptr<Storyteller> {
    return std::make_unique<StorytellerOf<Arch, B, W>>(device, checkpoint);
  });
}

template <class Arch, class B>
MeasuredModel convert(B& device, const std::filesystem::path& checkpoint, std::string_view weights,
                      const tinymoe::TokenData* data, const std::filesystem::path& out,
                      const tinymoe::EvaluationProgress& on_progress) {
  using namespace tinymoe;
  return with_weights<Arch>(device, weights, [&]<class W>(std::type_identity<W>) {
    using ModelType = Model<Arch, B, W>;
    ModelType model(device);
    load_model(checkpoint, model);
    MeasuredModel measured{.bytes = buffer_bytes<typename ModelType::Weights>()};
    if (data != nullptr) measured.evaluation = evaluate(model, *data, 16, 0, on_progress);
    if (!out.empty()) save_model(out, model, load_tokenizer<Arch>(checkpoint));
    return measured;
  });
}

template <class Arch, class B>
void with_tensors(B& device, const std::filesystem::path& checkpoint, std::string_view weights,
                  const std::function<void(const tinymoe::detail::ModelTensors&)>& use) {
  with_weights<Arch>(device, weights, [&]<class W>(std::type_identity<W>) {
    tinymoe::Model<Arch, B, W> model(device);
    tinymoe::load_model(checkpoint, model);
    use(tinymoe::detail::model_tensors(model));
  });
}

template <class Arch, class B>
ExpertReport look_at_experts(B& device, const ExpertRun& run) {
  using namespace tinymoe;
  Model<Arch, B> model(device);
  load_model(run.checkpoint, model);
  const Tokenizer tokenizer = load_tokenizer<Arch>(run.checkpoint);
  const auto progress = [&](const char* what) {
    return [&run, what](Index done, Index all) {
      if (run.on_progress) run.on_progress(what, static_cast<double>(done) / static_cast<double>(all));
    };
  };
  ExpertReport report;
  if (run.profile_tokens > 0) {
    report.profile = profile_experts(model, tokenizer, *run.data,
                                     {.tokens = run.profile_tokens, .on_progress = progress("what the experts take")});
  }
  if (run.worth_tokens == 0) return report;
  try {
    report.worths = measure_experts(model, first_stories(*run.data, tokenizer, run.worth_tokens),
                                    {.on_progress = progress("what the experts are worth")});
  } catch (const Error& error) {  // a router that cannot leave experts out, or too few tokens
    report.note = error.what();
  }
  return report;
}

template <class Arch, class B>
void save_foreign(B& device, const ForeignModel& foreign, const tinymoe::Tokenizer& tokenizer,
                  const std::filesystem::path& out) {
  tinymoe::Model<Arch, B> model(device);
  tinymoe::detail::replace_tensors(model, foreign.fetch);
  model.settings() = foreign.settings;
  model.special_tokens() = foreign.tokens;
  tinymoe::save_model(out, model, tokenizer);
}

}  // namespace examples
