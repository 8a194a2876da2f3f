/// @file
/// One product, in cuBLAS's terms. cublasLt is asked once for an algorithm; a plain kernel computes the product if
/// there is none.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

namespace {

/// The largest power of two up to 256 that divides an address and a distance in bytes.
unsigned alignment_of(const void* data, Index stride_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uintptr_t>(stride_bytes) | 256u;
  return static_cast<unsigned>(bits & (~bits + 1));
}

Index size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

/// Rows that vary are rounded up in steps of an eighth of their size, so that few plans serve all steps.
Index rounded(Index rows) {
  Index step = 64;
  while (16 * step < rows) step *= 2;
  return (rows + step - 1) / step * step;
}

/// A layout that lives as long as a call.
struct Layout {
  cublasLtMatrixLayout_t layout = nullptr;
  Layout(cudaDataType type, Index rows, Index cols, Index stride) {
    check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols),
                                     stride),
          "describing a matrix");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout); }
  Layout(const Layout&) = delete;
};

struct Layouts {
  Layout a, b, c;
  explicit Layouts(const Product& p)
      : a(p.type, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda),
        b(p.type, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb),
        c(p.result, p.m, p.n, p.ldc) {}
};

template <class Value>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  check(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value), "describing a product");
}

/// One element of c by each thread, for the shapes that cuBLAS refuses.
template <class T, class R>
__global__ void plain_product(Product p) {
  const Index element = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (element >= p.m * p.n) return;
  const Index i = element % p.m, j = element / p.m;
  const T *a = static_cast<const T*>(p.a), *b = static_cast<const T*>(p.b);
  float total = 0;
  for (Index l = 0; l < p.k; ++l) {
    total += float(p.transpose_a ? a[i * p.lda + l] : a[l * p.lda + i]) *
             float(p.transpose_b ? b[l * p.ldb + j] : b[j * p.ldb + l]);
  }
  R& c = static_cast<R*>(p.c)[j * p.ldc + i];
  if (p.bias != nullptr) total += float(static_cast<const R*>(p.bias)[i]);
  c = R(p.accumulate ? float(c) + total : total);
}

template <class T, class R>
void plain(const Product& p, cudaStream_t stream) {
  const Index blocks = (p.m * p.n + 255) / 256;
  check(start(plain_product<T, R>, dim3(static_cast<unsigned>(blocks)), dim3(256), 0, stream, p), "starting a product");
}

void plain(const Product& p, cudaStream_t stream) {
  const bool wide = p.result == CUDA_R_32F;
  if (p.type == CUDA_R_32F) return plain<float, float>(p, stream);
  if (p.type == CUDA_R_16BF) return wide ? plain<bfloat16, float>(p, stream) : plain<bfloat16, bfloat16>(p, stream);
  return wide ? plain<float16, float>(p, stream) : plain<float16, float16>(p, stream);
}

}  // namespace

ProductPlan& Context::plan_of(const Product& product, bool exact) {
  Product p = product;
  if (!exact && p.rows_vary) (p.transpose_b ? p.k : p.n) = rounded(p.transpose_b ? p.k : p.n);
  const unsigned a = alignment_of(p.a, p.lda * size_of(p.type)), b = alignment_of(p.b, p.ldb * size_of(p.type));
  // cublasLt has no setting for the bias's alignment, so the bias counts with the result.
  const unsigned c = std::min(alignment_of(p.c, p.ldc * size_of(p.result)), alignment_of(p.bias, 0));
  const Key key{p.transpose_a,
                p.transpose_b,
                p.m,
                p.n,
                p.k,
                p.lda,
                p.ldb,
                p.ldc,
                int(p.type),
                int(p.result),
                p.bias != nullptr,
                p.accumulate,
                a | b << 10 | c << 20};
  if (const auto entry = plans_.find(key); entry != plans_.end()) return entry->second;

  ProductPlan& plan = plans_[key];
  try {
    make(plan, p, a, b, c);
  } catch (...) {
    if (plan.description != nullptr) cublasLtMatmulDescDestroy(plan.description);
    plans_.erase(key);
    throw;
  }
  return plan;
}

/// Asks cuBLAS for an algorithm, where the operands lie at multiples of so many bytes.
void Context::make(ProductPlan& plan, const Product& p, unsigned a, unsigned b, unsigned c) {
  check(cublasLtMatmulDescCreate(&plan.description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias != nullptr) {
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.result);
  }
  const Layouts layouts(p);
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "describing a preference");
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, decltype(&cublasLtMatmulPreferenceDestroy)>
      owner(preference, cublasLtMatmulPreferenceDestroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "describing a preference");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(products, plan.description, layouts.a.layout, layouts.b.layout, layouts.c.layout,
                                     layouts.c.layout, preference, 1, &result, &count);
  plan.found = status == CUBLAS_STATUS_SUCCESS && count > 0;
  plan.algorithm = result.algo;
}

void Context::multiply(const Product& product, std::size_t number) {
  if (product.m == 0 || product.n == 0 || (product.k == 0 && product.accumulate)) return;
  const float one = 1, beta = product.accumulate ? 1.0f : 0.0f;
  for (const bool exact : {false, true}) {
    if (exact && !product.rows_vary) break;
    if (product.k == 0) break;
    ProductPlan& plan = plan_of(product, exact);
    if (!plan.found) continue;
    if (product.bias != nullptr) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
    const Layouts layouts(product);
    const cublasStatus_t status = cublasLtMatmul(
        products, plan.description, &one, product.a, layouts.a.layout, product.b, layouts.b.layout, &beta, product.c,
        layouts.c.layout, product.c, layouts.c.layout, &plan.algorithm, workspace(number), workspace_bytes, on(number));
    if (status == CUBLAS_STATUS_SUCCESS) return;
    // An algorithm of the rounded size may be refused for this one.
    const bool as_planned = exact || !product.rows_vary;
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && (as_planned || status != CUBLAS_STATUS_INVALID_VALUE)) {
      check(status, "a product");
    }
  }
  if (product.k > 0) ++plain_products;
  plain(product, on(number));
}

}  // namespace tinymoe::inline v0_1::detail::cuda
