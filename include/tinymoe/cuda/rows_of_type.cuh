#pragma once
/// @file
/// The row kernels of this library, by the type of the activations. A kernel that is missing here is missing when a
/// program is linked, by its name.

#include "tinymoe/cuda/activation.cuh"
#include "tinymoe/cuda/adamw.cuh"
#include "tinymoe/cuda/cached_attention.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vocabulary.cuh"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/lion.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/tally.hpp"

/// An activation of the library, which the device computes in a form of its own.
#define TINYMOE_CUDA_ACTIVATION(Kernel, Activation, T)                                                                 \
  template <>                                                                                                          \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::Kernel<tinymoe::Activation, T>& p) { \
    launch_activation(context, rows, p);                                                                               \
  }

/// What T is the type of: first the kernels that the device has in a form of its own.
#define TINYMOE_CUDA_ROWS(T)                                                                                        \
  template <>                                                                                                       \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::CachedAttention<T, float>& p) {   \
    launch_cached_attention(context, rows, p);                                                                      \
  }                                                                                                                 \
  template <>                                                                                                       \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::CrossEntropy<T, float>& p) {      \
    launch_cross_entropy(context, rows, p);                                                                         \
  }                                                                                                                 \
  template <>                                                                                                       \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::EmbeddingBackward<T, float>& p) { \
    launch_embedding_backward(context, rows, p);                                                                    \
  }                                                                                                                 \
  template <>                                                                                                       \
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::AdamWStep<T, float>& p) {         \
    launch_adamw(context, rows, p);                                                                                 \
  }                                                                                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Add<T>);                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Sum<T>);                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CopyRow<T>);                                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Drop<T>);                                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddDropped<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ChunkSum<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GroupedChunkSum<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::EmbeddingForward<T>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::PositionBackward<T, float>);                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormForward<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddNormForward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormBackward<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Rotate<T, float>);                                                          \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormForward<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormBackward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CacheStore<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RotateIntoCache<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::JitterRows<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterForward<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterBackward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveBalanceBias<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveThresholds<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Gather<T>);                                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GatherBackward<T>);                                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Combine<T, float>);                                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CombineBackward<T, float>);                                                 \
  TINYMOE_CUDA_ACTIVATION(ActivationForward, SwiGlu, T)                                                             \
  TINYMOE_CUDA_ACTIVATION(ActivationForward, Gelu, T)                                                               \
  TINYMOE_CUDA_ACTIVATION(ActivationForward, Relu, T)                                                               \
  TINYMOE_CUDA_ACTIVATION(ActivationBackward, SwiGlu, T)                                                            \
  TINYMOE_CUDA_ACTIVATION(ActivationBackward, Gelu, T)                                                              \
  TINYMOE_CUDA_ACTIVATION(ActivationBackward, Relu, T)                                                              \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::LionStep<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonMomentum<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonNormalise<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonPolynomial<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonApply<T, float>)
