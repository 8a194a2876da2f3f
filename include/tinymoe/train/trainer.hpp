#pragma once
/// @file
/// Training: gradient accumulation, clipping, an optimizer and a schedule, evaluation, and checkpoints to resume from.
///
/// A step's memory is planned before the first one; a step allocates nothing. Every random choice is a function of the
/// seed and the step, so that a resumed run of a number of steps gives the same bits as one that was never interrupted.
/// (In a run of minutes the schedule follows the clock.)

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "tinymoe/text/batches.hpp"
#include "tinymoe/train/checkpoint.hpp"
#include "tinymoe/train/metrics.hpp"
#include "tinymoe/train/optimizer.hpp"
#include "tinymoe/train/schedule.hpp"

namespace tinymoe {

/// How a model is trained. A run ends after `steps` or `minutes`, whichever is first; one of them must be given.
struct FitOptions {
  Index batch = 16;        // B, sequences of a micro-batch
  Index time = 0;          // T, tokens of a sequence; 0: the model's context
  Index accumulation = 1;  // micro-batches of a step
  Index steps = 0;
  double minutes = 0;
  double clip = 1;  // greatest norm of the gradients; 0: none
  Seed seed = {};   // of the order of the data

  Index evaluate_every = 0;  // steps; 0: only at the end
  const TokenData* validation = nullptr;
  Index checkpoint_every = 0;             // steps; 0: only at the end
  std::filesystem::path checkpoint = {};  // the folder; empty: none
  const Tokenizer* tokenizer = nullptr;   // goes into the checkpoint, and must be given for one
  std::filesystem::path metrics = {};     // a CSV; empty: none

  std::function<void(const StepReport&)> on_step = {};
  std::function<void(const StepReport&, const EvaluationReport&)> on_evaluation = {};
  std::function<void(const StepReport&)> on_checkpoint = {};
  std::function<bool()> stop = {};  // asked after each step; true ends the run early, with its checkpoint
};

/// Trains a model. `Trainer trainer(model, AdamW{.lr = 1e-3}, WarmupCosine{});`
template <class ModelType, Optimizer<typename ModelType::BackendType> O = AdamW, Schedule S = Constant>
class Trainer {
 public:
  using Architecture = typename ModelType::Architecture;
  using BackendType = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;
  using Gradients = typename Architecture::template Parameters<Master>;

  /// Takes memory for gradients and moments. The model must outlive the trainer. Throws DeviceError without memory.
  explicit Trainer(ModelType& model, O optimizer = {}, S schedule = {})
      : model_(&model), optimizer_(optimizer), schedule_(schedule) {
    auto& backend = model.backend();
    constexpr auto bytes = static_cast<std::size_t>(ModelType::size) * sizeof(Master);
    for (Index i = 0; i < 1 + optimizer_.moments; ++i) buffers_.push_back(backend.allocate(bytes));
    bind(gradients_, row(0).data);
    const auto chunks = chunks_of<typename ModelType::Weights>();
    chunk_count_ = static_cast<Index>(chunks.size());
    chunks_ = backend.allocate(chunks.size() * sizeof(Chunk));
    backend.copy_to_device(chunks_.bytes(), chunks.data(), chunks.size() * sizeof(Chunk));
    norms_ = backend.allocate((chunks.size() + 2) * sizeof(Master));
    scratch_ = backend.allocate(optimizer_scratch(optimizer_, backend, tensors));
  }

  /// Steps done.
  Index step() const { return step_; }
  ModelType& model() const { return *model_; }
  /// The gradients of the step under way; zero between steps.
  View<Master> gradients() const { return row(0); }

