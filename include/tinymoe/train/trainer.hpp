#pragma once
/// @file
/// Training: gradient accumulation, clipping, an optimizer and a schedule, evaluation, and checkpoints to resume from.
///
/// A step's memory is planned before the first one; a step allocates nothing. Every random choice is a function of the
/// seed and the step, so that a resumed run of a number of steps gives the same bits as one that was never interrupted.
/// (In a run of minutes the schedule follows the clock.)
///
/// The host is told of a step once, when all of it but the weights' change has been handed to the backend: what a step
/// reports is added up there (tally.hpp). Meanwhile the host can prepare the next batch (StepOptions::meanwhile).
///
/// Passes (passes.hpp) run the model forward and backward, Update (update.hpp) changes the weights, WeightAverage
/// (average.hpp) follows them, TrainingState (checkpoint/training_state.hpp) is what a checkpoint remembers, and Run
/// (fit.hpp) is the loop.

#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/training_checkpoint.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/fit.hpp"
#include "tinymoe/train/passes.hpp"
#include "tinymoe/train/schedule.hpp"
#include "tinymoe/train/update.hpp"

namespace tinymoe::inline v0_1 {

/// What a single step is told besides its tokens.
struct StepOptions {
  double clip = 1;         // greatest norm of the gradients; 0: none
  double fraction = 0;     // of the run's budget that is spent, for the schedule
  Seed seed = {};          // of dropout and noise
  bool recompute = false;  // blocks are computed again in backward
  /// Called once, when the backend has been given all of the step's passes and before the host waits for them; what it
  /// throws gives the step up. It must not use the trainer.
  std::function<void()> meanwhile = {};
};

/// Trains a model. `Trainer trainer(model, AdamW{.lr = 1e-3}, WarmupCosine{});`
template <class ModelType, Optimizer<typename ModelType::BackendType> O = AdamW, Schedule S = Constant>
class Trainer {
 public:
  using Model = ModelType;
  using Architecture = typename ModelType::Architecture;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;

  /// Takes memory for gradients and moments. The model must outlive the trainer. Throws DeviceError without memory.
  explicit Trainer(ModelType& model, O optimizer = {}, S schedule = {})
      : model_(&model),
        schedule_(std::move(schedule)),
        passes_(model),
        update_(model, std::move(optimizer)),
        average_(model) {
    bind_parameters(masters_, model.masters().data);
    state_.optimizer = optimizer_name(update_.optimizer());
    state_.moments = update_.moment_count();
  }

  /// Steps done.
  Index step() const { return state_.step; }
  ModelType& model() const { return *model_; }
  /// The gradients of the step under way; zero between steps.
  View<Master> gradients() const { return update_.gradient_buffer(); }
  /// For each mixture in order, the (token, choice) pairs that each expert got in the last step, or in `evaluate` if
  /// that came after; empty before the first. It is counted anew, in the same memory, by each.
  const std::vector<std::vector<Index>>& loads() const { return passes_.tally().loads(); }
  /// How far the run is; the lowest validation loss of `fit` and its step.
  const TrainingState& state() const { return state_; }

  /// Keeps a moving average of the weights from the next step on, which `evaluate` and `save_weights` then use; a decay
  /// of 0 ends it. With the decay that it has, nothing changes. Throws OptionError for a decay outside [0, 1).
  void average(double decay) {
    if (decay == average_.decay()) return;
    decay == 0 ? average_.stop() : average_.start(decay);
  }

