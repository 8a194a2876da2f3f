#pragma once
/// @file
/// What every optimizer works on: the one buffer of weights, cut into chunks, and the norm of the gradients.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <typeinfo>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1 {

/// A piece of one tensor in the weights' buffer: one kernel row of an optimizer.
struct Chunk {
  static constexpr Index largest = 16384;
  Index offset = 0;
  std::int32_t size = 0;
  std::int32_t decay = 0;   // whether weight decay applies
  std::int32_t matrix = 0;  // whether `is_block_matrix` holds for its tensor
  std::int32_t expert = 0;  // whether its tensor is of an expert
};

namespace detail {

/// Whether a tensor is a matrix inside a block: of attention, an expert or a dense network. Embeddings, the head,
/// routers, norms and biases are not.
constexpr bool is_block_matrix(const Segment& segment) {
  const bool inside =
      segment.part == Part::attention || segment.part == Part::expert || segment.part == Part::feed_forward;
  return inside && segment.trained && !segment.is_vector && segment.rows > 1 && segment.cols > 1;
}

/// The chunks of a model's trained tensors, in order; a tensor of n elements has ceil(n / Chunk::largest) of them.
template <class Parameters>
[[gnu::cold]] std::vector<Chunk> chunks_of() {
  std::vector<Chunk> chunks;
  for (const Segment& segment : segments<Parameters>()) {
    if (!segment.trained) continue;
    for (Index first = 0; first < segment.size(); first += Chunk::largest) {
      chunks.push_back({segment.offset + first,
                        static_cast<std::int32_t>(std::min(Chunk::largest, segment.size() - first)),
                        segment.decay ? 1 : 0, is_block_matrix(segment) ? 1 : 0, segment.part == Part::expert ? 1 : 0});
    }
  }
  return chunks;
}

}  // namespace detail

namespace kernels {

/// partial[chunk] = Σ g².
template <class M>
struct SquaredSum {
  static constexpr bool long_rows = true;
  const M* gradients;
  const Chunk* chunks;
  M* partial;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const M* g = gradients + chunks[part].offset;
    const auto square = [](M gradient) { return gradient * gradient; };
    const M total = group.sum(chunks[part].size, square, g);
    group.once([&] { partial[part] = total; });
  }
};

/// result[0] = the norm of all gradients; result[1] = what to multiply them by so that it is at most `limit`. The
/// gradients found are `loss_scale` times too large: the norm is told without it, and the factor takes it away.
template <class M>
struct ClipScale {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  const M* partial;
  Index count;
  double limit;  // 0: no limit
  M* result;
  double loss_scale = 1;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const M* squares = partial;
    const M scale = M(loss_scale), norm = std::sqrt(group.sum(count, [=](Index i) { return squares[i]; })) / scale;
    group.once([&] {
      result[0] = norm;
      result[1] = (limit > 0 && real_part(norm) > limit ? M(limit) / norm : M(1)) / scale;
    });
  }
};

}  // namespace kernels

/// The arguments of an optimizer's step. The arrays have `Model::size` elements.
template <Backend B>
struct OptimizerStep {
  MasterOutput<B> weights;
  Output<B> copy;  // empty where the layers read `weights`
  MasterOutput<B> gradients;
  std::vector<MasterOutput<B>> moments;
  View<const Chunk> chunks;  // (1, n)
  MasterInput<B> clip;       // (1, 2): the gradients' norm, and the factor that clips them and divides by a loss scale
  double rate = 0;           // the learning rate of this step
  Index step = 0;            // from 0
  std::span<const Segment> segments = {};  // the tensors of the chunks, on the host
  std::byte* scratch = nullptr;            // on the backend, as many bytes as `scratch_bytes` asked for
};

/// An optimizer for backend B: its settings, its number of moments (arrays of the weights' size), and a step. The step
/// also zeroes the gradients. It changes only elements that lie in chunks.
///
/// Optional members: see NamedOptimizer, ScratchOptimizer and CheckedOptions (core/number_range.hpp). An optional
/// member with a wrong signature does not compile. A misspelt one cannot be detected, so check it below your optimizer:
/// `static_assert(ScratchOptimizer<Mine>)`.
template <class O, class B = detail::DeclaredBackend>
concept Optimizer = std::copyable<O> && requires(const O optimizer, B& backend, const OptimizerStep<B>& step) {
  { optimizer.moments } -> std::convertible_to<Index>;
  { optimizer.lr } -> std::convertible_to<double>;
  optimizer.step(backend, step);
};

/// An optimizer with a `name`, by which checkpoints know it.
template <class O>
concept NamedOptimizer = requires(const O optimizer) {
  std::string(optimizer.name);
};

/// An optimizer whose step needs `scratch_bytes` bytes of scratch memory, which is allocated once before the first
/// step.
template <class O, class B = detail::DeclaredBackend>
concept ScratchOptimizer = requires(const O optimizer, B& backend, std::span<const Segment> segments) {
  { optimizer.scratch_bytes(backend, segments) } -> std::convertible_to<std::size_t>;
};

namespace detail {

/// The name by which checkpoints know an optimizer: its `name`, or the compiler's for a user's type without one.
template <class O>
std::string optimizer_name(const O& optimizer) {
  static_assert(
      NamedOptimizer<O> || !requires { optimizer.name; }, "tinymoe: an optimizer's `name` must be a text");
  if constexpr (NamedOptimizer<O>) {
    return std::string(optimizer.name);
  } else {
    return typeid(O).name();
  }
}

/// The bytes of scratch that an optimizer's step needs for these tensors; 0 where it asks for none.
template <Backend B, Optimizer<B> O>
std::size_t optimizer_scratch(const O& optimizer, B& backend, std::span<const Segment> segments) {
  static_assert(
      ScratchOptimizer<O, B> || (
                                    !requires { &O::scratch_bytes; } && !requires { &O::template scratch_bytes<B>; }),
      "tinymoe: an optimizer's `scratch_bytes` must be std::size_t scratch_bytes(backend, segments)");
  if constexpr (ScratchOptimizer<O, B>) {
    return optimizer.scratch_bytes(backend, segments);
  } else {
    return 0;
  }
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
