#pragma once
/// @file
/// What a machine must offer to run a model: memory, row kernels, matrix products, attention and the sort by expert.
///
/// Every operation takes views with run-time sizes; none is templated on the model. Two number types meet in it:
/// `Scalar`, in which activations and weights are stored, and `Master`, in which gradients, statistics, losses and the
/// optimizer's state are. They are the same on `Cpu` and `Reference`; a half-precision backend has two.

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/tensor.hpp"

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

/// Where each (token, choice) pair lies once the pairs are stably sorted by expert. Pair number n·K + k is token n's
/// k-th choice; a slot is a place in the sorted order. A choice of −1 is no choice: it has slot −1 and is nowhere in
/// `pairs`, whose first offsets[E] elements alone mean something.
struct Dispatch {
  View<std::int32_t> offsets;  // (1, E + 1): expert e has slots offsets[e] … offsets[e+1] − 1
  View<std::int32_t> slots;    // (N, K): the slot of each pair
  View<std::int32_t> pairs;    // (1, S): the pair in each slot; S is the most there can be

  Index experts() const { return offsets.cols - 1; }
  Index tokens() const { return slots.rows; }
  Index choices() const { return slots.cols; }
  Index size() const { return pairs.cols; }
};

/// A machine that runs models. Shapes: x (N, I), w (O, I), bias (1, O) or empty, y (N, O); experts' banks hold E of
/// them, and `offsets` (1, E + 1) says which rows belong to which.
template <class B>
concept Backend = requires(B& backend, View<typename B::Scalar> y, View<const typename B::Scalar> x,
                           View<typename B::Master> dw, Bank<const typename B::Scalar> bank,
                           Bank<typename B::Master> bank_gradient, View<const std::int32_t> indices,
                           View<std::int32_t> offsets, const Dispatch& dispatch, const AttentionShape& shape,
                           Write write, Index n, std::size_t bytes, detail::AnyRowKernel kernel, void* to,
                           const void* from) {
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
  // The same for a bank of experts: rows offsets[e] … offsets[e+1] − 1 meet expert e's matrix.
  backend.grouped_matmul(x, bank, bank, indices, y);
  backend.grouped_matmul_input(x, bank, indices, y);
  backend.grouped_matmul_weight(x, x, indices, bank_gradient);
  // Fills offsets, slots and pairs from the experts that each token selected, (N, K); −1 is none.
  backend.sort_by_expert(indices, dispatch);
  // offsets (1, 2) = 0, n: all rows are one expert's, and the host knows how many.
  backend.offsets_of_one(offsets, n);
  // The slots that are taken, offsets[E], where the host knows them; otherwise the most there can be.
  { backend.slots_taken(dispatch) } -> std::convertible_to<Index>;
  // Causal attention: q (N, H·d), k and v (N, G·d) → y (N, H·d) and the log of each softmax's denominator (N, H).
  { backend.attention_scratch(shape) } -> std::convertible_to<Index>;
  backend.attention_forward(shape, x, x, x, y, dw, y);
  // From dy and what forward gave: dq, dk, dv, overwritten.
  backend.attention_backward(shape, x, x, x, x, View<const typename B::Master>(dw), x, y, y, y, y);
  { B::name() } -> std::convertible_to<const char*>;
};

/// What an operation on backend B reads and writes: activations and weights, then statistics and gradients.
template <class B>
using Input = View<const typename B::Scalar>;
template <class B>
using Output = View<typename B::Scalar>;
template <class B>
using MasterInput = View<const typename B::Master>;
template <class B>
using MasterOutput = View<typename B::Master>;

namespace detail {

/// What backend B keeps of work that it can start again as one (`replay`); nothing where it cannot.
template <class B>
struct RecordingOf {
  struct Type {};
};
template <class B>
requires requires { typename B::Recording; }
struct RecordingOf<B> {
  using Type = typename B::Recording;
};
template <class B>
inline constexpr bool can_record = requires {
  typename B::Recording;
};

/// A backend for which a launch costs more than few rows do names `few_pairs`: a mixture that sends up to so many pairs
/// in inference is then fewer and larger kernels. 0 where it does not.
template <class B>
inline constexpr Index few_pairs = 0;
template <class B>
requires requires { B::few_pairs; }
inline constexpr Index few_pairs<B> = B::few_pairs;

/// Declares a backend and defines nothing: what the concepts of layers are checked against.
struct DeclaredBackend {
  using Scalar = float;
  using Master = float;
  using X = View<const float>;
  using Offsets = View<const std::int32_t>;
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
  void grouped_matmul(X, Bank<const float>, Bank<const float>, Offsets, View<float>);
  void grouped_matmul_input(X, Bank<const float>, Offsets, View<float>);
  void grouped_matmul_weight(X, X, Offsets, Bank<float>);
  void sort_by_expert(Offsets, const Dispatch&);
  void offsets_of_one(View<std::int32_t>, Index);
  Index slots_taken(const Dispatch&) const;
  Index attention_scratch(const AttentionShape&) const;
  void attention_forward(const AttentionShape&, X, X, X, View<float>, View<float>, View<float>);
  void attention_backward(const AttentionShape&, X, X, X, X, X, X, View<float>, View<float>, View<float>, View<float>);
};
static_assert(Backend<DeclaredBackend>);

}  // namespace detail

}  // namespace tinymoe::inline v0_1
