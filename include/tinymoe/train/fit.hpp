#pragma once
/// @file
/// A run: training step by step until the budget is spent, with evaluations, checkpoints and metrics on the way.

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/data_order.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/metrics.hpp"
#include "tinymoe/train/passes.hpp"

namespace tinymoe::inline v0_1 {

/// How a model is trained. A run ends after `steps` or `minutes`, whichever is first; one of them must be given.
struct FitOptions {
  Index batch = 16;                      // B, sequences of a micro-batch
  Index time = 0;                        // T, tokens of a sequence; 0: the model's context
  Batching batching = Batching::packed;  // padded: one story in each row; it needs the tokenizer
  Index accumulation = 1;                // micro-batches of a step
  bool recompute = false;                // blocks are computed again in backward: less memory, one more forward pass
  Index steps = 0;
  double minutes = 0;
  double clip = 1;     // greatest norm of the gradients; 0: none
  double average = 0;  // decay of a moving average of the weights, 0.999 for example, which is then evaluated; 0: none
  Seed seed = {};      // of the order of the data, and of dropout and noise

  Index evaluate_every = 0;  // steps; 0: only at the end
  const TokenData* validation = nullptr;
  /// When the latest checkpoint is written besides the end: a run that is killed loses no more than that.
  Index checkpoint_every = 500;             // steps; 0: not by steps
  double checkpoint_minutes = 10;           // since the last one; 0: not by time
  std::filesystem::path checkpoint = {};    // the folder of the latest, to resume from; empty: none
  std::filesystem::path best = {};          // a full checkpoint, whenever the validation loss is the lowest so far
  std::filesystem::path best_weights = {};  // the same without training state; the average's weights where there is one
  const Tokenizer* tokenizer = nullptr;     // goes into checkpoints, and must be given for one
  std::filesystem::path metrics = {};       // a CSV; empty: none
  Json recipe = nullptr;  // goes into checkpoints as it is: what a program must know to resume the run

  std::function<void(const StepReport&)> on_step = {};  // after each step, and for one that was skipped too
  std::function<void(const StepReport&, const EvaluationReport&)> on_evaluation = {};
  std::function<void(const StepReport&)> on_checkpoint = {};  // after each latest one
  std::function<bool()> stop = {};  // asked after each step; true ends the run early, with its checkpoint
};

namespace detail {

/// Throws `error`, which is being handled, as what it is, with a note behind its sentence.
template <class... Kinds>
[[noreturn]] void rethrow_with_note(const Error& error, const std::string& note) {
  const auto as = [&]<class Kind>(std::type_identity<Kind>) {
    if (dynamic_cast<const Kind*>(&error) != nullptr) throw Kind(error.what() + note);
  };
  (as(std::type_identity<Kinds>{}), ...);
  throw;
}

/// One call of `Trainer::fit`.
template <class TrainerType>
class Run {
 public:
  /// Checks all that can be checked before the first step, and makes room. Throws what `fit` says.
  Run(TrainerType& trainer, const TokenData& data, const FitOptions& options)
      : trainer_(&trainer), options_(options), time_(options.time > 0 ? options.time : Architecture::context) {
    check_options();
    TrainerType::check_vocabulary(data);
    PassesType::check_time(time_);
    TrainingState& state = trainer.state_;
    const DataOrder order{options.seed.value, options.batch,    time_, options.accumulation, options.batching,
                          data.size(),        fingerprint(data)};
    if (state.step > 0) state.data.expect(order);
    if (state.step > 0 && state.average != options.average) {
      fail<MismatchError>("the run to resume had an average of decay ", state.average, "; found ", options.average);
    }
    for (const auto& path : {options.checkpoint, options.best, options.best_weights}) {
      if (!path.empty()) const AtomicFolder probe(path);  // a bad place is found at once
    }
    if (options.batching == Batching::packed) {
      packed_.emplace(data, options.batch, time_, options.seed);
    } else {
      padded_.emplace(data, options.tokenizer->end_of_story(), options.batch, time_, options.seed);
    }
    trainer.passes_.plan(options.batch, time_, options.recompute);
    trainer.average(options.average);
    state.data = order;
    if (!options.recipe.is_null()) state.recipe = options.recipe;
    for (auto* batch : {&batch_, &next_}) {
      batch->inputs.resize(static_cast<std::size_t>(options.batch * time_ * options.accumulation));
      batch->targets.resize(batch->inputs.size());
    }
    report_.step = first_ = state.step, report_.tokens = state.tokens, report_.seconds = state.seconds;
    if (!options.metrics.empty()) metrics_.emplace(options.metrics, state.step);  // replaces an old run's, so last
  }

