#pragma once
/// @file
/// The head and the cross-entropy, in chunks of rows, so that the logits of a whole batch are never stored.
///
///     logits = x Wᵀ + b;   loss[n] = log Σ_v exp logit_v − logit_target       x (N, D); W (V, D); b (V)
///
/// Backward: dlogits = (softmax − onehot) · scale;  dx = dlogits W;  dW += dlogitsᵀ x. A row whose target is negative
/// is not scored: no loss, no gradient.

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One row: its loss, and its logits replaced by their gradient unless `scale` is 0.
template <class T, class M>
struct CrossEntropy {
  static constexpr bool long_rows = true;
  View<T> logits;             // (n, V)
  View<const Token> targets;  // (1, n)
  View<M> losses;             // (1, n)
  M scale;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    T* in = logits.row(n);
    const Index width = logits.cols;
    const Token target = targets.data[n];
    if (target < 0) {
      group.each(width, [=](Index v) { in[v] = T(0); });
      group.once([&] { losses.data[n] = M(0); });
      return;
    }
    // The target's logit is read where a barrier follows, before any lane replaces it.
    group.once([&] { losses.data[n] = M(in[target]); });
    const auto max = group.max(width, [=](Index v) { return M(in[v]); });
    M total;
    if (scale == M(0)) {
      total = group.sum(width, [=](Index v) { return exponential(M(in[v]) - M(max)); });
    } else {
      total = group.sum(width, [=](Index v) {
        const M e = exponential(M(in[v]) - M(max));
        in[v] = T(e);
        return e;
      });
      const M factor = scale / total;
      group.each(width, [=](Index v) { in[v] = T(M(in[v]) * factor); });
      group.once([&] { in[target] = T(M(in[target]) - scale); });
    }
    group.once([&] { losses.data[n] = M(max) + std::log(total) - losses.data[n]; });
  }
};

}  // namespace kernels

namespace detail {

/// Scratch for one chunk of logits.
template <class T, class M>
struct HeadScratch {
  View<T> logits;   // (chunk, V)
  View<M> partial;  // (rowwise::chunks(chunk), V): of the bias's gradient, where there is a bias

  /// Chunks are about 32 MB, 64 to 1024 rows; a LogitChunkBackend has its own bound.
  template <Backend B>
  void plan(Plan& plan, const Pass& pass, Index vocab, bool bias, const B&) {
    const Index row = vocab * Index{sizeof(T)}, most = detail::max_logit_rows<B>;
    const Index rows = std::min(std::clamp<Index>(detail::max_logit_bytes<B> / row, 64, most), pass.rows());
    logits = plan.scratch<T>(rows, vocab);
    if (bias) partial = plan.scratch<M>(rowwise::chunks(rows), vocab);
  }
};

/// losses (1, N) = the cross-entropy of each row, in nats; no gradients.
template <Backend B, class Matrix>
void head_loss(B& backend, const Matrix& weight, Input<B> bias, Input<B> x, View<const Token> targets,
               MasterOutput<B> losses, HeadScratch<typename B::Scalar, typename B::Master>& scratch) {
  using T = typename B::Scalar;
  using M = typename B::Master;
  for (Index first = 0; first < x.rows; first += scratch.logits.rows) {
    const Index count = std::min(scratch.logits.rows, x.rows - first);
    const auto logits = scratch.logits.middle_rows(0, count);
    backend.matmul(x.middle_rows(first, count), weight, bias, logits);
    backend.launch(count, kernels::CrossEntropy<T, M>{logits, targets.middle_cols(first, count),
                                                      losses.middle_cols(first, count), M(0)});
  }
}

/// The same, and the gradients of scale · Σ losses: dx (N, D) is overwritten, the head's gradients are added to.
template <Backend B, class Matrix>
void head_loss_and_gradient(B& backend, const Matrix& weight, Input<B> bias, Input<B> x, View<const Token> targets,
                            double scale, MasterOutput<B> losses, Output<B> dx, MasterOutput<B> dweight,
                            MasterOutput<B> dbias, HeadScratch<typename B::Scalar, typename B::Master>& scratch) {
  using T = typename B::Scalar;
  using M = typename B::Master;
  if (scale == 0) {  // the kernel takes a scale of 0 as "no gradient"
    assert(dx.contiguous());
    head_loss(backend, weight, bias, x, targets, losses, scratch);
    backend.zero(dx.data, static_cast<std::size_t>(dx.size()) * sizeof(T));
    return;
  }
  for (Index first = 0; first < x.rows; first += scratch.logits.rows) {
    const Index count = std::min(scratch.logits.rows, x.rows - first);
    const auto logits = scratch.logits.middle_rows(0, count);
    const auto rows = x.middle_rows(first, count);
    backend.matmul(rows, weight, bias, logits);
    backend.launch(count, kernels::CrossEntropy<T, M>{logits, targets.middle_cols(first, count),
                                                      losses.middle_cols(first, count), M(scale)});
    backend.matmul_weight(logits, rows, dweight);
    if (!dbias.empty()) rowwise::column_sum(backend, logits, dbias, scratch.partial);
    backend.matmul_input(logits, weight, dx.middle_rows(first, count), Write::overwrite);
  }
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
