#pragma once
/// @file
/// The oracle: plain loops, one thread, for any scalar: `double`, and `std::complex<double>` for complex-step
/// gradients.

#include "tinymoe/backend/host.hpp"

namespace tinymoe {

/// A backend that computes everything by its definition, in the order of the formula.
template <class T>
class Reference : public detail::HostBackend {
 public:
  using Scalar = T;
  using Master = T;

  static constexpr const char* name() { return "reference"; }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    for (Index row = 0; row < rows; ++row) kernel(SerialGroup{}, row);
  }

  /// y[n, o] = Σ_i x[n, i] w[o, i] + bias[o]
  void matmul(View<const T> x, View<const T> w, View<const T> bias, View<T> y) const {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    for (Index n = 0; n < y.rows; ++n) {
      for (Index o = 0; o < y.cols; ++o) {
        T total = bias.empty() ? T(0) : bias.data[o];
        for (Index i = 0; i < x.cols; ++i) total += x(n, i) * w(o, i);
        y(n, o) = total;
      }
    }
  }

  /// dx[n, i] = Σ_o dy[n, o] w[o, i]
  void matmul_input(View<const T> dy, View<const T> w, View<T> dx, Write write) const {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
    for (Index n = 0; n < dx.rows; ++n) {
      for (Index i = 0; i < dx.cols; ++i) {
        T total = write == Write::accumulate ? dx(n, i) : T(0);
        for (Index o = 0; o < dy.cols; ++o) total += dy(n, o) * w(o, i);
        dx(n, i) = total;
      }
    }
  }