  /// One optimizer step on `inputs` and `targets` (accumulation · B · T tokens; a negative input is a pad, a negative
  /// target is not scored). Throws ShapeError for sizes that do not fit, TextError for a token outside the vocabulary,
  /// and TrainingError if the loss or the gradients' norm is not a finite number; the weights are those before the step
  /// then.
  ///
  /// In float16 a norm that is not finite is no error while the loss scale can be halved: the step is `skipped`,
  /// weights and number of steps stay, and the same tokens may be given again.
  StepReport train_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                        const StepOptions& options = {}) {
    const Index scored = check_tokens(inputs, targets, batch, time);
    const Index size = batch * time, micro_batches = std::ssize(inputs) / size;
    if (scored == 0) fail<TrainingError>("step ", state_.step + 1, ": no target of the batch is scored");
    passes_.plan(batch, time, options.recompute);

    const double loss_scale = needs_loss_scale<Scalar> ? state_.loss_scale.value : 1;
    auto& tally = passes_.tally();
    Pass pass{.batch = batch,
              .time = time,
              .settings = model_->settings(),
              .loss_scale = loss_scale / static_cast<double>(micro_batches),
              .recompute = options.recompute,
              .training = true,
              .seed = options.seed,
              .step = static_cast<std::uint32_t>(state_.step)};
    with_discard([&] {
      tally.clear();
      for (Index i = 0; i < micro_batches; ++i) {
        pass.micro_batch = i;
        const auto part = [&](auto tokens) {
          return tokens.subspan(static_cast<std::size_t>(i * size), static_cast<std::size_t>(size));
        };
        passes_.train(pass, part(inputs), part(targets), loss_scale / static_cast<double>(scored), update_.gradients());
      }
      update_.measure(options.clip, loss_scale, tally.clip());
      if (options.meanwhile) options.meanwhile();
      tally.read();
    });
    tally.count_loads();

    StepReport report;
    report.step = state_.step, report.tokens = state_.tokens;
    report.loss = tally.cross_entropy() / static_cast<double>(scored);
    report.balance_loss = tally.balance() / static_cast<double>(micro_batches);
    report.z_loss = tally.z() / static_cast<double>(micro_batches);
    report.load_variation = EvaluationReport::load_variation_of(tally.loads());
    report.gradient_norm = tally.gradient_norm();
    report.learning_rate = update_.optimizer().lr * schedule_(Progress{state_.step, options.fraction});
    report.loss_scale = loss_scale;
    report.skipped = !expect_finite(report);
    if (report.skipped) return report;
    update_(state_.step, report.learning_rate);
    after_step(pass);
    average_.update();
    if constexpr (needs_loss_scale<Scalar>) state_.loss_scale.succeed();
    report.step = ++state_.step;
    for (const Token token : inputs) state_.tokens += token >= 0 ? 1 : 0;
    report.tokens = state_.tokens;
    return report;
  }

  /// The mean loss over all of `data`, in windows of (batch, time) without overlap; of the weights' average where there
  /// is one. Throws ShapeError, MismatchError and TrainingError for sizes or data that do not fit, and TrainingError
  /// for a loss that is not finite.
  EvaluationReport evaluate(const TokenData& data, Index batch = 16, Index time = 0) {
    if (time == 0) time = Architecture::context;
    check_vocabulary(data);
    const EvaluationWindows windows(data, batch, time);
    passes_.plan(batch, time, passes_.recompute());
    std::vector<Token> inputs(static_cast<std::size_t>(batch * time)), targets(inputs.size());
    EvaluationReport report;
    auto& tally = passes_.tally();
    tally.clear();
    average_.instead([&] {
      for (Index i = 0; i < windows.batches(); ++i) {
        windows.fill(i, inputs, targets);
        passes_.evaluate(inputs, targets);
      }
      tally.read();
    });
    tally.count_loads();
    report.loads = tally.loads();
    const double total = tally.cross_entropy();
    report.tokens = windows.scored_tokens();
    report.loss = total / static_cast<double>(report.tokens);
    if (!std::isfinite(total)) fail<TrainingError>("step ", state_.step, ": the validation loss is ", report.loss);
    if (data.text_bytes() > 0)
      report.bits_per_byte = total / 0.6931471805599453 / static_cast<double>(data.text_bytes());
    return report;
  }

  /// Trains until the budget is spent or `stop` says so, and returns the last step's report. With a validation set it
  /// ends in an evaluation, and with a checkpoint folder in a checkpoint. Throws what train_step, the data and the
  /// checkpoint throw, with the last good checkpoint named; a checkpoint on disk is whole in any case.
  StepReport fit(const TokenData& data, const FitOptions& options) {
    return detail::Run<Trainer>(*this, data, options)();
  }

  /// Writes model, tokenizer and training state; the old folder stays until the new one is whole. Throws FileError.
  void save(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    state_.average = average_.decay(), state_.averages = average_.count();
    save_training(path, *model_, tokenizer, state_, buffers());
    saved_ = path, saved_step_ = state_.step;
  }

  /// Writes model and tokenizer alone, for use: the average of the weights where there is one. Throws FileError.
  void save_weights(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    average_.instead([&] { save_model(path, *model_, tokenizer); });
  }

