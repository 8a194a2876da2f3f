#pragma once
/// @file
/// Training: gradient accumulation, clipping, an optimizer and a schedule, evaluation, and checkpoints to resume from.
///
/// Memory is planned before the first step; the steps after it allocate nothing (docs/design.md), but for what ranks
/// exchange where they share experts or counts. Every random choice
/// is a function of the seed and the step. A resumed run therefore gives the same bits as an uninterrupted one, if its
/// budget is a number of steps (in a run of minutes the schedule follows the clock).
///
/// A step has two halves. `begin_step` gives forward and backward to the backend. `finish_step` reads the results back
/// once (tally.hpp) and updates the weights. Between the two the host can prepare the next batch.
///
/// Over 300 lines: it is one class, all that a program or a user's own training loop calls.
/// Passes (passes.hpp) run the model forward and backward, a Communicator (communicator.hpp) sums over the processes,
/// Update (update.hpp) changes the weights, WeightAverage (average.hpp) follows them, TrainingState
/// (checkpoint/training_state.hpp) is what a checkpoint stores, and Run (fit.hpp) is the loop.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/training_checkpoint.hpp"
#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/loss_scale.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/text/data_order.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/adamw.hpp"
#include "tinymoe/train/agreement.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/evaluation.hpp"
#include "tinymoe/train/fit.hpp"
#include "tinymoe/train/fit_options.hpp"
#include "tinymoe/train/not_finite.hpp"
#include "tinymoe/train/optimizer.hpp"
#include "tinymoe/train/optimizer_step.hpp"
#include "tinymoe/train/passes.hpp"
#include "tinymoe/train/rank_groups.hpp"
#include "tinymoe/train/reports.hpp"
#include "tinymoe/train/schedule.hpp"
#include "tinymoe/train/step_batch.hpp"
#include "tinymoe/train/token_slots.hpp"
#include "tinymoe/train/update.hpp"

namespace tinymoe::inline v0_1 {

/// The options of a single step.
struct StepOptions {
  double clip = 1;         // max norm of the gradients; 0: none
  double fraction = 0;     // of the run's budget, spent so far, for the schedule
  Seed seed = {};          // of dropout and noise
  bool recompute = false;  // activation checkpointing: backward computes the blocks again

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("StepOptions", {{"clip", clip, from_0}, {"fraction", fraction, from_0}});
  }
};

/// Trains a model. `Trainer trainer(model, AdamW{.lr = 1e-3}, WarmupCosine{});`
///
/// For data parallelism, each process has a trainer with a Communicator. All ranks make the same calls, each with its
/// own tokens; `save` and `save_weights` too, though rank 0 alone writes. Reports cover all ranks. Each rank evaluates
/// its share of the data, and keeps the optimizer's state of its share of the parameters. The gradient of a balance
/// loss is that of each micro-batch, as with one rank.
template <class ModelType, Optimizer<typename ModelType::BackendType> O = AdamW, Schedule S = Constant,
          Communicator<typename ModelType::BackendType> C = Alone>
class Trainer {
  static_assert(ModelType::has_masters,
                "tinymoe::Trainer: the model has rounded weights only, for inference; train one without a third "
                "argument and load what it saved");

 public:
  using Model = ModelType;
  using Architecture = typename ModelType::Architecture;
  using BackendType = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;

  /// Allocates gradients and moments. The model must outlive the trainer. Throws DeviceError without memory, and
  /// OptionError for options that the `check` of the optimizer or of the schedule refuses, and on several ranks for a
  /// router that moves by the tokens of its own rank (ExpertChoice).
  ///
  /// `expert_parallel`: each so many ranks, in order, share the experts of each bank, which a GroupingCommunicator can;
  /// tokens go to their experts and back (layers/expert_exchange.hpp). Throws OptionError for a number that divides not
  /// the ranks, or not the experts, and for `expert_dropout`, whose masks follow the order of an expert's rows.
  explicit Trainer(ModelType& model, O optimizer = {}, S schedule = {}, C communicator = {}, Index expert_parallel = 1)
      : model_(&model),
        schedule_(std::move(schedule)),
        ranks_(std::move(communicator), expert_parallel),
        passes_(model),
        update_(model, std::move(optimizer), ranks_),
        average_(model) {
    detail::check_if_it_can(schedule_);
    bind_parameters(masters_, model.masters().data);
    state_.optimizer = detail::optimizer_name(update_.optimizer());
    state_.moments = update_.moment_count();
    check_ranks();
  }

