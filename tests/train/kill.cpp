// A run that is killed again and again, at any moment, ends in the bits of one that was left alone.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

using namespace tinymoe_test;

namespace {

void train(const std::filesystem::path& path, const std::filesystem::path& metrics) {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 2});
  if (std::filesystem::exists(path) || std::filesystem::exists(path.string() + ".old")) trainer.resume(path);
  trainer.fit(tiny_data(), {.batch = 2,
                            .time = 16,
                            .steps = 16,
                            .checkpoint_every = 1,
                            .checkpoint = path,
                            .tokenizer = &tiny_tokenizer(),
                            .metrics = metrics});
}

/// Starts `train` in a process of its own, which makes its backend itself: no thread is carried over.
pid_t start(const std::filesystem::path& path, const std::filesystem::path& metrics) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    train(path, metrics);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

}  // namespace

TEST_CASE("Kills at random moments change nothing of the end", "[checkpoint]") {
  const TemporaryFolder root;
  static_cast<void>(tiny_data());  // made before the first fork
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  ::waitpid(start(root / "whole", root / "whole.csv"), &status, 0);
  REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  const std::chrono::duration<double, std::micro> whole = std::chrono::steady_clock::now() - begin;

  std::mt19937 random(1);
  std::uniform_int_distribution<useconds_t> moment(0, static_cast<useconds_t>(whole.count() / 2));
  int kills = 0, rounds = 0;
  for (bool finished = false; !finished; ++rounds) {
    const pid_t child = start(root / "killed", root / "killed.csv");
    REQUIRE(child > 0);
    if (rounds < 8) {
      ::usleep(moment(random));
      ::kill(child, SIGKILL);
    }
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
      ++kills;
    } else {
      REQUIRE(WEXITSTATUS(status) == 0);
      finished = true;
    }
  }
  CHECK(kills >= 2);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    CHECK(read_bytes(root / "killed" / file) == read_bytes(root / "whole" / file));
  }
  // Nothing of the killed runs is left beside it, and each step has its row once.
  CHECK(entries_in(root.path()) == 4);
  const auto rows = read_bytes(root / "killed.csv");
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 17);
}
