#pragma once
/// @file
/// One update of the weights, in two halves: first the gradients' norm and the factor that clips them, then the
/// optimizer's step. Between them the host may read the norm.

#include <cstddef>
#include <utility>
#include <vector>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/optimizer.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Gradients and optimizer state of one model. The constructor allocates all memory.
template <class ModelType, Optimizer<typename ModelType::BackendType> O>
class Update {
 public:
  using BackendType = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;
  using Gradients = typename ModelType::Architecture::template Parameters<Master>;
  static constexpr auto tensors = segments<typename ModelType::Weights>();

  /// The model must outlive it. Throws OptionError for options that the optimizer's `check` refuses, DeviceError
  /// without memory.
  [[gnu::cold]] Update(ModelType& model, O optimizer) : model_(&model), optimizer_(std::move(optimizer)) {
    detail::check_if_it_can(optimizer_);
    auto& backend = model.backend();
    constexpr auto bytes = static_cast<std::size_t>(ModelType::size) * sizeof(Master);
    for (Index i = 0; i < 1 + moment_count(); ++i) buffers_.push_back(backend.allocate(bytes));
    bind_parameters(gradients_, row(0).data);
    const auto chunks = chunks_for<typename ModelType::Weights>(optimizer_);
    chunks_ = backend.allocate(chunks.size() * sizeof(Chunk));
    backend.copy_to_device(chunks_.bytes(), chunks.data(), chunks.size() * sizeof(Chunk));
    squares_ = backend.allocate(chunks.size() * sizeof(Master));
    scratch_ = backend.allocate(optimizer_scratch(optimizer_, backend, tensors));
    step_.gradients = row(0);
    step_.moments = moments();
    step_.chunks = {chunks_.template as<Chunk>().data, 1, std::ssize(chunks)};
    step_.segments = tensors;
    step_.scratch = scratch_.bytes();
  }

  const O& optimizer() const { return optimizer_; }
  /// The gradients, to which backward adds; zero between steps.
  Gradients& gradients() { return gradients_; }
  View<Master> gradient_buffer() const { return row(0); }

  /// The optimizer's arrays.
  std::vector<View<Master>> moments() const {
    std::vector<View<Master>> rows;
    for (std::size_t i = 1; i < buffers_.size(); ++i) rows.push_back(row(i));
    return rows;
  }
  Index moment_count() const { return optimizer_.moments; }

  /// Bytes of gradients, moments and scratch.
  std::size_t bytes() const { return buffers_.size() * buffers_[0].size() + scratch_.size(); }

  /// clip (1, 2) = the norm of the gradients, and the factor that clips it to at most `limit` (0: no limit). The
  /// gradients are those of `loss_scale` times the loss. The norm is without that scale, and the factor removes it.
  void measure(double limit, double loss_scale, View<Master> clip) {
    auto& backend = model_->backend();
    auto* squares = squares_.template as<Master>().data;
    const Index chunks = step_.chunks.cols;
    backend.launch(chunks, kernels::SquaredSum<Master>{row(0).data, step_.chunks.data, squares});
    backend.launch(1, kernels::ClipScale<Master>{squares, chunks, limit, clip.data, loss_scale});
    step_.clip = clip;
  }

  /// Step `step`, from 0, at learning rate `rate`, after `measure`: changes the weights and zeroes the gradients.
  void operator()(Index step, double rate) {
    step_.weights = model_->masters();
    step_.copy = ModelType::has_copy ? model_->buffer() : View<Scalar>{};
    step_.rate = rate;
    step_.step = step;
    optimizer_.step(model_->backend(), step_);
  }

  /// Zeroes the gradients of a step that is given up.
  void discard() { model_->backend().zero(buffers_[0].bytes(), buffers_[0].size()); }

 private:
  View<Master> row(std::size_t i) const { return {buffers_[i].template as<Master>().data, 1, ModelType::size}; }

  ModelType* model_;
  O optimizer_;
  std::vector<Memory> buffers_;  // gradients, then moments
  Gradients gradients_;
  Memory chunks_, squares_, scratch_;
  OptimizerStep<BackendType> step_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
