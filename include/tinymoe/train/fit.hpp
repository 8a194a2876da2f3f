#pragma once
/// @file
/// A run: training step by step until the budget is spent, with evaluations, checkpoints and observers on the way.
/// Over 300 lines: it is one class, the order of whose calls is what it is about.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iterator>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/version.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/write_lock.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/data_order.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/train/agreement.hpp"
#include "tinymoe/train/batch_feed.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/evaluation.hpp"
#include "tinymoe/train/fit_options.hpp"
#include "tinymoe/train/metrics.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/optimizer_step.hpp"
#include "tinymoe/train/reports.hpp"
#include "tinymoe/train/step_batch.hpp"

namespace tinymoe::inline v0_1::detail {

/// `error` with a note after its message if it is one of `Kinds`; any other error unchanged.
template <class... Kinds>
std::exception_ptr with_note(const std::exception_ptr& error, const std::string& note) {
  std::exception_ptr noted = error;
  const auto look = [&]<class Kind>(std::type_identity<Kind>) {
    try {
      std::rethrow_exception(error);
    } catch (const Kind& found) {
      noted = std::make_exception_ptr(Kind(found.what() + note));
    } catch (...) {  // another kind
    }
  };
  (look(std::type_identity<Kinds>{}), ...);
  return noted;
}

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point started_ = Clock::now();
};

/// One call of `Trainer::fit`. It uses only the public members of the trainer.
template <class TrainerType>
class Run {
 public:
  /// Checks the options, data and folders, and allocates memory, before the first step. Throws as `fit` does; then the
  /// model is unchanged. Where one rank throws, all do.
  [[gnu::cold]] Run(TrainerType& trainer, const TokenData& data, const FitOptions& options)
      : trainer_(trainer),
        options_(options),
        time_(options.time > 0 ? options.time : TrainerType::Architecture::context),
        observers_(options.observers) {
    using Ranks = std::remove_cvref_t<decltype(trainer.communicator())>;
    Ranks& ranks = trainer.communicator();
    constexpr const char* cannot = " cannot begin this run";
    on_all_ranks(ranks, cannot, [&] { prepare(data); });
    if constexpr (!std::is_same_v<Ranks, Alone>) expect_agreement(ranks);
    // Replaces the file of an old run: after everything else that may throw.
    on_all_ranks(ranks, cannot, [&] {
      if (!options.metrics.empty() && writes_) observers_.add_first(metrics_.emplace(options.metrics, trainer.state()));
    });
    if (options.tokenizer != nullptr) trainer.model().special_tokens().add_end(options.tokenizer->end_of_story());
  }

  StepReport operator()() {
    try {
      // A run that was stopped at a step with an evaluation makes it now.
      if (first_ > 0 && spent() < 1 && evaluation_is_due() && trainer_.state().evaluated_step < first_) {
        evaluate();
        stopped_ = agreed_to_stop();
      }
      while (!stopped_ && spent() < 1) {
        take_step();
        tell([&](Observer& one) { one.on_step(report_, loads_); });
        stopped_ = agreed_to_stop();
        if (stopped_ || report_.skipped) continue;  // a skipped step has changed nothing
        if (evaluation_is_due()) {
          evaluate();
          stopped_ = agreed_to_stop(spent() < 1);  // it may take long
        }
        if (save_is_due_ && spent() < 1) {  // the last checkpoint follows the last evaluation
          save_latest();
          observers_.rethrow();
        }
      }
      if (!stopped_) {  // before the last checkpoint, which stores the best loss
        evaluate();
        agreed_to_stop(false);
      }
      save_latest();
      trainer_.gather_experts();
      observers_.rethrow();
    } catch (...) {
      end_with(std::current_exception());
    }
    tell_end({.how = stopped_ ? EndReport::How::stopped : EndReport::How::budget});
    observers_.rethrow();
    return report_;
  }

 private:
  using Feed = BatchFeed<typename TrainerType::BackendType>;

