#pragma once
/// @file
/// A model: an architecture's parameters on a backend, in one buffer.

#include <cmath>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/layers/transformer.hpp"

namespace tinymoe {

namespace kernels {

/// One chunk of a tensor, standard normal times `deviation`; element i of the buffer is a pure function of (seed, i).
template <class T>
struct InitialNormal {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  T* data;
  Index offset, size;  // of the tensor in the buffer
  double deviation;
  RandomStream stream;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = size - first < chunk ? size - first : chunk;
    T* to = data + first;
    const auto base = static_cast<std::uint64_t>(offset + first) / 2;  // tensors and chunks start at even elements
    const double scale = deviation;
    const RandomStream numbers = stream;
    group.each((count + 1) / 2, [=](Index i) {
      const auto words = random_words(numbers, base + static_cast<std::uint64_t>(i));
      const double radius = scale * std::sqrt(-2.0 * std::log((words[0] + 1.0) * 0x1p-32));
      const double angle = words[1] * (0x1p-32 * 6.283185307179586);
      to[2 * i] = T(static_cast<float>(radius * std::cos(angle)));
      if (2 * i + 1 < count) to[2 * i + 1] = T(static_cast<float>(radius * std::sin(angle)));
    });
  }
};

/// One chunk: to = from, in another number type.
template <class From, class To>
struct Convert {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  View<const From> from;  // (1, n)
  View<To> to;            // (1, n)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = from.cols - first < chunk ? from.cols - first : chunk;
    const auto convert = [](To& out, From in) { out = To(in); };
    group.each(count, convert, write_only(to.data + first), from.data + first);
  }
};

/// One chunk: data[i] = value.
template <class T>
struct Fill {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  T* data;
  Index size;
  T value;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = size - first < chunk ? size - first : chunk;
    const auto fill = [filled = value](T& to) { to = filled; };
    group.each(count, fill, write_only(data + first));
  }
};

/// The kernel rows that `n` elements are for a kernel that works on chunks.
template <class Kernel>
constexpr Index chunk_count(Index n) {
  return (n + Kernel::chunk - 1) / Kernel::chunk;
}

}  // namespace kernels

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
    bind(weights_, buffer().data);
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

/// The activations of passes of up to (batch, time), in one block planned at once.
template <class Arch, Backend B>
class Activations {
 public:
  using Saved = typename Arch::template Saved<typename B::Scalar, typename B::Master>;

  Activations(B& backend, Plan::Purpose purpose, const Pass& largest) {
    Plan measure(purpose);
    saved_.plan(measure, largest, backend);
    memory_ = backend.allocate(measure.bytes());
    Plan place(purpose, memory_.bytes(), measure);
    saved_.plan(place, largest, backend);
  }

  Saved& operator*() { return saved_; }
  Saved* operator->() { return &saved_; }
  std::size_t bytes() const { return memory_.size(); }

 private:
  Memory memory_;
  Saved saved_;
};

}  // namespace tinymoe
