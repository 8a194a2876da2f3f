#pragma once
/// @file
/// Forward and backward of micro-batches, in memory that is planned once. A Tally adds up their results.

#include <array>
#include <cassert>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/train/not_finite.hpp"
#include "tinymoe/train/tally.hpp"
#include "tinymoe/train/token_slots.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The passes of one model. `plan` allocates memory for a shape; the passes allocate nothing.
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

  /// Allocates memory for passes of (batch, time), unless it is there already: a smaller shape lies in the block of a
  /// larger one. With `recompute`, backward computes a block's activations again. Throws ShapeError for sizes that do
  /// not fit the model, OptionError for settings outside their ranges, DeviceError without memory.
  void plan(Index batch, Index time, bool recompute) {
    check_time(time);
    if (batch < 1 || time < 1)
      fail<ShapeError>("expected a batch of at least 1 x 1 tokens, found ", batch, " x ", time);
    if (batch > (Index{1} << 24) / time) {
      fail<ShapeError>("a micro-batch of ", batch, " x ", time, " tokens is too large; the limit is ", 1 << 24);
    }
    const Settings& settings = model_->settings();
    settings.check();
    if (batch == planned_.batch && time == planned_.time && recompute == planned_.recompute &&
        settings == planned_.settings && ready_) {
      return;
    }
    auto& backend = model_->backend();
    ready_ = false, drew_ = false;
    Memory block;  // freed, unless only the shape changes
    if (activations_ && recompute == planned_.recompute && settings == planned_.settings) {
      block = activations_->release();
    }
    activations_.reset();
    planned_ = {.batch = batch, .time = time, .settings = settings, .recompute = recompute, .training = true};
    activations_.emplace(backend, Plan::Purpose::training, planned_, std::move(block));
    repeated_ = {};
    std::vector<Routing<Master>> mixtures;
    Architecture::for_each_mixture(saved(), [&](auto& mixture, Index) { mixtures.push_back(mixture.routing()); });
    tally_.bind(backend, saved().losses, mixtures);
    ready_ = true;
  }

  /// Lets the ranks of a group share the experts in passes with this `exchange`, after `plan`. Throws OptionError for a
  /// number of experts that cannot be shared, and for a mixture of the user's own that cannot.
  [[gnu::cold]] void share_experts(ExpertExchange& exchange) {
    using Weight = typename ModelType::Weight;
    Architecture::for_each_mixture(saved(), [&](auto& mixture, Index) {
      if constexpr (requires { mixture.template share_experts<Weight>(model_->backend(), exchange); }) {
        mixture.template share_experts<Weight>(model_->backend(), exchange);
      } else {
        fail<OptionError>("expert parallelism: a mixture of the model has no `share_experts`");
      }
    });
  }

  static void check_time(Index time) {
    if (time > Architecture::context) {
      fail<ShapeError>("sequences of ", time, " tokens are longer than the model's context of ", Architecture::context);
    }
  }

  bool recompute() const { return planned_.recompute; }
  /// Bytes of the activations, and of rows that ranks have sent.
  std::size_t bytes() const {
    if (!activations_) return 0;
    std::size_t sum = activations_->bytes();
    Architecture::for_each_mixture(**activations_, [&](auto& mixture, Index) {
      if constexpr (requires { mixture.received_bytes(); }) sum += mixture.received_bytes();
    });
    return sum;
  }
  /// The activations of the last pass.
  Saved& saved() { return **activations_; }

  /// The results of the passes since its `clear`.
  Tally<BackendType>& tally() { return tally_; }
  const Tally<BackendType>& tally() const { return tally_; }

  /// Forward and backward of one micro-batch of the planned shape: adds the gradients of `scale` · Σ losses + the
  /// weighted router losses, and its results to the tally. Sets the tokens and
  /// pads of `pass`.
  void train(Pass& pass, const MicroBatch& tokens, double scale, Gradients& gradients) {
    auto& backend = model_->backend();
    tell(pass, tokens);
    pass.drew = &drew_;
    repeat(pass, tokens, scale, gradients, [&] {
      Architecture::forward(backend, pass, model_->weights(), tokens.inputs, saved());
      Architecture::loss_and_backward(backend, pass, model_->weights(), tokens.inputs, tokens.targets, scale, saved(),
                                      gradients);
      tally_.add(pass.real_rows());
    });
  }

  /// Forward of one micro-batch of the planned shape, in which each result is looked at. Returns the first that is not
  /// finite, in words; empty: all are. Sets the tokens and pads of `pass`.
  [[gnu::cold]] std::string look(Pass& pass, const MicroBatch& tokens) {
    auto& backend = model_->backend();
    tell(pass, tokens);
    FirstFault<BackendType> fault(backend);
    Architecture::forward_and_look(backend, pass, model_->weights(), tokens.inputs, saved(), fault);
    Architecture::loss(backend, model_->weights(), tokens.targets, saved());
    fault("the head or the cross-entropy", -1, saved().losses);
    return fault.place();
  }

  /// The pass of an evaluation.
  Pass evaluation() const {
    return {.batch = planned_.batch,
            .time = planned_.time,
            .settings = model_->settings(),
            .recompute = planned_.recompute,
            .limits = model_->limits_by_layer()};
  }

  /// Adds the losses and loads of one micro-batch of the planned shape to the tally, without gradients or noise.
  void evaluate(const MicroBatch& tokens) {
    auto& backend = model_->backend();
    Pass pass = evaluation();
    tell(pass, tokens);
    Architecture::forward(backend, pass, model_->weights(), tokens.inputs, saved());
    Architecture::loss(backend, model_->weights(), tokens.targets, saved());
    tally_.add(pass.real_rows());
  }

 private:
  void tell(Pass& pass, const MicroBatch& tokens) const {
    assert(tokens.inputs.cols == planned_.rows() && tokens.targets.cols == planned_.rows());
    pass.pads = tokens.pads;
    pass.tokens = tokens.pads > 0 ? tokens.inputs : View<const Token>{};
  }

  /// Runs `work` on this micro-batch, recorded where every step runs the same operations. That excludes mixtures, whose
  /// products depend on the loads, random numbers, which depend on the step, and passes that are watched. The first
  /// call of `repeated_` runs the work without a recording, so that a part which draws without a setting that says so
  /// is known by then.
  template <class Work>
  void repeat(const Pass& pass, const MicroBatch& tokens, double scale, const Gradients& gradients, Work&& work) {
    if (Architecture::has_mixtures || draws_numbers<Architecture>(planned_.settings) || drew_ || pass.pads > 0 ||
        pass.watch != nullptr) {
      return work();
    }
    const Told told{tokens.inputs.data, scale, &gradients};
    repeated_[static_cast<std::size_t>(tokens.slot)](model_->backend(), told, work);
  }

  /// The arguments of the recorded operations.
  struct Told {
    const Token* inputs;  // the targets lie behind them
    double scale;
    const Gradients* gradients;
    friend bool operator==(const Told&, const Told&) = default;
  };

  ModelType* model_;
  Pass planned_;
  bool ready_ = false;  // there is memory for what is planned
  bool drew_ = false;   // a part has drawn random numbers in a pass of this plan
  std::optional<Activations<Architecture, BackendType>> activations_;
  Tally<BackendType> tally_;
  std::array<detail::Repeated<BackendType, Told>, 2> repeated_;  // by the slot
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
