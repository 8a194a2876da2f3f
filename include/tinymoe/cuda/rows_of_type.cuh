#pragma once
/// @file
/// The row kernels of this library, by the type of the activations. A kernel that is missing here is missing when a
/// program is linked, by its name.

#include "tinymoe/cuda/cached_attention.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/lion.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/tally.hpp"

/// What T is the type of, in the order of the headers.
#define TINYMOE_CUDA_ROWS(T)                                                                                           \
  template <>                                                                                                          \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::CachedAttention<T, float>& kernel) { \
    launch_cached_attention(context, rows, kernel);                                                                    \
  }                                                                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Add<T>);                                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Sum<T>);                                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CopyRow<T>);                                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Drop<T>);                                                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddDropped<T>);                                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ChunkSum<T, float>);                                                           \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GroupedChunkSum<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::EmbeddingForward<T>);                                                          \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::EmbeddingBackward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::PositionBackward<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormForward<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormBackward<T, float>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Rotate<T, float>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormForward<T, float>);                                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormBackward<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CacheStore<T>);                                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::JitterRows<T>);                                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterForward<T, float>);                                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterBackward<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveBalanceBias<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveThresholds<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Gather<T>);                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GatherBackward<T>);                                                            \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Combine<T, float>);                                                            \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CombineBackward<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::SwiGlu, T>);                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::Gelu, T>);                                          \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::Relu, T>);                                          \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::SwiGlu, T>);                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::Gelu, T>);                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::Relu, T>);                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CrossEntropy<T, float>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AdamWStep<T, float>);                                                          \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::LionStep<T, float>);                                                           \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonMomentum<T, float>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonNormalise<T, float>);                                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonPolynomial<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonApply<T, float>)
