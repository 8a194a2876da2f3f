/// @file
/// The row kernels over bfloat16.

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/cuda/rows_of_type.cuh"

TINYMOE_CUDA_ROWS(tinymoe::bfloat16);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Convert<float, tinymoe::bfloat16>);
