#pragma once
/// @file
/// Forward and backward of micro-batches whose memory is planned once, and what they tell: losses and experts' loads.

#include <optional>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/layers/model.hpp"

namespace tinymoe {

/// The passes of one model. A shape is planned when it is first asked for; between plans nothing is allocated.
template <class ModelType>
class Passes {
 public:
  using Architecture = typename ModelType::Architecture;
  using BackendType = typename ModelType::BackendType;
  using Master = typename ModelType::Master;
  using Gradients = typename Architecture::template Parameters<Master>;
  using Saved = typename Activations<Architecture, BackendType>::Saved;

  /// What a pass of training gave besides gradients.
  struct Losses {
    double cross_entropy = 0;   // summed over the scored tokens, nats
    double balance = 0, z = 0;  // means over the mixtures
  };

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
        settings == planned_.settings && activations_) {
      return;
    }
    auto& backend = model_->backend();
    activations_.reset();  // the old block goes before the new one comes
    planned_ = {.batch = batch, .time = time, .settings = settings, .recompute = recompute, .training = true};
    activations_.emplace(backend, Plan::Purpose::training, planned_);
    tokens_ = backend.allocate(static_cast<std::size_t>(2 * batch * time) * sizeof(Token));
    host_losses_.resize(static_cast<std::size_t>(batch * time));
    loads_.clear();
    std::size_t most = 0;
    for_each_routing([&](const Routing<Master>& routing) {
      loads_.emplace_back(static_cast<std::size_t>(routing.loads.cols));
      most = std::max(most, loads_.back().size());
    });
    host_loads_.resize(most);
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

  /// For each mixture in order, the pairs that each expert got in the passes added since `clear_loads`.
  const std::vector<std::vector<Index>>& loads() const { return loads_; }
  void clear_loads() {
    for (auto& layer : loads_) std::fill(layer.begin(), layer.end(), Index{0});
  }

  /// Forward and backward of one micro-batch of the planned shape: adds the gradients of `scale` · Σ losses + the
  /// weighted router losses. `pass` is told of the tokens and pads.
  Losses train(Pass& pass, std::span<const Token> inputs, std::span<const Token> targets, double scale,
               Gradients& gradients) {
    auto& backend = model_->backend();
    upload(pass, inputs, targets);
    Architecture::forward(backend, pass, model_->weights(), row(0), saved());
    Architecture::loss_and_backward(backend, pass, model_->weights(), row(0), row(1), scale, saved(), gradients);
    Losses losses{.cross_entropy = loss_sum()};
    Index mixtures = 0;
    for_each_routing([&](const Routing<Master>& routing) {
      Master values[2];
      backend.copy_to_host(values, routing.losses.data, sizeof values);
      losses.balance += static_cast<double>(real_part(values[0]));
      losses.z += static_cast<double>(real_part(values[1]));
      ++mixtures;
    });
    if (mixtures > 0) losses.balance /= static_cast<double>(mixtures), losses.z /= static_cast<double>(mixtures);
    add_loads();
    return losses;
  }

  /// The loss of one micro-batch of the planned shape, summed over its scored tokens, without gradients or noise.
  double loss(std::span<const Token> inputs, std::span<const Token> targets) {
    auto& backend = model_->backend();
    Pass pass{.batch = planned_.batch,
              .time = planned_.time,
              .settings = model_->settings(),
              .recompute = planned_.recompute};
    upload(pass, inputs, targets);
    Architecture::forward(backend, pass, model_->weights(), row(0), saved());
    Architecture::loss(backend, model_->weights(), row(1), saved());
    return loss_sum();
  }

  /// Adds the loads of the last pass; `train` does it by itself.
  void add_loads() {
    std::size_t layer = 0;
    for_each_routing([&](const Routing<Master>& routing) {
      auto& loads = loads_[layer++];
      model_->backend().copy_to_host(host_loads_.data(), routing.loads.data, loads.size() * sizeof(std::int32_t));
      for (std::size_t e = 0; e < loads.size(); ++e) loads[e] += host_loads_[e];
    });
  }

 private:
  /// Inputs (0) and targets (1) on the backend.
  View<const Token> row(Index i) const {
    return {tokens_.template as<Token>().data + i * planned_.rows(), 1, planned_.rows()};
  }

  void upload(Pass& pass, std::span<const Token> inputs, std::span<const Token> targets) {
    assert(std::ssize(inputs) == planned_.rows() && inputs.size() == targets.size());
    auto* tokens = tokens_.template as<Token>().data;
    model_->backend().copy_to_device(tokens, inputs.data(), inputs.size_bytes());
    model_->backend().copy_to_device(tokens + inputs.size(), targets.data(), targets.size_bytes());
    pass.pads = std::count_if(inputs.begin(), inputs.end(), [](Token token) { return token < 0; });
    pass.tokens = pass.pads > 0 ? row(0) : View<const Token>{};
  }

  double loss_sum() {
    model_->backend().copy_to_host(host_losses_.data(), saved().losses.data, host_losses_.size() * sizeof(Master));
    double total = 0;
    for (const Master& loss : host_losses_) total += static_cast<double>(real_part(loss));
    return total;
  }

  /// f(routing) for each layer that is a mixture, in order.
  template <class F>
  void for_each_routing(F&& f) {
    Architecture::for_each_block(saved(), [&](auto, auto& block, Index) {
      if (const auto* routing = block.network.routing(); routing != nullptr) f(*routing);
    });
  }

  ModelType* model_;
  Pass planned_;
  std::optional<Activations<Architecture, BackendType>> activations_;
  Memory tokens_;
  std::vector<Master> host_losses_;
  std::vector<std::int32_t> host_loads_;
  std::vector<std::vector<Index>> loads_;
};

}  // namespace tinymoe
