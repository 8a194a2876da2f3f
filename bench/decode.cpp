// Decode and prefill of the yardstick model in float32 and with integer weights: one stream, token by token, and a
// prompt at once.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/sample/session.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::Yardstick;

struct Arguments {
  Index prompt = 16, tokens = 64, prefill = 256;
  int repeats = 3, threads = 0;
};

/// Number of weights that one token is multiplied with, including the head's. The embedding's row is not counted.
constexpr Index weights_per_token() {
  constexpr auto cost = count<Arch>();
  return cost.active - cost.part(Part::position) - (Arch::tied ? 0 : cost.part(Part::embedding));
}

/// Seconds of each token. The tokens are random: a model that decodes greedily soon repeats itself, and finds the
/// weights of the same experts in the cache.
template <class ModelType>
std::vector<double> decode(const ModelType& model, const Arguments& arguments) {
  Session<ModelType> session(model);
  const auto tokens = programs::random_tokens(arguments.prompt + arguments.tokens, Arch::vocab, 7);
  const auto prompt = static_cast<std::size_t>(arguments.prompt);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < arguments.repeats; ++repeat) {
    session.reset();
    session.feed(std::span(tokens).first(prompt));
    for (std::size_t i = prompt; i < tokens.size(); ++i) {
      seconds.push_back(programs::seconds_of([&] { session.feed(std::span(tokens).subspan(i, 1)); }));
    }
  }
  return seconds;
}

/// Seconds of a prefill, with the logits of the last position.
template <class ModelType>
double prefill(const ModelType& model, const Arguments& arguments) {
  Session<ModelType> session(model);
  const auto tokens = programs::random_tokens(arguments.prefill, Arch::vocab, 8);
  std::vector<double> seconds;
  for (int repeat = 0; repeat <= arguments.repeats; ++repeat) {
    session.reset();
    const double one = programs::seconds_of([&] { session.feed(tokens); });
    if (repeat > 0) seconds.push_back(one);
  }
  return programs::median(seconds);
}

/// Seconds of a prefill, with the logits of every position.
double prefill_all_logits(const Model<Arch, Cpu>& model, const Arguments& arguments) {
  auto& cpu = model.backend();
  const Pass pass{.batch = 1, .time = arguments.prefill, .settings = model.settings()};
  Activations<Arch, Cpu> saved(cpu, Plan::Purpose::training, pass);
  const auto tokens = programs::random_tokens(pass.rows(), Arch::vocab, 8);
  const Memory memory = cpu.allocate(static_cast<std::size_t>(pass.rows() * Arch::vocab) * sizeof(float));
  const View<float> logits(memory.as<float>().data, pass.rows(), Arch::vocab);
  std::vector<double> seconds;
  for (int repeat = 0; repeat <= arguments.repeats; ++repeat) {
    const double one = programs::seconds_of([&] {
      Arch::forward(cpu, pass, model.weights(), View<const Token>(tokens.data(), 1, pass.rows()), *saved);
      Arch::logits(cpu, model.weights(), saved->normed(pass.rows()), logits);
    });
    if (repeat > 0) seconds.push_back(one);
  }
  return programs::median(seconds);
}

/// FLOPs of a prefill with the logits of the last position.
double prefill_flops(double length) {
  return double(count<Arch>().flops_forward) * length - 2.0 * double(Arch::vocab * Arch::width) * (length - 1);
}

/// Bytes of the weights that one token is multiplied with: a model's, less those of the experts that it does not take.
template <class W>
double bytes_per_token() {
  using Weights = typename Model<Arch, Cpu, W>::Weights;
  constexpr auto cost = count<Arch>();
  Weights weights{};
  double bytes = 0;
  tinymoe::detail::for_each_placed<Weights>(
      [&]<class Tensor>(const ParameterInfo& info, Index, const Tensor&) {
        const auto all = double(Tensor::Format::bytes(info.rows(), info.cols));
        bytes += all * double(info.active_of(info.size())) / double(info.size());
      },
      weights);
  static_assert(Arch::tied && cost.part(Part::position) == 0);
  return bytes;
}

/// Decode and prefill with integer weights; `fma` and `read`: the machine's limits in FLOP/s and bytes/s.
template <class W>
void run_integers(Cpu& cpu, const Arguments& arguments, double fma, double read) {
  const Model<Arch, Cpu, W> model(cpu, Seed{1});
  const std::string name(WeightFormat<W>::name);
  const double token = programs::median(decode(model, arguments)), prompt = prefill(model, arguments);
  const auto length = double(arguments.prefill);
  bench::print_row("decode, " + name + " weights, one stream", 1 / token, "tok/s", read / bytes_per_token<W>());
  bench::print_row("prefill, " + name + " weights, last logits", length / prompt, "tok/s",
                   fma / prefill_flops(length) * length);
}

void run(const Arguments& arguments) {
  Cpu cpu(arguments.threads);
  const Model<Arch, Cpu> model(cpu, Seed{1});
  constexpr double bytes = double(weights_per_token()) * sizeof(float);
  std::printf("yardstick: %.1fM weights a token, %.0f MB; %d threads\n", double(weights_per_token()) / 1e6, bytes / 1e6,
              cpu.threads());
  double fma = bench::measure_fma(cpu.threads());
  const auto tokens = decode(model, arguments);
  const double prompt = prefill(model, arguments), all = prefill_all_logits(model, arguments);
  fma = std::max(fma, bench::measure_fma(cpu.threads()));
  const auto limits = bench::measure_memory(cpu);

  const double token = programs::median(tokens);
  double total = 0;
  for (const double seconds : tokens) total += seconds;
  std::printf("decode: median %.2f ms a token, mean %.2f; %.1f GB/s of weights; memory reads at %.1f GB/s\n",
              1e3 * token, 1e3 * total / double(tokens.size()), bytes / token / 1e9, limits.read / 1e9);
  bench::print_row("decode, float32, one stream", 1 / token, "tok/s", limits.read / bytes);

  const auto length = double(arguments.prefill);
  const double flops_all = double(count<Arch>().flops_forward) * length, flops = prefill_flops(length);
  std::printf("prefill of %.0f tokens: %.3f s, %.1f GFLOP/s; with all logits %.3f s, %.1f GFLOP/s; of %.1f\n", length,
              prompt, flops / prompt / 1e9, all, flops_all / all / 1e9, fma / 1e9);
  bench::print_row("prefill, float32, last logits", length / prompt, "tok/s", fma / flops * length);
  bench::print_row("prefill, float32, all logits", length / all, "tok/s", fma / flops_all * length);
  run_integers<Int8>(cpu, arguments, fma, limits.read);
  run_integers<Int4>(cpu, arguments, fma, limits.read);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Decode and prefill of the yardstick model, float32 and with integer weights.");
  using programs::range::whole;
  programs::add_number(app, "--prompt", arguments.prompt, "tokens before the first that is timed", whole(1));
  programs::add_number(app, "--tokens", arguments.tokens, "tokens to time", whole(1));
  programs::add_number(app, "--prefill", arguments.prefill, "tokens of the prompt",
                       whole(1, static_cast<double>(Arch::context)));
  programs::add_number(app, "--repeats", arguments.repeats, "of each", whole(1));
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OpenMP offers",
                       whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] { run(arguments); });
}
