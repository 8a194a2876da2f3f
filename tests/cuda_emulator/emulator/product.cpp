// The loops below gain fourfold from vectors, which -O2 of GCC 12 leaves out.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include "emulator/product.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "emulator/fibers.hpp"
#include "emulator/memory.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"

namespace cuda_emulator {
namespace {

/// f(pointer to elements of the type): the one place that knows the types.
template <class F>
void with_elements(const void* data, cudaDataType type, F f) {
  if (type == CUDA_R_16BF) return f(static_cast<const tinymoe::bfloat16*>(data));
  if (type == CUDA_R_16F) return f(static_cast<const tinymoe::float16*>(data));
  f(static_cast<const float*>(data));
}

void check_inside(const Matrix& matrix, const char* what) {
  if (matrix.rows == 0 || matrix.cols == 0) return;
  const auto elements = static_cast<std::size_t>((matrix.cols - 1) * matrix.leading + matrix.rows);
  if (!is_device(matrix.data, elements * size_of(matrix.type))) stop(what);
}

float to_tensor_float(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  return (word & 0x7f800000u) == 0x7f800000u ? value : std::bit_cast<float>((word + 0x1000u) & ~0x1fffu);
}

/// The matrix, or its transpose, as floats without gaps between columns.
void unpack(const Matrix& matrix, bool transpose, bool tensor_float, std::vector<float>& to) {
  const std::int64_t rows = transpose ? matrix.cols : matrix.rows, cols = transpose ? matrix.rows : matrix.cols;
  to.resize(static_cast<std::size_t>(rows * cols));
  with_elements(matrix.data, matrix.type, [&](const auto* from) {
    for (std::int64_t col = 0; col < matrix.cols; ++col) {
      const auto* source = from + col * matrix.leading;
      float* out = to.data() + (transpose ? col : col * rows);
      const std::int64_t step = transpose ? rows : 1;
      for (std::int64_t row = 0; row < matrix.rows; ++row) out[row * step] = static_cast<float>(source[row]);
    }
  });
  if (tensor_float) std::transform(to.begin(), to.end(), to.begin(), to_tensor_float);
}

/// sums (rows x 4) += a (rows x depth) b (depth x 4 columns); a column of `a` is read once for four of the result.
void add_columns(const float* __restrict a, std::int64_t rows, std::int64_t depth, const float* const (&b)[4],
                 float* __restrict sums) {
  float *const s0 = sums, *const s1 = s0 + rows, *const s2 = s1 + rows, *const s3 = s2 + rows;
  for (std::int64_t k = 0; k < depth; ++k) {
    const float* const column = a + k * rows;
    const float b0 = b[0][k], b1 = b[1][k], b2 = b[2][k], b3 = b[3][k];
#pragma GCC ivdep
    for (std::int64_t i = 0; i < rows; ++i) {
      const float x = column[i];
      s0[i] += x * b0, s1[i] += x * b1, s2[i] += x * b2, s3[i] += x * b3;
    }
  }
}

template <class T>
void write_column(const Product& product, std::int64_t col, const float* sums) {
  const auto rows = product.d.rows;
  T* const to = static_cast<T*>(const_cast<void*>(product.d.data)) + col * product.d.leading;
  const T* const from = static_cast<const T*>(product.c.data) + col * product.c.leading;
  const T* const bias = static_cast<const T*>(product.bias);
  for (std::int64_t i = 0; i < rows; ++i) {
    float value = product.alpha * sums[i];
    // With beta = 0, C is not read: it may be NaN.
    if (product.beta != 0) value += product.beta * static_cast<float>(from[i]);
    if (bias != nullptr) value += static_cast<float>(bias[i]);
    to[i] = T(value);
  }
}

}  // namespace

void multiply(const Product& product) {
  const std::int64_t rows = product.d.rows, cols = product.d.cols;
  const std::int64_t depth = product.transpose_a ? product.a.rows : product.a.cols;
  check_inside(product.a, "A of a product is not all in device memory");
  check_inside(product.b, "B of a product is not all in device memory");
  check_inside(product.d, "the result of a product is not all in device memory");
  if (product.beta != 0) check_inside(product.c, "C of a product is not all in device memory");
  if (product.bias != nullptr && !is_device(product.bias, static_cast<std::size_t>(rows) * size_of(product.d.type))) {
    stop("the bias of a product is not all in device memory");
  }
  static thread_local std::vector<float> a, b, sums, zeros;
  unpack(product.a, product.transpose_a, product.tensor_float, a);
  unpack(product.b, product.transpose_b, product.tensor_float, b);
  zeros.assign(static_cast<std::size_t>(depth), 0.0f);
  for (std::int64_t first = 0; first < cols; first += 4) {
    const std::int64_t count = std::min<std::int64_t>(4, cols - first);
    const float* columns[4];
    for (std::int64_t j = 0; j < 4; ++j) columns[j] = j < count ? b.data() + (first + j) * depth : zeros.data();
    sums.assign(static_cast<std::size_t>(4 * rows), 0.0f);
    add_columns(a.data(), rows, depth, columns, sums.data());
    for (std::int64_t j = 0; j < count; ++j) {
      const float* const column = sums.data() + j * rows;
      if (product.d.type == CUDA_R_16BF) write_column<tinymoe::bfloat16>(product, first + j, column);
      if (product.d.type == CUDA_R_16F) write_column<tinymoe::float16>(product, first + j, column);
      if (product.d.type == CUDA_R_32F) write_column<float>(product, first + j, column);
    }
  }
}

void spoil_workspace(void* workspace, std::size_t bytes) {
  if (bytes == 0) return;
  if (!is_device(workspace, bytes)) stop("the workspace of a product is not all in device memory");
  // Losing both ends is enough to show that something else is kept there.
  const std::size_t part = std::min<std::size_t>(bytes, 1024);
  std::memset(workspace, 0xff, part);
  std::memset(static_cast<std::byte*>(workspace) + bytes - part, 0xff, part);
}

}  // namespace cuda_emulator
