#pragma once
/// @file
/// The experts' activations, 16 bytes at a time: they move more memory than any other row kernel of a step.

#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/layers/expert.hpp"

namespace tinymoe::detail::cuda {

inline constexpr int activation_threads = 256;

/// Their number and a thread's step beyond it are 32-bit: divisions of 64 bits would cost more than the activation.
inline constexpr Index most_elements = Index{1} << 32;

/// A thread for each vector of a row of a.
template <class Activation, class T>
__global__ void __launch_bounds__(activation_threads)
    activation_forward_vectors(const kernels::ActivationForward<Activation, T> p, unsigned rows) {
  using V = Vector<T>;
  const auto vectors = static_cast<unsigned>(p.activated.cols / V::size), step = gridDim.x * activation_threads;
  for (unsigned at = blockIdx.x * activation_threads + threadIdx.x; at < rows * vectors; at += step) {
    const Index n = at / vectors, col = Index{at % vectors} * V::size;
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
    activation_backward_vectors(const kernels::ActivationBackward<Activation, T> p, unsigned rows) {
  using V = Vector<T>;
  const Index width = p.dactivated.cols;
  const auto vectors = static_cast<unsigned>(width / V::size), step = gridDim.x * activation_threads;
  for (unsigned at = blockIdx.x * activation_threads + threadIdx.x; at < rows * vectors; at += step) {
    const Index n = at / vectors, col = Index{at % vectors} * V::size;
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

template <class Kernel>
void start_vectors(Context& context, void (*run)(const Kernel, unsigned), Index rows, Index vectors, const Kernel& p) {
  const Index needed = (rows * vectors + activation_threads - 1) / activation_threads;
  const auto blocks = static_cast<unsigned>(std::min<Index>(needed, 64 * Index{context.multiprocessors}));
  check(start(run, dim3(blocks), dim3(activation_threads), 0, context.stream, p, static_cast<unsigned>(rows)),
        "starting an activation");
}

template <class Activation, class T>
void launch_activation(Context& context, Index rows, const kernels::ActivationForward<Activation, T>& p) {
  const Index width = p.activated.cols;
  const bool fits = rows * width < most_elements;
  if (p.dropout.active() || !fits || !rows_aligned<T>(width, p.hidden, p.activated)) {
    return launch_rows(context, rows, p);
  }
  start_vectors(context, activation_forward_vectors<Activation, T>, rows, width / Vector<T>::size, p);
}

template <class Activation, class T>
void launch_activation(Context& context, Index rows, const kernels::ActivationBackward<Activation, T>& p) {
  const Index width = p.dactivated.cols;
  const bool fits = rows * width < most_elements;
  if (p.dropout.active() || !fits || !rows_aligned<T>(width, p.hidden, p.dactivated, p.dhidden)) {
    return launch_rows(context, rows, p);
  }
  start_vectors(context, activation_backward_vectors<Activation, T>, rows, width / Vector<T>::size, p);
}

}  // namespace tinymoe::detail::cuda
