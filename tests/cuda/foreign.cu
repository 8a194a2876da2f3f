// What docs/write-your-own.md tells a user to write for a kernel of their own.
#include "cuda/foreign.hpp"
#include "tinymoe/cuda/rows.cuh"

TINYMOE_CUDA_KERNEL(foreign::SquareLessMean<float>);
TINYMOE_CUDA_KERNEL(foreign::SquareLessMean<tinymoe::bfloat16>);
