// A run that is killed several times at random moments and resumed ends with the bits of an undisturbed run.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/csv_rows.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::kill {

namespace {

void train(const std::filesystem::path& path, const std::filesystem::path& metrics) {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 2});
  const bool saved = std::filesystem::exists(path) && std::filesystem::exists(resolve_folder(path) / "trainer.json");
  if (saved) trainer.resume(path);
  trainer.fit(tiny_data(), {.batch = 2,
                            .time = 16,
                            .steps = 16,
                            .evaluate_every = 5,
                            .validation = &tiny_data(),
                            .checkpoint_every = 1,
                            .checkpoint = path,
                            .tokenizer = &tiny_tokenizer(),
                            .metrics = metrics});
}

/// Memory where the system has such a folder: a busy disk takes seconds for what a checkpoint waits for.
TemporaryFolder fast_folder() {
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before != nullptr ? before : "";
  if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 1);
  const auto restore = [&] { before != nullptr ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR"); };
  struct Restore {
    decltype(restore)& f;
    ~Restore() { f(); }
  } const at_end{restore};
  return TemporaryFolder();
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

TEST_CASE("Kills at random moments do not change the final bits", "[checkpoint]") {
  const TemporaryFolder root = fast_folder();
  static_cast<void>(tiny_data());  // made before the first fork
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  ::waitpid(start(root / "whole", root / "whole.csv"), &status, 0);
  REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  const std::chrono::duration<double, std::micro> whole = std::chrono::steady_clock::now() - begin;

  // Each round is killed a random while after its first new row in the CSV, which is a few steps on average.
  const auto rows = [&] {
    const auto text = read_bytes(root / "killed.csv");
    return std::count(text.begin(), text.end(), '\n');
  };
  std::mt19937 random(1);
  std::uniform_int_distribution<useconds_t> moment(0, static_cast<useconds_t>(whole.count() / 12));
  int kills = 0;
  for (int round = 0;; ++round) {
    const auto before = rows();
    const pid_t child = start(root / "killed", root / "killed.csv");
    REQUIRE(child > 0);
    pid_t ended = 0;
    while (round < 5 && ended == 0 && rows() <= before) {
      ::usleep(200);
      ended = ::waitpid(child, &status, WNOHANG);
    }
    if (round < 5 && ended == 0) {
      ::usleep(moment(random));
      ::kill(child, SIGKILL);
    }
    if (ended == 0) ended = ::waitpid(child, &status, 0);
    REQUIRE(ended == child);
    if (!WIFSIGNALED(status)) break;
    ++kills;
  }
  REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  CHECK(kills >= 1);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    CHECK(read_bytes(root / "killed" / file) == read_bytes(root / "whole" / file));
  }
  // Nothing of the killed runs is left beside it, and the CSV has the same rows.
  CHECK(entries_in(root.path()) == 4);
  CHECK(rows() == 1 + 16 + 4);
  CHECK(rows_without_times(root / "killed.csv") == rows_without_times(root / "whole.csv"));
}

}  // namespace tinymoe_test::kill
