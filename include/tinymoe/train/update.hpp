#pragma once
/// @file
/// One update of the weights, in two halves: first the gradients' norm and the factor that clips them, then the
/// optimizer's step. Between them the host may read the norm. Of several ranks each takes the step of its own share.
/// Over 300 lines: sums, norm, step and what is gathered go by one list of buckets.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/optimizer.hpp"
#include "tinymoe/train/optimizer_step.hpp"
#include "tinymoe/train/parameter_buckets.hpp"
#include "tinymoe/train/rank_groups.hpp"

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

  /// The model must outlive it. Throws OptionError for options that the optimizer's `check` refuses and for experts
  /// that the ranks cannot share, DeviceError without memory.
  template <class C>
  [[gnu::cold]] Update(ModelType& model, O optimizer, const RankGroups<C, BackendType>& ranks)
      : model_(&model), optimizer_(std::move(optimizer)), rank_(ranks.all().rank()) {
    detail::check_if_it_can(optimizer_);
    auto& backend = model.backend();
    const auto chunks = chunks_for<typename ModelType::Weights>(optimizer_);
    if constexpr (std::is_same_v<C, Alone>) {
      buckets_.push_back(whole_bucket(ModelType::size, std::ssize(chunks)));
    } else {
      const Index size = ranks.all().size(), expert_parallel = ranks.expert_parallel();
      buckets_ = parameter_buckets(tensors, places_of_segments<typename ModelType::Weights>(expert_parallel), chunks,
                                   ModelType::size, size, expert_parallel);
    }
    std::vector<Chunk> own;
    for (const Bucket& bucket : buckets_) {
      const ParameterRun run = bucket.share(rank_);
      for (Index i = run.first_chunk; i < run.last_chunk; ++i) {
        own.push_back(chunks[static_cast<std::size_t>(i)]);
        own.back().moment = count_ + own.back().offset - run.first;
      }
      for (const Segment& tensor : tensors_of_run(tensors, run)) tensors_.push_back(tensor);
      count_ += run.last - run.first;
      runs_.push_back(run);
    }
    firsts_of_squares_ = {0, std::ssize(chunks)};
    if constexpr (!std::is_same_v<C, Alone>) set_places(ranks.all().size(), std::ssize(chunks));

    gradients_memory_ = backend.allocate(static_cast<std::size_t>(ModelType::size) * sizeof(Master));
    bind_parameters(gradients_, gradient_buffer().data);
    for (Index i = 0; i < moment_count(); ++i) {
      moments_.push_back(backend.allocate(static_cast<std::size_t>(count_) * sizeof(Master)));
    }
    const std::size_t chunk_bytes = own.size() * sizeof(Chunk);
    chunks_ = backend.allocate(chunk_bytes);
    backend.copy_to_device(chunks_.bytes(), own.data(), chunk_bytes);
    squares_ = backend.allocate(chunks.size() * sizeof(Master));
    scratch_ = backend.allocate(optimizer_scratch(optimizer_, backend, std::span<const Segment>(tensors_)));
    step_.gradients = gradient_buffer();
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
  /// f(first, last, place) for each run of this rank's share: its elements in a buffer of all parameters, and where
  /// they begin in the moments.
  template <class F>
  void for_each_run(F&& f) const {
    Index place = 0;
    for (const ParameterRun& run : runs_) {
      f(run.first, run.last, place);
      place += run.last - run.first;
    }
  }

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
    const Index last = place + std::ssize(values);
    // f(first, last) for what [from, to) and the values have in common, from the first of them on.
    const auto for_common = [&](Index from, Index to, auto&& f) {
      from = std::clamp(from, place, last), to = std::clamp(to, place, last);
      if (to > from) f(from - place, to - place);
    };
    for_each_run([&](Index first, Index end, Index at) {
      for_common(first, end, [&](Index from, Index to) {
        backend.copy_to_host(values.data() + from, moments()[i].data + at + (place + from - first),
                             static_cast<std::size_t>(to - from) * sizeof(Master));
      });
    });
    if constexpr (!std::is_same_v<C, Alone>) {
      if (communicator.size() == 1) return;
      if (gathered_.size() < values.size_bytes()) gathered_ = backend.allocate(values.size_bytes());
      const View<Master> row(gathered_.template as<Master>().data, 1, std::ssize(values));
      backend.copy_to_device(row.data, values.data(), values.size_bytes());
      std::vector<Index> firsts;
      for (const Bucket& bucket : buckets_) {
        for_common(bucket.all.first, bucket.all.last, [&](Index from, Index to) {
          firsts.clear();
          for (Index r = 0; r <= communicator.size(); ++r) {  // where each rank's begin, though not each is an owner
            const Index first = r == communicator.size() ? bucket.all.last : bucket.first_of(r);
            firsts.push_back(std::clamp(first - place, from, to) - from);
          }
          communicator.all_gather(backend, row.middle_cols(from, to - from), firsts);
        });
      }
      backend.copy_to_host(values.data(), row.data, values.size_bytes());
    }
  }

  /// Whether gradients are summed while backward goes on; then `start_sums` is to be called in it.
  template <class C>
  bool sums_beside_backward(const RankGroups<C, BackendType>& ranks) const {
    if constexpr (OverlappingCommunicator<C, BackendType>) {
      return ranks.all().size() > 1 && ranks.all().overlaps(model_->backend());
    } else {
      return false;
    }
  }
  /// Starts the sum over the ranks of each bucket whose gradients are complete once backward is done with a layer; see
  /// LayerWatch.
  template <class C>
  void start_sums(RankGroups<C, BackendType>& ranks, Index layer) {
    if constexpr (OverlappingCommunicator<C, BackendType>) {
      for (const Bucket& bucket : buckets_) {
        if (bucket.layer == layer) start_sum(ranks, bucket);
      }
    }
  }

  /// Sums the gradients over the ranks, each for its own share, and measures them: clip (1, 2) = the norm of all, and
  /// the factor that clips it to at most `limit` (0: no limit). The gradients are those of `loss_scale` times the loss.
  /// The norm is without that scale, and the factor removes it.
  template <class C>
  void measure(RankGroups<C, BackendType>& ranks, double limit, double loss_scale, View<Master> clip) {
    auto& backend = model_->backend();
    if constexpr (!std::is_same_v<C, Alone>) sum_over_ranks(ranks);
    const View<Master> squares(squares_.template as<Master>().data, 1, firsts_of_squares_.back());
    if (step_.chunks.cols > 0) {
      backend.launch(step_.chunks.cols, kernels::SquaredSum<Master>{step_.gradients.data, step_.chunks.data,
                                                                    squares.data + first_square_});
    }
    ranks.all().all_gather(backend, squares, firsts_of_squares_);
    const auto* order = order_.size() > 0 ? order_.template as<std::int32_t>().data : nullptr;
    backend.launch(1, kernels::ClipScale<Master>{squares.data, squares.cols, limit, clip.data, loss_scale, order});
    step_.clip = clip;
  }

  /// Step `step`, from 0, at learning rate `rate`, after `measure`: changes the weights and zeroes the gradients.
  template <class C>
  void operator()(RankGroups<C, BackendType>& ranks, Index step, double rate) {
    auto& backend = model_->backend();
    step_.weights = model_->masters();
    step_.copy = {};
    if constexpr (ModelType::has_copy) {
      if (ranks.all().size() == 1) step_.copy = model_->buffer();  // else `refresh` writes all of it
    }
    step_.rate = rate;
    step_.step = step;
    if (step_.chunks.cols > 0) optimizer_.step(backend, step_);
    if constexpr (!std::is_same_v<C, Alone>) {
      if (ranks.all().size() == 1) return;
      Index end = 0;
      for_each_run([&](Index first, Index last, Index) { zero_gradients(std::exchange(end, last), first); });
      zero_gradients(end, ModelType::size);
      for (const Bucket& bucket : buckets_) {
        if (bucket.is_of(rank_))
          of(ranks, bucket).all_gather(backend, all_of(model_->masters(), bucket), bucket.firsts);
      }
      model_->refresh();
    }
  }

  /// Gives each rank the experts of all in a buffer of all parameters, of which it has its own.
  template <class C>
  [[gnu::cold]] void gather_experts(RankGroups<C, BackendType>& ranks, View<Master> buffer) {
    const Index expert_parallel = ranks.expert_parallel();
    std::vector<Index> firsts(static_cast<std::size_t>(expert_parallel + 1));
    for (const Bucket& bucket : buckets_) {
      if (bucket.part < 0) continue;
      const Index size = bucket.all.last - bucket.all.first;
      for (Index r = 0; r <= expert_parallel; ++r) firsts[static_cast<std::size_t>(r)] = r > bucket.part ? size : 0;
      ranks.expert_group().all_gather(model_->backend(), all_of(buffer, bucket), firsts);
    }
  }

  /// Zeroes the gradients of a step that is given up, after what was started.
  template <class C>
  void discard(RankGroups<C, BackendType>& ranks) {
    if constexpr (OverlappingCommunicator<C, BackendType>) {
      if (std::exchange(started_, 0) > 0) {
        try {
          finish_sums(ranks);
        } catch (...) {  // the error for which the step is given up is told
        }
      }
    }
    zero_gradients(0, ModelType::size);
  }

 private:
  /// The ranks that have a bucket.
  template <class C>
  static C& of(RankGroups<C, BackendType>& ranks, const Bucket& bucket) {
    if constexpr (!std::is_same_v<C, Alone>) {
      if (bucket.part >= 0) return ranks.replicas();
    }
    return ranks.all();
  }
  template <class C>
  void start_sum(RankGroups<C, BackendType>& ranks, const Bucket& bucket) {
    if (bucket.is_of(rank_)) {
      of(ranks, bucket).start_reduce_scatter(model_->backend(), all_of(gradient_buffer(), bucket), bucket.firsts);
    }
    ++started_;
  }
  template <class C>
  void finish_sums(RankGroups<C, BackendType>& ranks) {
    const auto finish_replicas = [&] {
      if (ranks.expert_parallel() > 1) ranks.replicas().finish(model_->backend());
    };
    try {
      ranks.all().finish(model_->backend());
    } catch (...) {
      try {
        finish_replicas();
      } catch (...) {  // the first error is told
      }
      throw;
    }
    finish_replicas();
  }
  /// Sums the gradients of all buckets that were not started, from the last to the first, as backward fills them, and
  /// waits for the others.
  template <class C>
  void sum_over_ranks(RankGroups<C, BackendType>& ranks) {
    if constexpr (OverlappingCommunicator<C, BackendType>) {
      if (sums_beside_backward(ranks)) {
        for (std::size_t i = buckets_.size() - started_; i-- > 0;) start_sum(ranks, buckets_[i]);
        started_ = 0;
        return finish_sums(ranks);
      }
    }
    for (const Bucket& bucket : buckets_) {
      if (!bucket.is_of(rank_)) continue;
      of(ranks, bucket).reduce_scatter(model_->backend(), all_of(gradient_buffer(), bucket), bucket.firsts);
    }
  }

  template <class T>
  static View<T> all_of(const View<T>& buffer, const Bucket& bucket) {
    return buffer.middle_cols(bucket.all.first, bucket.all.last - bucket.all.first);
  }

  /// Where each rank's squares lie, one rank behind the other, and the places of those of all chunks in order.
  [[gnu::cold]] void set_places(Index ranks, Index chunks) {
    firsts_of_squares_ = {0};
    std::vector<std::int32_t> order(static_cast<std::size_t>(chunks));
    std::int32_t place = 0;
    for (Index r = 0; r < ranks; ++r) {
      for (const Bucket& bucket : buckets_) {
        const ParameterRun run = bucket.share(r);
        for (Index i = run.first_chunk; i < run.last_chunk; ++i) order[static_cast<std::size_t>(i)] = place++;
      }
      firsts_of_squares_.push_back(place);
    }
    first_square_ = firsts_of_squares_[static_cast<std::size_t>(rank_)];
    if (ranks == 1) return;  // they lie in order
    const std::size_t bytes = order.size() * sizeof(order[0]);
    order_ = model_->backend().allocate(bytes);
    model_->backend().copy_to_device(order_.bytes(), order.data(), bytes);
  }

  void zero_gradients(Index from, Index to) {
    model_->backend().zero(gradient_buffer().data + from, static_cast<std::size_t>(to - from) * sizeof(Master));
  }

  ModelType* model_;
  O optimizer_;
  Index rank_ = 0;
  std::vector<Bucket> buckets_;
  std::size_t started_ = 0;               // buckets, from the last on, whose sums are under way
  std::vector<ParameterRun> runs_;        // this rank's share, a run of each bucket
  Index count_ = 0;                       // its elements
  std::vector<Segment> tensors_;          // of the share
  std::vector<Index> firsts_of_squares_;  // of each rank
  Index first_square_ = 0;
  Gradients gradients_;
  Memory gradients_memory_, chunks_, squares_, order_, scratch_, gathered_;
  std::vector<Memory> moments_;
  OptimizerStep<BackendType> step_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
