#pragma once
/// @file
/// AdamW, 16 bytes at a time: it does nothing but move memory, 30 bytes and more for each weight.

#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vector.cuh"
#include "tinymoe/train/adamw.hpp"

namespace tinymoe::detail::cuda {

/// Four numbers of 16 bits.
template <class T>
struct alignas(8) Half {
  T values[4];
};

/// A block for each chunk: four weights a thread where the chunk begins at a multiple of four, and the functor for the
/// rest of it.
template <class T>
__global__ void __launch_bounds__(block_threads, 1) adamw_chunks(const kernels::AdamWStep<T, float> p, Index rows) {
  using V = Vector<float>;
  const LaneGroup group{static_cast<int>(threadIdx.x), block_threads};
  const float scale = p.clip[1], step = p.rate / p.mean_correction, root = 1.0f / sqrtf(p.square_correction);
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    const Chunk chunk = p.chunks[row];
    if (chunk.offset % 4 != 0 || chunk.size % 4 != 0) {
      p(group, row);
      continue;
    }
    const float keep = chunk.decay != 0 ? 1.0f - p.rate * p.decay : 1.0f;
    for (Index i = chunk.offset + 4 * group.lane; i < chunk.offset + chunk.size; i += 4 * block_threads) {
      V w = *reinterpret_cast<const V*>(p.weights + i), g = *reinterpret_cast<const V*>(p.gradients + i);
      V m = *reinterpret_cast<const V*>(p.mean + i), v = *reinterpret_cast<const V*>(p.square + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float gradient = g.values[j] * scale;
        m.values[j] = p.beta1 * m.values[j] + (1.0f - p.beta1) * gradient;
        v.values[j] = p.beta2 * v.values[j] + (1.0f - p.beta2) * gradient * gradient;
        w.values[j] = keep * w.values[j] - step * m.values[j] / (sqrtf(v.values[j]) * root + p.epsilon);
        g.values[j] = 0;
      }
      *reinterpret_cast<V*>(p.weights + i) = w;
      *reinterpret_cast<V*>(p.gradients + i) = g;
      *reinterpret_cast<V*>(p.mean + i) = m;
      *reinterpret_cast<V*>(p.square + i) = v;
      if constexpr (sizeof(T) == 2) {
        if (p.copy != nullptr) {
          *reinterpret_cast<Half<T>*>(p.copy + i) = {{T(w.values[0]), T(w.values[1]), T(w.values[2]), T(w.values[3])}};
        }
      }
    }
  }
}

/// The model's buffers begin where memory of the device does, which is at multiples of 16 bytes and more; in float32
/// there is no copy.
template <class T>
void launch_adamw(Context& context, Index rows, const kernels::AdamWStep<T, float>& p) {
  const auto places = reinterpret_cast<std::uintptr_t>(p.weights) | reinterpret_cast<std::uintptr_t>(p.gradients) |
                      reinterpret_cast<std::uintptr_t>(p.mean) | reinterpret_cast<std::uintptr_t>(p.square) |
                      reinterpret_cast<std::uintptr_t>(p.copy);
  const bool float_copy = sizeof(T) == 4 && p.copy != nullptr;
  if (places % 16 != 0 || float_copy) return launch_rows(context, rows, p);
  const auto blocks = static_cast<unsigned>(std::min<Index>(rows, 64 * Index{context.multiprocessors}));
  check(start(adamw_chunks<T>, dim3(blocks), dim3(block_threads), 0, context.stream, p, rows), "starting AdamW");
}

}  // namespace tinymoe::detail::cuda
