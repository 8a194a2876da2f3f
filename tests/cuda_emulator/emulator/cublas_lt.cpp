#include <cublasLt.h>

#include <algorithm>
#include <cstring>

#include "emulator/memory.hpp"
#include "emulator/product.hpp"
#include "emulator/streams.hpp"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  std::int32_t compute = CUBLAS_COMPUTE_32F, scale = CUDA_R_32F, pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  std::int64_t bias_stride = 0;
  std::int32_t bias_type = -1;
};
struct cublasLtMatrixLayoutOpaque_t {
  std::uint32_t type = CUDA_R_32F;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::uint64_t rows = 0, cols = 0;
  std::int64_t leading = 0;
  std::int32_t batches = 1;
  std::int64_t stride = 0;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C and D
};

namespace {

using namespace cuda_emulator;
using Layout = cublasLtMatrixLayoutOpaque_t;

/// What a cublasLtMatmulAlgo_t holds: bytes that pointers, and steps between columns and batches, are multiples of.
struct Promise {
  static constexpr std::uint64_t known = 0x74696e796d6f6521u;
  std::uint64_t mark = known, workspace_bytes = 0;
  std::uint32_t pointer[4] = {256, 256, 256, 256};
  std::uint32_t step[4] = {1, 1, 1, 1};
};
static_assert(sizeof(Promise) <= sizeof(cublasLtMatmulAlgo_t));

template <class T>
cublasStatus_t set(T& to, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t destroy(T* object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

/// The power of two, up to 16, that a layout's steps are multiples of, in bytes.
std::uint32_t step_of(const Layout& layout) {
  const auto size = size_of(static_cast<cudaDataType>(layout.type));
  auto steps = static_cast<std::uint64_t>(layout.leading) * size | 16;
  if (layout.batches > 1) steps |= static_cast<std::uint64_t>(layout.stride) * size;
  return static_cast<std::uint32_t>(steps & (~steps + 1));
}

/// Checks without the matrices: sizes fit, and cublasLt has the combination.
cublasStatus_t check(const cublasLtMatmulDescOpaque_t& description, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d) {
  const std::uint64_t m = description.transa == CUBLAS_OP_N ? a.rows : a.cols;
  const std::uint64_t k = description.transa == CUBLAS_OP_N ? a.cols : a.rows;
  const std::uint64_t depth_b = description.transb == CUBLAS_OP_N ? b.rows : b.cols;
  const std::uint64_t n = description.transb == CUBLAS_OP_N ? b.cols : b.rows;
  if (k != depth_b || d.rows != m || d.cols != n || c.rows != m || c.cols != n) return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout* each : {&a, &b, &c, &d}) {
    if (each->leading < static_cast<std::int64_t>(std::max<std::uint64_t>(1, each->rows)) || each->batches < 1 ||
        each->batches != d.batches) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (each->rows == 0 || each->cols == 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (each->order != CUBLASLT_ORDER_COL || size_of(static_cast<cudaDataType>(each->type)) == 0) {
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
  }
  const bool types = a.type == b.type && c.type == d.type && (d.type == a.type || d.type == CUDA_R_32F);
  const bool compute = description.compute == CUBLAS_COMPUTE_32F ||
                       (a.type == CUDA_R_32F && (description.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                                                 description.compute == CUBLAS_COMPUTE_32F_PEDANTIC));
  const bool scale = description.scale == CUDA_R_32F && description.pointer_mode == CUBLASLT_POINTER_MODE_HOST;
  const bool epilogue =
      description.epilogue == CUBLASLT_EPILOGUE_DEFAULT || description.epilogue == CUBLASLT_EPILOGUE_BIAS;
  const bool bias = description.epilogue != CUBLASLT_EPILOGUE_BIAS || description.bias_type == -1 ||
                    description.bias_type == static_cast<std::int32_t>(d.type);
  return types && compute && scale && epilogue && bias ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

Matrix matrix_of(const Layout& layout, const void* data) {
  return {data, static_cast<cudaDataType>(layout.type), static_cast<std::int64_t>(layout.rows),
          static_cast<std::int64_t>(layout.cols), layout.leading};
}

/// Moves to the next matrix of a batch.
void advance(Matrix& matrix, const Layout& layout) {
  matrix.data =
      static_cast<const std::byte*>(matrix.data) + layout.stride * static_cast<std::int64_t>(size_of(matrix.type));
}

bool keeps(const Promise& promise, int which, const Layout& layout, const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % promise.pointer[which] == 0 && step_of(layout) >= promise.step[which];
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute_type,
                                        cudaDataType_t scale_type) {
  *description = new cublasLtMatmulDescOpaque_t;
  (*description)->compute = compute_type, (*description)->scale = scale_type;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) { return destroy(description); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return set(description->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return set(description->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set(description->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(description->transa, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(description->transb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(description->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(description->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
      return set(description->bias_stride, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(description->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t leading) {
  *layout = new Layout;
  (*layout)->type = type, (*layout)->rows = rows, (*layout)->cols = cols, (*layout)->leading = leading;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return set(layout->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(layout->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return set(layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return set(layout->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set(layout->leading, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return set(layout->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return set(layout->stride, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  std::uint32_t ignored;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(ignored, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(preference->alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(preference->alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(preference->alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(preference->alignment[3], value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a_layout, cublasLtMatrixLayout_t b_layout,
                                              cublasLtMatrixLayout_t c_layout, cublasLtMatrixLayout_t d_layout,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (requested <= 0 || returned == nullptr || preference == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  const cublasStatus_t status = check(*description, *a_layout, *b_layout, *c_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  // NVIDIA does not document what tensor cores need for 16-bit results. Here, odd distances have no algorithm.
  if (std::min(preference->alignment[3], step_of(*d_layout)) < 4) return CUBLAS_STATUS_NOT_SUPPORTED;
  Promise promise;
  promise.workspace_bytes = std::min<std::uint64_t>(preference->workspace_bytes, 1 << 20);
  const Layout* const layouts[4] = {a_layout, b_layout, c_layout, d_layout};
  for (int i = 0; i < 4; ++i) {
    promise.pointer[i] = std::max<std::uint32_t>(1, preference->alignment[i]);
    promise.step[i] = step_of(*layouts[i]);
  }
  results[0] = {};
  std::memcpy(&results[0].algo, &promise, sizeof(promise));
  results[0].workspaceSize = promise.workspace_bytes;
  results[0].wavesCount = 1;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, std::size_t workspace_bytes,
                              cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const cublasStatus_t status = check(*description, *a_layout, *b_layout, *c_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (workspace_bytes > 0 && workspace == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  Product product;
  std::memcpy(&product.alpha, alpha, sizeof(float));
  std::memcpy(&product.beta, beta, sizeof(float));
  if (a == nullptr || b == nullptr || d == nullptr || (product.beta != 0 && c == nullptr)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::uint64_t used = 0;
  if (algorithm != nullptr) {
    Promise promise;
    std::memcpy(static_cast<void*>(&promise), algorithm, sizeof(promise));
    if (promise.mark != Promise::known || workspace_bytes < promise.workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
    const bool kept = keeps(promise, 0, *a_layout, a) && keeps(promise, 1, *b_layout, b) &&
                      (product.beta == 0 || keeps(promise, 2, *c_layout, c)) && keeps(promise, 3, *d_layout, d);
    if (!kept) return CUBLAS_STATUS_INVALID_VALUE;
    used = promise.workspace_bytes;
  }
  const bool biased = description->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (biased && description->bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  product.a = matrix_of(*a_layout, a), product.b = matrix_of(*b_layout, b);
  product.c = matrix_of(*c_layout, c), product.d = matrix_of(*d_layout, d);
  product.transpose_a = description->transa != CUBLAS_OP_N, product.transpose_b = description->transb != CUBLAS_OP_N;
  product.tensor_float = description->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  product.bias = biased ? description->bias : nullptr;
  const auto run = [=, a_layout = *a_layout, b_layout = *b_layout, c_layout = *c_layout, d_layout = *d_layout,
                    bias_step = description->bias_stride * static_cast<std::int64_t>(size_of(product.d.type))] {
    spoil_workspace(workspace, used);
    Product each = product;
    for (std::int32_t i = 0; i < d_layout.batches; ++i) {
      multiply(each);
      advance(each.a, a_layout), advance(each.b, b_layout), advance(each.d, d_layout);
      if (each.beta != 0) advance(each.c, c_layout);
      if (biased) each.bias = static_cast<const std::byte*>(each.bias) + bias_step;
    }
  };
  return enqueue(stream, run) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
