#pragma once
/// @file
/// Training: gradient accumulation, clipping, an optimizer and a schedule, evaluation, and checkpoints to resume from.
///
/// A step's memory is planned before the first one; a step allocates nothing. Every random choice is a function of the
/// seed and the step, so that a resumed run of a number of steps gives the same bits as one that was never interrupted.
/// (In a run of minutes the schedule follows the clock.)
///
/// A step has two halves. `begin_step` hands all of it but the weights' change to the backend; `finish_step` reads
/// back, once, what the step reports (it is added up there: tally.hpp), and changes the weights. Between them the host
/// can prepare the next batch.
///
/// The header is longer than 300 lines because it is one class, the whole of what a program or a loop of its own asks
/// for. Passes (passes.hpp) run the model forward and backward, a Communicator (communicator.hpp) sums over the
/// processes, Update (update.hpp) changes the weights, WeightAverage (average.hpp) follows them, TrainingState
/// (checkpoint/training_state.hpp) is what a checkpoint remembers, and Run (fit.hpp) is the loop.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/training_checkpoint.hpp"
#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/loss_scale.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/text/data_order.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/fit.hpp"
#include "tinymoe/train/fit_options.hpp"
#include "tinymoe/train/optimizer.hpp"
#include "tinymoe/train/passes.hpp"
#include "tinymoe/train/reports.hpp"
#include "tinymoe/train/schedule.hpp"
#include "tinymoe/train/step_batch.hpp"
#include "tinymoe/train/token_slots.hpp"
#include "tinymoe/train/update.hpp"

namespace tinymoe::inline v0_1 {

/// What a single step is told besides its tokens.
struct StepOptions {
  double clip = 1;         // max norm of the gradients; 0: none
  double fraction = 0;     // of the run's budget that is spent, for the schedule
  Seed seed = {};          // of dropout and noise
  bool recompute = false;  // blocks are computed again in backward
};

/// Trains a model. `Trainer trainer(model, AdamW{.lr = 1e-3}, WarmupCosine{});`
///
/// One of several processes that train one model together has a Communicator besides. All of them then make the same
/// calls, each with tokens of its own; reports are of all ranks, and each evaluates its share of the data. Balance
/// losses look at a rank's own micro-batch.
template <class ModelType, Optimizer<typename ModelType::BackendType> O = AdamW, Schedule S = Constant,
          Communicator<typename ModelType::BackendType> C = Alone>
class Trainer {
 public:
  using Model = ModelType;
  using Architecture = typename ModelType::Architecture;
  using BackendType = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;

  /// Takes memory for gradients and moments. The model must outlive the trainer. Throws DeviceError without memory, and
  /// OptionError on several ranks for a router that moves by itself (BalanceBias, ExpertChoice) and for
  /// `balance_over_step`: both would count the tokens of their own rank alone.
  explicit Trainer(ModelType& model, O optimizer = {}, S schedule = {}, C communicator = {})
      : model_(&model),
        schedule_(std::move(schedule)),
        communicator_(std::move(communicator)),
        passes_(model),
        update_(model, std::move(optimizer)),
        average_(model) {
    bind_parameters(masters_, model.masters().data);
    state_.optimizer = optimizer_name(update_.optimizer());
    state_.moments = update_.moment_count();
    check_ranks();
  }

  /// Steps done.
  Index step() const { return state_.step; }
  ModelType& model() const { return *model_; }
  C& communicator() { return communicator_; }
  /// The gradients of the step under way; zero between steps.
  View<Master> gradients() const { return update_.gradient_buffer(); }
  /// The loads of the last step, or of `evaluate` if that came after; empty before the first. They are counted anew, in
  /// the same memory, by each.
  const ExpertLoads& loads() const { return passes_.tally().loads(); }
  /// How far the run is, and what its checkpoints say besides.
  const TrainingState& state() const { return state_; }

