/// @file
/// Matrix products by cublasLt, and for the banks of experts, by one product for each or one call for all.
///
/// cuBLAS is column-major: what it calls a (m, n) matrix with leading dimension l is our (n, m) matrix with stride l.
/// So y = x wᵀ is asked for as yᵀ = w xᵀ, of which cuBLAS transposes its first operand.

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/few_rows.cuh"

namespace tinymoe::detail::cuda {

namespace {

/// The greatest power of two up to 256 that divides an address and a distance in bytes.
unsigned alignment_of(const void* data, Index stride_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uintptr_t>(stride_bytes) | 256u;
  return static_cast<unsigned>(bits & (~bits + 1));
}

Index size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

/// Rows that vary are planned for in steps of an eighth of their size, so that few plans serve all steps.
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
  // Of a bias there is nothing to be said but this: it is read beside the result.
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
    const cublasStatus_t status =
        cublasLtMatmul(products, plan.description, &one, product.a, layouts.a.layout, product.b, layouts.b.layout,
                       &beta, product.c, layouts.c.layout, product.c, layouts.c.layout, &plan.algorithm,
                       workspaces[number], workspace_bytes, on(number));
    if (status == CUBLAS_STATUS_SUCCESS) return;
    // An algorithm of the rounded size may be refused for this one.
    const bool as_planned = exact || !product.rows_vary;
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && (as_planned || status != CUBLAS_STATUS_INVALID_VALUE)) {
      check(status, "a product");
    }
  }
  plain(product, on(number));
}

