#pragma once
/// @file
/// Forward and backward of micro-batches whose memory is planned once. What they tell is added up in a Tally.

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/tally.hpp"

namespace tinymoe::inline v0_1 {

/// The passes of one model. A shape is planned when it is first asked for; between plans nothing is allocated.
template <class ModelType>
class Passes {
 public:
  using Architecture = typename ModelType::Architecture;
  using BackendType = typename ModelType::BackendType;
  using Master = typename ModelType::Master;
  using Gradients = typename Architecture::template Parameters<Master>;
  using Saved = typename Activations<Architecture, BackendType>::Saved;

  /// The model must outlive it.
  explicit Passes(ModelType& model) : model_(&model) {}

  /// Makes room for passes of (batch, time), if they are other than the last ones: with `recompute` a block's
  /// activations are computed again in backward. Throws ShapeError for sizes that do not fit the model, OptionError
  /// for settings outside their ranges, DeviceError without memory.
  void plan(Index batch, Index time, bool recompute) {
    check_time(time);
    if (batch < 1 || time < 1)
      fail<ShapeError>("expected a batch of at least 1 x 1 tokens, found ", batch, " x ", time);
    if (batch > (Index{1} << 24) / time) {
      fail<ShapeError>("a micro-batch of ", batch, " x ", time, " tokens is too large; the most are ", 1 << 24);
    }
    const Settings& settings = model_->settings();
    settings.check();
    if (batch == planned_.batch && time == planned_.time && recompute == planned_.recompute &&
        settings == planned_.settings && ready_) {
      return;
    }
    auto& backend = model_->backend();
    ready_ = false;
    activations_.reset();  // the old block goes before the new one comes
    planned_ = {.batch = batch, .time = time, .settings = settings, .recompute = recompute, .training = true};
    activations_.emplace(backend, Plan::Purpose::training, planned_);
    tokens_ = backend.allocate(static_cast<std::size_t>(4 * batch * time) * sizeof(Token));
    slot_ = 0, staged_ = false;
    repeated_ = {};
    staged_tokens_.resize(static_cast<std::size_t>(2 * batch * time));
    std::vector<Routing<Master>> mixtures;
    Architecture::for_each_mixture(saved(), [&](auto& mixture, Index) { mixtures.push_back(mixture.routing()); });
    tally_.bind(backend, saved().losses, mixtures);
    ready_ = true;
  }

  static void check_time(Index time) {
    if (time > Architecture::context) {
      fail<ShapeError>("sequences of ", time, " tokens are longer than the model's context of ", Architecture::context);
    }
  }

  bool recompute() const { return planned_.recompute; }
  std::size_t bytes() const { return activations_ ? activations_->bytes() : 0; }
  /// The activations of the last pass.
  Saved& saved() { return **activations_; }

  /// What the passes since its `clear` gave.
  Tally<BackendType>& tally() { return tally_; }
  const Tally<BackendType>& tally() const { return tally_; }

  /// Forward and backward of one micro-batch of the planned shape: adds the gradients of `scale` · Σ losses + the
  /// weighted router losses, and its results to the tally. `pass` is told of the tokens and pads.
  void train(Pass& pass, std::span<const Token> inputs, std::span<const Token> targets, double scale,
             Gradients& gradients) {
    auto& backend = model_->backend();
    take(pass, inputs, targets);
    repeat(pass, scale, gradients, [&] {
      Architecture::forward(backend, pass, model_->weights(), row(slot_, 0), saved());
      Architecture::loss_and_backward(backend, pass, model_->weights(), row(slot_, 0), row(slot_, 1), scale, saved(),
                                      gradients);
      tally_.add();
    });
  }

