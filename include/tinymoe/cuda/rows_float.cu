/// @file
/// The row kernels over float32, and those of what is float32 on every Cuda: statistics, gradients and masters.

#include <cstdint>

#include "tinymoe/cuda/rows_of_type.cuh"

TINYMOE_CUDA_ROWS(float);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::CachedSoftmax<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::CopyRow<std::int32_t>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::BigramNumbers);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::ColumnTotals<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::GroupedColumnTotals<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::FillRopeTable<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::ExpertChooses<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::DropPairs);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::BalanceTotals<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::BalanceLosses<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddCountsBefore<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Loads);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::InitialNormal<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Fill<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Convert<float, float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::SquaredSum<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::ClipScale<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::AverageStep<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Exchange<float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::AddResults<float>);