namespace {

/// y = x wᵀ + bias.
template <class T>
Product forward_of(View<const T> x, View<const T> w, View<const T> bias, View<T> y) {
  return {.transpose_a = true,
          .m = w.rows,
          .n = x.rows,
          .k = w.cols,
          .a = w.data,
          .lda = w.stride,
          .b = x.data,
          .ldb = x.stride,
          .c = y.data,
          .ldc = y.stride,
          .type = type_of<T>,
          .result = type_of<T>,
          .bias = bias.data};
}

/// dx = dy w, or dx += dy w.
template <class T>
Product input_of(View<const T> dy, View<const T> w, View<T> dx, Write write) {
  return {.m = w.cols,
          .n = dy.rows,
          .k = w.rows,
          .a = w.data,
          .lda = w.stride,
          .b = dy.data,
          .ldb = dy.stride,
          .c = dx.data,
          .ldc = dx.stride,
          .type = type_of<T>,
          .result = type_of<T>,
          .accumulate = write == Write::accumulate};
}

/// dw += dyᵀ x.
template <class T>
Product weight_of(View<const T> dy, View<const T> x, View<float> dw) {
  return {.transpose_b = true,
          .m = x.cols,
          .n = dy.cols,
          .k = x.rows,
          .a = x.data,
          .lda = x.stride,
          .b = dy.data,
          .ldb = dy.stride,
          .c = dw.data,
          .ldc = dw.stride,
          .type = type_of<T>,
          .result = CUDA_R_32F,
          .accumulate = true};
}

/// One product for each expert, product_of(e, first row, rows), on the streams that the options ask for.
template <class ProductOf>
void for_each_expert(Context& context, View<const std::int32_t> offsets, ProductOf product_of) {
  const std::int32_t* at = context.host_offsets(offsets);
  const Index experts = offsets.cols - 1;
  const bool side_by_side = context.options.grouped != GroupedProducts::one_stream && experts > 1;
  const std::size_t streams = side_by_side ? std::min<std::size_t>(side_streams, static_cast<std::size_t>(experts)) : 0;
  // The side streams are joined whatever happens: what follows must not overtake them.
  const auto join = [streams](Context* at) {
    for (std::size_t i = 0; i < streams; ++i) {
      if (cudaEventRecord(at->done[i].event, at->sides[i]) == cudaSuccess) {
        cudaStreamWaitEvent(at->stream, at->done[i].event, 0);
      }
    }
  };
  const std::unique_ptr<Context, decltype(join)> joined(&context, join);
  context.fork(streams);
  for (Index e = 0; e < experts; ++e) {
    if (at[e + 1] == at[e]) continue;
    Product product = product_of(e, Index{at[e]}, Index{at[e + 1]} - Index{at[e]});
    product.rows_vary = experts > 1;
    context.multiply(product, streams == 0 ? 0 : 1 + static_cast<std::size_t>(e) % streams);
  }
}

/// All products of a bank by one call of cuBLAS; its arrays of pointers lie on the device. False where it cannot.
#if defined(CUBLAS_VERSION) && CUBLAS_VERSION < 120500
template <class ProductOf>
bool in_one_call(Context&, View<const std::int32_t>, ProductOf) {
  return false;  // cuBLAS has it since CUDA 12.5
}
#else
template <class ProductOf>
bool in_one_call(Context& context, View<const std::int32_t> offsets, ProductOf product_of) {
  const std::int32_t* at = context.host_offsets(offsets);
  std::vector<int> m, n, k, lda, ldb, ldc, ones;
  std::vector<const void*> pointers[3];
  std::vector<cublasOperation_t> transpose_a, transpose_b;
  Product last;
  for (Index e = 0; e + 1 < offsets.cols; ++e) {
    if (at[e + 1] == at[e]) continue;
    const Product p = last = product_of(e, Index{at[e]}, Index{at[e + 1]} - Index{at[e]});
    if (p.bias != nullptr || p.type != p.result || p.accumulate) return false;
    m.push_back(int(p.m)), n.push_back(int(p.n)), k.push_back(int(p.k));
    lda.push_back(int(p.lda)), ldb.push_back(int(p.ldb)), ldc.push_back(int(p.ldc)), ones.push_back(1);
    pointers[0].push_back(p.a), pointers[1].push_back(p.b), pointers[2].push_back(p.c);
    transpose_a.push_back(p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    transpose_b.push_back(p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  }
  const std::size_t groups = m.size();
  if (groups == 0) return true;
  std::vector<const void*> all;
  for (const auto& part : pointers) all.insert(all.end(), part.begin(), part.end());
  auto** on_device = static_cast<const void**>(context.scratch(all.size() * sizeof(void*)));
  upload(context, on_device, all.data(), all.size() * sizeof(void*));  // after the last call, which may read them still
  const std::vector<float> one(groups, 1.0f), none(groups, 0.0f);
  const cublasStatus_t status =
      cublasGemmGroupedBatchedEx(context.blas, transpose_a.data(), transpose_b.data(), m.data(), n.data(), k.data(),
                                 one.data(), on_device, last.type, lda.data(), on_device + groups, last.type,
                                 ldb.data(), none.data(), const_cast<void* const*>(on_device + 2 * groups), last.result,
                                 ldc.data(), int(groups), ones.data(), CUBLAS_COMPUTE_32F);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
  check(status, "the products of a bank");
  return true;
}

#endif

template <class ProductOf>
void products_of_bank(Context& context, View<const std::int32_t> offsets, ProductOf product_of) {
  const bool call = context.options.grouped == GroupedProducts::call && offsets.cols > 2 && !context.capturing();
  if (call && in_one_call(context, offsets, product_of)) return;
  for_each_expert(context, offsets, product_of);
}

}  // namespace

const std::int32_t* Context::host_offsets(View<const std::int32_t> offsets) {
  const auto entry = known.find(offsets.data);
  if (entry != known.end() && entry->second.count + 1 == offsets.cols) {
    KnownOffsets& of = entry->second;
    if (!of.waited) check(cudaEventSynchronize(of.ready.event), "sorting by expert");
    of.waited = true;
    return static_cast<const std::int32_t*>(of.memory.data);
  }
  if (capturing()) fail<DeviceError>("products of a bank whose rows the host must ask for cannot be recorded");
  unknown_offsets_.resize(static_cast<std::size_t>(offsets.cols));
  copy_to_host(*this, unknown_offsets_.data(), offsets.data, unknown_offsets_.size() * sizeof(std::int32_t));
  return unknown_offsets_.data();
}

template <class T>
void matmul(Context& context, View<const T> x, View<const T> w, View<const T> bias, View<T> y) {
  if (x.rows <= few_dense_rows)
    return few_rows_product<T>(context, x, Bank<const T>{w.data, 1, w.rows, w.cols, 0}, w.stride,
                               Bank<const T>{bias.data, 1, 1, w.rows, 0}, {}, y);
  context.multiply(forward_of<T>(x, w, bias, y));
}

template <class T>
void matmul_input(Context& context, View<const T> dy, View<const T> w, View<T> dx, Write write) {
  context.multiply(input_of<T>(dy, w, dx, write));
}

template <class T>
void matmul_weight(Context& context, View<const T> dy, View<const T> x, View<float> dw) {
  context.multiply(weight_of<T>(dy, x, dw));
}

template <class T>
void grouped_matmul(Context& context, View<const T> x, Bank<const T> w, Bank<const T> bias,
                    View<const std::int32_t> offsets, View<T> y) {
  if (x.rows == 0) return;
  if (x.rows <= few_rows) return few_rows_product<T>(context, x, w, w.cols, bias, offsets, y);
  products_of_bank(context, offsets, [&](Index e, Index first, Index rows) {
    return forward_of<T>(x.middle_rows(first, rows), w[e], bias.empty() ? View<const T>{} : bias[e],
                         y.middle_rows(first, rows));
  });
}

template <class T>
void grouped_matmul_input(Context& context, View<const T> dy, Bank<const T> w, View<const std::int32_t> offsets,
                          View<T> dx) {
  if (dy.rows == 0) return;
  products_of_bank(context, offsets, [&](Index e, Index first, Index rows) {
    return input_of<T>(dy.middle_rows(first, rows), w[e], dx.middle_rows(first, rows), Write::overwrite);
  });
}

template <class T>
void grouped_matmul_weight(Context& context, View<const T> dy, View<const T> x, View<const std::int32_t> offsets,
                           Bank<float> dw) {
  if (dy.rows == 0) return;
  for_each_expert(context, offsets, [&](Index e, Index first, Index rows) {
    return weight_of<T>(dy.middle_rows(first, rows), x.middle_rows(first, rows), dw[e]);
  });
}

#define TINYMOE_CUDA_PRODUCTS(T)                                                                                    \
  template void matmul<T>(Context&, View<const T>, View<const T>, View<const T>, View<T>);                          \
  template void matmul_input<T>(Context&, View<const T>, View<const T>, View<T>, Write);                            \
  template void matmul_weight<T>(Context&, View<const T>, View<const T>, View<float>);                              \
  template void grouped_matmul<T>(Context&, View<const T>, Bank<const T>, Bank<const T>, View<const std::int32_t>,  \
                                  View<T>);                                                                         \
  template void grouped_matmul_input<T>(Context&, View<const T>, Bank<const T>, View<const std::int32_t>, View<T>); \
  template void grouped_matmul_weight<T>(Context&, View<const T>, View<const T>, View<const std::int32_t>, Bank<float>)
TINYMOE_CUDA_PRODUCTS(float);
TINYMOE_CUDA_PRODUCTS(bfloat16);
TINYMOE_CUDA_PRODUCTS(float16);
#undef TINYMOE_CUDA_PRODUCTS

}  // namespace tinymoe::detail::cuda
