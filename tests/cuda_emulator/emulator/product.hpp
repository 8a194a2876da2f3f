#pragma once
/// @file
/// The matrix product behind cuBLAS and cublasLt.

#include <cublas_v2.h>

#include <cstddef>
#include <cstdint>

namespace cuda_emulator {

/// Column-major, on the device.
struct Matrix {
  const void* data = nullptr;
  cudaDataType type = CUDA_R_32F;
  std::int64_t rows = 0, cols = 0, leading = 0;
};
/// D = alpha op(A) op(B) + beta C + bias, in float32 and rounded once; `bias` has D's type and a number for each row.
struct Product {
  Matrix a, b, c, d;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
  const void* bias = nullptr;
  bool tensor_float = false;  // inputs are rounded to TF32
};

/// Bytes of an element; 0 where the emulator does not know the type.
constexpr std::size_t size_of(cudaDataType type) {
  return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 0;
}
/// Runs while device memory is open; stops where a matrix is not inside device memory.
void multiply(const Product& product);
/// What a product may do to its workspace: its bytes are lost.
void spoil_workspace(void* workspace, std::size_t bytes);

}  // namespace cuda_emulator
