#pragma once
/// @file
/// What every optimizer works on: the one buffer of weights, cut into chunks, and the norm of the gradients.

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1 {

/// A factor for each part of a model, of a learning rate or a weight decay: `PartFactors{.norm = 4, .table = 6}`.
struct PartFactors {
  double embedding = 1, position = 1, norm = 1, attention = 1, router = 1, expert = 1, feed_forward = 1, head = 1,
         table = 1;

  constexpr double operator[](Part part) const { return this->*member(part); }
  constexpr double& operator[](Part part) { return this->*member(part); }
  friend bool operator==(const PartFactors&, const PartFactors&) = default;

 private:
  static constexpr auto member(Part part) -> double PartFactors::* {
    using F = PartFactors;
    constexpr std::array all = {&F::embedding, &F::position,     &F::norm, &F::attention, &F::router,
                                &F::expert,    &F::feed_forward, &F::head, &F::table};
    return all[static_cast<std::size_t>(part)];
  }
};

/// A piece of one tensor in the weights' buffer: one kernel row of an optimizer.
struct Chunk {
  static constexpr Index largest = 16384;
  Index offset = 0;  // of its first element in the buffers of weights and gradients
  std::int32_t size = 0;
  double decay = 0;  // a factor of the weight decay; 0 where there is none
  double rate = 1;   // a factor of the learning rate
  Part part = Part::embedding;
  std::int32_t matrix = 0;  // whether `is_block_matrix` holds for its tensor
  std::int32_t row = 0;     // of a table: elements of a row, of which the chunk has whole ones. Else 0
  Index moment = 0;         // of its first element in the moments; with one rank that is `offset`
};

namespace detail {

/// Whether a tensor is a matrix inside a block: of attention, an expert or a dense network. Embeddings, the head,
/// routers, norms and biases are not.
constexpr bool is_block_matrix(const Segment& segment) {
  const bool inside =
      segment.part == Part::attention || segment.part == Part::expert || segment.part == Part::feed_forward;
  return inside && segment.trained && !segment.is_vector && segment.rows > 1 && segment.cols > 1;
}

/// The elements of a tensor's chunks; the last may have fewer.
constexpr Index chunk_size(const Segment& segment) {
  if (segment.part != Part::table) return Chunk::largest;
  return std::max(Chunk::largest / segment.cols, Index{1}) * segment.cols;
}
constexpr Index chunk_count(const Segment& segment) {
  return segment.trained ? (segment.size() + chunk_size(segment) - 1) / chunk_size(segment) : 0;
}

/// The chunks of a model's trained tensors, in order.
template <class Parameters>
[[gnu::cold]] std::vector<Chunk> chunks_of(const PartFactors& rates = {}, const PartFactors& decays = {}) {
  std::vector<Chunk> chunks;
  for (const Segment& segment : segments<Parameters>()) {
    const Index size = chunk_size(segment);
    for (Index i = 0; i < chunk_count(segment); ++i) {
      chunks.push_back({.offset = segment.offset + i * size,
                        .size = static_cast<std::int32_t>(std::min(size, segment.size() - i * size)),
                        .decay = segment.decay ? decays[segment.part] : 0,
                        .rate = rates[segment.part],
                        .part = segment.part,
                        .matrix = is_block_matrix(segment) ? 1 : 0,
                        .row = static_cast<std::int32_t>(segment.part == Part::table ? segment.cols : 0),
                        .moment = segment.offset + i * size});
    }
  }
  return chunks;
}

}  // namespace detail

namespace kernels {

/// f(chunk) with what a step changes of a chunk: of a table each row with a gradient that is not all zero, else the
/// whole chunk.
template <class Group, class M, class F>
TINYMOE_EVERYWHERE void for_each_changed(Group group, const Chunk& chunk, const M* gradients, F f) {
  const auto is_there = [](M gradient) { return gradient == M(0) ? M(0) : M(1); };
  Chunk part = chunk;
  if (chunk.row != 0) part.size = chunk.row;
  for (; part.offset < chunk.offset + chunk.size; part.offset += part.size, part.moment += part.size) {
    const bool changes = chunk.row == 0 || group.sum(part.size, is_there, gradients + part.offset) != M(0);
    if (changes) f(part);  // the one place that calls f, which is inlined there
  }
}

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
/// gradients found are `loss_scale` times too large: the norm is told without it, and the factor takes it away. The sum
/// is in the order of `order`, the chunks' places in `partial`, so that the shares of several ranks change no bit.
template <class M>
struct ClipScale {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  const M* partial;
  Index count;
  double limit;  // 0: no limit
  M* result;
  double loss_scale = 1;
  const std::int32_t* order = nullptr;  // null: as they lie
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const M* squares = partial;
    const std::int32_t* place = order;
    const M sum = group.sum(count, [=](Index i) { return squares[place == nullptr ? i : place[i]]; });
    const M scale = M(loss_scale), norm = std::sqrt(sum) / scale;
    group.once([&] {
      result[0] = norm;
      result[1] = (limit > 0 && real_part(norm) > limit ? M(limit) / norm : M(1)) / scale;
    });
  }
};

}  // namespace kernels