  /// All of the constructor but for what outlasts a failure: the metrics file and the model.
  [[gnu::cold]] void prepare(const TokenData& data) {
    TrainerType& trainer = trainer_;
    const FitOptions& options = options_;
    check(options);
    check_vocabulary<typename TrainerType::Architecture>(data);
    TrainerType::check_time(time_);
    options.growth.check(time_);
    if (options.validation != nullptr) {
      check_vocabulary<typename TrainerType::Architecture>(*options.validation);
      const EvaluationWindows windows(*options.validation, options.batch, time_);
    }
    if (options.tokenizer != nullptr) TrainerType::check_tokenizer(*options.tokenizer);
    check_vocabularies(data, options);
    const auto& communicator = trainer.communicator();
    const Index rank = communicator.rank(), ranks = communicator.size();
    const TrainingState& state = trainer.state();
    if (options.accumulation < ranks) {
      fail<OptionError>("a step has ", options.accumulation,
                        options.accumulation == 1 ? " micro-batch" : " micro-batches", ", which ", ranks,
                        " processes cannot share; give an accumulation of ", ranks,
                        " or more, or start fewer processes");
    }
    if (trainer.passes_together() && options.accumulation % ranks != 0) {
      fail<OptionError>("a step has ", options.accumulation,
                        " micro-batches; in expert parallelism and with the setting ",
                        "balance_over_step give an accumulation that is a multiple of the ", ranks, " processes");
    }
    const DataOrder order{options.seed.value, options.batch,     time_,         options.accumulation, options.batching,
                          data.size(),        fingerprint(data), options.growth};
    if (state.step > 0) state.data.expect(order);
    if (state.step > 0 && state.average != options.average) {
      fail<MismatchError>("the run to resume had an average of decay ", state.average, "; found ", options.average);
    }
    writes_ = rank == 0;
    for (const auto& path : {options.checkpoint, options.best, options.best_weights}) {
      if (writes_ && !path.empty()) folders_.emplace_back(path, checkpoint_files, WriteUse::run);
    }
    if (!folders_.empty()) check_saving(folders_.front().folder());
    const bool padded = options.batching == Batching::padded;
    FeedOptions feed{.batch = options.batch,
                     .time = time_,
                     .micro_batches = options.accumulation,
                     .batching = options.batching,
                     .end_of_story = padded ? options.tokenizer->end_of_story() : Token{},
                     .seed = options.seed,
                     .rank = rank,
                     .ranks = ranks};
    for (std::size_t i = 0; i < options.growth.size(); ++i) {
      FeedOptions shorter = feed;
      shorter.time = options.growth.stages[i].time;
      shorter.batch = options.batch * time_ / shorter.time;
      feeds_.emplace_back(trainer.model().backend(), data, shorter);
      trainer.plan(shorter.batch, shorter.time, options.recompute);  // so that no stage needs more memory later
    }
    feeds_.emplace_back(trainer.model().backend(), data, feed);
    trainer.plan(options.batch, time_, options.recompute);
    feed_ = &feeds_.back();
    trainer.average(options.average);
    trainer.set_data_order(order);
    if (!options.recipe.is_null()) trainer.set_recipe(options.recipe);
    report_.step = first_ = state.step, report_.tokens = state.tokens, report_.seconds = state.seconds;
  }

