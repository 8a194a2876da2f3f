#pragma once
/// @file
/// An exponential moving average of the weights, in a buffer of its own.
///
///     d_t = min(decay, (1 + t) / (10 + t));   average = d_t average + (1 − d_t) weights        t = 0, 1, … averages
///
/// The average begins with the weights, and the first averages forget quickly, as in TensorFlow's
/// ExponentialMovingAverage with `num_updates`. It therefore needs no bias correction and can be read at any step. The
/// whole buffer is averaged, a router's balancing bias too.

#include <algorithm>
#include <cstddef>
#include <utility>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/buffer_kernels.hpp"
#include "tinymoe/layers/model.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One chunk:  average += (weights − average) · change.
template <class M>
struct AverageStep {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 16384;
  View<const M> weights;  // (1, n)
  View<M> average;        // (1, n)
  M change;               // 1 − d
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = average.cols - first < chunk ? average.cols - first : chunk;
    const auto move = [share = change](M& to, M from) { to += (from - to) * share; };
    group.each(count, move, average.data + first, weights.data + first);
  }
};

/// One chunk: swaps a and b.
template <class M>
struct Exchange {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 16384;
  View<M> a, b;  // (1, n)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = a.cols - first < chunk ? a.cols - first : chunk;
    const auto exchange = [](M& x, M& y) {
      const M kept = x;
      x = y;
      y = kept;
    };
    group.each(count, exchange, a.data + first, b.data + first);
  }
};

}  // namespace kernels

namespace detail {

/// The average of one model's weights; off until `start`.
template <class ModelType>
class WeightAverage {
 public:
  using Master = typename ModelType::Master;

  /// The model must outlive it.
  explicit WeightAverage(ModelType& model) : model_(&model) {}

  bool on() const { return decay_ > 0; }
  double decay() const { return decay_; }
  /// Number of averages since the start.
  Index count() const { return count_; }
  /// The average; empty if it is off.
  View<Master> buffer() const {
    return on() ? View<Master>(memory_.template as<Master>().data, 1, ModelType::size) : View<Master>();
  }
  std::size_t bytes() const { return memory_.size(); }

  /// Starts from the current weights. Throws OptionError for a decay outside (0, 1), DeviceError without memory.
  void start(double decay) {
    resume(decay, 0);
    using Kernel = kernels::Convert<Master, Master>;
    model_->backend().launch(kernels::chunk_count<Kernel>(ModelType::size), Kernel{model_->masters(), buffer()});
  }

  /// Continues after `count` averages; the caller fills the buffer. Throws as `start`.
  void resume(double decay, Index count) {
    constexpr detail::NumberRange between{.least = 0, .most = 1, .above = true, .below = true};
    detail::check_option("the average's decay", decay, between);
    if (memory_.size() == 0) {
      memory_ = model_->backend().allocate(static_cast<std::size_t>(ModelType::size) * sizeof(Master));
    }
    decay_ = decay, count_ = count;
  }

  /// Stops averaging and frees the buffer.
  void stop() {
    memory_ = {};
    decay_ = 0, count_ = 0;
  }

  /// Updates the average with the weights, after a step. Does nothing if it is off.
  void update() {
    if (!on()) return;
    const auto t = static_cast<double>(count_++);
    const double keep = std::min(decay_, (1 + t) / (10 + t));
    using Kernel = kernels::AverageStep<Master>;
    model_->backend().launch(kernels::chunk_count<Kernel>(ModelType::size),
                             Kernel{model_->masters(), buffer(), Master(1 - keep)});
  }

  /// Runs `f` with the average in place of the model's weights, then restores the weights bit for bit. If the average
  /// is off, `f` runs with the weights.
  template <class F>
  void instead(F&& f) {
    exchange();
    try {
      std::forward<F>(f)();
    } catch (...) {
      exchange();
      throw;
    }
    exchange();
  }

 private:
  void exchange() {
    if (!on()) return;
    using Kernel = kernels::Exchange<Master>;
    model_->backend().launch(kernels::chunk_count<Kernel>(ModelType::size), Kernel{model_->masters(), buffer()});
    model_->refresh();
  }

  ModelType* model_;
  Memory memory_;
  double decay_ = 0;
  Index count_ = 0;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
