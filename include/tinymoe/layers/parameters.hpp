#pragma once
/// @file
/// How a layer describes its parameters: one visitor, from which everything else follows.
///
/// A layer has `template <class W> struct Parameters` with tensors as members and
///
///     static constexpr void for_each(const Path& path, auto&& f, auto&... p);
///
/// which calls `f(ParameterInfo, p.tensor...)` for each tensor in order. With weights, gradients and moments as `p...`
/// the visitor walks all of them side by side; with none it describes the shapes alone. Initialisation, counting,
/// layout, AdamW's decay, checkpoints and gradient tests all go through it; there is no second list.

#include <array>
#include <cassert>
#include <cstddef>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/weights.hpp"

namespace tinymoe::inline v0_1 {

/// Where a tensor belongs in the model's name space: `model.layers.0.self_attn`, as a chain without allocation.
struct Path {
  const Path* parent = nullptr;
  std::string_view name = {};
  Index number = -1;  // written after the name where it is not negative
  Index active = 1;   // of `of` such parts, each token uses `active` (experts)
  Index of = 1;

  /// The name with its parents, joined by dots.
  std::string text() const {
    std::string prefix = parent != nullptr ? parent->text() : std::string();
    if (name.empty()) return prefix;
    if (!prefix.empty()) prefix += '.';
    prefix += name;
    if (number >= 0) prefix += detail::sentence_of({".", number});
    return prefix;
  }
};

namespace detail {

/// The parts by name, in the order of `Part`.
inline constexpr std::array<std::string_view, 9> part_names = {
    "embedding", "position", "norm", "attention", "router", "expert", "feed-forward", "head", "table"};

/// Rows of a stored tensor that have a name of their own on disk.
struct NamedRows {
  std::string_view name = {};
  Index rows = 0;
};

}  // namespace detail

/// How a tensor starts. `fan_in`: normal with deviation 1/sqrt(inputs). `residual`: the same, divided by
/// sqrt(2 · layers), for products whose results are added to the residual stream (Radford et al. 2019).
enum class Initial { zeros, ones, fan_in, residual };

/// The description of a tensor that a visitor gets.
struct ParameterInfo {
  const Path& path;
  std::array<detail::NamedRows, 3> names;  // of the tensor's rows, from the first to the last
  Index cols;
  bool is_vector;  // one-dimensional on disk
  Part part;
  Initial initial;
  bool decay;           // whether weight decay applies
  bool trained = true;  // by the optimizer; if false, its layer changes it after a step

  /// A matrix [rows, cols]; it decays.
  static constexpr ParameterInfo matrix(const Path& path, std::string_view name, Index rows, Index cols, Part part,
                                        Initial initial) {
    return {path, {detail::NamedRows{name, rows}}, cols, false, part, initial, true};
  }
  /// A vector [size]: a gain or a bias; it does not decay.
  static constexpr ParameterInfo vector(const Path& path, std::string_view name, Index size, Part part,
                                        Initial initial) {
    return {path, {detail::NamedRows{name, 1}}, size, true, part, initial, false};
  }
  /// Several named vectors, one after another: the biases of a stacked matrix.
  static constexpr ParameterInfo vectors(const Path& path, std::array<detail::NamedRows, 3> names, Part part,
                                         Initial initial) {
    return {path, names, 1, true, part, initial, false};
  }
  /// Matrices of the same width, stacked by rows so that one product computes them all.
  static constexpr ParameterInfo stacked(const Path& path, std::array<detail::NamedRows, 3> names, Index cols,
                                         Part part, Initial initial) {
    return {path, names, cols, false, part, initial, true};
  }

  /// The name on disk of those of its rows that have a name of their own.
  std::string name_of(const detail::NamedRows& named) const {
    std::string text = path.text();
    if (!text.empty()) text += '.';
    return text.append(named.name);
  }