  /// Throws MismatchError on all ranks if one would not train the same run as rank 0.
  template <class C>
  [[gnu::cold]] void expect_agreement(C& communicator) const {
    if (communicator.size() == 1) return;
    const auto& model = trainer_.model();
    const TrainingState& state = trainer_.state();
    const FitOptions& o = options_;
    Agreement same;
    same.add_hash("version of tinymoe",
                  (TINYMOE_VERSION_MAJOR * 1000 + TINYMOE_VERSION_MINOR) * 1000 + TINYMOE_VERSION_PATCH);
    same.add_text("compiler", __VERSION__);
    same.add_text("backend or processor (TINYMOE_CPU=avx2 makes processors alike)", model.backend().name());
    same.add("number type", sizeof(typename TrainerType::Scalar));
    same.add("number of parameters", static_cast<double>(TrainerType::Model::size));
    const auto whole = [&](const char* name, Index value) { same.add(name, static_cast<double>(value)); };
    whole("step to go on from", state.step);
    same.add_hash("seed", state.data.seed);
    whole("batch", state.data.batch), whole("sequence", time_), whole("accumulation", state.data.accumulation);
    same.add_text("growth of sequences", o.growth.text());
    whole("kind of batches", static_cast<Index>(state.data.batching));
    same.add_hash("training data", state.data.fingerprint);
    same.add_hash("validation data", o.validation != nullptr ? fingerprint(*o.validation) : 0);
    whole("number of steps", o.steps), same.add("number of minutes", o.minutes);
    whole("number of steps between evaluations", o.evaluate_every);
    same.add("number of minutes between evaluations", o.evaluate_minutes);
    same.add_hash("choice of what to save", (o.checkpoint.empty() ? 0u : 1u) + (o.best.empty() ? 0u : 2u));
    same.add("limit of the gradients' norm", o.clip), same.add("average of the weights", o.average);
    whole("choice to recompute", o.recompute ? 1 : 0);
    whole("number of processes that share experts", trainer_.expert_parallel());
    same.add_text("optimizer", state.optimizer);
    same.add("learning rate", trainer_.optimizer().lr);
    if constexpr (PartOptimizer<std::remove_cvref_t<decltype(trainer_.optimizer())>>) {
      for (std::size_t part = 0; part < part_names.size(); ++part) {
        const auto factor = [&](const char* name, const PartFactors& factors) {
          same.add(std::string(part_names[part]) + "'s factor of the " + name, factors[static_cast<Part>(part)]);
        };
        factor("rate", trainer_.optimizer().rates), factor("decay", trainer_.optimizer().decays);
      }
    }
    for (const Setting* setting : settings_of<typename TrainerType::Architecture>()) {
      same.add(std::string(setting->name), model.settings()[*setting]);
    }
    if (o.recipe.is_object()) {
      for (const auto& [key, value] : o.recipe.members()) same.add_text(key, value.dump());
    }
    same.add_hash("first weights", hash_of_weights());
    same.expect(communicator);
  }

  [[gnu::cold]] std::uint64_t hash_of_weights() const {
    using Master = typename TrainerType::Master;
    const auto& model = trainer_.model();
    const View<const Master> weights = model.masters();
    std::vector<Master> piece(static_cast<std::size_t>(std::min<Index>(weights.cols, Index{1} << 18)));
    Xxh64 hash;
    for (Index at = 0; at < weights.cols; at += std::ssize(piece)) {
      const std::size_t bytes =
          static_cast<std::size_t>(std::min(std::ssize(piece), weights.cols - at)) * sizeof(Master);
      model.backend().copy_to_host(piece.data(), weights.data + at, bytes);
      hash.bytes(std::as_bytes(std::span(piece)).first(bytes));
    }
    return hash.value();
  }

  /// Throws what the first save would throw, after steps that would then be lost, for a tokenizer or a recipe that
  /// cannot be written.
  [[gnu::cold]] void check_saving(const std::filesystem::path& folder) const {
    try {
      static_cast<void>(options_.recipe.dump());
    } catch (const TextError& error) {
      fail<TextError>("FitOptions::recipe cannot be saved in a checkpoint: ", error.what());
    }
    const auto file = folder / (std::string(partial_files_prefix) + "tokenizer");  // cleared if this process is killed
    std::exception_ptr error;
    try {
      options_.tokenizer->save(file);
    } catch (...) {
      error = std::current_exception();
    }
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
    if (error) {
      std::rethrow_exception(
          with_note<TextError>(error, "; the tokenizer cannot be saved in a checkpoint, so give another one"));
    }
  }

  /// One optimizer step, timed. While the device works on it, the host prepares the next batch.
  void take_step() {
    const Stopwatch watch;
    const TrainingState& state = trainer_.state();
    const Index before = state.tokens;
    Feed& feed = feed_at(spent());
    StepBatch<typename TrainerType::BackendType> tokens;
    on_all_ranks(
        trainer_.communicator(), "", [&] { tokens = feed.next(state.step); }, &failed_together_);
    trainer_.begin_step(
        tokens, {.clip = options_.clip, .fraction = spent(), .seed = options_.seed, .recompute = options_.recompute});
    feed_ = &feed;
    if (options_.steps <= 0 || state.step + 1 < options_.steps) feed_at(spent_after()).prefetch(state.step + 1);
    report_ = trainer_.finish_step();
    loads_ = trainer_.loads();
    const double seconds = agreed_seconds(watch.seconds());
    trainer_.add_seconds(seconds);
    report_.seconds = state.seconds;
    report_.tokens_per_second = static_cast<double>(state.tokens - before) / seconds;
    report_.fraction = spent();
  }