  /// Steps done.
  Index step() const { return state_.step; }
  /// The model that it trains.
  ModelType& model() const { return *model_; }
  /// The optimizer, with its options.
  const O& optimizer() const { return update_.optimizer(); }
  /// What joins the ranks of the run.
  C& communicator() { return ranks_.all(); }
  /// How many ranks share the experts.
  Index expert_parallel() const { return ranks_.expert_parallel(); }
  /// The gradients of the step under way; zero between steps. Of several ranks: this rank's own until `begin_step` has
  /// returned, then the sums of all in this rank's share.
  View<Master> gradients() const { return update_.gradient_buffer(); }
  /// The loads of the last step or evaluation, whichever was later; empty before the first. Each overwrites them.
  const ExpertLoads& loads() const { return passes_.tally().loads(); }
  /// The progress of the run, and what else its checkpoints store.
  const TrainingState& state() const { return state_; }
  /// Whether the last step or evaluation has thrown on all ranks. They are at the same step then, and can save.
  bool failed_together() const { return failed_together_; }

  /// Sets the order of the data that checkpoints store, which a resumed run must have too.
  void set_data_order(const DataOrder& order) { state_.data = order; }
  /// Sets the lowest validation loss so far that checkpoints store, and its step.
  void set_best(double loss, Index step) { state_.best_loss = loss, state_.best_step = step; }
  /// Sets the step of the last validation that checkpoints store, made now.
  void set_evaluated(Index step) { state_.evaluated_step = step, state_.evaluated_seconds = state_.seconds; }
  /// Sets a value of the calling program that checkpoints store.
  void set_recipe(Json recipe) { state_.recipe = std::move(recipe); }
  /// Adds seconds to the time of training.
  void add_seconds(double seconds) { state_.seconds += seconds; }

  /// Keeps a moving average of the weights from the next step on, which `evaluate` and `save_weights` then use; a decay
  /// of 0 ends it. The same decay as before changes nothing. Throws OptionError for a decay outside [0, 1).
  void average(double decay) {
    if (decay == average_.decay()) return;
    decay == 0 ? average_.stop() : average_.start(decay);
  }

  /// Allocates memory for steps of micro-batches of (batch, time) now, not in the first step. Throws ShapeError for
  /// sizes that do not fit the model, OptionError for settings outside their ranges, DeviceError without memory.
  void plan(Index batch, Index time, bool recompute = false) { passes_.plan(batch, time, recompute); }