  /// One optimizer step on `inputs` and `targets` (accumulation · B · T tokens; a negative target is not scored).
  /// Throws ShapeError for sizes that do not fit, TextError for a token outside the vocabulary, and TrainingError if
  /// the loss or the gradients' norm is not a finite number; the weights are those before the step then.
  StepReport train_step(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time,
                        double clip = 1, double fraction = 0) {
    check_shape(inputs, targets, batch, time);
    const Index size = batch * time, micro_batches = std::ssize(inputs) / size;
    plan(batch, time);
    Index scored = 0;
    for (const Token target : targets) scored += target >= 0 ? 1 : 0;
    if (scored == 0) fail<TrainingError>("step ", step_ + 1, ": no target of the batch is scored");

    StepReport report;
    Pass pass{.batch = batch, .time = time, .settings = model_->settings(), .loss_scale = 1.0 / double(micro_batches)};
    for (Index i = 0; i < micro_batches; ++i) {
      upload(inputs.subspan(i * size, size), targets.subspan(i * size, size));
      auto& backend = model_->backend();
      Architecture::forward(backend, pass, model_->weights(), inputs_view(size), **activations_);
      Architecture::loss_and_backward(backend, pass, model_->weights(), inputs_view(size), targets_view(size),
                                      1.0 / static_cast<double>(scored), **activations_, gradients_);
      report.loss += loss_sum(size) / static_cast<double>(scored);
      add_router_losses(report, micro_batches);
    }
    const double total = report.loss + report.balance_loss + report.z_loss;
    if (!std::isfinite(total)) {
      model_->backend().zero(buffers_[0].bytes(), buffers_[0].size());
      fail<TrainingError>("step ", step_ + 1, ": the loss is ", report.loss, "; a lower learning rate may help");
    }
    report.learning_rate = optimizer_.lr * schedule_(Progress{step_, fraction});
    report.gradient_norm = update(report.learning_rate, clip);
    report.step = ++step_;
    tokens_ += std::ssize(inputs);
    report.tokens = tokens_;
    return report;
  }

  /// The mean loss over all of `data`, in windows of (batch, time) without overlap.
  EvaluationReport evaluate(const TokenData& data, Index batch = 16, Index time = 0) {
    if (time == 0) time = Architecture::context;
    check_vocabulary(data);
    const EvaluationWindows windows(data, batch, time);
    plan(batch, time);
    std::vector<Token> inputs(static_cast<std::size_t>(batch * time)), targets(inputs.size());
    EvaluationReport report;
    double total = 0;
    for (Index i = 0; i < windows.batches(); ++i) {
      windows.fill(i, inputs, targets);
      total += loss_of(inputs, targets);
      std::size_t layer = 0;
      for_each_mixture([&](const auto& mixture) {
        if (report.loads.size() <= layer)
          report.loads.emplace_back(static_cast<std::size_t>(mixture.dispatch.experts()));
        const auto loads = loads_of(mixture.dispatch);
        for (std::size_t e = 0; e < loads.size(); ++e) report.loads[layer][e] += loads[e];
        ++layer;
      });
    }
    report.tokens = windows.scored_tokens();
    report.loss = total / static_cast<double>(report.tokens);
    if (!std::isfinite(total)) fail<TrainingError>("step ", step_, ": the validation loss is ", report.loss);
    if (data.text_bytes() > 0)
      report.bits_per_byte = total / 0.6931471805599453 / static_cast<double>(data.text_bytes());
    return report;
  }

  /// Trains until the budget is spent or `stop` says so, and returns the last step's report. With a validation set it
  /// ends in an evaluation, and with a checkpoint folder in a checkpoint. Throws what train_step, the data and the
  /// checkpoint throw, the step and the last good checkpoint named; a checkpoint on disk is whole in any case.
  StepReport fit(const TokenData& data, const FitOptions& options);

  /// Writes model, tokenizer and training state; the old folder stays until the new one is whole. Throws FileError.
  void save(const std::filesystem::path& path, const Tokenizer& tokenizer) {
    AtomicFolder folder(path);
    write_model(folder, *model_, tokenizer);
    folder.write("optimizer.safetensors", [&](FileWriter& file) {
      detail::write_tensors<Gradients>(model_->backend(), file, moment_names(), moments(), {});
    });
    folder.write("trainer.json", [&](FileWriter& file) {
      const nlohmann::json state = {{"version", 1},
                                    {"step", step_},
                                    {"tokens", tokens_},
                                    {"seconds", seconds_},
                                    {"seed", data_seed_},
                                    {"moments", optimizer_.moments},
                                    {"batch", data_batch_},
                                    {"time", data_time_},
                                    {"accumulation", data_accumulation_},
                                    {"data_tokens", data_tokens_}};
      file.write(state.dump(2) + "\n");
    });
    folder.commit();
    saved_ = path, saved_step_ = step_;
  }

