/// @file
/// Causal attention and its gradients: on the tensor cores if they have the type and the head fits, by rows otherwise.

#include <cstddef>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/attention_rows.cuh"
#include "tinymoe/cuda/attention_tiles.cuh"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/vector.cuh"

namespace tinymoe::inline v0_1::detail::cuda {

namespace {

constexpr Index widest_head = 256;

void check_width(Index width) {
  if (width > widest_head) {
    fail<DeviceError>("attention on a GPU takes heads of up to ", widest_head, " elements, found ", width);
  }
}

template <class P>
void start_tiles(Context& context, void (*kernel)(P), Index blocks, std::size_t shared, const P& p) {
  if (shared > std::size_t{48} << 10) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
          "taking shared memory");
  }
  check(start(kernel, dim3(static_cast<unsigned>(blocks)), dim3(tile_threads), shared, context.stream, p),
        "starting attention");
}

/// Calls f(integral constant D) for the smallest D that has tiles and fits a head; false if the head is wider.
template <class F>
bool with_tile_width(Index width, F f) {
  if (width <= 32) {
    f(std::integral_constant<int, 32>{});
  } else if (width <= 64) {
    f(std::integral_constant<int, 64>{});
  } else if (width <= 128) {
    f(std::integral_constant<int, 128>{});
  } else {
    return false;
  }
  return true;
}

/// Calls f(integral constant) with the number of a head's elements that a lane has.
template <class T, class F>
void with_lane_parts(Index width, F f) {
  if constexpr (sizeof(T) == 2) {  // the tiles take narrower ones
    f(std::integral_constant<int, 8>{});
  } else if (width <= 32) {
    f(std::integral_constant<int, 1>{});
  } else if (width <= 64) {
    f(std::integral_constant<int, 2>{});
  } else if (width <= 128) {
    f(std::integral_constant<int, 4>{});
  } else {
    f(std::integral_constant<int, 8>{});
  }
}

template <class P>
void start_rows(Context& context, void (*kernel)(P), Index parts, const P& p) {
  check(start(kernel, dim3(static_cast<unsigned>((parts + row_warps - 1) / row_warps)), dim3(row_warps * warp_size), 0,
              context.stream, p),
        "starting attention");
}

}  // namespace

template <class T>
void attention_forward(Context& context, const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v,
                       View<T> y, View<float> log_sum) {
  const Index rows = shape.batch * shape.time;
  if (rows == 0) return;
  check_width(shape.head_dim);
  const AttentionForward<T> p{shape, q, k, v, y, log_sum, rows_aligned<T>(shape.head_dim, q, k, v, y)};
  if constexpr (sizeof(T) == 2) {
    const bool done = with_tile_width(shape.head_dim, [&](auto width) {
      start_tiles(context, forward_tiles<T, width>, parts_of(shape.time, own_rows) * shape.heads * shape.batch,
                  forward_shared<T, width>, p);
    });
    if (done) return;
  }
  with_lane_parts<T>(shape.head_dim,
                     [&](auto parts) { start_rows(context, forward_rows<T, parts>, rows * shape.heads, p); });
}

template <class T>
void attention_backward(Context& context, const AttentionShape& shape, View<const T> q, View<const T> k,
                        View<const T> v, View<const T> y, View<const float> log_sum, View<const T> dy, View<T> dq,
                        View<T> dk, View<T> dv, float* delta) {
  const Index rows = shape.batch * shape.time;
  if (rows == 0) return;
  check_width(shape.head_dim);
  check(start(head_deltas<T>, dim3(static_cast<unsigned>((rows * shape.heads + row_warps - 1) / row_warps)),
              dim3(row_warps * warp_size), 0, context.stream, shape, y, dy, delta),
        "starting attention");
  const AttentionBackward<T> p{
      shape, q, k, v, dy, log_sum, delta, dq, dk, dv, rows_aligned<T>(shape.head_dim, q, k, v, dy, dq, dk, dv)};
  if constexpr (sizeof(T) == 2) {
    const bool done = with_tile_width(shape.head_dim, [&](auto width) {
      const Index tiles = parts_of(shape.time, own_rows);
      start_tiles(context, backward_keys<T, width>, tiles * shape.kv_heads * shape.batch, keys_shared<T, width>, p);
      start_tiles(context, backward_queries<T, width>, tiles * shape.heads * shape.batch, queries_shared<T, width>, p);
    });
    if (done) return;
  }
  with_lane_parts<T>(shape.head_dim, [&](auto parts) {
    start_rows(context, backward_query_rows<T, parts>, rows * shape.heads, p);
    start_rows(context, backward_key_rows<T, parts>, rows * shape.kv_heads, p);
  });
}

#define TINYMOE_CUDA_ATTENTION(T)                                                                                   \
  template void attention_forward<T>(Context&, const AttentionShape&, View<const T>, View<const T>, View<const T>,  \
                                     View<T>, View<float>);                                                         \
  template void attention_backward<T>(Context&, const AttentionShape&, View<const T>, View<const T>, View<const T>, \
                                      View<const T>, View<const float>, View<const T>, View<T>, View<T>, View<T>,   \
                                      float*)
TINYMOE_CUDA_ATTENTION(float);
TINYMOE_CUDA_ATTENTION(bfloat16);
TINYMOE_CUDA_ATTENTION(float16);
#undef TINYMOE_CUDA_ATTENTION

}  // namespace tinymoe::inline v0_1::detail::cuda