  /// One optimizer step on `inputs` and `targets` (accumulation · B · T tokens; a negative input is a pad, a negative
  /// target is not scored). Throws OptionError for options out of range, ShapeError for sizes that do not fit,
  /// TextError for a token outside the vocabulary, and TrainingError if the loss or the gradients' norm is not finite;
  /// then the weights are unchanged.
  ///
  /// In float16 a norm that is not finite is no error while the loss scale can be halved. The step is `skipped` then:
  /// weights and step number stay the same, and the same tokens may be given again.
  StepReport train_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                        const StepOptions& options = {}) {
    begin_step(inputs, targets, batch, time, options);
    step_.tokens = {inputs, targets, batch, time, state_.step, &*slots_};
    return finish_step();
  }

  /// The first half of `train_step`, with the same errors for its tokens. The host does not wait for the backend.
  void begin_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                  const StepOptions& options = {}) {
    detail::check_sizes(inputs, targets, batch, time);
    check_time(time);
    begin_step({inputs, targets, batch, time, state_.step, &own_slots(batch * time)}, options);
    step_.tokens = {};  // they may be gone before the second half
  }

  /// The same with tokens that may have been uploaded already and stay until `finish_step`. A step that was begun and
  /// not finished is given up.
  void begin_step(const detail::StepBatch<BackendType>& tokens, const StepOptions& options = {}) {
    give_up_step();
    failed_together_ = true;  // if one of these throws: the ranks make the same calls
    check_ranks();
    options.check();
    const double rate = learning_rate(options.fraction);
    detail::check_sizes(tokens.inputs, tokens.targets, tokens.batch, tokens.time);
    failed_together_ = false;
    const detail::StepTotals totals = sum_over_ranks(tokens);
    ranks_.form(model_->backend());
    passes_.plan(tokens.batch, tokens.time, options.recompute);
    if constexpr (GroupingCommunicator<C, BackendType>) {
      if (ExpertExchange* exchange = ranks_.exchange()) passes_.share_experts(*exchange);
    }

    const double loss_scale = detail::needs_loss_scale<Scalar> ? state_.loss_scale.value : 1;
    Pass pass{.batch = tokens.batch,
              .time = tokens.time,
              .settings = model_->settings(),
              .recompute = options.recompute,
              .training = true,
              .seed = options.seed,
              .step = static_cast<std::uint32_t>(state_.step),
              .ranks = ranks_.all().size(),
              .exchange = ranks_.exchange(),
              .counts = ranks_.counts()};
    step_ = {.pass = pass, .tokens = tokens, .totals = totals, .loss_scale = loss_scale, .rate = rate};
    step_under_way_ = true;
    const LayerWatch watch{[](void* to, Index layer) {
                             auto& self = *static_cast<Trainer*>(to);
                             self.update_.start_sums(self.ranks_, layer);
                           },
                           this};
    auto& tally = passes_.tally();
    tally.clear();
    try {
      for (Index i = 0; i < tokens.micro_batches(); ++i) {
        const detail::MicroBatch micro_batch = take_micro_batch(i);
        if (i + 1 == tokens.micro_batches() && update_.sums_beside_backward(ranks_)) step_.pass.watch = &watch;
        passes_.train(step_.pass, micro_batch, loss_scale / totals.scored, update_.gradients());
      }
      step_.pass.watch = nullptr;
      update_.measure(ranks_, options.clip, loss_scale, tally.clip());
    } catch (...) {
      give_up_step();
      throw;
    }
  }

  /// The second half of `train_step`: waits for the backend and updates the weights, unless the step is skipped. Throws
  /// as `train_step` does, and TrainingError if no step was begun.
  StepReport finish_step() {
    if (!step_under_way_) fail<TrainingError>("there is no step to finish: it was not begun, or was given up");
    auto& tally = passes_.tally();
    tally.read();
    tally.sum_over_ranks(ranks_.all());
    tally.count_loads();

    StepReport report;
    report.step = state_.step, report.tokens = state_.tokens;
    report.loss = tally.cross_entropy() / step_.totals.scored;
    report.balance_loss = tally.balance(step_.totals.tokens);
    report.z_loss = tally.z(step_.totals.tokens);
    report.load_variation = EvaluationReport::load_variation_of(tally.loads());
    report.gradient_norm = tally.gradient_norm();
    report.learning_rate = step_.rate;
    report.loss_scale = step_.loss_scale;
    report.state_bytes = state_bytes(), report.activation_bytes = activation_bytes();
    report.skipped = !expect_finite(report);
    if (report.skipped) return report;
    step_under_way_ = false;
    update_(ranks_, state_.step, report.learning_rate);
    experts_are_here_ = ranks_.expert_parallel() == 1;
    after_step(step_.pass);
    average_.update();
    if constexpr (detail::needs_loss_scale<Scalar>) state_.loss_scale.succeed();
    report.step = ++state_.step;
    report.tokens = state_.tokens += static_cast<Index>(step_.totals.tokens);
    return report;
  }

  /// Gives each rank all weights, where in expert parallelism a rank has only its own experts as they are after the
  /// last steps. All ranks call it; evaluations, `save` and `save_weights` do, and `fit` before it returns.
  [[gnu::cold]] void gather_experts() {
    if (std::exchange(experts_are_here_, true)) return;
    if constexpr (GroupingCommunicator<C, BackendType>) {
      update_.gather_experts(ranks_, model_->masters());
      if (average_.on()) update_.gather_experts(ranks_, average_.buffer());
      model_->refresh();
    }
  }

  /// Gives up a step that was begun: zeroes its gradients. Does nothing without such a step.
  void give_up_step() {
    if (!std::exchange(step_under_way_, false)) return;
    if constexpr (GroupingCommunicator<C, BackendType>) {
      if (ExpertExchange* exchange = ranks_.exchange()) exchange->give_up();
    }
    update_.discard(ranks_);
  }

  /// The mean loss over all of `data`, in windows of (batch, time) without overlap; of the weights' average where there
  /// is one. A step under way is given up. Throws ShapeError, MismatchError and TrainingError for sizes or data that do
  /// not fit, and TrainingError for a loss that is not finite.
  EvaluationReport evaluate(const TokenData& data, Index batch = 16, Index time = 0,
                            const EvaluationProgress& on_progress = {}) {
    if (time == 0) time = Architecture::context;
    detail::check_vocabulary<Architecture>(data);
    const EvaluationWindows windows(data, batch, time);
    give_up_step();
    gather_experts();
    failed_together_ = false;
    passes_.plan(batch, time, passes_.recompute());
    auto& slots = own_slots(batch * time);
    EvaluationReport report;
    std::string fault;
    average_.instead([&] {
      report = detail::evaluate(passes_, slots, windows, data, ranks_.all(), on_progress);
      if (!std::isfinite(report.loss)) fault = detail::fault_of_evaluation(passes_, slots, windows, ranks_.all());
    });
    failed_together_ = !std::isfinite(report.loss);
    if (failed_together_) fail<TrainingError>("step ", state_.step, ": the validation loss is ", report.loss, fault);
    return report;
  }

  /// The loss of a batch's first micro-batch with the current weights, in nats, summed over its targets; it may be
  /// infinite or NaN. It is local to this rank. A step under way is given up.
  double loss_of(const detail::StepBatch<BackendType>& tokens) {
    give_up_step();
    passes_.plan(tokens.batch, tokens.time, passes_.recompute());
    auto& tally = passes_.tally();
    tally.clear();
    passes_.evaluate(tokens.micro_batch(0));
    tally.read();
    return tally.cross_entropy();
  }

  /// Where the numbers of that pass stop being finite: ", first in the attention of model.layers.2". Empty if they are.
  [[gnu::cold]] std::string fault_of(const detail::StepBatch<BackendType>& tokens) {
    give_up_step();
    passes_.plan(tokens.batch, tokens.time, passes_.recompute());
    Pass pass = passes_.evaluation();
    const std::string place = passes_.look(pass, tokens.micro_batch(0));
    return place.empty() ? place : ", first in " + place;
  }

  /// Trains until the budget is spent or `stop` returns true, and returns the last step's report. With a validation set
  /// the run ends with an evaluation, with a checkpoint folder it ends with a checkpoint. Throws what train_step, the
  /// data and the checkpoint throw, also before the first step, and MismatchError if training data, validation data and
  /// tokenizer have different vocabularies; the message names the last good checkpoint. A checkpoint on disk is always
  /// complete.
  StepReport fit(const TokenData& data, const FitOptions& options) {
    return detail::Run<Trainer>(*this, data, options)();
  }

  /// Writes model, tokenizer and training state, and replaces an old checkpoint atomically. All ranks call it: rank 0
  /// writes, and the others send their share of the optimizer's state. Throws FileError on rank 0, for which the others
  /// then wait until they are ended.
  void save(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    state_.average = average_.decay(), state_.averages = average_.count();
    gather_experts();
    const auto read_moment = [this](std::size_t i, Index place, std::span<Master> values) {
      update_.read_moment(ranks_.all(), i, place, values);
    };
    if (ranks_.all().rank() == 0) {
      detail::save_training(path, *model_, tokenizer, state_, average_.buffer(), read_moment);
    } else {
      detail::read_moments<Architecture, Master>(state_.moments, read_moment);
    }
    saved_ = {path, state_.step};
  }

  /// Writes model and tokenizer only, for inference; of the average if there is one. Of several ranks rank 0 writes.
  /// Throws FileError.
  void save_weights(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    gather_experts();
    if (ranks_.all().rank() != 0) return;
    average_.instead([&] { save_model(path, *model_, tokenizer); });
  }

  /// Continues from a checkpoint of `save` or `fit`, the latest or the best. A step under way is given up. Throws
  /// FileError, also for a folder without training state, and MismatchError for another architecture or optimizer; then
  /// the trainer and its model are unchanged. Each rank reads the folder itself; how many ranks there were is no
  /// matter.
  void resume(const std::filesystem::path& path) {
    const detail::TrainingCheckpoint<Architecture, BackendType> checkpoint(path, state_.optimizer, state_.moments);
    give_up_step();
    checkpoint.load(*model_);
    state_ = checkpoint.state();
    state_.average > 0 ? average_.resume(state_.average, state_.averages) : average_.stop();
    checkpoint.load(model_->backend(), average_.buffer(), update_.moments(),
                    [&](auto&& f) { update_.for_each_run(f); });
    saved_ = {path, state_.step};
  }

  /// A full checkpoint and its step.
  struct Saved {
    std::filesystem::path path = {};
    Index step = -1;  // -1: there is none yet
  };
  /// The checkpoint that was written or loaded last.
  const Saved& saved() const { return saved_; }

  /// Bytes of gradients, optimizer state and average on this rank.
  std::size_t state_bytes() const { return update_.bytes() + average_.bytes(); }
  /// Bytes of the block of the activations, which keeps the size of the largest shape so far.
  std::size_t activation_bytes() const { return passes_.bytes(); }

  /// Throws MismatchError for a tokenizer with more tokens than the model, which no program could load beside it.
  static void check_tokenizer(const Tokenizer& tokenizer) {
    if (tokenizer.vocabulary_size() > Architecture::vocab) {
      fail<MismatchError>("the tokenizer has ", tokenizer.vocabulary_size(),
                          " tokens, more than the model's vocabulary of ", Architecture::vocab);
    }
  }
  /// Whether the ranks make calls of their communicator in each micro-batch, so that all must have as many.
  bool passes_together() const {
    return ranks_.expert_parallel() > 1 ||
           (ranks_.all().size() > 1 && model_->settings()[setting::balance_over_step] != 0);
  }
  /// Throws ShapeError for sequences that are longer than the context.
  static void check_time(Index time) { detail::Passes<ModelType>::check_time(time); }

 private:
  /// What the second half of a step needs from the first.
  struct StepUnderWay {
    Pass pass = {};                              // of the last micro-batch
    detail::StepBatch<BackendType> tokens = {};  // none where they may be gone
    detail::StepTotals totals = {};
    double loss_scale = 1, rate = 0;  // the learning rate
  };

  /// The learning rate of the next step, where `fraction` of the budget is spent. Throws OptionError for one that is no
  /// number of 0 or more, as of a user's own schedule.
  double learning_rate(double fraction) const {
    const double rate = update_.optimizer().lr * schedule_(Progress{state_.step, fraction});
    if (!detail::range::from_0.allows(rate)) {
      fail<OptionError>("the learning rate of step ", state_.step + 1, detail::range::from_0.refusal(rate),
                        "; it is the optimizer's lr times the schedule's factor");
    }
    return rate;
  }

  /// Throws OptionError for what several ranks cannot train.
  void check_ranks() const {
    if (ranks_.expert_parallel() > 1 && !Architecture::has_mixtures) {
      fail<OptionError>("expert parallelism: the model has no experts to share");
    }
    if (ranks_.expert_parallel() > 1 && model_->settings()[setting::expert_dropout] != 0) {
      fail<OptionError>(
          "the setting expert_dropout must be 0 in expert parallelism: its masks follow the order of rows");
    }
    if (ranks_.all().size() == 1) return;
    if (Architecture::has_moving_routers) {
      fail<OptionError>("a router that moves thresholds after a step by its own tokens cannot be trained by several ",
                        "processes");
    }
  }

  /// The tokens of the step on all ranks. Throws on all what one of them throws for its tokens, and TrainingError if
  /// there is none to learn from.
  detail::StepTotals sum_over_ranks(const detail::StepBatch<BackendType>& tokens) {
    detail::StepTotals totals;
    if constexpr (std::is_same_v<C, Alone>) {
      totals = detail::count_tokens(tokens, Architecture::vocab);
    } else {
      totals = sum_of_ranks(tokens);
    }
    failed_together_ = totals.scored == 0;
    if (failed_together_) fail<TrainingError>("step ", state_.step + 1, ": no target of the batch is scored");
    return totals;
  }
  detail::StepTotals sum_of_ranks(const detail::StepBatch<BackendType>& tokens) {
    detail::StepTotals own;
    std::exception_ptr error;
    try {
      own = detail::count_tokens(tokens, Architecture::vocab);
    } catch (...) {
      error = std::current_exception();
    }
    const auto own_batches = static_cast<double>(tokens.micro_batches());
    const auto shared = static_cast<double>(ranks_.expert_parallel());
    std::array<double, 7> numbers = {
        own.scored, own.tokens, error ? 1.0 : 0.0, own_batches, own_batches * own_batches, shared, shared * shared};
    ranks_.all().sum(std::span<double>(numbers));
    const auto rethrow = [&] {
      if (error) std::rethrow_exception(error);
    };
    if (numbers[2] > 0) detail::on_all_ranks(ranks_.all(), "", rethrow, &failed_together_);
    // Whether all have the same number: then alone the mean of the squares is the square of the mean.
    const auto differ = [&](std::size_t at) {
      return numbers[at] * numbers[at] != numbers[at + 1] * static_cast<double>(ranks_.all().size());
    };
    const bool other_groups = numbers[5] > static_cast<double>(ranks_.all().size()) && differ(5);
    failed_together_ = other_groups || (passes_together() && differ(3));
    if (other_groups)
      fail<OptionError>("the processes do not agree on how many of them share the experts; here ", shared);
    if (failed_together_) {
      fail<OptionError>("all processes must have as many micro-batches in expert parallelism and with the setting ",
                        "balance_over_step; found ", numbers[3], " for ", ranks_.all().size(), " processes");
    }
    return {.scored = numbers[0], .tokens = numbers[1]};
  }

  /// Empty slots for the tokens of evaluations and of `train_step`. A BatchFeed has slots of its own.
  detail::TokenSlots<BackendType>& own_slots(Index size) {
    if (!slots_ || slots_->size() != size) slots_.emplace(model_->backend(), size);
    slots_->forget();
    return *slots_;
  }

  /// Micro-batch i of the step under way on the backend, and its pass.
  detail::MicroBatch take_micro_batch(Index i) {
    step_.pass.micro_batch = i * ranks_.all().size() + ranks_.all().rank();
    const detail::MicroBatch tokens = step_.tokens.micro_batch(i);
    const auto real_tokens = static_cast<double>(step_.pass.rows() - tokens.pads);
    step_.pass.router_loss_scale = step_.loss_scale * real_tokens / step_.totals.tokens;
    return tokens;
  }

  /// Where the numbers of the step that was given up stop being finite: ", first in …", by running it again. Empty
  /// where this rank does not know.
  [[gnu::cold]] std::string fault_of_step() {
    // Each rank looks for itself, and one may end before another: passes that the ranks make together are not repeated.
    if (step_.tokens.inputs.empty() || ranks_.expert_parallel() > 1) return {};
    step_.pass.counts = nullptr;
    std::string place;
    for (Index i = 0; place.empty() && i < step_.tokens.micro_batches(); ++i) {
      const detail::MicroBatch tokens = take_micro_batch(i);
      place = passes_.look(step_.pass, tokens);
      if (place.empty()) {
        passes_.train(step_.pass, tokens, step_.loss_scale / step_.totals.scored, update_.gradients());
      }
    }
    if (place.empty() && ranks_.all().size() == 1) {
      place = detail::fault_of_gradients<typename ModelType::Weights>(model_->backend(), update_.gradient_buffer());
    }
    update_.discard(ranks_);
    return place.empty() ? place : ", first in " + place;
  }

  /// Whether the loss and the gradients' norm are finite. If not, the step is given up; this throws, unless a smaller
  /// loss scale may help.
  bool expect_finite(const StepReport& report) {
    const bool good_loss = std::isfinite(report.loss + report.balance_loss + report.z_loss);
    if (good_loss && std::isfinite(report.gradient_norm)) return true;
    give_up_step();
    failed_together_ = true;  // if this throws: the numbers are those of all ranks
    if (!good_loss) {
      fail<TrainingError>("step ", state_.step + 1, ": the loss is ", report.loss, fault_of_step(),
                          "; a lower learning rate may help");
    }
    if constexpr (detail::needs_loss_scale<Scalar>) {
      state_.loss_scale.shrink(state_.step + 1);
      return failed_together_ = false;
    } else {
      fail<TrainingError>("step ", state_.step + 1, ": the gradients' norm is ", report.gradient_norm, fault_of_step(),
                          "; a lower learning rate may help");
    }
  }

  /// Updates what no gradient moves: a router's balancing bias or thresholds.
  void after_step(const Pass& pass) {
    Architecture::after_step(model_->backend(), pass, model_->weights(), masters_, passes_.saved());
  }

  ModelType* model_;
  S schedule_;
  detail::RankGroups<C, BackendType> ranks_;
  detail::Passes<ModelType> passes_;
  detail::Update<ModelType, O> update_;
  detail::WeightAverage<ModelType> average_;
  typename Architecture::template Parameters<Master> masters_;  // views of the model's master weights
  std::optional<detail::TokenSlots<BackendType>> slots_;
  TrainingState state_;
  StepUnderWay step_;
  bool experts_are_here_ = true;  // as of the last step, all of them
  bool step_under_way_ = false;   // its gradients are not zero
  bool failed_together_ = false;
  Saved saved_;
};

}  // namespace tinymoe::inline v0_1