  /// Goes on from a checkpoint that `save` wrote: weights, moments, step. Throws FileError and MismatchError; the
  /// trainer and its model are unchanged then.
  void resume(const std::filesystem::path& path) {
    const auto folder = resolve_folder(path);
    const std::string name = (folder / "trainer.json").string();
    const auto state = read_json(folder / "trainer.json", std::size_t{1} << 20);
    const auto count = json_field<Index>(state, "moments", name), step = json_field<Index>(state, "step", name);
    if (json_field<Index>(state, "version", name) != 1) fail<MismatchError>(name, ": is of another version of tinymoe");
    if (count != optimizer_.moments || step < 0 || step > (Index{1} << 40)) {
      fail<MismatchError>(name, ": is of an optimizer with ", count, " moments at step ", step, ", expected ",
                          optimizer_.moments, " moments");
    }
    const auto tokens = json_field<Index>(state, "tokens", name);
    const auto seconds = json_field<double>(state, "seconds", name);
    const auto seed = json_field<std::uint64_t>(state, "seed", name);
    const auto batch = json_field<Index>(state, "batch", name), time = json_field<Index>(state, "time", name);
    const auto accumulation = json_field<Index>(state, "accumulation", name);
    const auto data_tokens = json_field<Index>(state, "data_tokens", name);
    if (!(seconds >= 0) || tokens < 0) fail<FileError>(name, ": the tokens or seconds are negative");
    const Safetensors moments_file(folder / "optimizer.safetensors");
    detail::check_tensors<Gradients, Master>(moments_file, moment_names());
    load_model(path, *model_);
    detail::read_tensors<Gradients>(model_->backend(), moments_file, moment_names(), moments());
    step_ = step, tokens_ = tokens, seconds_ = seconds;
    data_seed_ = seed, data_batch_ = batch, data_time_ = time, data_accumulation_ = accumulation;
    data_tokens_ = data_tokens;
    saved_ = path, saved_step_ = step;
  }

  /// Bytes of gradients and optimizer state; the activations that are planned now.
  std::size_t state_bytes() const { return buffers_.size() * buffers_[0].size(); }
  std::size_t activation_bytes() const { return activations_ ? activations_->bytes() : 0; }

 private:
  View<Master> row(std::size_t i) const { return {buffers_[i].template as<Master>().data, 1, ModelType::size}; }

  std::vector<View<Master>> moments() const {
    std::vector<View<Master>> rows;
    for (std::size_t i = 1; i < buffers_.size(); ++i) rows.push_back(row(i));
    return rows;
  }
  std::vector<std::string> moment_names() const {
    std::vector<std::string> names;
    for (Index i = 1; i <= optimizer_.moments; ++i) names.push_back("moment" + std::to_string(i) + ".");
    return names;
  }

  void check_shape(std::span<const Token> inputs, std::span<const Token> targets, Index batch, Index time) const {
    if (batch < 1 || time < 1 || inputs.empty() || inputs.size() != targets.size() ||
        std::ssize(inputs) % (batch * time) != 0) {
      fail<ShapeError>("expected inputs and targets of a multiple of ", batch, " x ", time, " tokens, found ",
                       inputs.size(), " and ", targets.size());
    }
    check_time(time);
    const auto check = [](Token token, Token least) {
      if (token >= least && token < Architecture::vocab) return;
      fail<TextError>("token ", token, " is outside the vocabulary of ", Architecture::vocab);
    };
    for (const Token token : inputs) check(token, 0);
    for (const Token token : targets) check(token, std::numeric_limits<Token>::min());
  }
  static void check_time(Index time) {
    if (time > Architecture::context) {
      fail<ShapeError>("sequences of ", time, " tokens are longer than the model's context of ", Architecture::context);
    }
  }
  static void check_vocabulary(const TokenData& data) {
    if (data.vocabulary_size() > Architecture::vocab) {
      fail<MismatchError>("the data's tokenizer has ", data.vocabulary_size(),
                          " tokens, more than the model's vocabulary of ", Architecture::vocab);
    }
  }

