#pragma once
// `train --benchmark`: the template behind `benchmark` of programs.hpp. Only the units that CMake makes from
// unit.cpp.in include it.

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <tinymoe/model.hpp>
#include <utility>
#include <vector>

#include "devices.hpp"
#include "programs.hpp"
#include "programs/measure.hpp"

namespace examples {

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
inline void print_peak(const std::string& what, Index bytes) {
  if (bytes > 0) print_fact(what, tinymoe::detail::mebibytes(bytes));
}

template <class Arch, class B>
void benchmark(B& device, const BenchmarkRun& run) {
  using namespace tinymoe;
  using ModelType = Model<Arch, B>;
  ModelType model(device, Seed{1}, run.settings);
  if (!run.checkpoint.empty()) load_model(run.checkpoint, model);
  const Count cost = count<Arch>();

  std::printf("What it costs\n");
  print_fact("parameters", in_words(double(cost.total)));
  char share[48];
  std::snprintf(share, sizeof share, "%.0f %% of all", 100 * double(cost.active) / double(cost.total));
  print_fact("parameters that each token uses", in_words(double(cost.active)), share);
  print_fact("operations (FLOPs) of a decoded token", in_words(double(cost.flops_forward)));
  print_fact("operations (FLOPs) of a trained token", in_words(double(cost.flops_trained)));

  std::printf("How fast it is\n");
  const Index prompt = std::min<Index>(256, Arch::context), decoded = std::min<Index>(64, Arch::context - 1);
  const auto tokens = programs::random_tokens(prompt, Arch::vocab, 1);
  std::vector<double> prefill, decode;
  std::size_t cache_bytes = 0;
  {
    Session<ModelType> session(model);
    cache_bytes = session.cache_bytes();
    for (int repeat = 0; repeat < 4; ++repeat) {  // the first one warms up the caches and does not count
      session.reset();
      const double seconds = programs::seconds_of([&] { session.feed(tokens); });
      if (repeat > 0) prefill.push_back(seconds);
    }
    session.reset();
    session.feed(std::span(tokens).first(1));
    for (Index i = 0; i < decoded; ++i) {
      const auto token = std::span(tokens).subspan(static_cast<std::size_t>(i), 1);
      decode.push_back(programs::seconds_of([&] { session.feed(token); }));
    }
  }
  print_time("prefill of a prompt of " + std::to_string(prompt) + " tokens", programs::median(prefill), double(prompt));
  print_time("decode of a token", programs::median(decode), 1);
  const Index peak_of_decoding = is_cpu<B> ? programs::peak_memory() : 0;

  Trainer trainer(model, optimizer_for<B>(run.optimizer), AnySchedule(Constant{}), AnyCommunicator<B>());
  const Index time = run.time > 0 ? run.time : Arch::context, step = run.batch * time * run.accumulation;
  const auto data = programs::random_tokens(step + 1, Arch::vocab, 1);
  std::vector<double> training;
  double total = 0;
  for (int repeat = 0; repeat < 2 || (total < run.seconds && repeat < 1000); ++repeat) {
    const double seconds = programs::seconds_of([&] {
      trainer.train_step(std::span(data).first(static_cast<std::size_t>(step)), std::span(data).subspan(1), run.batch,
                         time, {.recompute = run.recompute});
      synchronise(device);
    });
    total += seconds;
    if (repeat > 0) training.push_back(seconds);
  }
  print_time("a training step of " + std::to_string(step) + " tokens", programs::median(training), double(step));

  std::printf("What memory it takes\n");
  const Index copy = ModelType::has_copy ? cost.total * Index{sizeof(typename B::Scalar)} : 0;
  print_fact("weights", tinymoe::detail::mebibytes(cost.weight_bytes + copy));
  print_fact("key-value cache of one story", tinymoe::detail::mebibytes(static_cast<Index>(cache_bytes)));
  print_peak("peak of decoding, all in all", peak_of_decoding);
  print_fact("gradients and the optimizer's state",
             tinymoe::detail::mebibytes(static_cast<Index>(trainer.state_bytes())));
  print_fact("activations of a training step",
             tinymoe::detail::mebibytes(static_cast<Index>(trainer.activation_bytes())));
  if (is_cpu<B>) print_peak("peak of training, all in all", programs::peak_memory());
}

}  // namespace examples
