// A training step of the yardstick model in float32 and bfloat16: tokens a second, share of the machine's
// multiply-adds, memory, AdamW by itself, and each operation of the step against its limit.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "roofline.hpp"
#include "support.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/train/trainer.hpp"
#include "watched.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::Yardstick;

struct Arguments {
  Index batch = 4, time = 256;
  int steps = 7, warmup = 2, threads = 0;
  bool roofline = false;
};

/// Seconds of each step, the last loss, and bytes of memory.
struct Steps {
  std::vector<double> seconds;
  double loss = 0, peak = 0, state = 0, activations = 0;
};

/// Steps one after another, then as many whose operations `watched` times, if a roofline is asked for.
template <class B>
Steps train(bench::Watched<B>& watched, const Arguments& arguments) {
  Model<Arch, bench::Watched<B>> model(watched, Seed{1});
  Trainer trainer(model, AdamW{.lr = 1e-4});
  const Index tokens = arguments.batch * arguments.time;
  Steps result;
  const auto train_step = [&](int number) {
    const auto text = programs::random_tokens(tokens + 1, Arch::vocab, static_cast<std::uint64_t>(number + 1000));
    const std::span<const Token> all(text);
    return programs::seconds_of([&] {
      result.loss =
          trainer.train_step(all.first(text.size() - 1), all.subspan(1), arguments.batch, arguments.time).loss;
    });
  };
  for (int step = -arguments.warmup; step < arguments.steps; ++step) {
    const double seconds = train_step(step);
    if (step >= 0) result.seconds.push_back(seconds);
  }
  result.peak = double(programs::peak_memory());
  result.state = double(model.masters().size() * Index{sizeof(float)}) + double(trainer.state_bytes());
  if (model.has_copy) result.state += double(model.buffer().size() * Index{sizeof(typename B::Scalar)});
  result.activations = double(trainer.activation_bytes());
  if (arguments.roofline) {
    watched.watch(bench::Watch::operations, double(model.size), bench::names_of_products<Arch>());
    for (int step = 0; step < arguments.steps; ++step) train_step(arguments.steps + step);
  }
  return result;
}

/// Bytes of activations that a step of `batch` sequences plans.
template <class B>
double activation_bytes(B& cpu, Index batch, Index time) {
  Activations<Arch, B> planned(cpu, Plan::Purpose::training, Pass{.batch = batch, .time = time});
  return double(planned.bytes());
}

template <class B>
void report_memory(B& cpu, const Steps& steps, const Arguments& arguments, double before) {
  constexpr double parameters = double(count<Arch>().total), mb = 1e6;
  std::printf(
      "peak memory %.0f MB = %.2f bytes x %.1fM parameters (%.0f MB) + activations %.0f MB + the rest %.0f MB "
      "(%.0f MB before the model)\n",
      steps.peak / mb, steps.state / parameters, parameters / 1e6, steps.state / mb, steps.activations / mb,
      (steps.peak - steps.state - steps.activations) / mb, before / mb);
  for (const Index tokens : {512, 1024, 2048}) {
    const double bytes = activation_bytes(cpu, std::max<Index>(1, tokens / arguments.time), arguments.time);
    std::printf("activations of %td tokens: %.1f MB, %.0f bytes a token\n", tokens, bytes / mb, bytes / double(tokens));
  }
  bench::print_time_row("training memory, bytes a parameter without activations",
                        (steps.peak - steps.activations) / parameters, "bytes", 16, 2);
  bench::print_row("training memory, peak", steps.peak / mb, "MB", 0, 0);
}

/// Sixteen layers, to measure the cost and the saving of recomputation.
using Deep = Transformer<
    Vocab<2048>, Context<256>, Width<256>, TiedHead,
    Layers<16, MoEBlock<RmsNorm, Attention<Heads<8>, KvHeads<2>, Rope>, Router<8, 2>, Expert<SwiGlu, Hidden<512>>>>>;

/// Steps with and without recomputation in turn, and the median of the pairs' ratios.
void report_recompute(Cpu& cpu, const Arguments& arguments) {
  Model<Deep, Cpu> model(cpu, Seed{1});
  Trainer kept(model, AdamW{.lr = 1e-4}), again(model, AdamW{.lr = 1e-4});
  const auto text = programs::random_tokens(arguments.batch * arguments.time + 1, Deep::vocab, 1);
  const std::span<const Token> all(text);
  const auto seconds = [&](auto& trainer, bool recompute) {
    return programs::seconds_of([&] {
      trainer.train_step(all.first(text.size() - 1), all.subspan(1), arguments.batch, arguments.time,
                         {.recompute = recompute});
    });
  };
  std::vector<double> ratios, times;
  for (int step = -arguments.warmup; step < arguments.steps; ++step) {
    const double whole = seconds(kept, false), twice = seconds(again, true);
    if (step >= 0) ratios.push_back(twice / whole), times.push_back(whole);
  }
  const auto [fastest, slowest] = std::minmax_element(ratios.begin(), ratios.end());
  std::printf(
      "16 layers, %.1fM parameters, a step of %.3f s: recomputed %.2f times that (%.2f to %.2f); activations "
      "%.1f MB, recomputed %.1f MB\n",
      double(count<Deep>().total) / 1e6, programs::median(times), programs::median(ratios), *fastest, *slowest,
      double(kept.activation_bytes()) / 1e6, double(again.activation_bytes()) / 1e6);
  bench::print_time_row("recomputation of 16 layers, time of a step", programs::median(ratios), "times", 4.0 / 3, 2);
  bench::print_row("recomputation of 16 layers, memory saved",
                   double(kept.activation_bytes()) / double(again.activation_bytes()), "times", 0, 1);
}

