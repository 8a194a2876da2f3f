// Training of `presets::StoryMixtral` beside busy processes: tokens a second in turns, alone, beside one and beside two.

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/train/trainer.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::StoryMixtral;

struct Arguments {
  Index batch = 4, time = 256;
  int rounds = 5, seconds = 2, threads = 0;
};

/// Processes that do nothing and keep a core busy with it, as long as this lives; they end with this process, however
/// it ends.
class BusyProcesses {
 public:
  explicit BusyProcesses(int count) {
    for (int i = 0; i < count; ++i) {
      const ::pid_t process = ::fork();
      if (process == 0) spin();
      if (process < 0) fail<DeviceError>("no busy process can be started");
      processes_.push_back(process);
    }
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;
  ~BusyProcesses() {
    for (const ::pid_t process : processes_) {
      ::kill(process, SIGKILL);
      ::waitpid(process, nullptr, 0);
    }
  }

 private:
  [[noreturn]] static void spin() {
#ifdef __linux__
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    for (volatile unsigned turns = 0;;) {
      turns = turns + 1;
      if (turns % 1048576 == 0 && ::getppid() == 1) ::_exit(0);
    }
  }

  std::vector<::pid_t> processes_;
};

void run(const Arguments& arguments) {
  Cpu cpu(arguments.threads);
  Model<Arch, Cpu> model(cpu, Seed{1});
  Trainer trainer(model, AdamW{.lr = 1e-4});
  const auto text = programs::random_tokens(arguments.batch * arguments.time + 1, Arch::vocab, 1);
  const std::span<const Token> all(text);
  const auto tokens_per_second = [&](double seconds) {
    const auto started = std::chrono::steady_clock::now();
    for (int steps = 1;; ++steps) {
      trainer.train_step(all.first(text.size() - 1), all.subspan(1), arguments.batch, arguments.time);
      const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      if (spent >= seconds) return steps * double(arguments.batch * arguments.time) / spent;
    }
  };
  tokens_per_second(0.5);

  std::array<std::vector<double>, 3> speeds;
  for (int round = 0; round < arguments.rounds; ++round) {
    std::printf("round %d:", round + 1);
    for (int busy = 0; busy < 3; ++busy) {
      const BusyProcesses beside(busy);
      speeds[static_cast<std::size_t>(busy)].push_back(tokens_per_second(arguments.seconds));
      std::printf(" %.0f", speeds[static_cast<std::size_t>(busy)].back());
      std::fflush(stdout);
    }
    std::printf(" tok/s alone, beside one and beside two busy processes; %d threads\n", cpu.threads());
  }
  const double alone = programs::median(speeds[0]);
  bench::print_row("train story_mixtral, float32, alone", alone, "tok/s", 0, 0);
  bench::print_row("train story_mixtral, float32, beside one busy process", programs::median(speeds[1]), "tok/s", alone, 0);
  bench::print_row("train story_mixtral, float32, beside two busy processes", programs::median(speeds[2]), "tok/s", alone, 0);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Training of the story model beside busy processes.");
  using programs::range::whole;
  programs::add_number(app, "--batch", arguments.batch, "sequences of a step", whole(1, 1 << 20));
  programs::add_number(app, "--time", arguments.time, "tokens of a sequence", whole(1, double(Arch::context)));
  programs::add_number(app, "--rounds", arguments.rounds, "turns of each kind", whole(1));
  programs::add_number(app, "--seconds", arguments.seconds, "of a turn", whole(1));
  programs::add_number(app, "--threads", arguments.threads, "0: OMP_NUM_THREADS, or the cores",
                       whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] { run(arguments); });
}