  /// The fraction of the budget that is spent.
  double spent() const {
    const TrainingState& state = trainer_.state();
    double fraction = 0;
    if (options_.steps > 0) fraction = static_cast<double>(state.step) / static_cast<double>(options_.steps);
    if (options_.minutes > 0) fraction = std::max(fraction, state.seconds / (60 * options_.minutes));
    return fraction;
  }

  /// The same after the step under way: of a run of minutes a guess, which costs a batch that was read for nothing
  /// where it is wrong.
  double spent_after() const {
    return options_.minutes > 0 ? spent()
                                : static_cast<double>(trainer_.step() + 1) / static_cast<double>(options_.steps);
  }

  /// The batches of the stage of growth where `fraction` of the budget is spent.
  Feed& feed_at(double fraction) {
    return *std::next(feeds_.begin(), static_cast<std::ptrdiff_t>(options_.growth.stage_at(fraction)));
  }

  /// Rank 0's seconds, so that all ranks agree on the time spent.
  double agreed_seconds(double seconds) {
    auto& communicator = trainer_.communicator();
    double shared = communicator.rank() == 0 ? seconds : 0;
    communicator.sum(std::span(&shared, 1));
    return shared;
  }
  /// Whether any rank asks to stop, if they are to be asked. Tells all ranks as well whether rank 0 finds that a
  /// checkpoint is due. Throws on all where an observer of one has thrown.
  bool agreed_to_stop(bool ask = true) {
    std::array<double, 3> numbers = {ask && options_.stop && options_.stop() ? 1.0 : 0.0,
                                     writes_ && checkpoint_is_due() ? 1.0 : 0.0, observers_.error() ? 1.0 : 0.0};
    trainer_.communicator().sum(std::span<double>(numbers));
    if (numbers[2] > 0) {
      on_all_ranks(
          trainer_.communicator(), "", [&] { observers_.rethrow(); }, &failed_together_);
    }
    save_is_due_ = numbers[1] > 0;
    return numbers[0] > 0;
  }

  bool evaluation_is_due() const {
    if (options_.evaluate_every > 0 && trainer_.step() % options_.evaluate_every == 0) return true;
    if (!(options_.evaluate_minutes > 0)) return false;
    const auto periods = [&](double seconds) { return std::floor(seconds / (60 * options_.evaluate_minutes)); };
    return periods(trainer_.state().seconds) > periods(trainer_.state().evaluated_seconds);
  }

  [[gnu::cold]] void evaluate() {
    if (options_.validation == nullptr || evaluated_ == trainer_.step()) return;
    evaluated_ = trainer_.step();
    trainer_.set_evaluated(evaluated_);
    const auto evaluation = trainer_.evaluate(*options_.validation, options_.batch, time_, [&](Index done, Index all) {
      tell([&](Observer& one) { one.on_evaluation_progress(report_, done, all); });
    });
    tell([&](Observer& one) { one.on_evaluation(report_, evaluation); });
    if (evaluation.loss < trainer_.state().best_loss) save_best(evaluation.loss);
  }

  /// The checkpoints of the lowest loss so far.
  [[gnu::cold]] void save_best(double loss) {
    const double last_loss = trainer_.state().best_loss;
    const Index last_step = trainer_.state().best_step;
    trainer_.set_best(loss, trainer_.step());
    try {
      using Kind = CheckpointReport::Kind;
      write(Kind::best_weights, options_.best_weights,
            [&](const auto& to) { trainer_.save_weights(to, *options_.tokenizer); });
      write(Kind::best, options_.best, [&](const auto& to) { trainer_.save(to, *options_.tokenizer); });
    } catch (...) {  // the latest checkpoint must not name a best one that does not exist
      trainer_.set_best(last_loss, last_step);
      throw;
    }
    unsaved_best_ = true;
  }

  bool checkpoint_is_due() const {
    if (options_.checkpoint_every > 0 && trainer_.step() % options_.checkpoint_every == 0) return true;
    return options_.checkpoint_minutes > 0 && since_saved_.seconds() >= 60 * options_.checkpoint_minutes;
  }

