#pragma once
/// @file
/// Routing of few tokens in one launch: the router's logits, each token's choice by the router's own kernel, and the
/// sort. Each of them by itself is less work than its launch.

#include <cstdint>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cuda/context.cuh"
#include "tinymoe/cuda/device.cuh"
#include "tinymoe/cuda/rows.cuh"
#include "tinymoe/cuda/sort.cuh"
#include "tinymoe/layers/router_kernels.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

/// The most logits that one block computes; with more of them, blocks fill a launch of their own.
inline constexpr Index most_block_logits = 128;
/// float32 would spill with more.
template <class T>
inline constexpr int route_threads = sizeof(T) == 2 ? 512 : 256;

/// One block. Its warps divide first the logits and then the tokens among themselves.
template <class T>
__global__ void __launch_bounds__(route_threads<T>, 1)
    route_few(View<const T> x, View<const T> w, View<const T> bias, View<T> logits,
              const kernels::RouterForward<T, float> choose, View<const std::int32_t> selected, SortedPairs sorted) {
  follow();
  const LaneGroup warp{static_cast<int>(threadIdx.x) % warp_size, warp_size};
  const Index own = static_cast<int>(threadIdx.x) / warp_size, warps = route_threads<T> / warp_size;
  for (Index at = own; at < logits.rows * logits.cols; at += warps) {
    const Index n = at / logits.cols, e = at % logits.cols;
    float total = warp.sum(
        x.cols, [](T a, T b) { return float(a) * float(b); }, x.row(n), w.row(e));
    if (!bias.empty()) total += float(bias.data[e]);
    warp.once([&] { logits.row(n)[e] = T(total); });
  }
  sync_block();
  for (Index n = own; n < x.rows; n += warps) choose(warp, n);
  sync_block();
  sort_in_block(selected, sorted);
}

template <class T, class Choose>
void route(Context& context, View<const T> x, View<const T> w, View<const T> bias, View<T> logits, const Choose& choose,
           View<const std::int32_t> selected, Dispatch& dispatch) {
  if (logits.size() > most_block_logits || selected.size() > most_sorted_in_block || x.rows == 0) {
    matmul<T>(context, x, w, bias, logits);
    if (x.rows > 0) launch(context, x.rows, choose);
    return sort_by_expert(context, selected, dispatch);
  }
  const SortedPairs& sorted = dispatch;
  dispatch.rows = dispatch.size();
  forget_offsets(dispatch);
  const bool early = context.starts_early(route_few<T>);
  check(start_next(early, route_few<T>, dim3(1), dim3(route_threads<T>), 0, context.stream, x, w, bias, logits, choose,
                   selected, sorted),
        "starting a router");
}

}  // namespace tinymoe::inline v0_1::detail::cuda
