// The quality of a model after some minutes of training from scratch: bits per byte on an unseen text.
//
// The clock runs while the model trains: learning the tokenizer, encoding and evaluation are outside it.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/text/text.hpp"
#include "tinymoe/train/trainer.hpp"

namespace {

using namespace tinymoe;
using Arch = presets::StoryMixtral;

struct Arguments {
  std::filesystem::path training, validation;
  double minutes = 5, every = 60, rate = 5e-3, floor = 0.02, decay = 0.1, beta2 = 0.95, clip = 1;
  Index batch = 4, time = 0, warmup = 60;
  std::uint64_t seed = 1337;
  int threads = 0;
};

/// Evaluates every so many seconds of training, which `fit` itself does by steps only. The training clock stands still
/// during the evaluation.
template <class TrainerType>
class EverySeconds : public Observer {
 public:
  EverySeconds(TrainerType& trainer, const TokenData& validation, const Arguments& arguments)
      : trainer_(trainer), validation_(validation), arguments_(arguments), next_(arguments.every) {}

  double bits_per_byte = 0;  // of the last evaluation

  void on_step(const StepReport& at, const ExpertLoads& /*loads*/) override {
    if (arguments_.every <= 0 || at.seconds < next_ || at.fraction >= 1) return;
    next_ += arguments_.every;
    on_evaluation(at, trainer_.evaluate(validation_, arguments_.batch, arguments_.time));
  }

  void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    bits_per_byte = evaluation.bits_per_byte;
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    std::printf(
        "%6.1f s  step %5td  %9td tokens  %6.0f tok/s  %.4f bits per byte  loss %.4f  load +-%.0f %%  "
        "(wall %.1f s)\n",
        at.seconds, at.step, at.tokens, double(at.tokens) / at.seconds, evaluation.bits_per_byte, evaluation.loss,
        100 * evaluation.load_variation(), wall);
    std::fflush(stdout);
  }

 private:
  TrainerType& trainer_;
  const TokenData& validation_;
  const Arguments& arguments_;
  double next_;  // seconds
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

void run(const Arguments& arguments) {
  const TextCorpus training_text(arguments.training), validation_text(arguments.validation);
  const auto tokenizer = train_tokenizer(training_text, {.vocabulary = Arch::vocab, .threads = arguments.threads});
  const auto training = TokenData::encode(training_text, tokenizer, arguments.threads);
  const auto validation = TokenData::encode(validation_text, tokenizer, arguments.threads);
  std::printf("%td tokens to train on, %td to validate (%td bytes)\n", training.size(), validation.size(),
              validation.text_bytes());

  Cpu cpu(arguments.threads);
  Model<Arch, Cpu> model(cpu, Seed{arguments.seed});
  Trainer trainer(model, AdamW{.lr = arguments.rate, .beta2 = arguments.beta2, .weight_decay = arguments.decay},
                  WarmupCosine{.warmup = arguments.warmup, .floor = arguments.floor});
  EverySeconds observer(trainer, validation, arguments);
  const FitOptions options{.batch = arguments.batch,
                           .time = arguments.time,
                           .minutes = arguments.minutes,
                           .clip = arguments.clip,
                           .seed = Seed{arguments.seed},
                           .validation = &validation,
                           .observers = {&observer}};
  const StepReport last = trainer.fit(training, options);

  char figure[64];
  std::snprintf(figure, sizeof figure, "bits per byte after %g min of training", arguments.minutes);
  bench::print_time_row(figure, observer.bits_per_byte, "bits", 0, 4);
  bench::print_row("training of the story model", double(last.tokens) / last.seconds, "tok/s", 0, 0);
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Trains the preset story_mixtral from scratch for some minutes; prints bits per byte on a validation text.");
  app.add_option("training", arguments.training, "stories to train on")->required()->check(CLI::ExistingFile);
  app.add_option("validation", arguments.validation, "stories to evaluate on")->required()->check(CLI::ExistingFile);
  using namespace programs::range;
  programs::add_number(app, "--minutes", arguments.minutes, "of training", above_0);
  programs::add_number(app, "--every", arguments.every, "seconds between evaluations; 0: only at the end", from_0);
  programs::add_number(app, "--lr", arguments.rate, "learning rate", above_0);
  programs::add_number(app, "--floor", arguments.floor, "of the cosine, a share of the learning rate", from_0_to_1);
  programs::add_number(app, "--warmup", arguments.warmup, "steps", whole(0));
  programs::add_number(app, "--decay", arguments.decay, "weight decay", from_0);
  programs::add_number(app, "--beta2", arguments.beta2, "of AdamW", from_0_below_1);
  programs::add_number(app, "--clip", arguments.clip, "max norm of the gradients; 0: none", from_0);
  programs::add_number(app, "--batch", arguments.batch, "sequences of a step", whole(1, 1 << 20));
  programs::add_number(app, "--time", arguments.time, "tokens of a sequence; 0: the model's context", whole(0));
  programs::add_number(app, "--seed", arguments.seed, "of weights and data order", whole(0));
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] { run(arguments); });
}