  /// Makes room for passes of (batch, time), if they are other than the last ones.
  void plan(Index batch, Index time) {
    check_time(time);
    if (batch > (Index{1} << 24) / time) {
      fail<ShapeError>("a micro-batch of ", batch, " x ", time, " tokens is too large; the most are ", 1 << 24);
    }
    if (batch == batch_ && time == time_) return;
    auto& backend = model_->backend();
    activations_.reset();  // the old block goes before the new one comes
    batch_ = time_ = 0;
    activations_.emplace(backend, Plan::Purpose::training, Pass{.batch = batch, .time = time});
    tokens_memory_ = backend.allocate(static_cast<std::size_t>(2 * batch * time) * sizeof(Token));
    host_losses_.resize(static_cast<std::size_t>(batch * time));
    batch_ = batch, time_ = time;
  }

  View<const Token> inputs_view(Index size) const { return {tokens_memory_.template as<Token>().data, 1, size}; }
  View<const Token> targets_view(Index size) const {
    return {tokens_memory_.template as<Token>().data + size, 1, size};
  }

  void upload(std::span<const Token> inputs, std::span<const Token> targets) {
    auto* tokens = tokens_memory_.template as<Token>().data;
    model_->backend().copy_to_device(tokens, inputs.data(), inputs.size_bytes());
    model_->backend().copy_to_device(tokens + inputs.size(), targets.data(), targets.size_bytes());
  }

  /// The loss of one micro-batch of the planned shape with the weights as they are, summed over its tokens.
  double loss_of(std::span<const Token> inputs, std::span<const Token> targets) {
    const Index size = std::ssize(inputs);
    const Pass pass{.batch = batch_, .time = time_, .settings = model_->settings()};
    upload(inputs, targets);
    Architecture::forward(model_->backend(), pass, model_->weights(), inputs_view(size), **activations_);
    Architecture::loss(model_->backend(), model_->weights(), targets_view(size), **activations_);
    return loss_sum(size);
  }

  double loss_sum(Index size) {
    model_->backend().copy_to_host(host_losses_.data(), (*activations_)->losses.data,
                                   static_cast<std::size_t>(size) * sizeof(Master));
    double total = 0;
    for (Index n = 0; n < size; ++n) total += static_cast<double>(real_part(host_losses_[static_cast<std::size_t>(n)]));
    return total;
  }

  /// f(saved state) for each layer that is a mixture.
  template <class F>
  void for_each_mixture(F&& f) {
    Architecture::for_each_block(**activations_, [&](auto, auto& block, Index) {
      if constexpr (requires { block.network.dispatch; }) f(block.network);
    });
  }

  std::span<const Index> loads_of(const Dispatch& dispatch) {
    const auto experts = static_cast<std::size_t>(dispatch.experts());
    host_offsets_.resize(experts + 1);
    host_loads_.resize(experts);
    model_->backend().copy_to_host(host_offsets_.data(), dispatch.offsets.data,
                                   host_offsets_.size() * sizeof(std::int32_t));
    for (std::size_t e = 0; e < experts; ++e) host_loads_[e] = host_offsets_[e + 1] - host_offsets_[e];
    return host_loads_;
  }