  constexpr Index rows() const { return names[0].rows + names[1].rows + names[2].rows; }
  constexpr Index size() const { return rows() * cols; }
  /// How many of the elements a token uses: elements · active / of. Where that is no whole number, siblings differ by
  /// one, so that their sum is exact.
  constexpr Index active_of(Index elements) const {
    for (const Path* at = &path; at != nullptr; at = at->parent) {
      const Index before = at->of > 1 ? elements * at->number : 0;
      elements = (before + elements) * at->active / at->of - before * at->active / at->of;
    }
    return elements;
  }
};

/// The elements that a tensor of `size` takes in a model's buffer, up to where the next one starts.
constexpr Index aligned_size(Index size) {
  return (size + parameter_alignment - 1) / parameter_alignment * parameter_alignment;
}

/// The place of one tensor, as it is named on disk, in a model's buffer.
struct Segment {
  Index offset = 0;  // elements
  Index rows = 0, cols = 0;
  Part part = Part::embedding;
  bool is_vector = false;
  bool decay = false;
  bool trained = true;

  constexpr Index size() const { return rows * cols; }
};

namespace detail {

/// f(info, the tensor's first element in a buffer, the tensors of `p`...) for each tensor of `P`, in order. Returns the
/// elements of a buffer that holds all of them, alignment included. Every walk over a buffer goes by this.
template <class P, class F, class... Q>
constexpr Index for_each_placed(F&& f, Q&... p) {
  Index offset = 0;
  P::for_each(
      Path{},
      [&](const ParameterInfo& info, auto&... tensors) {
        f(info, offset, tensors...);
        offset += aligned_size(info.size());
      },
      p...);
  return offset;
}

/// f(info, name on disk, place) for each tensor of `P` as it is named on disk, in order.
template <class P, class F>
constexpr void for_each_segment(F&& f) {
  for_each_placed<P>([&](const ParameterInfo& info, Index offset) {
    for (const NamedRows& named : info.names) {
      if (named.rows == 0) continue;
      f(info, named.name, Segment{offset, named.rows, info.cols, info.part, info.is_vector, info.decay, info.trained});
      offset += named.rows * info.cols;
    }
  });
}

}  // namespace detail

/// The elements of a buffer that holds all of `P`'s tensors, alignment included.
template <class P>
constexpr Index buffer_size() {
  return detail::for_each_placed<P>([](const ParameterInfo&, Index) {});
}

namespace detail {

/// f(info, tensor of `p`, its first byte in a buffer) for each tensor, in order, each in its own format. Returns the
/// bytes of all; of plain weights that is `buffer_size<P>()` elements.
template <class P, class F>
constexpr std::size_t for_each_stored(P& p, F&& f) {
  std::size_t offset = 0;
  P::for_each(
      Path{},
      [&]<class Tensor>(const ParameterInfo& info, Tensor& tensor) {
        f(info, tensor, offset);
        offset += Tensor::Format::bytes(info.rows(), info.cols);
      },
      p);
  return offset;
}

}  // namespace detail

/// Bytes of a buffer that holds all tensors of `P`, whatever the format of each.
template <class P>
constexpr std::size_t buffer_bytes() {
  P tensors{};
  return detail::for_each_stored(tensors, [](const ParameterInfo&, const auto&, std::size_t) {});
}

/// Points the tensors of `p` at their places in a buffer of `buffer_bytes<P>()` bytes.
template <class P>
void bind_parameters(P& p, void* buffer) {
  detail::for_each_stored(
      p, [&]<class Tensor>([[maybe_unused]] const ParameterInfo& info, Tensor& tensor, std::size_t offset) {
        assert(info.size() == tensor.size());
        tensor.data = Tensor::Format::pointer(static_cast<std::byte*>(buffer) + offset);
      });
}

/// The places of all tensors of `P` as they are named on disk, in order; known at compile time.
template <class P>
constexpr auto segments() {
  constexpr std::size_t count = [] {
    std::size_t n = 0;
    detail::for_each_segment<P>([&](const ParameterInfo&, std::string_view, const Segment&) { ++n; });
    return n;
  }();
  std::array<Segment, count> result{};
  std::size_t n = 0;
  detail::for_each_segment<P>(
      [&](const ParameterInfo&, std::string_view, const Segment& place) { result[n++] = place; });
  return result;
}

}  // namespace tinymoe::inline v0_1
