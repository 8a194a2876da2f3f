#pragma once
/// @file
/// One update of the weights, in two halves: first the gradients' norm and the factor that clips them, then the
/// optimizer's step. Between them the host may read the norm. Of several ranks each takes the step of its own share.

#include <algorithm>
#include <cstddef>
#include <span>
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
#include "tinymoe/train/parameter_shares.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Gradients of one model, and the optimizer state of this rank's share of its parameters, which with one rank is all
/// of them. The constructor allocates all memory.
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
  [[gnu::cold]] Update(ModelType& model, O optimizer, Index rank, Index ranks)
      : model_(&model), optimizer_(std::move(optimizer)) {
    detail::check_if_it_can(optimizer_);
    auto& backend = model.backend();
    auto chunks = chunks_for<typename ModelType::Weights>(optimizer_);
    shares_ = parameter_shares(tensors, chunks, ModelType::size, ranks);
    const auto r = static_cast<std::size_t>(rank);
    first_ = shares_.firsts[r], count_ = shares_.firsts[r + 1] - first_;
    first_chunk_ = shares_.first_chunks[r];
    const Index last_chunk = shares_.first_chunks[r + 1];
    const auto own = std::span(chunks).subspan(static_cast<std::size_t>(first_chunk_),
                                               static_cast<std::size_t>(last_chunk - first_chunk_));
    for (Chunk& chunk : own) chunk.offset -= first_;
    tensors_ = tensors_of_share(tensors, first_, first_chunk_, last_chunk);

    gradients_memory_ = backend.allocate(static_cast<std::size_t>(ModelType::size) * sizeof(Master));
    bind_parameters(gradients_, gradient_buffer().data);
    for (Index i = 0; i < moment_count(); ++i) {
      moments_.push_back(backend.allocate(static_cast<std::size_t>(count_) * sizeof(Master)));
    }
    chunks_ = backend.allocate(own.size_bytes());
    backend.copy_to_device(chunks_.bytes(), own.data(), own.size_bytes());
    squares_ = backend.allocate(chunks.size() * sizeof(Master));
    scratch_ = backend.allocate(optimizer_scratch(optimizer_, backend, std::span<const Segment>(tensors_)));
    step_.gradients = share_of(gradient_buffer());
    for (const Memory& memory : moments_) step_.moments.push_back({memory.template as<Master>().data, 1, count_});
    step_.chunks = {chunks_.template as<Chunk>().data, 1, std::ssize(own)};
    step_.segments = tensors_;
    step_.scratch = scratch_.bytes();
  }

  const O& optimizer() const { return optimizer_; }
  /// The gradients, to which backward adds; zero between steps.
  Gradients& gradients() { return gradients_; }
  View<Master> gradient_buffer() const { return {gradients_memory_.template as<Master>().data, 1, ModelType::size}; }

  /// The optimizer's arrays, for this rank's share.
  const std::vector<View<Master>>& moments() const { return step_.moments; }
  Index moment_count() const { return optimizer_.moments; }
  /// Where this rank's share begins in a buffer of all parameters.
  Index first() const { return first_; }

  /// Bytes of gradients, moments and scratch on this rank.
  std::size_t bytes() const {
    std::size_t sum = gradients_memory_.size() + scratch_.size();
    for (const Memory& memory : moments_) sum += memory.size();
    return sum;
  }

  /// Fills `values` with the elements from `place` on of moment `i`, as if all of it lay in one buffer. With several
  /// ranks all call it alike, and each gets them.
  template <class C>
  [[gnu::cold]] void read_moment(C& communicator, std::size_t i, Index place, std::span<Master> values) {
    auto& backend = model_->backend();
    const Index count = std::ssize(values), last = place + count;
    const Index from = std::clamp(first_, place, last), to = std::clamp(first_ + count_, place, last);
    if (to > from) {
      backend.copy_to_host(values.data() + (from - place), moments()[i].data + (from - first_),
                           static_cast<std::size_t>(to - from) * sizeof(Master));
    }
    if (communicator.size() == 1) return;
    if (gathered_.size() < values.size_bytes()) gathered_ = backend.allocate(values.size_bytes());
    const View<Master> row(gathered_.template as<Master>().data, 1, count);
    if (to > from) {
      backend.copy_to_device(row.data + (from - place), values.data() + (from - place),
                             static_cast<std::size_t>(to - from) * sizeof(Master));
    }
    std::vector<Index> firsts = shares_.firsts;
    for (Index& first : firsts) first = std::clamp(first, place, last) - place;
    communicator.all_gather(backend, row, firsts);
    backend.copy_to_host(values.data(), row.data, values.size_bytes());
  }

  /// Sums the gradients over the ranks, each for its own share, and measures them: clip (1, 2) = the norm of all, and
  /// the factor that clips it to at most `limit` (0: no limit). The gradients are those of `loss_scale` times the loss.
  /// The norm is without that scale, and the factor removes it.
  template <class C>
  void measure(C& communicator, double limit, double loss_scale, View<Master> clip) {
    auto& backend = model_->backend();
    communicator.reduce_scatter(backend, gradient_buffer(), shares_.firsts);
    const View<Master> squares(squares_.template as<Master>().data, 1, shares_.first_chunks.back());
    backend.launch(step_.chunks.cols,
                   kernels::SquaredSum<Master>{step_.gradients.data, step_.chunks.data, squares.data + first_chunk_});
    communicator.all_gather(backend, squares, shares_.first_chunks);
    backend.launch(1, kernels::ClipScale<Master>{squares.data, squares.cols, limit, clip.data, loss_scale});
    step_.clip = clip;
  }

  /// Step `step`, from 0, at learning rate `rate`, after `measure`: changes the weights and zeroes the gradients.
  template <class C>
  void operator()(C& communicator, Index step, double rate) {
    auto& backend = model_->backend();
    step_.weights = share_of(model_->masters());
    step_.copy = {};
    if constexpr (ModelType::has_copy) {
      if (communicator.size() == 1) step_.copy = model_->buffer();  // else `refresh` writes all of it
    }
    step_.rate = rate;
    step_.step = step;
    if (step_.chunks.cols > 0) optimizer_.step(backend, step_);
    if (communicator.size() == 1) return;
    zero_gradients(0, first_), zero_gradients(first_ + count_, ModelType::size);
    communicator.all_gather(backend, model_->masters(), shares_.firsts);
    model_->refresh();
  }

  /// Zeroes the gradients of a step that is given up.
  void discard() { zero_gradients(0, ModelType::size); }

 private:
  /// This rank's share of a buffer of all parameters.
  template <class T>
  View<T> share_of(const View<T>& all) const {
    return all.middle_cols(first_, count_);
  }
  void zero_gradients(Index from, Index to) {
    model_->backend().zero(gradient_buffer().data + from, static_cast<std::size_t>(to - from) * sizeof(Master));
  }

  ModelType* model_;
  O optimizer_;
  ParameterShares shares_;
  Index first_ = 0, count_ = 0, first_chunk_ = 0;  // this rank's share
  std::vector<Segment> tensors_;                   // of the share
  Gradients gradients_;
  Memory gradients_memory_, chunks_, squares_, scratch_, gathered_;
  std::vector<Memory> moments_;
  OptimizerStep<BackendType> step_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