  void add_router_losses(StepReport& report, Index micro_batches) {
    Index mixtures = 0;
    double balance = 0, z = 0, variation = 0;
    for_each_mixture([&](const auto& mixture) {
      Master losses[2];
      model_->backend().copy_to_host(losses, mixture.routing()->losses.data, sizeof losses);
      balance += static_cast<double>(real_part(losses[0]));
      z += static_cast<double>(real_part(losses[1]));
      static_cast<void>(loads_of(mixture.dispatch));
      variation += EvaluationReport::coefficient_of_variation(host_loads_);
      ++mixtures;
    });
    if (mixtures == 0) return;
    const double share = 1.0 / static_cast<double>(mixtures * micro_batches);
    report.balance_loss += balance * share;
    report.z_loss += z * share;
    report.load_variation += variation * share;
  }

  /// Clips, steps and zeroes the gradients; returns their norm before. Nothing is changed if it is not finite.
  double update(double rate, double clip) {
    auto& backend = model_->backend();
    auto* norms = norms_.template as<Master>().data;
    const View<const Chunk> chunks(chunks_.template as<Chunk>().data, 1, chunk_count_);
    backend.launch(chunk_count_, kernels::SquaredSum<Master>{row(0).data, chunks.data, norms + 2});
    backend.launch(1, kernels::ClipScale<Master>{norms + 2, chunk_count_, clip, norms});
    Master norm[2];
    backend.copy_to_host(norm, norms, sizeof norm);
    if (const auto found = static_cast<double>(real_part(norm[0])); !std::isfinite(found)) {
      backend.zero(buffers_[0].bytes(), buffers_[0].size());
      fail<TrainingError>("step ", step_ + 1, ": the gradients' norm is ", found, "; a lower learning rate may help");
    }
    step_arguments_.weights = model_->masters();
    step_arguments_.copy = ModelType::has_copy ? model_->buffer() : View<Scalar>{};
    step_arguments_.gradients = row(0);
    if (step_arguments_.moments.empty()) step_arguments_.moments = moments();
    step_arguments_.chunks = chunks;
    step_arguments_.clip = {norms, 1, 2};
    step_arguments_.segments = tensors, step_arguments_.scratch = scratch_.bytes();
    step_arguments_.rate = rate;
    step_arguments_.step = step_;
    optimizer_.step(backend, step_arguments_);
    return static_cast<double>(real_part(norm[0]));
  }

  static constexpr auto tensors = segments<typename ModelType::Weights>();

  ModelType* model_;
  O optimizer_;
  S schedule_;
  std::vector<Memory> buffers_;  // gradients, then moments
  Gradients gradients_;
  Memory chunks_, norms_, scratch_;
  Index chunk_count_ = 0;
  OptimizerStep<BackendType> step_arguments_;

  std::optional<Activations<Architecture, BackendType>> activations_;
  Memory tokens_memory_;
  Index batch_ = 0, time_ = 0;
  std::vector<Master> host_losses_;
  std::vector<std::int32_t> host_offsets_;
  std::vector<Index> host_loads_;