/// The arguments of an optimizer's step. Weights, their copy and gradients have an element for each parameter. With
/// several ranks the chunks are those of this rank's share (communicator.hpp), and the moments have elements for it
/// alone: a chunk's begin at `Chunk::moment`. A share has each matrix of a block whole or not at all.
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
  std::span<const Segment> segments = {};  // the tensors of the chunks, or the parts of them, on the host, in order
  std::byte* scratch = nullptr;            // on the backend, as many bytes as `scratch_bytes` asked for
};

/// An optimizer for backend B: its settings, its number of moments (arrays of the weights' size, or of a share of it),
/// and a step. The step also zeroes the gradients. It changes only elements that lie in chunks.
///
/// Optional members: see NamedOptimizer, ScratchOptimizer, PartOptimizer and CheckedOptions (core/number_range.hpp). An
/// optional member with a wrong signature does not compile. A misspelt one cannot be detected, so check it below your
/// optimizer: `static_assert(ScratchOptimizer<Mine>)`.
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

/// An optimizer whose step needs `scratch_bytes` bytes of scratch memory for these segments, which are those of each
/// step. It is allocated once before the first.
template <class O, class B = detail::DeclaredBackend>
concept ScratchOptimizer = requires(const O optimizer, B& backend, std::span<const Segment> segments) {
  { optimizer.scratch_bytes(backend, segments) } -> std::convertible_to<std::size_t>;
};

/// An optimizer with factors of its rate and its decay for each part of a model. They come to its step in the chunks.
template <class O>
concept PartOptimizer = requires(const O optimizer) {
  { optimizer.rates } -> std::convertible_to<PartFactors>;
  { optimizer.decays } -> std::convertible_to<PartFactors>;
};

namespace detail {

/// The chunks of a model's trained tensors, with an optimizer's factors.
template <class Parameters, class O>
std::vector<Chunk> chunks_for(const O& optimizer) {
  static_assert(PartOptimizer<O> || !(
                                        requires { optimizer.rates; } || requires { optimizer.decays; }),
                "tinymoe: an optimizer's `rates` and `decays` must both be PartFactors");
  if constexpr (PartOptimizer<O>) {
    return chunks_of<Parameters>(optimizer.rates, optimizer.decays);
  } else {
    return chunks_of<Parameters>();
  }
}

/// Throws OptionError for a factor that is negative or not finite, and where the decay's factor makes one step take
/// more than a whole weight: lr · rate · weight_decay · decay above 1 would flip its sign.
[[gnu::cold]] inline void check_factors(std::string_view of, double lr, double weight_decay, const PartFactors& rates,
                                        const PartFactors& decays) {
  for (const auto& [name, factors] : {std::pair{"rates", &rates}, {"decays", &decays}}) {
    for (std::size_t part = 0; part < part_names.size(); ++part) {
      const double factor = (*factors)[static_cast<Part>(part)];
      if (!range::from_0.allows(factor)) {
        fail<OptionError>(of, "::", name, ": that of ", part_names[part], range::from_0.refusal(factor));
      }
    }
  }
  for (std::size_t i = 0; i < part_names.size(); ++i) {
    const Part part = static_cast<Part>(i);
    const double taken = lr * rates[part] * weight_decay * decays[part];
    if (decays[part] > 1 && taken > 1) {
      fail<OptionError>(of, "::decays: that of ", part_names[i], " makes a step take ", taken,
                        " of a weight; lr * rate * weight_decay * decay must be at most 1");
    }
  }
}

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
