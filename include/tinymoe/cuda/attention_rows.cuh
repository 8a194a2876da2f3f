#pragma once
/// @file
/// Causal attention by one warp for each query or key: for float32, for which tensor cores have no exact product, and
/// for heads that are too wide for the registers of the tensor cores' kernels. No logits are stored.

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/attention.cuh"
#include "tinymoe/cuda/device.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

inline constexpr int row_warps = 4;

__device__ inline float warp_sum(float value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

/// A head's vector on a warp: lane l has the elements l, l + 32, …
template <int Parts>
struct LaneVector {
  float part[Parts];

  template <class T>
  __device__ static LaneVector load(const T* from, int width, int lane) {
    LaneVector result;
#pragma unroll
    for (int j = 0; j < Parts; ++j) {
      const int i = lane + j * warp_size;
      result.part[j] = i < width ? float(from[i]) : 0.0f;
    }
    return result;
  }
  template <class T>
  __device__ void store(T* to, int width, int lane, float factor) const {
#pragma unroll
    for (int j = 0; j < Parts; ++j) {
      const int i = lane + j * warp_size;
      if (i < width) to[i] = T(part[j] * factor);
    }
  }
  __device__ float dot(const LaneVector& other) const {
    float total = 0;
#pragma unroll
    for (int j = 0; j < Parts; ++j) total += part[j] * other.part[j];
    return warp_sum(total);
  }
  /// *this = *this · keep + other · factor.
  __device__ void add(const LaneVector& other, float factor, float keep = 1.0f) {
#pragma unroll
    for (int j = 0; j < Parts; ++j) part[j] = part[j] * keep + other.part[j] * factor;
  }
};

/// This warp's part of the work: parts count heads first, then rows.
struct WarpPlace {
  Index row, head, sequence;
  int t, lane;
  bool inside;
  __device__ WarpPlace(const AttentionShape& shape, Index heads) {
    const Index part = Index{blockIdx.x} * row_warps + threadIdx.x / warp_size;
    row = part / heads, head = part % heads;
    sequence = row / shape.time, t = static_cast<int>(row % shape.time);
    lane = static_cast<int>(threadIdx.x) % warp_size;
    inside = row < shape.batch * shape.time;
  }
};

/// y and the log-sum of one query of one head.
template <class T, int Parts>
__global__ void __launch_bounds__(row_warps* warp_size, 1) forward_rows(const AttentionForward<T> p) {
  using Lanes = LaneVector<Parts>;
  const WarpPlace at(p.shape, p.shape.heads);
  if (!at.inside) return;
  const int width = static_cast<int>(p.shape.head_dim);
  const Index first_row = at.sequence * p.shape.time, col = at.head / p.shape.group() * width;
  const Lanes query = Lanes::load(p.q.data + at.row * p.q.stride + at.head * width, width, at.lane);
  Lanes out{};
  float maximum = -INFINITY, total = 0;
  for (Index s = p.shape.first_key(at.t); s <= at.t; ++s) {
    const Lanes key = Lanes::load(p.k.data + (first_row + s) * p.k.stride + col, width, at.lane);
    const Lanes value = Lanes::load(p.v.data + (first_row + s) * p.v.stride + col, width, at.lane);
    const float logit = query.dot(key) * static_cast<float>(p.shape.scale);
    const float next = fmaxf(maximum, logit), shrink = expf(maximum - next);
    float probability = expf(logit - next);
    total = total * shrink + probability;
    if (p.shape.dropout.active()) probability *= attention_factor(p, at.sequence, at.head, at.t, s);
    out.add(value, probability, shrink);
    maximum = next;
  }
  out.store(p.y.data + at.row * p.y.stride + at.head * width, width, at.lane, 1.0f / total);
  if (p.log_sum.data != nullptr && at.lane == 0) p.log_sum.row(at.row)[at.head] = maximum + logf(total);
}

/// delta = Σ y · dy of one head of one query.
template <class T>
__global__ void __launch_bounds__(row_warps* warp_size, 1)
    head_deltas(const AttentionShape shape, View<const T> y, View<const T> dy, float* delta) {
  const WarpPlace at(shape, shape.heads);
  if (!at.inside) return;
  const Index width = shape.head_dim;
  const T *a = y.data + at.row * y.stride + at.head * width, *b = dy.data + at.row * dy.stride + at.head * width;
  float total = 0;
  for (Index i = at.lane; i < width; i += warp_size) total += float(a[i]) * float(b[i]);
  total = warp_sum(total);
  if (at.lane == 0) delta[at.row * shape.heads + at.head] = total;
}

/// dq of one query of one head.
template <class T, int Parts>
__global__ void __launch_bounds__(row_warps* warp_size, 1) backward_query_rows(const AttentionBackward<T> p) {
  using Lanes = LaneVector<Parts>;
  const WarpPlace at(p.shape, p.shape.heads);
  if (!at.inside) return;
  const int width = static_cast<int>(p.shape.head_dim);
  const Index first_row = at.sequence * p.shape.time, col = at.head / p.shape.group() * width;
  const Lanes query = Lanes::load(p.q.data + at.row * p.q.stride + at.head * width, width, at.lane);
  const Lanes gradient = Lanes::load(p.dy.data + at.row * p.dy.stride + at.head * width, width, at.lane);
  const float log_sum = p.log_sum.row(at.row)[at.head], delta = p.delta[at.row * p.shape.heads + at.head];
  const float scale = static_cast<float>(p.shape.scale);
  Lanes dq{};
  for (Index s = p.shape.first_key(at.t); s <= at.t; ++s) {
    const Lanes key = Lanes::load(p.k.data + (first_row + s) * p.k.stride + col, width, at.lane);
    const Lanes value = Lanes::load(p.v.data + (first_row + s) * p.v.stride + col, width, at.lane);
    const float probability = expf(query.dot(key) * scale - log_sum);
    float slope = gradient.dot(value);
    if (p.shape.dropout.active()) slope *= attention_factor(p, at.sequence, at.head, at.t, s);
    dq.add(key, probability * (slope - delta) * scale);
  }
  dq.store(p.dq.data + at.row * p.dq.stride + at.head * width, width, at.lane, 1.0f);
}

/// dk and dv of one key of one key-value head: `at.t` is its position.
template <class T, int Parts>
__global__ void __launch_bounds__(row_warps* warp_size, 1) backward_key_rows(const AttentionBackward<T> p) {
  using Lanes = LaneVector<Parts>;
  const WarpPlace at(p.shape, p.shape.kv_heads);
  if (!at.inside) return;
  const int width = static_cast<int>(p.shape.head_dim);
  const Index first_row = at.sequence * p.shape.time, col = at.head * width, group = p.shape.group();
  const Lanes key = Lanes::load(p.k.data + at.row * p.k.stride + col, width, at.lane);
  const Lanes value = Lanes::load(p.v.data + at.row * p.v.stride + col, width, at.lane);
  const float scale = static_cast<float>(p.shape.scale);
  const Index last = p.shape.window > 0 && at.t + p.shape.window < p.shape.time ? at.t + p.shape.window : p.shape.time;
  Lanes dk{}, dv{};
  for (Index head = at.head * group; head < (at.head + 1) * group; ++head) {
    for (Index t = at.t; t < last; ++t) {
      const Index row = first_row + t;
      const Lanes query = Lanes::load(p.q.data + row * p.q.stride + head * width, width, at.lane);
      const Lanes gradient = Lanes::load(p.dy.data + row * p.dy.stride + head * width, width, at.lane);
      const float probability = expf(query.dot(key) * scale - p.log_sum.row(row)[head]);
      const float factor = p.shape.dropout.active() ? attention_factor(p, at.sequence, head, t, at.t) : 1.0f;
      dv.add(gradient, probability * factor);
      dk.add(query, probability * (gradient.dot(value) * factor - p.delta[row * p.shape.heads + head]) * scale);
    }
  }
  dk.store(p.dk.data + at.row * p.dk.stride + col, width, at.lane, 1.0f);
  dv.store(p.dv.data + at.row * p.dv.stride + col, width, at.lane, 1.0f);
}

}  // namespace tinymoe::inline v0_1::detail::cuda
