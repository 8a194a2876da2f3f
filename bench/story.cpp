// Training steps of the story preset at its recipe's batch, in float32 and bfloat16. It is built twice: with the flags
// of the other benchmarks, and with -O3 alone, as who compiles a program may not think of -march=native.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets/story.hpp"
#include "tinymoe/train/trainer.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::Story;

struct Arguments {
  double seconds = 4;
  int threads = 0;
};

constexpr Index batch = 4, time = Arch::context;

template <class B>
void train(const Arguments& arguments) {
  B cpu(arguments.threads);
  Model<Arch, B> model(cpu, Seed{1});
  Trainer trainer(model, AdamW{.lr = 5e-3});
  constexpr Index tokens = batch * Arch::context;
  const auto text = programs::random_tokens(16 * tokens + 1, Arch::vocab, 1);
  std::size_t turn = 0;
  const auto step = [&] {
    const auto at = std::span(text).subspan(turn++ % 16 * static_cast<std::size_t>(tokens));
    const auto size = static_cast<std::size_t>(tokens);
    return programs::seconds_of([&] { trainer.train_step(at.first(size), at.subspan(1, size), batch, Arch::context); });
  };
  bench::ProductLimits limits;
  limits.measure(cpu.threads());
  for (int i = 0; i < 5; ++i) step();
  std::vector<double> seconds;
  for (double left = arguments.seconds; left > 0; left -= seconds.back()) seconds.push_back(step());
  limits.measure(cpu.threads());
  constexpr auto cost = count<Arch>();
  const double median = programs::median(seconds), limit = limits.of<typename B::Scalar>();
  std::printf("%s on %s, compiled for %s: %zu steps, median %.2f ms, %.1f GFLOP/s of %.1f\n", bench::type_name<B>(),
              cpu.name(), detail::cpu::name_of(detail::cpu::compiled_for), seconds.size(), 1e3 * median,
              double(cost.flops_trained) * double(tokens) / median / 1e9, limit / 1e9);
  bench::print_row(std::string("train story, ") + bench::type_name<B>(), double(tokens) / median, "tok/s",
                   limit / double(cost.flops_trained), 0);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Training steps of the story preset, 4 x 256 random tokens each.");
  programs::add_number(app, "--seconds", arguments.seconds, "of steps to time", programs::range::above_0);
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       programs::range::whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] {
    train<Cpu>(arguments);
    train<CpuBfloat16>(arguments);
  });
}
