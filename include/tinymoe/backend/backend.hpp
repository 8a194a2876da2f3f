#pragma once
/// @file
/// What a machine must offer to run a model: memory, row kernels, matrix products, attention and the sort by expert.
/// Its optional capabilities are in capabilities.hpp.
///
/// Every operation takes views with run-time sizes; none is templated on the model. A backend has two number types.
/// `Scalar` stores activations, and weights unless they have a format of their own (core/weights.hpp). `Master` stores
/// gradients, statistics, losses and the optimizer's state. The two are the same on `Cpu` and differ on a
/// half-precision backend.

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"

namespace tinymoe::inline v0_1 {

/// Whether a result replaces what was there or is added to it.
enum class Write { overwrite, accumulate };

/// Sizes of an attention; row n = b·T + t of its matrices is position t of sequence b.
struct AttentionShape {
  Index batch = 1;     // B
  Index time = 0;      // T
  Index heads = 1;     // H
  Index kv_heads = 1;  // G, divides H: query heads h·H/G … share one key-value head
  Index head_dim = 1;  // d
  Index window = 0;    // keys a query sees, itself included; 0: all up to itself
  double scale = 1;    // of the logits, 1/sqrt(d)
  Dropout dropout{};   // of the probabilities: row (b·H + h)·T + t, column s

  TINYMOE_EVERYWHERE Index group() const { return heads / kv_heads; }
  /// The first position that position t sees.
  TINYMOE_EVERYWHERE Index first_key(Index t) const { return window > 0 && t >= window ? t - window + 1 : 0; }
};

/// A machine that runs models. Shapes: x (N, I), w (O, I), bias (1, O) or empty, y (N, O); experts' banks hold E of
/// them, and a Dispatch says which rows belong to which.
template <class B>
concept Backend = requires(B& backend, View<typename B::Scalar> y, View<const typename B::Scalar> x,
                           View<typename B::Master> dw, Bank<const typename B::Scalar> bank,
                           Bank<typename B::Master> bank_gradient, View<const std::int32_t> indices, Dispatch& sorted,
                           const Dispatch& dispatch, const AttentionShape& shape, Write write, Index n,
                           std::size_t bytes, detail::AnyRowKernel kernel, void* to, const void* from) {
  // Memory: zeroed at first, aligned to `memory_alignment`; copies from and to the host return when they are done.
  { backend.allocate(bytes) } -> std::same_as<Memory>;
  backend.copy_to_device(to, from, bytes);
  backend.copy_to_host(to, from, bytes);
  backend.zero(to, bytes);
  // kernel(group, row) for each row < n, in any order.
  backend.launch(n, kernel);
  // y = x wᵀ + bias
  backend.matmul(x, x, x, y);
  // dx = dy w, or dx += dy w
  backend.matmul_input(x, x, y, write);
  // dw += dyᵀ x
  backend.matmul_weight(x, x, dw);
  // The same for a bank of experts, whose rows the dispatch knows.
  backend.grouped_matmul(x, bank, bank, dispatch, y);
  backend.grouped_matmul_input(x, bank, dispatch, y);
  backend.grouped_matmul_weight(x, x, dispatch, bank_gradient);
  // Fills the dispatch from the experts that each token selected, (N, K); −1 is none.
  backend.sort_by_expert(indices, sorted);
  // Causal attention: q (N, H·d), k and v (N, G·d) → y (N, H·d) and the log of each softmax's denominator (N, H).
  { backend.attention_scratch(shape) } -> std::convertible_to<Index>;
  backend.attention_forward(shape, x, x, x, y, dw, y);
  // Overwrites dq, dk and dv, from dy and the results of forward.
  backend.attention_backward(shape, x, x, x, x, View<const typename B::Master>(dw), x, y, y, y, y);
  { backend.name() } -> std::convertible_to<const char*>;
}
&&detail::optional_members_are_right<B>;

/// Activations and weights that an operation on backend B reads.
template <class B>
using Input = View<const typename B::Scalar>;
/// Those that it writes.
template <class B>
using Output = View<typename B::Scalar>;
/// Statistics and gradients that it reads.
template <class B>
using MasterInput = View<const typename B::Master>;
/// Those that it writes.
template <class B>
using MasterOutput = View<typename B::Master>;

/// A backend whose forward products take weights of type W beside activations of its Scalar: one matrix, and a bank of
/// experts.
template <class B, class W>
concept MultipliesBy = requires(B& backend, Input<B> x, Output<B> y, typename WeightFormat<W>::ConstView weights,
                                typename WeightFormat<W>::ConstBank bank, Bank<const typename B::Scalar> biases,
                                const Dispatch& dispatch) {
  backend.matmul(x, weights, x, y);
  backend.grouped_matmul(x, bank, biases, dispatch, y);
};

namespace detail {

/// A backend that is declared and not defined: the concepts of layers are checked against it.
struct DeclaredBackend {
  using Scalar = float;
  using Master = float;
  using X = View<const float>;
  static const char* name();
  Memory allocate(std::size_t);
  void copy_to_device(void*, const void*, std::size_t);
  void copy_to_host(void*, const void*, std::size_t);
  void zero(void*, std::size_t);
  template <RowKernel Kernel>
  void launch(Index, const Kernel&);
  void matmul(X, X, X, View<float>);
  void matmul_input(X, X, View<float>, Write);
  void matmul_weight(X, X, View<float>);
  void grouped_matmul(X, Bank<const float>, Bank<const float>, const Dispatch&, View<float>);
  void grouped_matmul_input(X, Bank<const float>, const Dispatch&, View<float>);
  void grouped_matmul_weight(X, X, const Dispatch&, Bank<float>);
  void sort_by_expert(View<const std::int32_t>, Dispatch&);
  Index attention_scratch(const AttentionShape&) const;
  void attention_forward(const AttentionShape&, X, X, X, View<float>, View<float>, View<float>);
  void attention_backward(const AttentionShape&, X, X, X, X, X, X, View<float>, View<float>, View<float>, View<float>);
};
static_assert(Backend<DeclaredBackend>);

}  // namespace detail

}  // namespace tinymoe::inline v0_1
