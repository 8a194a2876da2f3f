// cublasLt, cuBLAS and CUB against plain loops.

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cub/device/device_radix_sort.cuh>

#include <algorithm>

#include "test_support.hpp"

namespace {

using namespace cuda_emulator::test;

template <class T>
constexpr cudaDataType type_of = CUDA_R_32F;
template <>
constexpr cudaDataType type_of<bfloat16> = CUDA_R_16BF;
template <>
constexpr cudaDataType type_of<float16> = CUDA_R_16F;

using cuda_emulator::test::check;
void check(cublasStatus_t status) { REQUIRE(status == CUBLAS_STATUS_SUCCESS); }

struct Sizes {
  std::uint64_t m = 5, n = 6, k = 7;
  int batches = 2;
  bool transpose_a = false, transpose_b = false, bias = false;
  float alpha = 1, beta = 0;
};

/// A product by cublasLt, from matrices with a gap behind every column.
template <class T, class Out>
std::vector<Out> product_by_lt(const Sizes& s, const std::vector<T>& a, const std::vector<T>& b,
                               const std::vector<Out>& c, const std::vector<Out>& bias) {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtCreate(&handle));
  check(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transa = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t transb = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transa, sizeof(transa)));
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSB, &transb, sizeof(transb)));
  const Buffer<T> a_device(a), b_device(b);
  const Buffer<Out> d_device(c), bias_device(bias);
  if (s.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const void* const address = bias_device.data;
    check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
    check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address, sizeof(address)));
  }
  cublasLtMatrixLayout_t layouts[3] = {};
  const auto make = [&](int which, cudaDataType type, std::uint64_t rows, std::uint64_t cols) {
    check(cublasLtMatrixLayoutCreate(&layouts[which], type, rows, cols, static_cast<std::int64_t>(rows + 1)));
    const auto stride = static_cast<std::int64_t>((rows + 1) * cols);
    check(cublasLtMatrixLayoutSetAttribute(layouts[which], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &s.batches,
                                           sizeof(s.batches)));
    check(cublasLtMatrixLayoutSetAttribute(layouts[which], CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof(stride)));
  };
  make(0, type_of<T>, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k);
  make(1, type_of<T>, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n);
  make(2, type_of<Out>, s.m, s.n);
  check(cublasLtMatmulPreferenceCreate(&preference));
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle, description, layouts[0], layouts[1], layouts[2], layouts[2], preference,
                                       1, &result, &found));
  CHECK(found == 1);
  const auto multiply = [&](const T* from) {
    return cublasLtMatmul(handle, description, &s.alpha, from, layouts[0], b_device.data, layouts[1], &s.beta,
                          d_device.data, layouts[2], d_device.data, layouts[2], &result.algo, nullptr, 0, nullptr);
  };
  CHECK(multiply(a_device.data + 1) == CUBLAS_STATUS_INVALID_VALUE);  // less aligned than promised
  check(multiply(a_device.data));
  check(cublasLtMatmulPreferenceDestroy(preference));
  for (const auto layout : layouts) check(cublasLtMatrixLayoutDestroy(layout));
  check(cublasLtMatmulDescDestroy(description));
  check(cublasLtDestroy(handle));
  return d_device.host();
}

template <class T, class Out>
void check_products() {
  for (int flags = 0; flags < 16; ++flags) {
    Sizes s;
    s.transpose_a = (flags & 1) != 0, s.transpose_b = (flags & 2) != 0, s.bias = (flags & 4) != 0;
    if ((flags & 8) != 0) s.alpha = 2, s.beta = 0.5f;
    const std::uint64_t a_rows = s.transpose_a ? s.k : s.m, a_cols = s.transpose_a ? s.m : s.k;
    const std::uint64_t b_rows = s.transpose_b ? s.n : s.k, b_cols = s.transpose_b ? s.k : s.n;
    const auto a = numbers<T>(2 * (a_rows + 1) * a_cols, 0, 7), b = numbers<T>(2 * (b_rows + 1) * b_cols, 3, 5);
    const auto c = numbers<Out>(2 * (s.m + 1) * s.n, 1, 9), bias = numbers<Out>(s.m, 2, 11);
    auto expected = c;
    for (std::uint64_t batch = 0; batch < 2; ++batch) {
      const T *const x = a.data() + batch * (a_rows + 1) * a_cols, *const y = b.data() + batch * (b_rows + 1) * b_cols;
      for (std::uint64_t j = 0; j < s.n; ++j) {
        for (std::uint64_t i = 0; i < s.m; ++i) {
          float total = 0;
          for (std::uint64_t k = 0; k < s.k; ++k) {
            total += float(x[s.transpose_a ? i * (a_rows + 1) + k : k * (a_rows + 1) + i]) *
                     float(y[s.transpose_b ? k * (b_rows + 1) + j : j * (b_rows + 1) + k]);
          }
          Out& to = expected[batch * (s.m + 1) * s.n + j * (s.m + 1) + i];
          to = Out(s.alpha * total + s.beta * float(to) + (s.bias ? float(bias[i]) : 0.0f));
        }
      }
    }
    const auto found = product_by_lt(s, a, b, c, bias);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(float(found[i]) == float(expected[i]));
  }
}

