#pragma once
/// @file
/// A model: an architecture's parameters on a backend, in one buffer.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/buffer_kernels.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/expert_limits.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/layers/transformer.hpp"
#include "tinymoe/text/special_tokens.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The first weights.
inline constexpr RandomSite initialisation{};
}  // namespace random_site

/// An architecture with weights on backend B. It refers to the backend, which must outlive it.
///
/// Where layers read another type than is trained, the model has two buffers: the masters that the optimizer changes,
/// and a copy in W that layers read. Weights of a format that is not plain (integers with scales, say) are for
/// inference: they have no masters.
template <class Arch, Backend B, class W = typename B::Scalar>
class Model {
  static_assert(MultipliesBy<B, W>, "tinymoe::Model: the backend has no products for weights of this type");
  static_assert(std::is_same_v<VectorOf<W>, typename B::Scalar>,
                "tinymoe::Model: the weights' Vector must be the backend's Scalar");

 public:
  using Architecture = Arch;
  using BackendType = B;
  using Scalar = typename B::Scalar;
  using Master = typename B::Master;
  using Weight = W;
  using Weights = typename Arch::template Parameters<W>;
  /// Elements of a buffer of all weights.
  static constexpr Index size = buffer_size<Weights>();
  /// Whether an optimizer can train it.
  static constexpr bool has_masters = WeightFormat<W>::plain;
  static constexpr bool has_copy = has_masters && !std::is_same_v<W, Master>;

  /// Weights drawn from the seed: the same on every backend. Matrices are normal with deviation 1/sqrt(inputs); where
  /// the result is added to the residual stream, divided by sqrt(2 · layers) as well. Embeddings have deviation
  /// 1/sqrt(width): they are then as large as what the blocks add, and a tied head's logits have unit variance. (In a
  /// model of width 192, 0.02 gave 1.51 bits per byte after 500 steps and 0.1 gave 1.36: docs/benchmarks.) Throws
  /// DeviceError without memory.
  explicit Model(B& backend, Seed seed = {}, Settings settings = {}) : backend_(&backend), settings_(settings) {
    if constexpr (has_masters) masters_ = backend.allocate(bytes<Master>());
    if constexpr (has_copy || !has_masters) copy_ = backend.allocate(buffer_bytes<Weights>());
    bind_parameters(weights_, (copy_.size() > 0 ? copy_ : masters_).bytes());
    replace([&](View<Master> values, Index first) { initialise(values, first, seed); });
  }

  /// The backend that has its weights.
  B& backend() const { return *backend_; }
  /// The settings that passes go by.
  const Settings& settings() const { return settings_; }
  /// The same.
  Settings& settings() { return settings_; }

  /// The special tokens of the files that the model was read from, for generation and for saving it again. Set it to {}
  /// to go on with another tokenizer.
  const ModelTokens& special_tokens() const { return special_tokens_; }
  /// The same.
  ModelTokens& special_tokens() { return special_tokens_; }

  /// Lets evaluations and generation leave experts out, or give a token fewer of them; `{}`: as the architecture says.
  /// Training takes no notice. Throws OptionError for limits that the model cannot have, or of a router that does not
  /// know them.
  void limit_experts(const ExpertLimits& limits) {
    std::vector<detail::LimitedLayer> layers;
    Arch::for_each_layer([&](auto group, Index, Index) {
      using Block = typename std::tuple_element_t<decltype(group)::value, typename Arch::Groups>::Block;
      if constexpr (Block::is_mixture) {
        layers.push_back({Block::Router::experts, detail::limits_experts<typename Block::Router>()});
      } else {
        layers.emplace_back();
      }
    });
    placed_limits_ = detail::PlacedLimits(*backend_, limits, layers);
    limits_ = limits;
  }
  /// What `limit_experts` set last.
  const ExpertLimits& expert_limits() const { return limits_; }
  /// The same as passes get them; null without limits.
  const ExpertLimit* limits_by_layer() const { return placed_limits_.by_layer(); }

