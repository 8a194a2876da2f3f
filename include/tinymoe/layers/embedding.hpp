#pragma once
/// @file
/// Tokens to vectors:  x[n] = W[token[n]] + P[position of n]        W (V, D), P (context, D) only if positions are
/// learned
///
/// Backward: dW[token[n]] += dx[n], dP[position of n] += dx[n], in the order of n. Rows are sorted by token first, as
/// pairs are by expert, so that one kernel row sums for each row of a table.

#include <cassert>
#include <cstdint>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/position.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// x[n] = W[token[n]] + P[position of n]; 0 for a pad. `Table` is a view of W's format.
template <class T, class Table = View<const T>>
struct EmbeddingForward {
  View<const Token> tokens;  // (1, N)
  Table weight;
  View<const T> position;
  View<T> x;
  RowPositions positions;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const auto out = write_only(x.row(n));
    const auto clear = [](T& to) { to = T(0); };
    if (tokens.data[n] < 0) return group.each(x.cols, clear, out);
    const auto add = [](T& to, T v, T place) { to = T(v + place); };
    if constexpr (std::is_same_v<Table, View<const T>>) {
      const T* from = weight.row(tokens.data[n]);
      const auto copy = [](T& to, T v) { to = v; };
      if (position.empty()) return group.each(x.cols, copy, out, from);
      group.each(x.cols, add, out, from, position.row(positions(n)));
    } else {  // weights that must be decoded: one by one
      const Table table = weight;
      const Index token = tokens.data[n];
      T* to = x.row(n);
      group.each(x.cols, [=](Index i) { to[i] = T(table(token, i)); });
      if (!position.empty())
        group.each(
            x.cols, [=](T& v, T place) { add(v, v, place); }, to, position.row(positions(n)));
    }
  }
};

/// dW[v] += Σ dx[n] over the rows of token v, in order: kernel row v. It returns at once where there are none.
template <class T, class M>
struct EmbeddingBackward {
  View<const std::int32_t> offsets, rows;  // (1, V + 1), (1, N): the rows in the order of their tokens
  View<const T> dx;
  View<M> dweight;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index v) const {
    const Index first = offsets.data[v], count = offsets.data[v + 1] - first;
    if (count == 0) return;
    const std::int32_t* row = rows.data + first;
    const T* from = dx.data;
    const Index stride = dx.stride;
    add_rows(group, count, dx.cols, dweight.row(v), [=](Index r) { return from + row[r] * stride; });
  }
};

/// dP[p] += Σ dx[n] over the rows at position p that are no pads, in order: kernel row p.
template <class T, class M>
struct PositionBackward {
  View<const Token> tokens;  // (1, N)
  View<const T> dx;
  View<M> dposition;
  RowPositions positions;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index p) const {
    M* to = dposition.row(p);
    for (Index start = 0; start < dx.rows; start += positions.time) {
      const Index n = start + p - positions(start);
      if (n < start || n >= start + positions.time || tokens.data[n] < 0) continue;
      const auto add = [](M& total, T slope) { total += M(slope); };
      group.each(dx.cols, add, to, dx.row(n));
    }
  }
};

}  // namespace kernels

namespace detail {

/// The token table and, where the model learns positions, the position table.
template <Index V, Index D, Index C, bool learned_positions>
struct Embedding {
  template <class W>
  struct Parameters {
    Tensor<MatrixOf<W, Part::embedding>, V, D> weight;                                    // (V, D)
    std::conditional_t<learned_positions, Tensor<VectorOf<W>, C, D>, NoTensor> position;  // (context, D)

    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      f(ParameterInfo::matrix(path, "embed_tokens.weight", V, D, Part::embedding, Initial::fan_in), p.weight...);
      if constexpr (learned_positions) {
        f(ParameterInfo::matrix(path, "embed_positions.weight", C, D, Part::position, Initial::fan_in), p.position...);
      }
    }
  };

  /// The rows sorted by token, for backward.
  struct Saved {
    Dispatch sorted;  // rows by token: "experts" are the V tokens, and each row has one choice

    /// Takes scratch: nothing but backward itself uses it.
    void plan(Plan& plan, const Pass& pass) {
      if (plan.purpose() == Plan::Purpose::inference) return;
      const Index n = pass.rows();
      sorted = {plan.scratch<std::int32_t>(1, V + 1), plan.scratch<std::int32_t>(n, 1),
                plan.scratch<std::int32_t>(1, n)};
    }
  };

  /// x (N, D) = the vectors of tokens (1, N), all below V; 0 for pads, which are negative.
  template <Backend B, class W, class T = typename B::Scalar>
  static void forward(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens, Output<B> x) {
    assert(tokens.cols == x.rows && (!learned_positions || pass.first_position + pass.time <= C));
    const auto table = p.weight.weights();
    backend.launch(x.rows, kernels::EmbeddingForward<T, std::remove_const_t<decltype(table)>>{tokens, table, p.position,
                                                                                              x, RowPositions(pass)});
  }

  /// Adds to the tables' gradients; there is no dx.
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, View<const Token> tokens, Input<B> dx, Saved& saved,
                       Parameters<M>& gradients) {
    const Index n = tokens.cols;
    Dispatch& sorted = saved.sorted;
    sorted.resize(n, n);
    backend.sort_by_expert(View<const Token>(tokens.data, n, 1), sorted);  // pads are negative: no choice
    backend.launch(V, kernels::EmbeddingBackward<T, M>{sorted.offsets, sorted.pairs, dx, gradients.weight});
    if constexpr (learned_positions) {
      backend.launch(C, kernels::PositionBackward<T, M>{tokens, dx, gradients.position, RowPositions(pass)});
    }
  }
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