  /// What the checkpoints to come say: the data's order, with which alone the run is resumed; the lowest validation
  /// loss so far and its step; what the program that trains wants to find again; so many more seconds of training.
  void set_data_order(const DataOrder& order) { state_.data = order; }
  void set_best(double loss, Index step) { state_.best_loss = loss, state_.best_step = step; }
  void set_recipe(Json recipe) { state_.recipe = std::move(recipe); }
  void add_seconds(double seconds) { state_.seconds += seconds; }

  /// Keeps a moving average of the weights from the next step on, which `evaluate` and `save_weights` then use; a decay
  /// of 0 ends it. With the decay that it has, nothing changes. Throws OptionError for a decay outside [0, 1).
  void average(double decay) {
    if (decay == average_.decay()) return;
    decay == 0 ? average_.stop() : average_.start(decay);
  }

  /// Makes room for steps of micro-batches of (batch, time), which the first one would do. Throws ShapeError for sizes
  /// that do not fit the model, OptionError for settings outside their ranges, DeviceError without memory.
  void plan(Index batch, Index time, bool recompute = false) { passes_.plan(batch, time, recompute); }

  /// One optimizer step on `inputs` and `targets` (accumulation · B · T tokens; a negative input is a pad, a negative
  /// target is not scored). Throws ShapeError for sizes that do not fit, TextError for a token outside the vocabulary,
  /// and TrainingError if the loss or the gradients' norm is not a finite number; the weights are those before the step
  /// then.
  ///
  /// In float16 a norm that is not finite is no error while the loss scale can be halved: the step is `skipped`,
  /// weights and number of steps stay, and the same tokens may be given again.
  StepReport train_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                        const StepOptions& options = {}) {
    begin_step(inputs, targets, batch, time, options);
    return finish_step();
  }

