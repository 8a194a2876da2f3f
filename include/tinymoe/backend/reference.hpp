#pragma once
/// @file
/// The oracle: plain loops on one thread, for any scalar: `double`; `std::complex<double>` for complex-step gradients;
/// bfloat16 or float16 with float, for what a half-precision device should compute.

#include <cassert>
#include <cmath>
#include <complex>
#include <concepts>
#include <cstddef>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/host.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// A backend that computes everything by its definition, in the order of the formula. It stores activations in T. It
/// stores statistics, gradients and trained weights in M, and also computes in M: a result is rounded to T once, when
/// it is stored. `Reference<bfloat16, float>` is thus mixed precision without a device.
template <class T, class M = T>
class Reference : public detail::HostBackend {
 public:
  using Scalar = T;
  using Master = M;
  static_assert(sizeof(M) >= sizeof(Compute<T>), "tinymoe::Reference: M must hold what T is computed in");

  static constexpr const char* name() { return "reference"; }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    for (Index row = 0; row < rows; ++row) kernel(SerialGroup{}, row);
  }

  /// y[n, o] = Σ_i x[n, i] w[o, i] + bias[o]
  void matmul(View<const T> x, View<const T> w, View<const T> bias, View<T> y) const {
    matmul<View<const T>>(x, w, bias, y);
  }
  /// The same for the view of any other format of weights.
  template <class Weights>
  requires(std::same_as<Weights, View<const T>> || !std::convertible_to<Weights, View<const T>>)  //
      void matmul(View<const T> x, const Weights& w, View<const T> bias, View<T> y) const {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    for (Index n = 0; n < y.rows; ++n) {
      for (Index o = 0; o < y.cols; ++o) {
        M total = bias.empty() ? M(0) : M(bias.data[o]);
        for (Index i = 0; i < x.cols; ++i) total += M(x(n, i)) * M(w(o, i));
        y(n, o) = T(total);
      }
    }
  }

  /// dx[n, i] = Σ_o dy[n, o] w[o, i]
  void matmul_input(View<const T> dy, View<const T> w, View<T> dx, Write write) const {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
    for (Index n = 0; n < dx.rows; ++n) {
      for (Index i = 0; i < dx.cols; ++i) {
        M total = write == Write::accumulate ? M(dx(n, i)) : M(0);
        for (Index o = 0; o < dy.cols; ++o) total += M(dy(n, o)) * M(w(o, i));
        dx(n, i) = T(total);
      }
    }
  }

  /// dw[o, i] += Σ_n dy[n, o] x[n, i]
  void matmul_weight(View<const T> dy, View<const T> x, View<M> dw) const {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols);
    for (Index o = 0; o < dw.rows; ++o) {
      for (Index i = 0; i < dw.cols; ++i) {
        M total(0);
        for (Index n = 0; n < x.rows; ++n) total += M(dy(n, o)) * M(x(n, i));
        dw(o, i) += total;
      }
    }
  }

  void grouped_matmul(View<const T> x, Bank<const T> w, Bank<const T> bias, const Dispatch& dispatch, View<T> y) const {
    grouped_matmul<Bank<const T>>(x, w, bias, dispatch, y);
  }
  template <class Weights>
  requires(std::same_as<Weights, Bank<const T>> || !std::convertible_to<Weights, Bank<const T>>)  //
      void grouped_matmul(View<const T> x, const Weights& w, Bank<const T> bias, const Dispatch& dispatch,
                          View<T> y) const {
    for_each_expert(dispatch, [&](Index e, Index first, Index count) {
      matmul(x.middle_rows(first, count), w[e], bias.empty() ? View<const T>{} : bias[e], y.middle_rows(first, count));
    });
  }
  void grouped_matmul_input(View<const T> dy, Bank<const T> w, const Dispatch& dispatch, View<T> dx) const {
    for_each_expert(dispatch, [&](Index e, Index first, Index count) {
      matmul_input(dy.middle_rows(first, count), w[e], dx.middle_rows(first, count), Write::overwrite);
    });
  }
  void grouped_matmul_weight(View<const T> dy, View<const T> x, const Dispatch& dispatch, Bank<M> dw) const {
    for_each_expert(dispatch, [&](Index e, Index first, Index count) {
      matmul_weight(dy.middle_rows(first, count), x.middle_rows(first, count), dw[e]);
    });
  }

  /// None: the logits of a query are in M, in a vector of their own.
  Index attention_scratch(const AttentionShape&) const { return 0; }

  /// y_t = Σ_s m_ts p_ts v_s, p_t = softmax over the visible s of scale · q_t · k_s; m is the factor of dropout, or 1.
  void attention_forward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v, View<T> y,
                         View<M> log_sum, View<T>) const {
    for_each_query(shape, [&](Index row, Index head, Index first_row, Index kv, M* logits, M* mask) {
      const M denominator = scaled_logits(shape, q, k, row, head, first_row, kv, logits);
      log_sum(row, head) = denominator;
      dropout_factors(shape, row, head, first_row, mask);
      for (Index c = 0; c < shape.head_dim; ++c) {
        M total(0);
        for (Index s = first_row; s <= row; ++s) {
          const M p = exponential(logits[s - first_row] - denominator) * mask[s - first_row];
          total += p * M(v(s, kv * shape.head_dim + c));
        }
        y(row, head * shape.head_dim + c) = T(total);
      }
    });
  }

  /// Gradients are summed in M and rounded at the end: a key's is a sum over queries and heads.
  void attention_backward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v,
                          View<const T> y, View<const M> log_sum, View<const T> dy, View<T> dq, View<T> dk, View<T> dv,
                          View<T>) const {
    const Index d = shape.head_dim;
    Sums query(dq), key(dk), value(dv);
    for_each_query(shape, [&](Index row, Index head, Index first_row, Index kv, M* logits, M* mask) {
      scaled_logits(shape, q, k, row, head, first_row, kv, logits);
      dropout_factors(shape, row, head, first_row, mask);
      M mean(0);  // Σ_s p_s dp_s = y · dy
      for (Index c = 0; c < d; ++c) mean += M(y(row, head * d + c)) * M(dy(row, head * d + c));
      for (Index s = first_row; s <= row; ++s) {
        const M p = exponential(logits[s - first_row] - log_sum(row, head)), m = mask[s - first_row];
        M dp(0);
        for (Index c = 0; c < d; ++c) {
          const M slope = M(dy(row, head * d + c));
          dp += slope * M(v(s, kv * d + c));
          value(s, kv * d + c) += p * m * slope;
        }
        const M dlogit = p * (dp * m - mean) * M(shape.scale);
        for (Index c = 0; c < d; ++c) {
          query(row, head * d + c) += dlogit * M(k(s, kv * d + c));
          key(s, kv * d + c) += dlogit * M(q(row, head * d + c));
        }
      }
    });
    query.store(dq), key.store(dk), value.store(dv);
  }

 private:
  /// The sums that a gradient is rounded from.
  class Sums {
   public:
    explicit Sums(View<T> gradient) : cols_(gradient.cols), sums_(static_cast<std::size_t>(gradient.size()), M(0)) {}
    M& operator()(Index row, Index col) { return sums_[static_cast<std::size_t>(row * cols_ + col)]; }
    void store(View<T> gradient) {
      for (Index n = 0; n < gradient.rows; ++n) {
        for (Index c = 0; c < cols_; ++c) gradient(n, c) = T((*this)(n, c));
      }
    }

   private:
    Index cols_;
    std::vector<M> sums_;
  };

  template <class F>
  static void for_each_expert(const Dispatch& dispatch, F f) {
    const ExpertRows rows = dispatch.expert_rows();
    for (Index e = 0; e < dispatch.experts(); ++e) f(e, rows.first(e), rows.end(e) - rows.first(e));
  }

  /// f(row, head, first row that it sees, key-value head, memory for its logits, memory for its dropout factors).
  template <class F>
  static void for_each_query(const AttentionShape& shape, F f) {
    std::vector<M> logits(static_cast<std::size_t>(shape.time)), mask(logits.size());
    for (Index b = 0; b < shape.batch; ++b) {
      for (Index t = 0; t < shape.time; ++t) {
        for (Index h = 0; h < shape.heads; ++h) {
          f(b * shape.time + t, h, b * shape.time + shape.first_key(t), h / shape.group(), logits.data(), mask.data());
        }
      }
    }
  }

  /// Writes the dropout factors of one query's visible keys.
  static void dropout_factors(const AttentionShape& shape, Index row, Index head, Index first_row, M* factors) {
    const Index sequence = row / shape.time, first = first_row - sequence * shape.time, t = row % shape.time;
    for (Index s = first; s <= t; ++s) factors[s - first] = M(1);
    if (!shape.dropout.active()) return;
    shape.dropout.template each<M>(SerialGroup{}, (sequence * shape.heads + head) * shape.time + t, shape.time, first,
                                   t + 1, [=](Index s, M factor) { factors[s - first] = factor; });
  }

  /// Writes the logits of one query and returns log Σ exp(logit).
  static M scaled_logits(const AttentionShape& shape, View<const T> q, View<const T> k, Index row, Index head,
                         Index first_row, Index kv, M* logits) {
    const Index d = shape.head_dim, count = row - first_row + 1;
    for (Index s = 0; s < count; ++s) {
      M dot(0);
      for (Index c = 0; c < d; ++c) dot += M(q(row, head * d + c)) * M(k(first_row + s, kv * d + c));
      logits[s] = dot * M(shape.scale);
    }
    const auto maximum = SerialGroup{}.max(count, [=](Index s) { return logits[s]; });
    M total(0);
    for (Index s = 0; s < count; ++s) total += exponential(logits[s] - M(maximum));
    return M(maximum) + std::log(total);
  }
};

static_assert(Backend<Reference<double>> && Backend<Reference<std::complex<double>>> &&
              Backend<Reference<bfloat16, float>> && Backend<Reference<float16, float>>);

}  // namespace tinymoe::inline v0_1