  /// Adds the losses and loads of one micro-batch of the planned shape to the tally, without gradients or noise.
  void evaluate(std::span<const Token> inputs, std::span<const Token> targets) {
    auto& backend = model_->backend();
    Pass pass{.batch = planned_.batch,
              .time = planned_.time,
              .settings = model_->settings(),
              .recompute = planned_.recompute};
    take(pass, inputs, targets);
    Architecture::forward(backend, pass, model_->weights(), row(slot_, 0), saved());
    Architecture::loss(backend, model_->weights(), row(slot_, 1), saved());
    tally_.add();
  }

  /// Sends a micro-batch ahead, behind what the device was given before, so that it is there when the step is over; the
  /// pass that is given the same tokens finds them there. Other passes may come before it; another plan, or another
  /// micro-batch sent ahead, drops it.
  void stage(std::span<const Token> inputs, std::span<const Token> targets) {
    staged_ = false;
    send(1 - slot_, inputs, targets);
    std::copy(targets.begin(), targets.end(), std::copy(inputs.begin(), inputs.end(), staged_tokens_.begin()));
    staged_ = true;
  }

 private:
  /// Inputs (0) and targets (1) of a slot on the backend.
  View<const Token> row(Index slot, Index i) const {
    return {tokens_.template as<Token>().data + (2 * slot + i) * planned_.rows(), 1, planned_.rows()};
  }

  void send(Index slot, std::span<const Token> inputs, std::span<const Token> targets) {
    assert(std::ssize(inputs) == planned_.rows() && inputs.size() == targets.size());
    auto* to = tokens_.template as<Token>().data + 2 * slot * planned_.rows();
    detail::upload(model_->backend(), to, inputs.data(), inputs.size_bytes());
    detail::upload(model_->backend(), to + planned_.rows(), targets.data(), targets.size_bytes());
  }

  /// Makes `slot_` the one with these tokens. What was sent ahead is known by its tokens, not by a promise of the
  /// caller's, so that nothing that happens between can mistake it; until then its slot is left alone.
  void take(Pass& pass, std::span<const Token> inputs, std::span<const Token> targets) {
    const bool ahead = staged_ && std::equal(inputs.begin(), inputs.end(), staged_tokens_.begin()) &&
                       std::equal(targets.begin(), targets.end(), staged_tokens_.begin() + planned_.rows());
    if (ahead || !staged_) slot_ = 1 - slot_;
    if (ahead) staged_ = false;
    if (!ahead) send(slot_, inputs, targets);
    pass.pads = std::count_if(inputs.begin(), inputs.end(), [](Token token) { return token < 0; });
    pass.tokens = pass.pads > 0 ? row(slot_, 0) : View<const Token>{};
  }

  /// `work` on this slot's micro-batch. It is the same operations in every step, which can be recorded, in a model
  /// without mixtures, whose products wait for no counts, and without dropout, whose numbers follow from the step.
  template <class Work>
  void repeat(const Pass& pass, double scale, const Gradients& gradients, Work&& work) {
    const Settings& settings = planned_.settings;
    const bool drops = settings[setting::dropout] > 0 || settings[setting::attention_dropout] > 0 ||
                       settings[setting::expert_dropout] > 0;
    if (Architecture::has_mixtures || drops || pass.pads > 0) return work();
    repeated_[static_cast<std::size_t>(slot_)](model_->backend(), Told{scale, &gradients}, work);
  }

  /// What else than a slot's tokens its operations are told.
  struct Told {
    double scale;
    const Gradients* gradients;
    friend bool operator==(const Told&, const Told&) = default;
  };

  ModelType* model_;
  Pass planned_;
  bool ready_ = false;  // there is memory for what is planned
  std::optional<Activations<Architecture, BackendType>> activations_;
  Tally<BackendType> tally_;
  std::array<detail::Repeated<BackendType, Told>, 2> repeated_;  // by the slot
  Memory tokens_;        // two slots of inputs and targets, so that the next micro-batch can come while one is read
  Index slot_ = 0;       // that of the last pass
  bool staged_ = false;  // whether the other slot has a micro-batch that was sent ahead
  std::vector<Token> staged_tokens_;  // its inputs and targets
};

}  // namespace tinymoe::inline v0_1
