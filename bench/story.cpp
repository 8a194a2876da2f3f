// Training steps of the preset story_mixtral at its recipe's batch, in float32 and bfloat16. It is built twice: with the flags
// of the other benchmarks, and with -O3 alone, as who compiles a program may not think of -march=native. With --logs:
// what logging a step costs.

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets/story.hpp"
#include "tinymoe/train/json_lines.hpp"
#include "tinymoe/train/tensorboard.hpp"
#include "tinymoe/train/trainer.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::StoryMixtral;

struct Arguments {
  double seconds = 4;
  int threads = 0;
  bool logs = false;
};

constexpr Index batch = 4, tokens = batch * Arch::context;

/// A model that takes steps of random tokens.
template <class B>
class Training {
 public:
  explicit Training(B& cpu) : model_(cpu, Seed{1}), trainer_(model_, AdamW{.lr = 5e-3}) {
    for (int i = 0; i < 5; ++i) static_cast<void>(step());
  }

  StepReport step() {
    const auto at = std::span(text_).subspan(turn_++ % 16 * static_cast<std::size_t>(tokens));
    const auto size = static_cast<std::size_t>(tokens);
    return trainer_.train_step(at.first(size), at.subspan(1, size), batch, Arch::context);
  }
  ExpertLoads loads() const { return trainer_.loads(); }

 private:
  Model<Arch, B> model_;
  Trainer<Model<Arch, B>> trainer_;
  std::vector<Token> text_ = programs::random_tokens(16 * tokens + 1, Arch::vocab, 1);
  std::size_t turn_ = 0;
};

template <class B>
void train(const Arguments& arguments) {
  B cpu(arguments.threads);
  bench::ProductLimits limits;
  limits.measure(cpu.threads());
  Training<B> training(cpu);
  std::vector<double> seconds;
  for (double left = arguments.seconds; left > 0; left -= seconds.back()) {
    seconds.push_back(programs::seconds_of([&] { static_cast<void>(training.step()); }));
  }
  limits.measure(cpu.threads());
  constexpr auto cost = count<Arch>();
  const double median = programs::median(seconds), limit = limits.of<typename B::Scalar>();
  std::printf("%s on %s, compiled for %s: %zu steps, median %.2f ms, %.1f GFLOP/s of %.1f\n", bench::type_name<B>(),
              cpu.name(), detail::cpu::name_of(detail::cpu::compiled_for), seconds.size(), 1e3 * median,
              double(cost.flops_trained) * double(tokens) / median / 1e9, limit / 1e9);
  bench::print_row(std::string("train story_mixtral, ") + bench::type_name<B>(), double(tokens) / median, "tok/s",
                   limit / double(cost.flops_trained), 0);
}

/// A folder for logs that goes with the object.
class LogFolder {
 public:
  LogFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tinymoe-logs-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) fail<FileError>(pattern, ": cannot be made; set TMPDIR to another folder");
    path_ = pattern;
  }
  LogFolder(const LogFolder&) = delete;
  ~LogFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// What logs cost: steps that are logged as CSV, as JSON lines and for TensorBoard, and steps that are not, in turn.
/// The calls are also timed by themselves, which the noise of the steps does not reach.
void log_steps(const Arguments& arguments) {
  Cpu cpu(arguments.threads);
  Training<Cpu> training(cpu);
  const LogFolder folder;
  MetricsFile metrics(folder / "run.csv", 0);
  JsonLines lines(folder / "run.jsonl", 0);
  TensorBoard events(folder / "events");
  std::vector<double> ratios, shares;
  StepReport report;
  for (double left = arguments.seconds; left > 0;) {
    double logging = 0, logged = 0;
    const auto plain_step = [&] { return programs::seconds_of([&] { report = training.step(); }); };
    const auto logged_step = [&] {
      logged = plain_step();
      report.seconds += logged, report.tokens_per_second = double(tokens) / logged;
      const ExpertLoads loads = training.loads();
      logging = programs::seconds_of([&] {
        for (Observer* log : std::initializer_list<Observer*>{&metrics, &lines, &events}) log->on_step(report, loads);
      });
      logged += logging;
    };
    double plain = 0;
    if (ratios.size() % 2 == 0) {
      plain = plain_step(), logged_step();
    } else {
      logged_step(), plain = plain_step();
    }
    ratios.push_back(logged / plain), shares.push_back(logging / plain);
    left -= plain + logged;
  }
  std::printf("%zu pairs of steps\n", ratios.size());
  bench::print_row("train story_mixtral, float32, logged against not", 100 * programs::median(ratios), "%", 0, 2);
  bench::print_row("the calls of three logs against a step", 100 * programs::median(shares), "%", 0, 3);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Training steps of the preset story_mixtral, 4 x 256 random tokens each.");
  programs::add_number(app, "--seconds", arguments.seconds, "of steps to time", programs::range::above_0);
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       programs::range::whole(0, tinymoe::detail::max_threads));
  app.add_flag("--logs", arguments.logs, "only what logging a step costs");
  return programs::run(app, count, values, [&] {
    if (arguments.logs) return log_steps(arguments);
    train<Cpu>(arguments);
    train<CpuBfloat16>(arguments);
  });
}