  /// The first half of `train_step`; throws what that does for its tokens. The host does not wait for the backend.
  void begin_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                  const StepOptions& options = {}) {
    detail::check_sizes(inputs, targets, batch, time);
    check_time(time);
    begin_step({inputs, targets, batch, time, state_.step, &own_slots(batch * time)}, options);
  }

  /// The same with tokens that may have been sent ahead. A step that was begun before and not finished is given up.
  void begin_step(const StepBatch<BackendType>& tokens, const StepOptions& options = {}) {
    give_up_step();
    check_ranks();
    detail::check_sizes(tokens.inputs, tokens.targets, tokens.batch, tokens.time);
    const detail::StepTotals totals = sum_over_ranks(detail::count_tokens(tokens, Architecture::vocab));
    if (totals.scored == 0) fail<TrainingError>("step ", state_.step + 1, ": no target of the batch is scored");
    passes_.plan(tokens.batch, tokens.time, options.recompute);

    const double loss_scale = detail::needs_loss_scale<Scalar> ? state_.loss_scale.value : 1;
    Pass pass{.batch = tokens.batch,
              .time = tokens.time,
              .settings = model_->settings(),
              .router_loss_scale = loss_scale / totals.micro_batches,
              .recompute = options.recompute,
              .training = true,
              .seed = options.seed,
              .step = static_cast<std::uint32_t>(state_.step),
              .ranks = communicator_.size()};
    step_ = {.pass = pass, .totals = totals, .loss_scale = loss_scale, .fraction = options.fraction};
    step_under_way_ = true;
    auto& tally = passes_.tally();
    tally.clear();
    try {
      for (Index i = 0; i < tokens.micro_batches(); ++i) {
        step_.pass.micro_batch = i * communicator_.size() + communicator_.rank();
        passes_.train(step_.pass, tokens.micro_batch(i), loss_scale / totals.scored, update_.gradients());
      }
      combine_gradients();
      update_.measure(options.clip, loss_scale, tally.clip());
    } catch (...) {
      give_up_step();
      throw;
    }
  }

  /// The second half of `train_step`: waits for the backend, and takes the step if it can be taken. Throws as that
  /// does, and TrainingError if no step was begun.
  StepReport finish_step() {
    if (!step_under_way_) fail<TrainingError>("a step is finished that was not begun, or was given up");
    auto& tally = passes_.tally();
    tally.read();
    tally.sum_over_ranks(communicator_);
    tally.count_loads();

    StepReport report;
    report.step = state_.step, report.tokens = state_.tokens;
    report.loss = tally.cross_entropy() / step_.totals.scored;
    report.balance_loss = tally.balance() / step_.totals.micro_batches;
    report.z_loss = tally.z() / step_.totals.micro_batches;
    report.load_variation = EvaluationReport::load_variation_of(tally.loads());
    report.gradient_norm = tally.gradient_norm();
    report.learning_rate = update_.optimizer().lr * schedule_(Progress{state_.step, step_.fraction});
    report.loss_scale = step_.loss_scale;
    report.state_bytes = state_bytes(), report.activation_bytes = activation_bytes();
    report.skipped = !expect_finite(report);
    if (report.skipped) return report;
    step_under_way_ = false;
    update_(state_.step, report.learning_rate);
    after_step(step_.pass);
    average_.update();
    if constexpr (detail::needs_loss_scale<Scalar>) state_.loss_scale.succeed();
    report.step = ++state_.step;
    report.tokens = state_.tokens += static_cast<Index>(step_.totals.tokens);
    return report;
  }

  /// Zeroes the gradients of a step that was begun and will not be finished; nothing if there is none.
  void give_up_step() {
    if (!std::exchange(step_under_way_, false)) return;
    update_.discard();
  }

  /// The mean loss over all of `data`, in windows of (batch, time) without overlap; of the weights' average where there
  /// is one. A step under way is given up. Throws ShapeError, MismatchError and TrainingError for sizes or data that do
  /// not fit, and TrainingError for a loss that is not finite.
  EvaluationReport evaluate(const TokenData& data, Index batch = 16, Index time = 0) {
    if (time == 0) time = Architecture::context;
    check_data(data);
    const EvaluationWindows windows(data, batch, time);
    give_up_step();
    passes_.plan(batch, time, passes_.recompute());
    auto& slots = own_slots(batch * time);
    std::vector<Token> inputs(static_cast<std::size_t>(batch * time)), targets(inputs.size());
    EvaluationReport report;
    auto& tally = passes_.tally();
    tally.clear();
    average_.instead([&] {
      for (Index i = communicator_.rank(); i < windows.batches(); i += communicator_.size()) {
        windows.fill(i, inputs, targets);
        passes_.evaluate(slots.take(0, i, inputs, targets));
      }
      tally.read();
    });
    tally.sum_over_ranks(communicator_);
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

  /// The loss of a batch's first micro-batch as the weights are, in nats, summed over its targets; it may be infinite
  /// or NaN. No other rank takes part. A step under way is given up.
  double loss_of(const StepBatch<BackendType>& tokens) {
    give_up_step();
    passes_.plan(tokens.batch, tokens.time, passes_.recompute());
    auto& tally = passes_.tally();
    tally.clear();
    passes_.evaluate(tokens.micro_batch(0));
    tally.read();
    return tally.cross_entropy();
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
    saved_ = {path, state_.step};
  }

  /// Writes model and tokenizer alone, for use: the average of the weights where there is one. Throws FileError.
  void save_weights(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    average_.instead([&] { save_model(path, *model_, tokenizer); });
  }

  /// Goes on from a checkpoint that `save` or `fit` wrote, the latest or the best; a step under way is given up. Throws
  /// FileError, for a folder of weights alone too, and MismatchError for another architecture or optimizer; the trainer
  /// and its model are unchanged then.
  void resume(const std::filesystem::path& path) {
    const TrainingCheckpoint<Architecture, BackendType> checkpoint(path, state_.optimizer, state_.moments);
    give_up_step();
    checkpoint.load(*model_);
    state_ = checkpoint.state();
    state_.average > 0 ? average_.resume(state_.average, state_.averages) : average_.stop();
    checkpoint.load(model_->backend(), buffers());
    saved_ = {path, state_.step};
  }

  /// A full checkpoint, and the step that it is of.
  struct Saved {
    std::filesystem::path path = {};
    Index step = -1;  // -1: there is none yet
  };
  /// The one that was written or resumed from last.
  const Saved& saved() const { return saved_; }

  /// Bytes of gradients, optimizer state and average; the activations that are planned now.
  std::size_t state_bytes() const { return update_.bytes() + average_.bytes(); }
  std::size_t activation_bytes() const { return passes_.bytes(); }

  /// Throws MismatchError for data of a greater vocabulary than the model's, ShapeError for a longer sequence than its
  /// context.
  static void check_data(const TokenData& data) {
    if (data.vocabulary_size() > Architecture::vocab) {
      fail<MismatchError>("the data's tokenizer has ", data.vocabulary_size(),
                          " tokens, more than the model's vocabulary of ", Architecture::vocab);
    }
  }
  static void check_time(Index time) { Passes<ModelType>::check_time(time); }

 private:
  /// What the second half of a step must know of the first.
  struct StepUnderWay {
    Pass pass = {};  // of the last micro-batch
    detail::StepTotals totals = {};
    double loss_scale = 1, fraction = 0;
  };

  /// Throws OptionError for what several ranks cannot train.
  void check_ranks() const {
    if (communicator_.size() == 1) return;
    if (Architecture::has_moving_routers) {
      fail<OptionError>("a router that moves a bias or thresholds after a step cannot be trained by several processes");
    }
    if (model_->settings()[setting::balance_over_step] != 0) {
      fail<OptionError>("the setting balance_over_step must be 0 with several processes: each counts its own tokens");
    }
  }

  detail::StepTotals sum_over_ranks(const detail::StepTotals& own) {
    std::array<double, 3> numbers = {own.scored, own.tokens, own.micro_batches};
    communicator_.sum(std::span<double>(numbers));
    return {.scored = numbers[0], .tokens = numbers[1], .micro_batches = numbers[2]};
  }

  /// Between backward and the optimizer: the gradients of this rank's micro-batches are complete, and nothing of them
  /// has been measured. From here on they are those of all ranks.
  void combine_gradients() { communicator_.sum(model_->backend(), update_.gradient_buffer()); }

  /// Room for the tokens of evaluations and of steps by hand, in which nothing is known: a feed has room of its own.
  TokenSlots<BackendType>& own_slots(Index size) {
    if (!slots_ || slots_->size() != size) slots_.emplace(model_->backend(), size);
    slots_->forget();
    return *slots_;
  }

  /// Whether a step can be taken. If its loss or its gradients' norm is not a finite number they are given up; that is
  /// an error, unless a smaller loss scale may help.
  bool expect_finite(const StepReport& report) {
    const bool good_loss = std::isfinite(report.loss + report.balance_loss + report.z_loss);
    if (good_loss && std::isfinite(report.gradient_norm)) return true;
    give_up_step();
    if (!good_loss) {
      fail<TrainingError>("step ", state_.step + 1, ": the loss is ", report.loss, "; a lower learning rate may help");
    }
    if constexpr (detail::needs_loss_scale<Scalar>) {
      state_.loss_scale.shrink(state_.step + 1);
      return false;
    } else {
      fail<TrainingError>("step ", state_.step + 1, ": the gradients' norm is ", report.gradient_norm,
                          "; a lower learning rate may help");
    }
  }

  /// What a full checkpoint holds besides the weights.
  TrainingBuffers<Master> buffers() const { return {update_.moments(), average_.buffer()}; }

  /// Lets the architecture move what no gradient does: a router's balancing bias.
  void after_step(const Pass& pass) {
    Architecture::after_step(model_->backend(), pass, model_->weights(), masters_, passes_.saved());
  }

  ModelType* model_;
  S schedule_;
  C communicator_;
  Passes<ModelType> passes_;
  Update<ModelType, O> update_;
  WeightAverage<ModelType> average_;
  typename Architecture::template Parameters<Master> masters_;  // the model's, by name
  std::optional<TokenSlots<BackendType>> slots_;
  TrainingState state_;
  StepUnderWay step_;
  bool step_under_way_ = false;  // its gradients are not zero
  Saved saved_;
};

}  // namespace tinymoe::inline v0_1