  StepReport operator()() {
    try {
      while (!stopped_ && spent() < 1) step();
      finish();
    } catch (const Error& error) {
      save_what_there_is();
      const auto& saved = trainer_->saved_;
      const auto last = saved.string() + " (step " + std::to_string(trainer_->saved_step_) + ")";
      rethrow_with_note<FileError, TextError, ShapeError, MismatchError, OptionError, TrainingError, DeviceError>(
          error, "; the last good checkpoint: " + (trainer_->saved_step_ >= 0 ? last : "none yet"));
    } catch (...) {  // a callback's own
      save_what_there_is();
      throw;
    }
    return report_;
  }

 private:
  using Architecture = typename TrainerType::Architecture;
  using PassesType = Passes<typename TrainerType::Model>;
  using Clock = std::chrono::steady_clock;

  void check_options() const {
    const auto& o = options_;
    if (o.steps <= 0 && o.minutes <= 0) fail<TrainingError>("a run needs a number of steps or of minutes");
    if (o.accumulation < 1 || o.accumulation > (Index{1} << 16)) {
      fail<TrainingError>("accumulation must be 1 to 65536 micro-batches, found ", o.accumulation);
    }
    if (!(o.average >= 0 && o.average < 1)) {
      fail<OptionError>("the average's decay must be between 0 and 1, or 0 for none; found ", o.average);
    }
    for (const auto& path : {o.checkpoint, o.best, o.best_weights}) {
      if (!path.empty() && o.tokenizer == nullptr)
        fail<TrainingError>(path.string(), ": a checkpoint needs the tokenizer");
    }
    for (const auto& path : {o.best, o.best_weights}) {
      if (!path.empty() && o.validation == nullptr) {
        fail<TrainingError>(path.string(), ": the best checkpoint needs validation data");
      }
    }
    for (const auto* outer : {&o.checkpoint, &o.best, &o.best_weights}) {
      for (const auto* inner : {&o.checkpoint, &o.best, &o.best_weights}) {
        if (outer == inner || outer->empty() || inner->empty() || !contains(*outer, *inner)) continue;
        fail<TrainingError>(inner->string(),
                            ": the latest, the best and the best weights need a folder each, none within ", "another");
      }
    }
    if (o.batching == Batching::padded && o.tokenizer == nullptr) {
      fail<TrainingError>("padded batches need the tokenizer, which knows the end of a story");
    }
  }

  /// Whether `inner` is the folder `outer` or lies in it, however they are written.
  static bool contains(const std::filesystem::path& outer, const std::filesystem::path& inner) {
    const auto plain = [](const std::filesystem::path& path) {
      const auto whole = std::filesystem::weakly_canonical(std::filesystem::absolute(path) / "");
      return whole.has_filename() ? whole : whole.parent_path();
    };
    const auto folder = plain(outer), other = plain(inner);
    return std::mismatch(folder.begin(), folder.end(), other.begin(), other.end()).first == folder.end();
  }

  /// The share of the budget.
  double spent() const {
    const TrainingState& state = trainer_->state_;
    double fraction = 0;
    if (options_.steps > 0) fraction = static_cast<double>(state.step) / static_cast<double>(options_.steps);
    if (options_.minutes > 0) fraction = std::max(fraction, state.seconds / (60 * options_.minutes));
    return fraction;
  }

  void step() {
    const auto started = Clock::now();
    TrainingState& state = trainer_->state_;
    const Index before = state.tokens;
    if (batch_.step != state.step) {
      fill(next_, state.step);  // which has been done already, but for the first one
      std::swap(batch_, next_);
    }
    report_ = trainer_->train_step(batch_.inputs, batch_.targets, options_.batch, time_,
                                   {.clip = options_.clip,
                                    .fraction = spent(),
                                    .seed = options_.seed,
                                    .recompute = options_.recompute,
                                    .meanwhile = [this] { prepare_next(); }});
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    state.seconds += seconds;
    report_.seconds = state.seconds;
    report_.tokens_per_second = static_cast<double>(state.tokens - before) / seconds;
    report_.fraction = spent();
    if (metrics_ && !report_.skipped) metrics_->write(report_);
    if (options_.on_step) options_.on_step(report_);
    stopped_ = options_.stop && options_.stop();
    if (report_.skipped) return;  // nothing has changed that could be evaluated or saved
    if (options_.evaluate_every > 0 && state.step % options_.evaluate_every == 0 && !stopped_) evaluate();
    if (checkpoint_is_due() && !stopped_ && spent() < 1) save();  // the last one comes after the last evaluation
  }

  /// What a step reads, all its micro-batches.
  struct HostBatch {
    Index step = -1;  // whose tokens these are
    std::vector<Token> inputs, targets;
  };