/// AdamW over the model; `update`: the limit in bytes a second. `step_seconds`: of a whole training step.
template <class B>
void report_optimizer(B& cpu, double step_seconds, double update, int tries) {
  using Weights = typename Model<Arch, B>::Weights;
  bench::OptimizerPass<B> pass(cpu, Model<Arch, B>::size, detail::chunks_of<Weights>());
  std::vector<double> norms, steps;
  for (int i = 0; i <= tries; ++i) {
    const double norm = programs::seconds_of([&] { pass.norm(); }), step = programs::seconds_of([&] { pass.step(); });
    if (i > 0) norms.push_back(norm), steps.push_back(step);
  }
  const double size = double(pass.size()), norm = programs::median(norms), step = programs::median(steps);
  std::printf(
      "AdamW %.0f ms at %.1f GB/s; the norm of the gradients %.0f ms at %.1f GB/s; together %.0f %% of a step\n",
      1e3 * step, size * pass.step_bytes / step / 1e9, 1e3 * norm, size * pass.norm_bytes / norm / 1e9,
      100 * (step + norm) / step_seconds);
  const std::string weights = pass.has_copy ? "bfloat16 copy" : "float32";
  bench::print_time_row("AdamW over the yardstick model, " + weights, 1e3 * step, "ms",
                        1e3 * size * pass.step_bytes / update);
}

/// One backend's training step; the memory limits are measured after it, as their buffer would be in its peak memory.
template <class B>
void run_training(B& cpu, const Arguments& arguments) {
  const double before = double(programs::peak_memory());
  constexpr auto cost = count<Arch>();
  const std::string type = bench::type_name<B>();
  bench::Watched<B> watched(cpu);
  bench::ProductLimits limits;
  limits.measure(cpu.threads());
  const Steps steps = train(watched, arguments);
  limits.measure(cpu.threads());
  const auto memory = bench::measure_memory(cpu.threads());

  const double tokens = double(arguments.batch * arguments.time), seconds = programs::median(steps.seconds);
  const double peak = limits.of<typename B::Scalar>();
  const auto [fastest, slowest] = std::minmax_element(steps.seconds.begin(), steps.seconds.end());
  std::printf("%s: step %.3f s (%.3f to %.3f over %zu steps), last loss %.3f; %.1f GFLOP/s of %.1f\n", type.c_str(),
              seconds, *fastest, *slowest, steps.seconds.size(), steps.loss,
              double(cost.flops_trained) * tokens / seconds / 1e9, peak / 1e9);
  std::printf("memory: read %.1f, triad %.1f, update %.1f GB/s\n", memory.read / 1e9, memory.triad / 1e9,
              memory.update / 1e9);
  if (arguments.roofline) {
    std::printf("\nThe operations of a training step, %.0f tokens, %s:\n\n", tokens, type.c_str());
    bench::print_roofline(bench::roofline(watched.operations(), arguments.steps, memory.update, peak), 1e3 * seconds);
    return;
  }
  char figure[80];
  std::snprintf(figure, sizeof figure, "train, %s, %.0f tokens a step", type.c_str(), tokens);
  bench::print_row(figure, tokens / seconds, "tok/s", peak / double(cost.flops_trained));
  if (std::is_same_v<B, Cpu>) report_memory(cpu, steps, arguments, before);
  report_optimizer(cpu, seconds, memory.update, arguments.steps);
}

void run(const Arguments& arguments) {
  Cpu cpu(arguments.threads);
  CpuBfloat16 narrow(arguments.threads);
  constexpr auto cost = count<Arch>();
  std::printf("yardstick: %.1fM parameters, %.0f MFLOP a trained token; %s, %d threads; %td x %td tokens a step\n",
              double(cost.total) / 1e6, double(cost.flops_trained) / 1e6, cpu.name(), cpu.threads(), arguments.batch,
              arguments.time);
  std::printf("bfloat16 is multiplied by %s here\n", bench::bfloat16_unit());
  run_training(cpu, arguments);
  run_training(narrow, arguments);
  if (!arguments.roofline) report_recompute(cpu, arguments);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("A training step of the yardstick model, in float32 and in bfloat16.");
  using programs::range::whole;
  programs::add_number(app, "--batch", arguments.batch, "sequences of a step", whole(1, 1 << 20));
  programs::add_number(app, "--time", arguments.time, "tokens of a sequence", whole(1));
  programs::add_number(app, "--steps", arguments.steps, "steps to time", whole(1));
  programs::add_number(app, "--warmup", arguments.warmup, "steps before", whole(0));
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       whole(0, tinymoe::detail::max_threads));
  app.add_flag("--roofline", arguments.roofline, "only the operations of a step, each against its limit");
  return programs::run(app, count, values, [&] { run(arguments); });
}