  Index step_ = 0, tokens_ = 0;
  double seconds_ = 0;
  std::uint64_t data_seed_ = 0;  // what the run's data order follows from
  Index data_batch_ = 0, data_time_ = 0, data_accumulation_ = 0, data_tokens_ = 0;
  std::filesystem::path saved_;  // the last checkpoint, written or resumed from
  Index saved_step_ = -1;
};

template <class ModelType, Optimizer<typename ModelType::BackendType> O, Schedule S>
StepReport Trainer<ModelType, O, S>::fit(const TokenData& data, const FitOptions& options) {
  using Clock = std::chrono::steady_clock;
  const Index time = options.time > 0 ? options.time : Architecture::context;
  if (options.steps <= 0 && options.minutes <= 0) fail<TrainingError>("a run needs a number of steps or of minutes");
  if (options.accumulation < 1) fail<TrainingError>("accumulation must be 1 micro-batch or more");
  if (!options.checkpoint.empty() && options.tokenizer == nullptr) {
    fail<TrainingError>(options.checkpoint.string(), ": a checkpoint needs the tokenizer");
  }
  check_vocabulary(data);
  check_time(time);
  if (step_ > 0 && (data_seed_ != options.seed.value || data_batch_ != options.batch || data_time_ != time ||
                    data_accumulation_ != options.accumulation)) {
    fail<MismatchError>("the run to resume had batch ", data_batch_, ", sequence ", data_time_, ", accumulation ",
                        data_accumulation_, " and seed ", data_seed_, "; found ", options.batch, ", ", time, ", ",
                        options.accumulation, " and ", options.seed.value);
  }
  if (step_ > 0 && data_tokens_ != data.size()) {
    fail<MismatchError>("the run to resume trained on data of ", data_tokens_, " tokens; found ", data.size());
  }
  data_tokens_ = data.size();
  data_seed_ = options.seed.value;
  data_batch_ = options.batch, data_time_ = time, data_accumulation_ = options.accumulation;

  if (options.accumulation > (Index{1} << 16)) fail<TrainingError>("accumulation must be 65536 micro-batches or fewer");
  if (!options.checkpoint.empty()) const AtomicFolder probe(options.checkpoint);  // a bad place is found at once
  const Batches batches(data, options.batch, time, options.seed);
  std::optional<MetricsFile> metrics;
  if (!options.metrics.empty()) metrics.emplace(options.metrics, step_);
  const Index size = options.batch * time;
  plan(options.batch, time);
  std::vector<Token> inputs(static_cast<std::size_t>(size * options.accumulation)), targets(inputs.size());

  Index evaluated_step = -1;
  StepReport report;
  report.step = step_, report.tokens = tokens_, report.seconds = seconds_;
  const auto spent = [&] {
    double fraction = 0;
    if (options.steps > 0) fraction = static_cast<double>(step_) / static_cast<double>(options.steps);
    if (options.minutes > 0) fraction = std::max(fraction, seconds_ / (60 * options.minutes));
    return fraction;
  };
  const auto evaluate_now = [&] {
    if (options.validation == nullptr || evaluated_step == step_) return;
    evaluated_step = step_;
    const auto evaluation = evaluate(*options.validation, options.batch, time);
    if (metrics) metrics->write(report, evaluation);
    if (options.on_evaluation) options.on_evaluation(report, evaluation);
  };
  const auto save_now = [&] {
    if (options.checkpoint.empty() || (saved_step_ == step_ && saved_ == options.checkpoint)) return;
    // The last update may have ruined the weights: they must give a finite loss before they replace good ones.
    const double loss =
        loss_of(std::span(inputs).first(inputs.size() / static_cast<std::size_t>(options.accumulation)),
                std::span(targets).first(inputs.size() / static_cast<std::size_t>(options.accumulation)));
    if (!std::isfinite(loss)) {
      fail<TrainingError>("step ", step_, ": the loss is ", loss, " after the update; a lower learning rate may help");
    }
    save(options.checkpoint, *options.tokenizer);
    if (options.on_checkpoint) options.on_checkpoint(report);
  };

  bool stopped = false;
  const auto train = [&] {
    const auto started = Clock::now();
    for (Index i = 0; i < options.accumulation; ++i) {
      batches.fill(step_ * options.accumulation + i, std::span(inputs).subspan(i * size, size),
                   std::span(targets).subspan(i * size, size));
    }
    report = train_step(inputs, targets, options.batch, time, options.clip, spent());
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    seconds_ += seconds;
    report.seconds = seconds_;
    report.tokens_per_second = static_cast<double>(size * options.accumulation) / seconds;
    report.fraction = spent();
    if (metrics) metrics->write(report);
    if (options.on_step) options.on_step(report);
    stopped = options.stop && options.stop();
    if (options.evaluate_every > 0 && step_ % options.evaluate_every == 0 && !stopped) evaluate_now();
    if (options.checkpoint_every > 0 && step_ % options.checkpoint_every == 0) save_now();
  };
  try {
    while (!stopped && spent() < 1) train();
    save_now();
    if (!stopped) evaluate_now();
  } catch (const TrainingError& error) {
    const auto last = saved_.string() + " (step " + std::to_string(saved_step_) + ")";
    fail<TrainingError>(error.what(), "; the last good checkpoint: ", saved_step_ >= 0 ? last : "none yet");
  }
  return report;
}

}  // namespace tinymoe
