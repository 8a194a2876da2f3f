#pragma once
/// @file
/// A model: an architecture's parameters on a backend, in one buffer.

#include <cmath>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/layers/buffer_kernels.hpp"
#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1 {

/// An architecture with weights on backend B. It refers to the backend, which must outlive it.
///
/// Where the backend computes in a narrower type than it trains in, the model has two buffers: the masters that the
/// optimizer changes, and a copy in `Scalar` that the products read.
template <class Arch, Backend B>
class Model {
 public:
  using Architecture = Arch;
  using BackendType = B;
  using Scalar = typename B::Scalar;
  using Master = typename B::Master;
  using Weights = typename Arch::template Parameters<Scalar>;
  /// Elements of a buffer of all weights.
  static constexpr Index size = buffer_size<Weights>();
  static constexpr bool has_copy = !std::is_same_v<Scalar, Master>;

  /// Weights drawn from the seed: the same on every backend. Matrices are normal with deviation 1/sqrt(inputs), those
  /// whose results join the residual stream divided by sqrt(2 · layers) too. Embeddings have 1/sqrt(width): a token is
  /// then heard beside what the blocks add to it, and a tied head's logits have unit variance. (In a model of width
  /// 192, 0.02 gave 1.51 bits per byte after 500 steps and 0.1 gave 1.36: docs/benchmarks.) Throws DeviceError without
  /// memory.
  explicit Model(B& backend, Seed seed = {}, Settings settings = {})
      : backend_(&backend), settings_(settings), memory_(backend.allocate(bytes<Master>())) {
    if constexpr (has_copy) copy_ = backend.allocate(bytes<Scalar>());
    bind_parameters(weights_, buffer().data);
    initialise(seed);
  }

  B& backend() const { return *backend_; }
  const Settings& settings() const { return settings_; }
  Settings& settings() { return settings_; }

  /// What layers read.
  const Weights& weights() const { return weights_; }
  /// The weights that layers read, as one row; `segments<Weights>()` says what lies where.
  View<Scalar> buffer() const { return {(has_copy ? copy_ : memory_).template as<Scalar>().data, 1, size}; }
  /// The weights that an optimizer changes, in the same order; call `refresh` after changing them.
  View<Master> masters() const { return {memory_.template as<Master>().data, 1, size}; }
  /// Copies the masters to what layers read, where those are two.
  void refresh() {
    if constexpr (has_copy) {
      using Kernel = kernels::Convert<Master, Scalar>;
      backend_->launch(kernels::chunk_count<Kernel>(size), Kernel{masters(), buffer()});
    }
  }

 private:
  template <class T>
  static constexpr std::size_t bytes() {
    return static_cast<std::size_t>(size) * sizeof(T);
  }

  void initialise(Seed seed) {
    Index offset = 0;
    Weights::for_each(Path{}, [&](const ParameterInfo& info) {
      Master* data = masters().data + offset;
      const double fan_in = 1.0 / std::sqrt(static_cast<double>(info.cols));
      switch (info.initial) {
        case Initial::zeros:
          break;
        case Initial::ones:
          fill(data, info.size(), Master(1.0f));
          break;
        case Initial::fan_in:
          normal(data, offset, info.size(), fan_in, seed);
          break;
        case Initial::residual:
          normal(data, offset, info.size(), fan_in / std::sqrt(2.0 * static_cast<double>(Arch::layers)), seed);
          break;
      }
      offset += aligned_size(info.size());
    });
    refresh();
  }

  void fill(Master* data, Index count, Master value) {
    using Kernel = kernels::Fill<Master>;
    backend_->launch(kernels::chunk_count<Kernel>(count), Kernel{data, count, value});
  }

  void normal(Master* data, Index offset, Index count, double deviation, Seed seed) {
    using Kernel = kernels::InitialNormal<Master>;
    backend_->launch(kernels::chunk_count<Kernel>(count),
                     Kernel{data, offset, count, deviation, RandomStream(seed, 0, RandomSite::initialisation)});
  }

  B* backend_;
  Settings settings_;
  Memory memory_, copy_;
  Weights weights_;
};

}  // namespace tinymoe::inline v0_1
