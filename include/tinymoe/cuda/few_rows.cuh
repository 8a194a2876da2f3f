#pragma once
/// @file
/// Products of few rows, as in decoding: each weight is read once from the device's memory, at its speed. The
/// rows of experts are found on the device.

#include <cstdint>
#include <initializer_list>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/vector.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

/// Up to this many rows a dense product is computed here, and by cuBLAS for more.
inline constexpr Index max_gemv_rows = 8;

/// Arguments of the kernel.
template <class T>
struct FewRows {
  View<const T> x;  // (N, I)
  Bank<const T> w;  // (O, I) each
  Index stride;     // of w's rows
  Bank<const T> bias;
  ExpertRows of;
  View<T> y;  // (N, O)
};

/// A warp for each output of each expert, block.y being the expert: it reads that row of the weights once for each four
/// of the expert's rows. `aligned`: all rows begin at multiples of 16 bytes and have such lengths.
template <class T, bool aligned>
__global__ void __launch_bounds__(256, 1) few_rows_kernel(const FewRows<T> p) {
  follow();
  constexpr int together = 4;
  const Index expert = blockIdx.y, output = Index{blockIdx.x} * 8 + threadIdx.x / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  if (output >= p.w.rows) return;
  const Index first = p.of.first(expert), last = p.of.end(expert);
  const T* w = p.w.data + expert * p.w.stride + output * p.stride;
  for (Index begin = first; begin < last; begin += together) {
    const int count = last - begin < together ? static_cast<int>(last - begin) : together;
    float total[together] = {};
    if constexpr (aligned) {
      using V = Vector<T>;
#pragma unroll 4
      for (Index i = Index{lane} * V::size; i < p.w.cols; i += warp_size * V::size) {
        const V weights = *reinterpret_cast<const V*>(w + i);
        for (int r = 0; r < together; ++r) {
          if (r >= count) break;
          const V inputs = *reinterpret_cast<const V*>(p.x.data + (begin + r) * p.x.stride + i);
#pragma unroll
          for (int j = 0; j < V::size; ++j) total[r] += float(weights.values[j]) * float(inputs.values[j]);
        }
      }
    } else {
      for (Index i = lane; i < p.w.cols; i += warp_size) {
        const float weight = float(w[i]);
        for (int r = 0; r < together; ++r) {
          if (r < count) total[r] += weight * float(p.x.data[(begin + r) * p.x.stride + i]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < together; ++r) {
      if (r >= count) break;
      for (int mask = warp_size / 2; mask > 0; mask /= 2) total[r] += shuffle_xor(total[r], mask);
      const float added = p.bias.data == nullptr ? 0.0f : float(p.bias.data[expert * p.bias.stride + output]);
      if (lane == r) p.y.data[(begin + r) * p.y.stride + output] = T(total[r] + added);
    }
  }
}

/// y = x wᵀ + bias, each expert's rows by its matrix of the bank.
template <class T>
void few_rows_product(Context& context, View<const T> x, Bank<const T> w, Index stride, Bank<const T> bias,
                      const ExpertRows& of, View<T> y) {
  if (x.rows == 0 || w.rows == 0) return;
  const auto multiple = [](const void* data, std::initializer_list<Index> distances) {
    auto bits = reinterpret_cast<std::uintptr_t>(data);
    for (const Index elements : distances) bits |= static_cast<std::uintptr_t>(elements) * sizeof(T);
    return bits % 16 == 0;
  };
  const bool aligned = multiple(x.data, {x.stride, x.cols}) && multiple(w.data, {stride, w.stride});
  const FewRows<T> p{x, w, stride, bias, of, y};
  const dim3 blocks(static_cast<unsigned>((w.rows + 7) / 8), static_cast<unsigned>(w.count));
  const auto kernel = aligned ? few_rows_kernel<T, true> : few_rows_kernel<T, false>;
  check(start_next(context.starts_early(kernel), kernel, blocks, dim3(256), 0, context.stream, p),
        "starting a product of few rows");
}

}  // namespace tinymoe::inline v0_1::detail::cuda