  /// Throws what the data throws; the batch is of no step then.
  void fill(HostBatch& batch, Index step) {
    if (batch.step == step) return;
    batch.step = -1;
    for (Index i = 0; i < options_.accumulation; ++i) {
      const auto from = [&](const auto& batches) {
        batches.fill(step * options_.accumulation + i, micro_batch(batch.inputs, i), micro_batch(batch.targets, i));
      };
      packed_ ? from(*packed_) : from(*padded_);
    }
    batch.step = step;
  }

  /// While a device works on a step: reads the next one's tokens and sends the first of them ahead. Batches are a
  /// function of the step alone, so that it does not matter whether that was done. An error of the data is left to the
  /// step that needs them, which meets it again: the one under way is good.
  void prepare_next() {
    const Index step = trainer_->state_.step + 1;
    if (options_.steps > 0 && step >= options_.steps) return;
    if (next_.step == step) return;  // a step that was skipped runs again
    try {
      fill(next_, step);
    } catch (const Error&) {
      return;
    }
    trainer_->passes_.stage(micro_batch(next_.inputs, 0), micro_batch(next_.targets, 0));
  }

  std::span<Token> micro_batch(std::vector<Token>& tokens, Index i) const {
    const auto size = static_cast<std::size_t>(options_.batch * time_);
    return std::span(tokens).subspan(static_cast<std::size_t>(i) * size, size);
  }

  bool checkpoint_is_due() const {
    if (options_.checkpoint_every > 0 && trainer_->state_.step % options_.checkpoint_every == 0) return true;
    const std::chrono::duration<double> since = Clock::now() - saved_at_;
    return options_.checkpoint_minutes > 0 && since.count() >= 60 * options_.checkpoint_minutes;
  }

  /// The last evaluation comes before the last checkpoint, which then knows of the best; should it fail, the steps are
  /// saved none the less.
  void finish() {
    if (!stopped_) evaluate();
    save();
  }

  void evaluate() {
    TrainingState& state = trainer_->state_;
    if (options_.validation == nullptr || evaluated_ == state.step) return;
    evaluated_ = state.step;
    const auto evaluation = trainer_->evaluate(*options_.validation, options_.batch, time_);
    if (metrics_) metrics_->write(report_, evaluation);
    if (options_.on_evaluation) options_.on_evaluation(report_, evaluation);
    if (!(evaluation.loss < state.best_loss)) return;
    const double last_loss = std::exchange(state.best_loss, evaluation.loss);
    const Index last_step = std::exchange(state.best_step, state.step);
    try {
      if (!options_.best_weights.empty()) trainer_->save_weights(options_.best_weights, *options_.tokenizer);
      if (!options_.best.empty()) trainer_->save(options_.best, *options_.tokenizer);
    } catch (...) {  // the latest checkpoint must not speak of a best that is not there
      state.best_loss = last_loss, state.best_step = last_step;
      throw;
    }
    unsaved_best_ = true;
  }

  /// After an error: the weights may be good all the same (a full disk, a row of metrics), and then the steps are kept.
  void save_what_there_is() {
    if (trainer_->state_.step == first_) return;
    try {
      save();
    } catch (const Error&) {  // that of the run is told
    }
  }

  /// The latest checkpoint, unless it is there already and knows of the best.
  void save() {
    const Index step = trainer_->state_.step;
    if (options_.checkpoint.empty()) return;
    saved_at_ = Clock::now();
    if (latest_ < 0 && trainer_->saved_ == options_.checkpoint) latest_ = trainer_->saved_step_;
    if (latest_ == step && !unsaved_best_) return;
    // The last update may have ruined the weights: they must give a finite loss before they replace good ones. A
    // callback may have evaluated with another shape.
    trainer_->passes_.plan(options_.batch, time_, options_.recompute);
    auto& tally = trainer_->passes_.tally();
    tally.clear();
    trainer_->passes_.evaluate(micro_batch(batch_.inputs, 0), micro_batch(batch_.targets, 0));
    tally.read();
    const double loss = tally.cross_entropy();
    if (!std::isfinite(loss)) {
      fail<TrainingError>("step ", step, ": the loss is ", loss, " after the update; a lower learning rate may help");
    }
    trainer_->save(options_.checkpoint, *options_.tokenizer);
    latest_ = step, unsaved_best_ = false;
    if (options_.on_checkpoint) options_.on_checkpoint(report_);
  }

  TrainerType* trainer_;
  FitOptions options_;
  Index time_;
  std::optional<Batches> packed_;
  std::optional<PaddedBatches> padded_;
  std::optional<MetricsFile> metrics_;
  HostBatch batch_, next_;  // of the step under way, and of the one after it
  StepReport report_;
  bool stopped_ = false, unsaved_best_ = false;
  Index first_ = 0, evaluated_ = -1, latest_ = -1;  // steps
  Clock::time_point saved_at_ = Clock::now();
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
