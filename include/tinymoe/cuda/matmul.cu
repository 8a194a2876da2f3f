/// @file
/// The backend's matrix products: those of one matrix, and those of a bank of experts, by one product for each or one
/// call for all.
///
/// cuBLAS is column-major: what it calls a (m, n) matrix with leading dimension l is our (n, m) matrix with stride l.
/// So y = x wᵀ is computed as yᵀ = w xᵀ, where cuBLAS transposes its first operand.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/few_rows.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

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
void for_each_expert(Context& context, const Dispatch& dispatch, ProductOf product_of) {
  const std::int32_t* at = context.host_offsets(dispatch);
  const Index experts = dispatch.experts();
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

/// Computes all products of a bank by one call of cuBLAS; its arrays of pointers lie on the device. False if it cannot.
#if defined(CUBLAS_VERSION) && CUBLAS_VERSION < 120500
template <class ProductOf>
bool in_one_call(Context&, const Dispatch&, ProductOf) {
  return false;  // cuBLAS has it since CUDA 12.5
}
#else
template <class ProductOf>
bool in_one_call(Context& context, const Dispatch& dispatch, ProductOf product_of) {
  const std::int32_t* at = context.host_offsets(dispatch);
  std::vector<int> m, n, k, lda, ldb, ldc, ones;
  std::vector<const void*> pointers[3];
  std::vector<cublasOperation_t> transpose_a, transpose_b;
  Product last;
  for (Index e = 0; e < dispatch.experts(); ++e) {
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
  // On the stream, so after the last call has read the old ones.
  upload(context, on_device, all.data(), all.size() * sizeof(void*));
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
void products_of_bank(Context& context, const Dispatch& dispatch, ProductOf product_of) {
  const bool call = context.options.grouped == GroupedProducts::call && dispatch.experts() > 1 && !context.capturing();
  if (call && in_one_call(context, dispatch, product_of)) return;
  for_each_expert(context, dispatch, product_of);
}

}  // namespace

const std::int32_t* Context::host_offsets(const Dispatch& dispatch) {
  if (HostOffsets* host = host_offsets_of(dispatch); host != nullptr && host->known) {
    if (!host->arrived) check(cudaEventSynchronize(host->ready.event), "sorting by expert");
    host->arrived = true;
    return static_cast<const std::int32_t*>(host->memory.data);
  }
  offsets_.resize(static_cast<std::size_t>(dispatch.experts() + 1));
  if (dispatch.is_to_one()) {
    offsets_[0] = 0, offsets_[1] = static_cast<std::int32_t>(dispatch.rows);
  } else {
    if (capturing()) fail<DeviceError>("products of a bank whose rows the host must ask for cannot be recorded");
    copy_to_host(*this, offsets_.data(), dispatch.offsets.data, offsets_.size() * sizeof(std::int32_t));
  }
  return offsets_.data();
}

template <class T>
void matmul(Context& context, View<const T> x, View<const T> w, View<const T> bias, View<T> y) {
  if (x.rows <= max_gemv_rows)
    return few_rows_product<T>(context, x, Bank<const T>{w.data, 1, w.rows, w.cols, 0}, w.stride,
                               Bank<const T>{bias.data, 1, 1, w.rows, 0}, ExpertRows{nullptr, x.rows}, y);
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
void grouped_matmul(Context& context, View<const T> x, Bank<const T> w, Bank<const T> bias, const Dispatch& dispatch,
                    View<T> y) {
  if (x.rows == 0) return;
  if (x.rows <= max_gemv_bank_rows) {
    return few_rows_product<T>(context, x, w, w.cols, bias, dispatch.expert_rows(), y);
  }
  products_of_bank(context, dispatch, [&](Index e, Index first, Index rows) {
    return forward_of<T>(x.middle_rows(first, rows), w[e], bias.empty() ? View<const T>{} : bias[e],
                         y.middle_rows(first, rows));
  });
}

template <class T>
void grouped_matmul_input(Context& context, View<const T> dy, Bank<const T> w, const Dispatch& dispatch, View<T> dx) {
  if (dy.rows == 0) return;
  products_of_bank(context, dispatch, [&](Index e, Index first, Index rows) {
    return input_of<T>(dy.middle_rows(first, rows), w[e], dx.middle_rows(first, rows), Write::overwrite);
  });
}

template <class T>
void grouped_matmul_weight(Context& context, View<const T> dy, View<const T> x, const Dispatch& dispatch,
                           Bank<float> dw) {
  if (dy.rows == 0) return;
  for_each_expert(context, dispatch, [&](Index e, Index first, Index rows) {
    return weight_of<T>(dy.middle_rows(first, rows), x.middle_rows(first, rows), dw[e]);
  });
}

#define TINYMOE_CUDA_PRODUCTS(T)                                                                                    \
  template void matmul<T>(Context&, View<const T>, View<const T>, View<const T>, View<T>);                          \
  template void matmul_input<T>(Context&, View<const T>, View<const T>, View<T>, Write);                            \
  template void matmul_weight<T>(Context&, View<const T>, View<const T>, View<float>);                              \
  template void grouped_matmul<T>(Context&, View<const T>, Bank<const T>, Bank<const T>, const Dispatch&, View<T>); \
  template void grouped_matmul_input<T>(Context&, View<const T>, Bank<const T>, const Dispatch&, View<T>);          \
  template void grouped_matmul_weight<T>(Context&, View<const T>, View<const T>, const Dispatch&, Bank<float>)
TINYMOE_CUDA_PRODUCTS(float);
TINYMOE_CUDA_PRODUCTS(bfloat16);
TINYMOE_CUDA_PRODUCTS(float16);
#undef TINYMOE_CUDA_PRODUCTS

}  // namespace tinymoe::inline v0_1::detail::cuda
