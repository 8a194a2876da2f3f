// Decode and prefill of the yardstick model with each type of weights: one stream, token by token; a prompt at once;
// many streams, by themselves and with all that writing stories takes.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/sample/session.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::Yardstick;

struct Arguments {
  Index prompt = 16, tokens = 64, prefill = 256, most_streams = 64;
  int repeats = 3, threads = 0;
};

/// Bytes of the weights that `tokens` tokens are multiplied with together, if routers spread them evenly: those of
/// every token, and the expected number of experts.
template <class ModelType>
double weight_bytes(Index tokens) {
  using Weights = typename ModelType::Weights;
  static_assert(Arch::tied, "the embedding is counted as the head that it is");
  Weights weights{};
  double bytes = 0;
  detail::for_each_placed<Weights>(
      [&]<class Tensor>(const ParameterInfo& info, Index, const Tensor&) {
        const double unmet = 1 - double(info.active_of(info.size())) / double(info.size());
        bytes += double(Tensor::Format::bytes(info.rows(), info.cols)) * (1 - std::pow(unmet, double(tokens)));
      },
      weights);
  return bytes;
}

constexpr double head_flops = 2.0 * double(Arch::vocab * Arch::width);

/// FLOPs of a prefill with the logits of the last position.
double prefill_flops(double length) { return double(count<Arch>().flops_forward) * length - head_flops * (length - 1); }

/// Seconds of each step of `streams` sequences. The tokens are random: a model that decodes greedily soon repeats
/// itself, and finds the weights of the same experts in the cache.
template <class ModelType>
std::vector<double> decode(const ModelType& model, const Arguments& arguments, Index streams) {
  Session<ModelType> session(model, {.sequences = streams});
  std::vector<Index> all(static_cast<std::size_t>(streams));
  std::iota(all.begin(), all.end(), Index{0});
  const auto tokens = programs::random_tokens((arguments.prompt + arguments.tokens) * streams, Arch::vocab, 7);
  const auto prompt = static_cast<std::size_t>(arguments.prompt);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < (streams == 1 ? arguments.repeats : 1); ++repeat) {
    session.reset();
    for (const Index i : all) session.feed(std::span(tokens).subspan(static_cast<std::size_t>(i) * prompt, prompt), i);
    for (std::size_t at = prompt * all.size(); at < tokens.size(); at += all.size()) {
      const auto next = std::span(tokens).subspan(at, all.size());
      seconds.push_back(programs::seconds_of([&] { session.step(all, next); }));
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

/// Stands in for a tokenizer: a prompt is so many random tokens, and a token is a letter.
struct Letters {
  Index prompt;

  std::vector<Token> encode(std::string_view text) const {
    return programs::random_tokens(prompt, Arch::vocab, text.size());
  }
  std::string_view bytes(Token) const { return "a"; }
  Index vocabulary_size() const { return Arch::vocab; }
  Token end_of_story() const { return 0; }
};

/// Tokens a second of Generator::write for so many stories, with their prompts' reading and the sampling.
template <class ModelType>
double write(const ModelType& model, const Arguments& arguments, Index stories) {
  const Letters letters{arguments.prompt};
  Generator generator(model, letters, {.sequences = stories});
  std::vector<std::string> prompts;
  for (Index i = 0; i < stories; ++i) prompts.emplace_back(static_cast<std::size_t>(i + 1), 'a');
  Index written = 0;
  const double seconds = programs::seconds_of([&] {
    for (const Story& story : generator.write(prompts, {.tokens = arguments.tokens})) written += story.tokens;
  });
  return double(written) / seconds;
}

/// All rows of one type of weights; `peak`: the limit of its products in FLOP/s.
template <class ModelType>
void run_model(const ModelType& model, const Arguments& arguments, const std::string& type, double peak, double read) {
  const auto seconds = decode(model, arguments, 1);
  const double token = programs::median(seconds), bytes = weight_bytes<ModelType>(1);
  std::printf("%s: %.0f MB of weights a token; median %.2f ms, mean %.2f; %.1f GB/s\n", type.c_str(), bytes / 1e6,
              1e3 * token, 1e3 * std::accumulate(seconds.begin(), seconds.end(), 0.0) / double(seconds.size()),
              bytes / token / 1e9);
  bench::print_row("decode, " + type + ", one stream", 1 / token, "tok/s", read / bytes);
  const auto length = double(arguments.prefill);
  bench::print_row("prefill, " + type + ", last logits", length / prefill(model, arguments), "tok/s",
                   peak / prefill_flops(length) * length, 0);
  for (Index streams = 4; streams <= arguments.most_streams; streams *= 4) {
    const double step = programs::median(decode(model, arguments, streams));
    const double limit =
        std::max(weight_bytes<ModelType>(streams) / read, double(streams) * double(count<Arch>().flops_forward) / peak);
    bench::print_row("decode, " + type + ", " + std::to_string(streams) + " streams", double(streams) / step, "tok/s",
                     double(streams) / limit, 0);
  }
  for (Index stories = 1; stories <= arguments.most_streams; stories *= 4) {
    bench::print_row("write " + std::to_string(stories) + (stories == 1 ? " story, " : " stories, ") + type,
                     write(model, arguments, stories), "tok/s", 0, 0);
  }
}

void run(const Arguments& arguments) {
  Cpu cpu(arguments.threads);
  bench::ProductLimits limits;
  limits.measure(cpu.threads());
  const double read = bench::measure_memory(cpu.threads()).read;
  std::printf(
      "yardstick on %s, %d threads; memory reads at %.1f GB/s, products %.1f GFLOP/s in float32, %.1f in bfloat16 "
      "(%s), %.1f of bytes (%s)\n",
      cpu.name(), cpu.threads(), read / 1e9, limits.fma / 1e9, limits.bfloat16 / 1e9, bench::bfloat16_unit(),
      limits.integers / 1e9, bench::integer_unit());
  {
    const Model<Arch, Cpu> model(cpu, Seed{1});
    run_model(model, arguments, "float32", limits.fma, read);
    const auto length = double(arguments.prefill);
    bench::print_row("prefill, float32, all logits", length / prefill_all_logits(model, arguments), "tok/s",
                     limits.fma / double(count<Arch>().flops_forward), 0);
  }
  {
    CpuBfloat16 narrow(arguments.threads);
    run_model(Model<Arch, CpuBfloat16>(narrow, Seed{1}), arguments, "bfloat16", limits.bfloat16, read);
  }
  run_model(Model<Arch, Cpu, Int8>(cpu, Seed{1}), arguments, "int8", limits.integers, read);
  run_model(Model<Arch, Cpu, Int4>(cpu, Seed{1}), arguments, "int4", limits.integers, read);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Decode and prefill of the yardstick model, with each type of weights.");
  using programs::range::whole;
  programs::add_number(app, "--prompt", arguments.prompt, "tokens before the first that is timed", whole(1));
  programs::add_number(app, "--tokens", arguments.tokens, "tokens to time", whole(1));
  programs::add_number(app, "--prefill", arguments.prefill, "tokens of the prompt",
                       whole(1, static_cast<double>(Arch::context)));
  programs::add_number(app, "--streams", arguments.most_streams, "the most sequences at once", whole(1, 1024));
  programs::add_number(app, "--repeats", arguments.repeats, "of each", whole(1));
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] { run(arguments); });
}