TEST_CASE("cublasLt multiplies", "[cuda_emulator]") {
  check_products<float, float>();
  check_products<bfloat16, bfloat16>();
  check_products<bfloat16, float>();
  check_products<float16, float16>();
}

TEST_CASE("cuBLAS multiplies groups", "[cuda_emulator]") {
  const int sizes[3] = {3, 0, 5}, group_sizes[3] = {2, 1, 1}, depths[3] = {4, 4, 4}, cols[3] = {6, 6, 6};
  const int leading_a[3] = {4, 4, 4}, leading_b[3] = {4, 4, 4}, leading_c[3] = {5, 5, 5};
  const cublasOperation_t transposed[3] = {CUBLAS_OP_T, CUBLAS_OP_T, CUBLAS_OP_T};
  const cublasOperation_t plain[3] = {CUBLAS_OP_N, CUBLAS_OP_N, CUBLAS_OP_N};
  const float alpha[3] = {1, 1, 2}, beta[3] = {0, 0, 1};
  const auto a = numbers<bfloat16>(4 * 20, 0, 7), b = numbers<bfloat16>(4 * 24, 3, 5);
  const auto c = numbers<bfloat16>(4 * 30, 1, 9);
  const Buffer<bfloat16> a_device(a), b_device(b), c_device(c);
  std::vector<const void*> a_pointers, b_pointers;
  std::vector<void*> c_pointers;
  for (int i = 0; i < 4; ++i) {
    a_pointers.push_back(a_device.data + 20 * i), b_pointers.push_back(b_device.data + 24 * i);
    c_pointers.push_back(c_device.data + 30 * i);
  }
  const Buffer<const void*> a_array(a_pointers), b_array(b_pointers);
  const Buffer<void*> c_array(c_pointers);
  cublasHandle_t handle = nullptr;
  check(cublasCreate(&handle));
  const auto run = [&](const void* const* pointers, cudaDataType out) {
    return cublasGemmGroupedBatchedEx(handle, transposed, plain, sizes, cols, depths, alpha, pointers, CUDA_R_16BF,
                                      leading_a, b_array.data, CUDA_R_16BF, leading_b, beta, c_array.data, out,
                                      leading_c, 3, group_sizes, CUBLAS_COMPUTE_32F);
  };
  CHECK(run(a_array.data, CUDA_R_32F) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(run(a_pointers.data(), CUDA_R_16BF) == CUBLAS_STATUS_INVALID_VALUE);
  check(run(a_array.data, CUDA_R_16BF));
  const auto found = c_device.host();
  for (int problem = 0; problem < 4; ++problem) {
    const int group = problem < 2 ? 0 : problem - 1;
    for (int i = 0; i < 30; ++i) {
      const int row = i % 5, col = i / 5;
      float expected = float(c[static_cast<std::size_t>(30 * problem + i)]);
      if (row < sizes[group]) {
        expected *= beta[group];
        for (int k = 0; k < 4; ++k) {
          expected += alpha[group] * float(a[static_cast<std::size_t>(20 * problem + 4 * row + k)]) *
                      float(b[static_cast<std::size_t>(24 * problem + 4 * col + k)]);
        }
      }
      CHECK(float(found[static_cast<std::size_t>(30 * problem + i)]) == expected);
    }
  }
  check(cublasDestroy(handle));
}

// ---- CUB ----

TEST_CASE("the radix sort is stable and looks at its bits only", "[cuda_emulator]") {
  std::vector<std::int32_t> keys(500), values(500);
  for (int i = 0; i < 500; ++i) {
    keys[static_cast<std::size_t>(i)] = i * 37 % 64 - 8, values[static_cast<std::size_t>(i)] = i;
  }
  const Buffer<std::int32_t> keys_in(keys), values_in(values), keys_out(500), values_out(500);
  for (const auto& [begin, end] : {std::pair{0, 32}, std::pair{0, 3}, std::pair{2, 5}, std::pair{4, 4}}) {
    std::size_t bytes = 0;
    const auto sort = [&, begin = begin, end = end](void* temporary) {
      return cub::DeviceRadixSort::SortPairs(temporary, bytes, keys_in.data, keys_out.data, values_in.data,
                                             values_out.data, 500, begin, end);
    };
    check(sort(nullptr));
    const Buffer<std::byte> temporary(bytes);
    check(sort(temporary.data));
    const auto rank = [&, begin = begin, end = end](int i) {
      const std::int64_t key = keys[static_cast<std::size_t>(i)];
      return end == 32 ? key : (key & 0xffffffff) % (1ll << end) >> begin;
    };
    std::vector<std::int32_t> expected = values;
    std::stable_sort(expected.begin(), expected.end(), [&](int i, int j) { return rank(i) < rank(j); });
    CHECK(values_out.host() == expected);
    for (auto& each : expected) each = keys[static_cast<std::size_t>(each)];
    CHECK(keys_out.host() == expected);
  }
}

}  // namespace