  /// What layers read.
  const Weights& weights() const { return weights_; }
  /// The weights that layers read, as one row; `segments<Weights>()` has the place of each tensor.
  View<W> buffer() const requires has_masters { return {(has_copy ? copy_ : masters_).template as<W>().data, 1, size}; }
  /// The weights that an optimizer changes, in the same order; call `refresh` after changing them.
  View<Master> masters() const requires has_masters { return {masters_.template as<Master>().data, 1, size}; }
  /// Calls f(values (1, n), first), which overwrites the n weights from `first` on, until all are: at once with
  /// masters, else one tensor after the other, so that no more than the largest is there as numbers. Then they are
  /// stored in the model's format. If f throws, a model without masters is unchanged.
  template <class F>
  void replace(F&& f) {
    if constexpr (has_masters) {
      f(masters(), Index{0});
      refresh();
    } else {
      Index largest = 0;
      detail::for_each_placed<Weights>(
          [&](const ParameterInfo& info, Index) { largest = std::max(largest, info.size()); });
      const Memory memory = backend_->allocate(static_cast<std::size_t>(largest) * sizeof(Master));
      std::vector<std::byte> stored(copy_.size());
      detail::for_each_placed<Weights>(
          [&](const ParameterInfo& info, Index offset, auto& tensor) {
            const View<Master> values(memory.template as<Master>().data, 1, info.size());
            f(values, offset);
            encode(info, values, tensor, stored);
          },
          weights_);
      backend_->copy_to_device(copy_.bytes(), stored.data(), stored.size());
    }
  }
  /// Copies the masters to the buffer that layers read, where that is another one.
  void refresh() requires has_masters {
    if constexpr (has_copy) {
      using Kernel = kernels::Convert<Master, W>;
      backend_->launch(kernels::chunk_count<Kernel>(size), Kernel{masters(), buffer()});
    }
  }

 private:
  template <class T>
  static constexpr std::size_t bytes() {
    return static_cast<std::size_t>(size) * sizeof(T);
  }

  void initialise(View<Master> values, Index first, Seed seed) {
    detail::for_each_placed<Weights>([&](const ParameterInfo& info, Index offset) {
      if (offset < first || offset >= first + values.size()) return;
      Master* data = values.data + (offset - first);
      const double fan_in = 1.0 / std::sqrt(static_cast<double>(info.cols));
      switch (info.initial) {
        case Initial::zeros:
          fill(data, info.size(), Master(0.0f));
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
    });
  }

  /// Stores a tensor's weights in its format, through the host, at its place in `stored`.
  template <class Tensor>
  void encode(const ParameterInfo& info, View<Master> weights, const Tensor& tensor, std::vector<std::byte>& stored) {
    using Format = typename Tensor::Format;
    std::vector<Master> values(static_cast<std::size_t>(info.size()));
    backend_->copy_to_host(values.data(), weights.data, values.size() * sizeof(Master));
    std::byte* to = stored.data() + (reinterpret_cast<const std::byte*>(tensor.data) - copy_.bytes());
    if constexpr (Format::plain) {
      std::transform(values.begin(), values.end(), Format::pointer(to),
                     [](Master value) { return std::remove_pointer_t<typename Format::Pointer>(value); });
    } else {
      try {
        Format::encode(View<const Master>(values.data(), info.rows(), info.cols), to);
      } catch (const OptionError& error) {
        fail<OptionError>(info.name_of(info.names[0]), ": ", error.what());
      }
    }
  }

  void fill(Master* data, Index count, Master value) {
    using Kernel = kernels::Fill<Master>;
    backend_->launch(kernels::chunk_count<Kernel>(count), Kernel{data, count, value});
  }

  void normal(Master* data, Index offset, Index count, double deviation, Seed seed) {
    using Kernel = kernels::InitialNormal<Master>;
    backend_->launch(kernels::chunk_count<Kernel>(count),
                     Kernel{data, offset, count, deviation, RandomStream(seed, 0, random_site::initialisation)});
  }

  B* backend_;
  Settings settings_;
  ModelTokens special_tokens_;
  ExpertLimits limits_;
  detail::PlacedLimits placed_limits_;
  Memory masters_, copy_;
  Weights weights_;
};

}  // namespace tinymoe::inline v0_1
