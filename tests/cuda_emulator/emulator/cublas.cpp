#include <cublas_v2.h>

#include <algorithm>
#include <vector>

#include "emulator/memory.hpp"
#include "emulator/product.hpp"
#include "emulator/streams.hpp"

struct cublasContext {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

namespace {

using namespace cuda_emulator;

struct Name {
  cublasStatus_t status;
  const char *name, *text;
};
constexpr Name names[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the function failed to launch on the GPU"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality requested is not supported"},
};

/// One group: the product but for its pointers.
struct Group {
  Product product;
  int size;
};

bool read_group(int i, const cublasOperation_t* transa, const cublasOperation_t* transb, const int* m, const int* n,
                const int* k, const int* lda, const int* ldb, const int* ldc, Group& group) {
  Product& p = group.product;
  p.transpose_a = transa[i] != CUBLAS_OP_N, p.transpose_b = transb[i] != CUBLAS_OP_N;
  p.a.rows = p.transpose_a ? k[i] : m[i], p.a.cols = p.transpose_a ? m[i] : k[i], p.a.leading = lda[i];
  p.b.rows = p.transpose_b ? n[i] : k[i], p.b.cols = p.transpose_b ? k[i] : n[i], p.b.leading = ldb[i];
  p.d.rows = m[i], p.d.cols = n[i], p.d.leading = ldc[i];
  const auto fits = [](const Matrix& matrix) { return matrix.leading >= std::max<std::int64_t>(1, matrix.rows); };
  return m[i] >= 0 && n[i] >= 0 && k[i] >= 0 && group.size >= 0 && fits(p.a) && fits(p.b) && fits(p.d);
}

/// The pointers of all groups' problems follow each other.
void run_groups(const std::vector<Group>& groups, const void* const* a, const void* const* b, void* const* c) {
  for (const Group& group : groups) {
    Product product = group.product;
    for (int i = 0; i < group.size; ++i, ++a, ++b, ++c) {
      product.a.data = *a, product.b.data = *b, product.c.data = product.d.data = *c;
      if (product.d.rows > 0 && product.d.cols > 0) multiply(product);
    }
  }
}

}  // namespace

const char* cublasGetStatusName(cublasStatus_t status) {
  for (const auto& each : names) {
    if (each.status == status) return each.name;
  }
  return "CUBLAS_STATUS_unknown";
}
const char* cublasGetStatusString(cublasStatus_t status) {
  for (const auto& each : names) {
    if (each.status == status) return each.text;
  }
  return "unknown status";
}

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = {stream, nullptr, 0};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0 || (bytes > 0 && !is_device(workspace, bytes))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  handle->workspace = workspace, handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  return mode == CUBLAS_POINTER_MODE_HOST ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t transa_array[],
                                          const cublasOperation_t transb_array[], const int m_array[],
                                          const int n_array[], const int k_array[], const void* alpha_array,
                                          const void* const Aarray[], cudaDataType Atype, const int lda_array[],
                                          const void* const Barray[], cudaDataType Btype, const int ldb_array[],
                                          const void* beta_array, void* const Carray[], cudaDataType Ctype,
                                          const int ldc_array[], int group_count, const int group_size[],
                                          cublasComputeType_t computeType) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (group_count < 0) return CUBLAS_STATUS_INVALID_VALUE;
  // cuBLAS lists one type for all three matrices.
  const bool tensor_float = computeType == CUBLAS_COMPUTE_32F_FAST_TF32;
  if (size_of(Atype) == 0 || Atype != Btype || Atype != Ctype ||
      (computeType != CUBLAS_COMPUTE_32F && Atype != CUDA_R_32F)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  std::vector<Group> groups(static_cast<std::size_t>(group_count));
  std::size_t problems = 0;
  for (int i = 0; i < group_count; ++i) {
    Group& group = groups[static_cast<std::size_t>(i)];
    group.size = group_size[i];
    if (!read_group(i, transa_array, transb_array, m_array, n_array, k_array, lda_array, ldb_array, ldc_array, group)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    Product& product = group.product;
    product.a.type = Atype, product.b.type = Btype, product.d.type = Ctype, product.c = product.d;
    product.alpha = static_cast<const float*>(alpha_array)[i], product.beta = static_cast<const float*>(beta_array)[i];
    product.tensor_float = tensor_float;
    problems += static_cast<std::size_t>(group.size);
  }
  for (const void* array :
       {static_cast<const void*>(Aarray), static_cast<const void*>(Barray), static_cast<const void*>(Carray)}) {
    if (problems > 0 && !is_device(array, problems * sizeof(void*))) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cudaError_t status = enqueue(
      handle->stream, [=, groups = std::move(groups), workspace = handle->workspace, bytes = handle->workspace_bytes] {
        spoil_workspace(workspace, bytes);
        run_groups(groups, Aarray, Barray, Carray);
      });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
