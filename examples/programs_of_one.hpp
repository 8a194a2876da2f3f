#pragma once
// The programs' functions for one architecture on one backend; included by the units that CMake makes of unit.cpp.in
// alone.

#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>

#include "programs.hpp"

namespace examples {

template <class B>
tinymoe::AnyOptimizer<B> optimizer_for(const AnyRule& rule) {
  return std::visit([](const auto& one) -> tinymoe::AnyOptimizer<B> { return one; }, rule);
}

template <class Arch, class B>
tinymoe::StepReport train(B& device, const TrainRun& run) {
  using namespace tinymoe;
  Model<Arch, B> model(device, run.options.seed, run.settings);
  if (!run.weights.empty()) {
    load_model(run.weights, model);
    model.settings() = run.settings;  // the run's, not the file's
    std::printf("starting with the weights of %s\n", run.weights.c_str());
  }
  Trainer trainer(model, optimizer_for<B>(run.optimizer), run.schedule);
  if (!run.resume.empty()) {
    trainer.resume(run.resume);
    std::printf("going on from %s, step %td\n", run.resume.c_str(), trainer.step());
  }
  return trainer.fit(*run.training, run.options);
}

/// Seconds that f() takes.
template <class F>
double seconds_of(F&& f) {
  const auto started = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Tokens that no cache can foresee.
inline std::vector<tinymoe::Token> random_tokens(Index count, Index vocabulary) {
  const tinymoe::RandomStream stream(tinymoe::Seed{1}, 0, tinymoe::random_site::batches);
  std::vector<tinymoe::Token> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<tinymoe::Token>(tinymoe::random_below(stream, i, static_cast<std::uint64_t>(vocabulary)));
  }
  return tokens;
}

/// The most memory that this process has held, as the kernel counts it; 0 where it does not say.
inline Index peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    Index kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  }
  return 0;
}

/// 1234567 as "1.23 million".
inline std::string in_words(double number) {
  const auto [scale, word] = number < 1e6   ? std::pair(1e0, "")
                             : number < 1e9 ? std::pair(1e6, " million")
                                            : std::pair(1e9, " billion");
  char text[48];
  std::snprintf(text, sizeof text, "%.*f%s", number < 1e6 ? 0 : 2, number / scale, word);
  return text;
}

inline void print_fact(const std::string& what, const std::string& value, const std::string& note = "") {
  std::printf("  %-44s %14s   %s\n", what.c_str(), value.c_str(), note.c_str());
}
inline void print_time(const std::string& what, double seconds, double tokens) {
  char value[32], note[48];
  std::snprintf(value, sizeof value, "%.2f ms", 1e3 * seconds);
  std::snprintf(note, sizeof note, "%.0f tokens/s", tokens / seconds);
  print_fact(what, value, note);
  std::fflush(stdout);
}
inline void print_peak(const std::string& what) {
  if (const Index peak = peak_memory(); peak > 0) print_fact(what, tinymoe::detail::mebibytes(peak));
}

template <class Arch, class B>
void benchmark(B& device, const BenchmarkRun& run) {
  using namespace tinymoe;
  using ModelType = Model<Arch, B>;
  constexpr bool on_host = std::is_same_v<B, Cpu>;
  ModelType model(device, Seed{1}, run.settings);
  if (!run.checkpoint.empty()) load_model(run.checkpoint, model);
  const Count cost = count<Arch>();

  std::printf("What it costs\n");
  print_fact("parameters", in_words(double(cost.total)));
  char share[48];
  std::snprintf(share, sizeof share, "%.0f %% of all", 100 * double(cost.active) / double(cost.total));
  print_fact("parameters that each token uses", in_words(double(cost.active)), share);
  print_fact("operations (FLOPs) for a token written", in_words(double(cost.flops_forward)));
  print_fact("operations (FLOPs) for a token trained on", in_words(double(cost.flops_trained)));

  std::printf("How fast it is\n");
  const Index prompt = std::min<Index>(256, Arch::context), written = std::min<Index>(64, Arch::context - 1);
  const auto tokens = random_tokens(prompt, Arch::vocab);
  std::vector<double> reading, writing;
  std::size_t cache_bytes = 0;
  {
    Session<ModelType> session(model);
    cache_bytes = session.cache_bytes();
    for (int repeat = 0; repeat < 4; ++repeat) {  // the first one warms the caches up and is not counted
      session.reset();
      const double seconds = seconds_of([&] { session.feed(tokens); });
      if (repeat > 0) reading.push_back(seconds);
    }
    session.reset();
    session.feed(std::span(tokens).first(1));
    for (Index i = 0; i < written; ++i) {
      writing.push_back(seconds_of([&] { session.feed(std::span(tokens).subspan(static_cast<std::size_t>(i), 1)); }));
    }
  }
  print_time("reading a prompt of " + std::to_string(prompt) + " tokens", median(reading), double(prompt));
  print_time("writing a token", median(writing), 1);
  const Index peak_of_writing = on_host ? peak_memory() : 0;

  Trainer trainer(model, optimizer_for<B>(run.optimizer), AnySchedule(Constant{}));
  const Index time = run.time > 0 ? run.time : Arch::context, step = run.batch * time * run.accumulation;
  const auto data = random_tokens(step + 1, Arch::vocab);
  std::vector<double> training;
  double total = 0;
  for (int repeat = 0; repeat < 2 || (total < run.seconds && repeat < 1000); ++repeat) {
    const double seconds = seconds_of([&] {
      trainer.train_step(std::span(data).first(static_cast<std::size_t>(step)), std::span(data).subspan(1), run.batch,
                         time, {.recompute = run.recompute});
      synchronise(device);
    });
    total += seconds;
    if (repeat > 0) training.push_back(seconds);
  }
  print_time("a training step of " + std::to_string(step) + " tokens", median(training), double(step));

  std::printf("What memory it takes\n");
  const Index copy = ModelType::has_copy ? cost.total * Index{sizeof(typename B::Scalar)} : 0;
  print_fact("weights", tinymoe::detail::mebibytes(cost.weight_bytes + copy));
  print_fact("keys and values of one story", tinymoe::detail::mebibytes(static_cast<Index>(cache_bytes)));
  if (peak_of_writing > 0)
    print_fact("the most that writing held, all in all", tinymoe::detail::mebibytes(peak_of_writing));
  print_fact("gradients and the optimizer's state",
             tinymoe::detail::mebibytes(static_cast<Index>(trainer.state_bytes())));
  print_fact("activations of a training step",
             tinymoe::detail::mebibytes(static_cast<Index>(trainer.activation_bytes())));
  if (on_host) print_peak("the most that training held, all in all");
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
