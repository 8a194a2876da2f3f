#pragma once
/// @file
/// Arguments of the attention kernels.

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/device.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

template <class T>
struct AttentionForward {
  AttentionShape shape;
  View<const T> q, k, v;
  View<T> y;
  View<float> log_sum;  // (N, H), or empty
  bool aligned;         // all heads begin at multiples of 16 bytes and have such lengths
  Dropout::Factors<float> factors{shape.dropout.rate};
};

template <class T>
struct AttentionBackward {
  AttentionShape shape;
  View<const T> q, k, v, dy;
  View<const float> log_sum;
  const float* delta;  // (N, H): Σ y · dy
  View<T> dq, dk, dv;
  bool aligned;
  Dropout::Factors<float> factors{shape.dropout.rate};
};

/// The factor of dropout for query t and key s of a head.
template <class P>
__device__ float attention_factor(const P& p, Index sequence, Index head, Index t, Index s) {
  const AttentionShape& shape = p.shape;
  return shape.dropout.factor((sequence * shape.heads + head) * shape.time + t, shape.time, s, p.factors);
}

}  // namespace tinymoe::inline v0_1::detail::cuda
