// Trains a model on stories and saves it with its tokenizer.
//
//   train --data stories.txt --validation more_stories.txt --minutes 5 --out runs/story
//   train --data stories.txt --resume --minutes 10 --out runs/story
//
// Without --data it trains on stories that the library makes up itself.

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "architectures.hpp"

#include <unistd.h>

namespace {

using namespace tinymoe;
using std::filesystem::path;

volatile std::sig_atomic_t interrupted = 0;

struct Arguments {
  std::string preset = "story", schedule = "cosine";
  path data, validation, tokenizer, out = "runs/story", metrics;
  Index embedded = 60000;
  Index batch = 4, time = 0, accumulation = 1, steps = 0, validation_tokens = 500000, evaluate_every = 0,
        checkpoint_every = 0, warmup = 60;
  double minutes = 0, rate = 5e-3, floor = 0.02, clip = 1, decay = 0.1, beta2 = 0.95;
  Settings settings;
  std::uint64_t seed = 1337;
  int threads = 0;
  bool resume = false, overwrite = false;
};

/// The data sets of a run; `hold` keeps what they refer to.
struct Stories {
  Tokenizer tokenizer;
  TokenData training, validation;
};

/// Where token files lie: beside the run's folder, so that a run can be deleted as a whole.
path token_file(const Arguments& arguments, const char* name) {
  path folder = arguments.out;
  folder += "-data";
  std::filesystem::create_directories(folder);
  return folder / name;
}

template <StorySource Source>
Tokenizer tokenizer_for(const Arguments& arguments, const Source& source, Index vocabulary) {
  if (arguments.resume) return Tokenizer::load(resolve_folder(arguments.out) / "tokenizer.json");
  if (!arguments.tokenizer.empty()) return Tokenizer::load(arguments.tokenizer);
  std::printf("learning a tokenizer of %td tokens\n", vocabulary);
  std::fflush(stdout);
  return train_tokenizer(source, {.vocabulary = vocabulary, .threads = arguments.threads});
}

/// What is said of a file's text, with the file's name.
template <class F>
auto about(const path& text, F&& f) {
  try {
    return f();
  } catch (const TextError& error) {
    fail<FileError>(text.string(), ": ", error.what());
  }
}

/// Texts from files; without a validation text, the last stories of the training text are held out.
Stories from_files(const Arguments& arguments, Index vocabulary) {
  auto tokenizer =
      about(arguments.data, [&] { return tokenizer_for(arguments, TextCorpus(arguments.data), vocabulary); });
  std::printf("reading %s\n", arguments.data.c_str());
  std::fflush(stdout);
  auto training =
      TokenData::open_or_encode(arguments.data, tokenizer, token_file(arguments, "training.tokens"), arguments.threads);
  if (arguments.validation.empty()) {
    auto split = hold_out(training, tokenizer);
    return {std::move(tokenizer), std::move(split.training), std::move(split.validation)};
  }
  auto validation = TokenData::open_or_encode(arguments.validation, tokenizer,
                                              token_file(arguments, "validation.tokens"), arguments.threads);
  return {tokenizer, std::move(training), first_stories(validation, tokenizer, arguments.validation_tokens)};
}

/// The library's own stories; those for validation are other ones.
Stories embedded(const Arguments& arguments, Index vocabulary) {
  std::printf("no stories were named: training on %td that tinymoe makes up itself\n", arguments.embedded);
  const auto count = static_cast<std::uint64_t>(arguments.embedded), held_out = std::max<std::uint64_t>(1, count / 100);
  const EmbeddedStories training{.count = count}, validation{.count = held_out, .first = count};
  auto tokenizer = tokenizer_for(arguments, training, vocabulary);
  auto tokens = TokenData::encode(training, tokenizer, arguments.threads);
  auto held_out_tokens = TokenData::encode(validation, tokenizer, arguments.threads);
  return {std::move(tokenizer), std::move(tokens), std::move(held_out_tokens)};
}

/// 75 as "1:15".
std::string clock_time(double seconds) {
  char text[32];
  const auto whole = static_cast<long>(seconds + 0.5);
  std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

/// One line that is written over on a terminal, and now and then a new one elsewhere.
class ProgressLine {
 public:
  void show(const StepReport& at) {
    smooth_ = smooth_ == 0 ? at.loss : 0.95 * smooth_ + 0.05 * at.loss;
    speed_ = speed_ == 0 ? at.tokens_per_second : 0.95 * speed_ + 0.05 * at.tokens_per_second;
    if (at.fraction < 1 && at.seconds < next_) return;
    next_ = at.seconds + (terminal_ ? 0.2 : 10);
    const double left = at.fraction > 0 && at.fraction < 1 ? at.seconds / at.fraction - at.seconds : 0;
    std::printf("%sstep %td  loss %.3f  %.0f tokens/s  expert load +-%.0f %%  %s left%s", terminal_ ? "\r" : "",
                at.step, smooth_, speed_, 100 * at.load_variation, clock_time(left).c_str(),
                terminal_ ? "\033[K" : "\n");
    std::fflush(stdout);
    open_ = terminal_;
  }
  /// Ends the line, so that others can follow.
  void end() {
    if (open_) std::printf("\n");
    open_ = false;
  }

 private:
  bool terminal_ = isatty(STDOUT_FILENO) == 1, open_ = false;
  double smooth_ = 0, speed_ = 0, next_ = 0;
};

template <class Arch, Schedule S>
void run(const Arguments& arguments, const S& schedule) {
  Cpu device(arguments.threads);
  std::printf("preset %s on %d threads\n", arguments.preset.c_str(), device.threads());
  print_count<Arch>(std::cout);
  std::cout.flush();
  if (!arguments.resume && !arguments.overwrite && std::filesystem::exists(arguments.out / "trainer.json")) {
    fail<FileError>(
        arguments.out.string(),
        ": holds a checkpoint; give --resume to go on from it, --overwrite to replace it, or another --out");
  }
  const Stories stories =
      arguments.data.empty() ? embedded(arguments, Arch::vocab) : from_files(arguments, Arch::vocab);
  std::printf("%td tokens to train on, %td to validate; %.2f bytes a token\n", stories.training.size(),
              stories.validation.size(), double(stories.validation.text_bytes()) / double(stories.validation.size()));

  Model<Arch, Cpu> model(device, Seed{arguments.seed}, arguments.settings);
  Trainer trainer(model, AdamW{.lr = arguments.rate, .beta2 = arguments.beta2, .weight_decay = arguments.decay},
                  schedule);
  if (arguments.resume) {
    trainer.resume(arguments.out);
    std::printf("going on from %s, step %td\n", arguments.out.c_str(), trainer.step());
  }

  ProgressLine progress;
  FitOptions options{.batch = arguments.batch,
                     .time = arguments.time,
                     .accumulation = arguments.accumulation,
                     .steps = arguments.steps,
                     .minutes = arguments.minutes,
                     .clip = arguments.clip,
                     .seed = Seed{arguments.seed},
                     .evaluate_every = arguments.evaluate_every,
                     .validation = &stories.validation,
                     .checkpoint_every = arguments.checkpoint_every,
                     .checkpoint = arguments.out,
                     .tokenizer = &stories.tokenizer,
                     .metrics = arguments.metrics};
  if (options.metrics.empty()) {
    options.metrics = arguments.out;
    options.metrics += ".csv";
  }
  options.on_step = [&](const StepReport& at) { progress.show(at); };
  options.on_evaluation = [&](const StepReport& at, const EvaluationReport& evaluation) {
    progress.end();
    std::printf("validation after step %td: loss %.4f, %.4f bits per byte, expert load +-%.0f %%\n", at.step,
                evaluation.loss, evaluation.bits_per_byte, 100 * evaluation.load_variation());
    std::fflush(stdout);
  };
  options.stop = [] { return interrupted != 0; };
  // The first signal ends the run with a checkpoint, a second one at once.
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const StepReport last = trainer.fit(stories.training, options);
  progress.end();
  if (interrupted != 0) std::printf("interrupted; --resume goes on from step %td\n", last.step);
  std::printf("trained on %td tokens in %s; checkpoint: %s, metrics: %s\n", last.tokens,
              clock_time(last.seconds).c_str(), arguments.out.c_str(), options.metrics.c_str());
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Trains a Mixture-of-Experts language model on stories.");
  app.add_option("--preset", a.preset, "architecture: " + examples::names())->capture_default_str();
  app.add_option("--data", a.data, "text to train on, stories separated by <|endoftext|>; default: stories made up");
  app.add_option("--validation", a.validation, "text to validate on; default: the last of --data");
  app.add_option("--validation-tokens", a.validation_tokens, "of --validation that are used, up to a story's end")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--embedded", a.embedded, "number of stories made up without --data")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000000));
  app.add_option("--tokenizer", a.tokenizer, "tokenizer.json to use; default: one is learnt from the data");
  app.add_option("--out", a.out, "folder of the checkpoint")->capture_default_str();
  app.add_option("--metrics", a.metrics, "CSV of the run; default: OUT.csv");
  app.add_option("--batch", a.batch, "sequences of a micro-batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--sequence", a.time, "tokens of a sequence; default: the model's context")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--accumulation", a.accumulation, "micro-batches of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--steps", a.steps, "steps to train in all")->check(CLI::NonNegativeNumber);
  app.add_option("--minutes", a.minutes, "minutes to train in all; default: 5, if no --steps are given")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--learning-rate", a.rate, "greatest learning rate")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--schedule", a.schedule, "learning rate over time")
      ->capture_default_str()
      ->check(CLI::IsMember({"cosine", "constant"}));
  app.add_option("--warmup", a.warmup, "steps until the greatest rate")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--floor", a.floor, "last learning rate of the cosine, as a share of the greatest")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--weight-decay", a.decay, "of matrices")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--beta2", a.beta2, "AdamW's second beta")->capture_default_str()->check(CLI::Range(0.0, 0.999999));
  app.add_option("--clip", a.clip, "greatest norm of the gradients; 0: none")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--balance-weight", a.settings.balance_weight, "of the experts' balance loss")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--z-weight", a.settings.z_weight, "of the routers' z-loss")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", a.seed, "of weights and data order")->capture_default_str();
  app.add_option("--threads", a.threads, "default: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--evaluate-every", a.evaluate_every, "steps between evaluations; 0: only at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--checkpoint-every", a.checkpoint_every, "steps between checkpoints; 0: only at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", a.resume, "go on from the checkpoint in OUT");
  app.add_flag("--overwrite", a.overwrite, "replace the checkpoint in OUT")->excludes("--resume");
  CLI11_PARSE(app, count, values);
  if (a.steps == 0 && a.minutes == 0) a.minutes = 5;

  try {
    examples::with_architecture(a.preset, [&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      if (a.schedule == "cosine") {
        run<Arch>(a, WarmupCosine{.warmup = a.warmup, .floor = a.floor});
      } else {
        run<Arch>(a, Constant{.warmup = a.warmup});
      }
    });
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "\ntrain: %s\n", error.what());
    return 1;
  }
}