  /// Goes on from a checkpoint that `save` or `fit` wrote, the latest or the best. Throws FileError, for a folder of
  /// weights alone too, and MismatchError for another architecture or optimizer; the trainer and its model are
  /// unchanged then.
  void resume(const std::filesystem::path& path) {
    const TrainingCheckpoint<Architecture, typename ModelType::BackendType> checkpoint(path, state_.optimizer,
                                                                                       state_.moments);
    checkpoint.load(*model_);
    state_ = checkpoint.state();
    state_.average > 0 ? average_.resume(state_.average, state_.averages) : average_.stop();
    checkpoint.load(model_->backend(), buffers());
    saved_ = path, saved_step_ = state_.step;
  }

  /// Bytes of gradients, optimizer state and average; the activations that are planned now.
  std::size_t state_bytes() const { return update_.bytes() + average_.bytes(); }
  std::size_t activation_bytes() const { return passes_.bytes(); }

 private:
  friend class detail::Run<Trainer>;

  /// Throws unless sizes and tokens fit; returns the number of scored targets.
  static Index check_tokens(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time) {
    if (batch < 1 || time < 1 || inputs.empty() || inputs.size() != targets.size() ||
        std::ssize(inputs) % (batch * time) != 0) {
      fail<ShapeError>("expected inputs and targets of a multiple of ", batch, " x ", time, " tokens, found ",
                       inputs.size(), " and ", targets.size());
    }
    Passes<ModelType>::check_time(time);
    Index scored = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      for (const Token token : {inputs[i], targets[i]}) {
        if (token < Architecture::vocab) continue;
        fail<TextError>("token ", token, " is outside the vocabulary of ", Architecture::vocab);
      }
      if (inputs[i] >= 0 && i % static_cast<std::size_t>(time) > 0 && inputs[i - 1] < 0) {
        fail<TextError>("a token follows a pad at ", i, " of the batch; pads must be at a sequence's end");
      }
      if (inputs[i] < 0 && targets[i] >= 0) {
        fail<TextError>("a pad at ", i, " of the batch has the target ", targets[i], "; expected -1");
      }
      scored += targets[i] >= 0 ? 1 : 0;
    }
    return scored;
  }
  static void check_vocabulary(const TokenData& data) {
    if (data.vocabulary_size() > Architecture::vocab) {
      fail<MismatchError>("the data's tokenizer has ", data.vocabulary_size(),
                          " tokens, more than the model's vocabulary of ", Architecture::vocab);
    }
  }

  /// Whether a step can be taken. If its loss or its gradients' norm is not a finite number they are given up; that is
  /// an error, unless a smaller loss scale may help.
  bool expect_finite(const StepReport& report) {
    const bool good_loss = std::isfinite(report.loss + report.balance_loss + report.z_loss);
    if (good_loss && std::isfinite(report.gradient_norm)) return true;
    update_.discard();
    if (!good_loss) {
      fail<TrainingError>("step ", state_.step + 1, ": the loss is ", report.loss, "; a lower learning rate may help");
    }
    if constexpr (needs_loss_scale<Scalar>) {
      state_.loss_scale.shrink(state_.step + 1);
      return false;
    } else {
      fail<TrainingError>("step ", state_.step + 1, ": the gradients' norm is ", report.gradient_norm,
                          "; a lower learning rate may help");
    }
  }

  /// f(); if it throws, the gradients of the step are given up.
  template <class F>
  auto with_discard(F&& f) {
    try {
      return f();
    } catch (...) {
      update_.discard();
      throw;
    }
  }

  /// What a full checkpoint holds besides the weights.
  TrainingBuffers<Master> buffers() const { return {update_.moments(), average_.buffer()}; }

  /// Lets the architecture move what no gradient does: a router's balancing bias.
  void after_step(const Pass& pass) {
    if constexpr (requires {
                    Architecture::after_step(model_->backend(), pass, model_->weights(), masters_, passes_.saved());
                  }) {
      Architecture::after_step(model_->backend(), pass, model_->weights(), masters_, passes_.saved());
    }
  }

  ModelType* model_;
  S schedule_;
  Passes<ModelType> passes_;
  Update<ModelType, O> update_;
  WeightAverage<ModelType> average_;
  typename Architecture::template Parameters<Master> masters_;  // the model's, by name
  TrainingState state_;
  std::filesystem::path saved_;  // the last full checkpoint, written or resumed from
  Index saved_step_ = -1;
};

}  // namespace tinymoe::inline v0_1
