#pragma once
/// @file
/// The experts' activations, 16 bytes at a time: they move more memory than any other row kernel of a step.

#include "tinymoe/cuda/few_rows.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/layers/expert.hpp"

namespace tinymoe::detail::cuda {

inline constexpr int activation_threads = 256;

/// A thread for each vector of a row of a.
template <class Activation, class T>
__global__ void __launch_bounds__(activation_threads)
    activation_forward_vectors(const kernels::ActivationForward<Activation, T> p, Index rows) {
  using V = Vector<T>;
  const Index vectors = p.activated.cols / V::size, step = Index{gridDim.x} * activation_threads;
  for (Index at = Index{blockIdx.x} * activation_threads + threadIdx.x; at < rows * vectors; at += step) {
    const Index n = at / vectors, col = at % vectors * V::size;
    const T* h = p.hidden.data + n * p.hidden.stride + col;
    const V first = *reinterpret_cast<const V*>(h);
    V out;
    if constexpr (Activation::gated) {
      const V up = *reinterpret_cast<const V*>(h + p.activated.cols);
#pragma unroll
      for (int j = 0; j < V::size; ++j) {
        out.values[j] = T(Activation::value(float(first.values[j]), float(up.values[j])));
      }
    } else {
#pragma unroll
      for (int j = 0; j < V::size; ++j) out.values[j] = T(Activation::value(float(first.values[j])));
    }
    *reinterpret_cast<V*>(p.activated.data + n * p.activated.stride + col) = out;
  }
}

/// The same for dh from da and h.
template <class Activation, class T>
__global__ void __launch_bounds__(activation_threads)
    activation_backward_vectors(const kernels::ActivationBackward<Activation, T> p, Index rows) {
  using V = Vector<T>;
  const Index width = p.dactivated.cols, vectors = width / V::size, step = Index{gridDim.x} * activation_threads;
  for (Index at = Index{blockIdx.x} * activation_threads + threadIdx.x; at < rows * vectors; at += step) {
    const Index n = at / vectors, col = at % vectors * V::size;
    const T* h = p.hidden.data + n * p.hidden.stride + col;
    T* dh = p.dhidden.data + n * p.dhidden.stride + col;
    const V gate = *reinterpret_cast<const V*>(h);
    const V da = *reinterpret_cast<const V*>(p.dactivated.data + n * p.dactivated.stride + col);
    V out;
    if constexpr (Activation::gated) {
      const V up = *reinterpret_cast<const V*>(h + width);
      V out_up;
#pragma unroll
      for (int j = 0; j < V::size; ++j) {
        float gate_slope, up_slope;
        Activation::slopes(float(gate.values[j]), float(up.values[j]), gate_slope, up_slope);
        out.values[j] = T(float(da.values[j]) * gate_slope);
        out_up.values[j] = T(float(da.values[j]) * up_slope);
      }
      *reinterpret_cast<V*>(dh + width) = out_up;
    } else {
#pragma unroll
      for (int j = 0; j < V::size; ++j) {
        out.values[j] = T(float(da.values[j]) * Activation::slope(float(gate.values[j])));
      }
    }
    *reinterpret_cast<V*>(dh) = out;
  }
}

/// Whether all rows of these matrices, and their halves of `width`, begin at multiples of 16 bytes.
template <class T, class... Matrices>
bool rows_aligned(Index width, const Matrices&... matrices) {
  auto bits = static_cast<std::uintptr_t>(width) * sizeof(T);
  ((bits |= reinterpret_cast<std::uintptr_t>(matrices.data) | static_cast<std::uintptr_t>(matrices.stride) * sizeof(T)),
   ...);
  return bits % 16 == 0;
}

template <class Kernel>
void start_vectors(Context& context, void (*run)(const Kernel, Index), Index rows, Index vectors, const Kernel& p) {
  const Index needed = (rows * vectors + activation_threads - 1) / activation_threads;
  const auto blocks = static_cast<unsigned>(std::min<Index>(needed, 64 * Index{context.multiprocessors}));
  check(start(run, dim3(blocks), dim3(activation_threads), 0, context.stream, p, rows), "starting an activation");
}

template <class Activation, class T>
void launch_activation(Context& context, Index rows, const kernels::ActivationForward<Activation, T>& p) {
  const Index width = p.activated.cols;
  if (p.dropout.active() || !rows_aligned<T>(width, p.hidden, p.activated)) return launch_rows(context, rows, p);
  start_vectors(context, activation_forward_vectors<Activation, T>, rows, width / Vector<T>::size, p);
}

template <class Activation, class T>
void launch_activation(Context& context, Index rows, const kernels::ActivationBackward<Activation, T>& p) {
  const Index width = p.dactivated.cols;
  if (p.dropout.active() || !rows_aligned<T>(width, p.hidden, p.dactivated, p.dhidden)) {
    return launch_rows(context, rows, p);
  }
  start_vectors(context, activation_backward_vectors<Activation, T>, rows, width / Vector<T>::size, p);
}

}  // namespace tinymoe::detail::cuda
