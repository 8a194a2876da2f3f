#pragma once
/// @file
/// The row kernels of this library, by the type of the activations. If a kernel is missing here, linking a program
/// fails with the kernel's name.

#include <cstdint>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/cached_attention.cuh"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/rotate.cuh"
#include "tinymoe/cuda/route.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/vocabulary.cuh"
#include "tinymoe/layers/activation_functions.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/buffer_kernels.hpp"
#include "tinymoe/layers/cached_attention.hpp"
#include "tinymoe/layers/embedding.hpp"
#include "tinymoe/layers/few_experts.hpp"
#include "tinymoe/layers/loss.hpp"
#include "tinymoe/layers/moe_kernels.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/position.hpp"
#include "tinymoe/layers/qk_norm.hpp"
#include "tinymoe/layers/router_kernels.hpp"
#include "tinymoe/layers/shared_expert.hpp"
#include "tinymoe/train/adamw.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/train/lion.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/optimizer_step.hpp"
#include "tinymoe/train/tally.hpp"

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
  void tinymoe::detail::cuda::launch(Context& context, Index rows, const kernels::Rotate<T, float>& p) {            \
    launch_rotate(context, rows, p);                                                                                \
  }                                                                                                                 \
  template <>                                                                                                       \
  bool tinymoe::detail::cuda::rotate_and_attend(Context& context, const kernels::RotateIntoCache<T, float>& rotate, \
                                                const kernels::CachedAttention<T, float>& attend) {                 \
    return launch_rotated_attention(context, rotate, attend);                                                       \
  }                                                                                                                 \
  template void tinymoe::detail::cuda::route(Context&, View<const T>, View<const T>, View<const T>, View<T>,        \
                                             const kernels::RouterForward<T, float>&, View<const std::int32_t>,     \
                                             Dispatch&);                                                            \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Add<T>);                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Sum<T>);                                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CopyRow<T>);                                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ApplyDropout<T>);                                                           \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddDropout<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ChunkSum<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GroupedChunkSum<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::EmbeddingForward<T>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddTableRow<T>);                                                            \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::PositionBackward<T, float>);                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormForward<T, float>);                                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddNormForward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::NormBackward<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormForward<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::QkNormBackward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CacheStore<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RotateIntoCache<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::JitterRows<T>);                                                             \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::LeaveOut<T>);                                                               \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterForward<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::RouterBackward<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveBalanceBias<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MoveThresholds<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Gather<T>);                                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FromSlots<T>);                                                              \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::GatherBackward<T>);                                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::Combine<T, float>);                                                         \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::CombineBackward<T, float>);                                                 \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddGated<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddGatedBackward<T, float>);                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::SwiGlu, T>);                                     \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::Gelu, T>);                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::GeluTanh, T>);                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<tinymoe::Relu, T>);                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::SwiGlu, T>);                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::Gelu, T>);                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::GeluTanh, T>);                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<tinymoe::Relu, T>);                                      \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertInputs<tinymoe::SwiGlu, T, float>);                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertInputs<tinymoe::Gelu, T, float>);                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertInputs<tinymoe::GeluTanh, T, float>);                              \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertInputs<tinymoe::Relu, T, float>);                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertOutputs<T, float>);                                                \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::AdamWStep<T, float>);                                                       \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::LionStep<T, float>);                                                        \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonMomentum<T, float>);                                                    \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonNormalise<T, float>);                                                   \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonPolynomial<T, float>);                                                  \
  TINYMOE_CUDA_KERNEL(tinymoe::kernels::MuonApply<T, float>)