  /// dw[o, i] += Σ_n dy[n, o] x[n, i]
  void matmul_weight(View<const T> dy, View<const T> x, View<T> dw) const {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols);
    for (Index o = 0; o < dw.rows; ++o) {
      for (Index i = 0; i < dw.cols; ++i) {
        T total(0);
        for (Index n = 0; n < x.rows; ++n) total += dy(n, o) * x(n, i);
        dw(o, i) += total;
      }
    }
  }

  void grouped_matmul(View<const T> x, Bank<const T> w, Bank<const T> bias, View<const std::int32_t> offsets,
                      View<T> y) const {
    for_each_expert(offsets, [&](Index e, Index first, Index count) {
      matmul(x.middle_rows(first, count), w[e], bias.empty() ? View<const T>{} : bias[e], y.middle_rows(first, count));
    });
  }
  void grouped_matmul_input(View<const T> dy, Bank<const T> w, View<const std::int32_t> offsets, View<T> dx) const {
    for_each_expert(offsets, [&](Index e, Index first, Index count) {
      matmul_input(dy.middle_rows(first, count), w[e], dx.middle_rows(first, count), Write::overwrite);
    });
  }
  void grouped_matmul_weight(View<const T> dy, View<const T> x, View<const std::int32_t> offsets, Bank<T> dw) const {
    for_each_expert(offsets, [&](Index e, Index first, Index count) {
      matmul_weight(dy.middle_rows(first, count), x.middle_rows(first, count), dw[e]);
    });
  }

  Index attention_scratch(const AttentionShape& shape) const { return 2 * shape.time; }

  /// y_t = Σ_s m_ts p_ts v_s, p_t = softmax over the visible s of scale · q_t · k_s; m is the factor of dropout, or 1.
  void attention_forward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v, View<T> y,
                         View<T> log_sum, View<T> scratch) const {
    for_each_query(shape, [&](Index row, Index head, Index first_row, Index kv) {
      const T denominator = scaled_logits(shape, q, k, row, head, first_row, kv, scratch.data);
      log_sum(row, head) = denominator;
      const T* mask = dropout_factors(shape, row, head, first_row, scratch.data + shape.time);
      for (Index c = 0; c < shape.head_dim; ++c) {
        T total(0);
        for (Index s = first_row; s <= row; ++s) {
          const T p = exponential(scratch.data[s - first_row] - denominator) * mask[s - first_row];
          total += p * v(s, kv * shape.head_dim + c);
        }
        y(row, head * shape.head_dim + c) = total;
      }
    });
  }

  void attention_backward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v,
                          View<const T> y, View<const T> log_sum, View<const T> dy, View<T> dq, View<T> dk, View<T> dv,
                          View<T> scratch) const {
    const Index d = shape.head_dim;
    for (View<T> gradient : {dq, dk, dv}) {
      for (Index n = 0; n < gradient.rows; ++n) {
        for (Index c = 0; c < gradient.cols; ++c) gradient(n, c) = T(0);
      }
    }
    for_each_query(shape, [&](Index row, Index head, Index first_row, Index kv) {
      scaled_logits(shape, q, k, row, head, first_row, kv, scratch.data);
      const T* mask = dropout_factors(shape, row, head, first_row, scratch.data + shape.time);
      T mean(0);  // Σ_s p_s dp_s = y · dy
      for (Index c = 0; c < d; ++c) mean += y(row, head * d + c) * dy(row, head * d + c);
      for (Index s = first_row; s <= row; ++s) {
        const T p = exponential(scratch.data[s - first_row] - log_sum(row, head));
        T dp(0);
        for (Index c = 0; c < d; ++c) {
          dp += dy(row, head * d + c) * v(s, kv * d + c);
          dv(s, kv * d + c) += p * mask[s - first_row] * dy(row, head * d + c);
        }
        const T dlogit = p * (dp * mask[s - first_row] - mean) * T(shape.scale);
        for (Index c = 0; c < d; ++c) {
          dq(row, head * d + c) += dlogit * k(s, kv * d + c);
          dk(s, kv * d + c) += dlogit * q(row, head * d + c);
        }
      }
    });
  }

 private:
  template <class F>
  static void for_each_expert(View<const std::int32_t> offsets, F f) {
    for (Index e = 0; e + 1 < offsets.cols; ++e) {
      f(e, Index{offsets.data[e]}, Index{offsets.data[e + 1]} - Index{offsets.data[e]});
    }
  }

  template <class F>
  static void for_each_query(const AttentionShape& shape, F f) {
    for (Index b = 0; b < shape.batch; ++b) {
      for (Index t = 0; t < shape.time; ++t) {
        for (Index h = 0; h < shape.heads; ++h) {
          f(b * shape.time + t, h, b * shape.time + shape.first_key(t), h / shape.group());
        }
      }
    }
  }

  /// The factors of one query's visible keys, written to `factors`.
  static const T* dropout_factors(const AttentionShape& shape, Index row, Index head, Index first_row, T* factors) {
    const Index sequence = row / shape.time, first = first_row - sequence * shape.time, t = row % shape.time;
    for (Index s = first; s <= t; ++s) factors[s - first] = T(1);
    if (shape.dropout.active()) {
      shape.dropout.template each<T>(SerialGroup{}, (sequence * shape.heads + head) * shape.time + t, shape.time, first,
                                     t + 1, [=](Index s, T factor) { factors[s - first] = factor; });
    }
    return factors;
  }

  /// Writes the logits of one query into `logits` and returns log Σ exp(logit).
  static T scaled_logits(const AttentionShape& shape, View<const T> q, View<const T> k, Index row, Index head,
                         Index first_row, Index kv, T* logits) {
    const Index d = shape.head_dim, count = row - first_row + 1;
    for (Index s = 0; s < count; ++s) {
      T dot(0);
      for (Index c = 0; c < d; ++c) dot += q(row, head * d + c) * k(first_row + s, kv * d + c);
      logits[s] = dot * T(shape.scale);
    }
    const auto greatest = SerialGroup{}.max(count, [=](Index s) { return logits[s]; });
    T total(0);
    for (Index s = 0; s < count; ++s) total += exponential(logits[s] - T(greatest));
    return T(greatest) + std::log(total);
  }
};

static_assert(Backend<Reference<double>> && Backend<Reference<std::complex<double>>>);

}  // namespace tinymoe
