#pragma once
/// @file
/// How weights are stored. A model's parameters are `Parameters<W>`, and `WeightFormat<W>` says what W means: the
/// number type itself, or a format of its own, such as blocks of integers with scales.
///
/// Activations have the backend's `Scalar`. Gradients, and the weights that an optimizer changes, have its `Master`.
/// Neither depends on W. A new format is a specialisation of `WeightFormat` in its own file, and backend products that
/// take its views. No layer changes.

#include <cstddef>
#include <type_traits>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// What a tensor is for. Counts and reports are split by it, optimizers may treat parts differently, and a format may
/// store them differently. A `table` is what tokens look up beside their embedding; a step changes the rows that it met.
enum class Part { embedding, position, norm, attention, router, expert, feed_forward, head, table };

/// Tensors of number types start at multiples of this many elements in a model's buffer.
inline constexpr Index parameter_alignment = 16;

/// The format of weights of type W. This one is for number types, whose elements lie side by side.
///
/// Your own format has the same members, but none that writes: its View and ConstView may be one type. Its
/// `Matrix<part>` may be another type than W, for example to keep routers in float. A view has `rows` and `cols`, and
/// its `operator()(row, col)` gives one weight. A bank has `count`, `rows` and `cols`, and its `operator[](e)` gives
/// the view of expert e. The format also has
///
///     template <class M> static void encode(View<const M> values, std::byte* stored);   // bytes(rows, cols) of them
///
/// A pointer converts to void*: the tensor's bytes in the backend's memory.
template <class W>
struct WeightFormat {
  /// The type of gains, biases and tables that row kernels read: the backend's Scalar.
  using Vector = W;
  /// The type of the matrices of a part.
  template <Part part>
  using Matrix = W;

  using Pointer = W*;
  using View = tinymoe::View<W>;
  using ConstView = tinymoe::View<const W>;
  using Bank = tinymoe::Bank<W>;
  using ConstBank = tinymoe::Bank<const W>;

  /// Whether element i of a tensor lies at pointer + i, so that an optimizer can write it.
  static constexpr bool plain = true;

  /// The bytes that a tensor takes in a model's buffer, up to where the next one starts. Rows follow one another: r
  /// rows begin at r · cols elements.
  static constexpr std::size_t bytes(Index rows, Index cols) {
    const Index units = (rows * cols + parameter_alignment - 1) / parameter_alignment;
    return static_cast<std::size_t>(units * parameter_alignment) * sizeof(W);
  }
  static Pointer pointer(std::byte* address) { return reinterpret_cast<W*>(address); }
  static constexpr View view(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  static constexpr ConstView read(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  /// `count` tensors of the same shape. The first two lie at `first` and `second`, the others follow at the same
  /// distance.
  static constexpr Bank bank(Pointer first, Pointer second, Index count, Index rows, Index cols) {
    return {first, count, rows, cols, second - first};
  }
};

/// The type in which a model whose weights are W stores gains, biases and the tables that row kernels read.
template <class W>
using VectorOf = typename WeightFormat<W>::Vector;
/// The type in which it stores the matrices of a part.
template <class W, Part part>
using MatrixOf = typename WeightFormat<W>::template Matrix<part>;

/// One parameter tensor of a model: its shape is part of the type, its place in the model's buffer is bound later.
template <class W, Index Rows, Index Cols>
struct Tensor {
  static_assert(Rows > 0 && Cols > 0);
  using Format = WeightFormat<W>;
  static constexpr Index rows = Rows;
  static constexpr Index cols = Cols;
  typename Format::Pointer data{};

  static constexpr Index size() { return Rows * Cols; }
  /// The whole tensor; writable if the format is plain.
  constexpr typename Format::View view() const { return Format::view(data, Rows, Cols); }
  /// The whole tensor, as products take it.
  constexpr typename Format::ConstView weights() const { return Format::read(data, Rows, Cols); }
  constexpr operator View<W>() const requires Format::plain { return {data, Rows, Cols}; }
  constexpr operator View<const W>() const requires(Format::plain && !std::is_const_v<W>) { return {data, Rows, Cols}; }
};

/// Stands in for a tensor that an option leaves out (no bias): it has no elements and visitors never see it.
struct NoTensor {
  static constexpr Index size() { return 0; }
  template <class T>
  constexpr operator View<T>() const {
    return {};
  }
};

}  // namespace tinymoe::inline v0_1
