// What docs/write-your-own.md tells a user to write for a kernel and for an activation of their own.
#include "cuda/foreign.hpp"
#include "tinymoe/cuda/rows.cuh"

TINYMOE_CUDA_KERNEL(foreign::SquareLessMean<float>);
TINYMOE_CUDA_KERNEL(foreign::SquareLessMean<tinymoe::bfloat16>);

TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationForward<foreign::SquaredRelu, float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::ActivationBackward<foreign::SquaredRelu, float>);
TINYMOE_CUDA_KERNEL(tinymoe::kernels::FewExpertInputs<foreign::SquaredRelu, float, float>);
