#pragma once
/// @file
/// Tokens to vectors:  x[n] = W[token[n]] + P[position of n]        W (V, D), P (context, D) only if positions are
/// learned
///
/// Backward: dW[token[n]] += dx[n], dP[position of n] += dx[n], in the order of n.

#include "tinymoe/backend/rows.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/position.hpp"

namespace tinymoe {

namespace kernels {

template <class T>
struct EmbeddingForward {
  View<const Token> tokens;  // (1, N)
  View<const T> weight, position;
  View<T> x;
  RowPositions positions;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    T* to = x.row(n);
    if (tokens.data[n] < 0) {
      group.each(x.cols, [=](Index i) { to[i] = T(0); });
      return;
    }
    const T* from = weight.row(tokens.data[n]);
    if (position.empty()) {
      group.each(x.cols, [=](Index i) { to[i] = from[i]; });
    } else {
      const T* place = position.row(positions(n));
      group.each(x.cols, [=](Index i) { to[i] = T(from[i] + place[i]); });
    }
  }
};

/// One block of columns for all tokens: two tokens of the same kind never meet.
template <class T, class M>
struct EmbeddingBackward {
  View<const Token> tokens;
  View<const T> dx;
  View<M> dweight, dposition;
  RowPositions positions;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index block) const {
    const Index first = block * column_block;
    const Index count = dx.cols - first < column_block ? dx.cols - first : column_block;
    for (Index n = 0; n < dx.rows; ++n) {
      if (tokens.data[n] < 0) continue;
      const T* from = dx.row(n) + first;
      M* to = dweight.row(tokens.data[n]) + first;
      group.each(count, [=](Index i) { to[i] += M(from[i]); });
      if (!dposition.empty()) {
        M* place = dposition.row(positions(n)) + first;
        group.each(count, [=](Index i) { place[i] += M(from[i]); });
      }
    }
  }
};

}  // namespace kernels

/// The token table and, where the model learns positions, the position table.
template <Index V, Index D, Index C, bool learned_positions>
struct Embedding {
  template <class T>
  struct Parameters {
    Tensor<T, V, D> weight;                                                     // (V, D)
    std::conditional_t<learned_positions, Tensor<T, C, D>, NoTensor> position;  // (context, D)

    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      f(matrix(path, "embed_tokens.weight", V, D, Part::embedding, Initial::fan_in), p.weight...);
      if constexpr (learned_positions) {
        f(matrix(path, "embed_positions.weight", C, D, Part::position, Initial::fan_in), p.position...);
      }
    }
  };

  /// x (N, D) = the vectors of tokens (1, N), all below V; those of pads, which are negative, are 0.
  template <Backend B, class T = typename B::Scalar>
  static void forward(B& backend, const Pass& pass, const Parameters<T>& p, View<const Token> tokens, Output<B> x) {
    assert(tokens.cols == x.rows && (!learned_positions || pass.first_position + pass.time <= C));
    backend.launch(x.rows, kernels::EmbeddingForward<T>{tokens, p.weight, p.position, x, RowPositions(pass)});
  }

  /// Adds to the tables' gradients; there is no dx.
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, View<const Token> tokens, Input<B> dx, Parameters<M>& gradients) {
    backend.launch(column_blocks(D), kernels::EmbeddingBackward<T, M>{tokens, dx, gradients.weight, gradients.position,
                                                                      RowPositions(pass)});
  }
};

}  // namespace tinymoe