  /// Writes the latest checkpoint, unless the one on disk is of this step and stores the best loss. All ranks call it,
  /// and do as rank 0 finds.
  [[gnu::cold]] void save_latest() {
    const Index step = trainer_.step();
    if (options_.checkpoint.empty()) return;
    since_saved_ = {};
    trainer_.gather_experts();
    std::array<double, 2> of_first = {};  // whether there is nothing to save, and the loss
    if (writes_) {
      if (latest_ < 0 && trainer_.saved().path == options_.checkpoint) latest_ = trainer_.saved().step;
      of_first[0] = latest_ == step && !unsaved_best_ ? 1 : 0;
      // The last update may have ruined the weights: they must give a finite loss before they replace good ones.
      if (of_first[0] == 0) of_first[1] = trainer_.loss_of(feed_->current());
    }
    trainer_.communicator().sum(std::span<double>(of_first));
    if (of_first[0] > 0) return;
    if (const double loss = of_first[1]; !std::isfinite(loss)) {
      fail<TrainingError>("step ", step, ": the loss is ", loss, " after the update",
                          trainer_.fault_of(feed_->current()), "; a lower learning rate may help");
    }
    write(CheckpointReport::Kind::latest, options_.checkpoint, [&](const auto& to) {
      trainer_.save(to, *options_.tokenizer);
      latest_ = step, unsaved_best_ = false;
    });
  }

  /// Calls save(path) and tells the observers of the rank that writes.
  template <class Save>
  [[gnu::cold]] void write(CheckpointReport::Kind kind, const std::filesystem::path& path, Save&& save) {
    if (path.empty()) return;
    const Stopwatch watch;
    save(path);
    if (!writes_) return;
    const CheckpointReport checkpoint{.kind = kind, .path = path, .seconds = watch.seconds()};
    tell([&](Observer& one) { one.on_checkpoint(report_, checkpoint); });
  }

  template <class F>
  void tell(F&& f) {
    observers_.tell(f);
  }
  void tell_end(const EndReport& end) {
    tell([&](Observer& one) { one.on_end(report_, end); });
  }

  /// Ends the run with `error`, or with what an observer threw before. The weights may still be good, as after a full
  /// disk or an error of an observer: then they are saved. Several ranks can do so only together.
  [[noreturn]] void end_with(std::exception_ptr error) {
    if (observers_.error()) error = observers_.error();
    auto& communicator = trainer_.communicator();
    const bool together = communicator.size() == 1 || failed_together_ || trainer_.failed_together();
    if (trainer_.step() != first_ && together) {
      try {
        save_latest();
        double nothing = 0;
        communicator.sum(std::span(&nothing, 1));  // none leaves before rank 0 has saved
      } catch (...) {                              // the first error is reported
      }
    }
    if (writes_) {  // else rank 0 adds it
      const auto& saved = trainer_.saved();
      const auto last =
          saved.step >= 0 ? saved.path.string() + " (step " + std::to_string(saved.step) + ")" : "none yet";
      error = with_note<FileError, TextError, ShapeError, MismatchError, OptionError, TrainingError, DeviceError>(
          error, "; the last good checkpoint: " + last);
    }
    const std::string message = message_of(error);
    tell_end({.how = EndReport::How::error, .message = message, .error = error});
    if constexpr (TellsWhyItLeaves<std::remove_cvref_t<decltype(trainer_.communicator())>>) {
      communicator.leave(message);
    }
    std::rethrow_exception(error);
  }

  TrainerType& trainer_;
  const FitOptions options_;
  Index time_;
  Observers observers_;
  std::list<FolderLock> folders_;
  std::optional<MetricsFile> metrics_;
  std::list<Feed> feeds_;  // of each stage of growth, the full one last
  Feed* feed_ = nullptr;   // of the last step
  StepReport report_;
  ExpertLoads loads_;   // of the last step, for all observers: one of them may evaluate, which counts anew
  bool writes_ = true;  // whether this rank writes files
  bool stopped_ = false, unsaved_best_ = false, save_is_due_ = false;
  bool failed_together_ = false;                    // as the trainer's, of batches and observers
  Index first_ = 0, evaluated_ = -1, latest_ = -1;  // steps
  Stopwatch since_saved_;
};

}  // namespace tinymoe::inline v0_1::detail
