#pragma once
// The templates behind programs.hpp, except `benchmark`. Only the units that CMake makes from unit.cpp.in include them.

#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/model.hpp>
#include <vector>

#include "programs.hpp"

namespace examples {

template <class Arch, class B>
tinymoe::StepReport train(B& device, const TrainRun& run) {
  using namespace tinymoe;
  Model<Arch, B> model(device, run.options.seed, run.settings);
  if (!run.weights.empty()) {
    load_model(run.weights, model);
    model.settings() = run.settings;  // the run's, not the file's
    const auto other_tokenizer = [&](const std::filesystem::path& folder) {
      const auto file = folder / "tokenizer.json";
      return std::filesystem::exists(file) && Tokenizer::load(file) != *run.options.tokenizer;
    };
    if (tinymoe::detail::open_together(run.weights, tinymoe::detail::checkpoint_files[0], other_tokenizer)) {
      model.special_tokens() = {};  // they are numbers of the other vocabulary
    }
    std::printf("starting with the weights of %s\n", run.weights.c_str());
  }
  Trainer trainer(model, optimizer_for<B>(run.optimizer), run.schedule);
  if (!run.resume.empty()) {
    trainer.resume(run.resume);
    std::printf("going on from %s, step %td\n", run.resume.c_str(), trainer.step());
  }
  return trainer.fit(*run.training, run.options);
}

/// The storyteller of an architecture.
template <class Arch, class B>
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
  using ModelType = tinymoe::Model<Arch, B>;
  using Generator = tinymoe::Generator<ModelType>;

  ModelType model_;
  std::optional<tinymoe::Tokenizer> tokenizer_;
  std::unique_ptr<Generator> generator_;
};

template <class Arch, class B>
std::unique_ptr<Storyteller> storyteller(B& device, const std::filesystem::path& checkpoint) {
  return std::make_unique<StorytellerOf<Arch, B>>(device, checkpoint);
}

}  // namespace examples
