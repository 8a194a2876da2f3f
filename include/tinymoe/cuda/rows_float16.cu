/// @file
/// The row kernels over float16.

#include "tinymoe/core/float16.hpp"
#include "tinymoe/cuda/rows_of_type.cuh"

TINYMOE_CUDA_ROWS(tinymoe::float16);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::Convert<float, tinymoe::float16>);
