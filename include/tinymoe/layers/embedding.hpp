#pragma once
/// @file
/// Tokens to vectors:  x[n] = W[token[n]] + P[position of n] + B[h(token before n, token[n])]
///
/// W (V, D); P (context, D) only if positions are learned; B (R, D) only with Bigrams<R>, and h a hash with values
/// below R. The first token of a sequence and pads have no bigram. With PerLayerEmbeddings each block but the first
/// has a table of its own, E_l (V, D), and E_l[token[n]] is added to its input.
///
/// Backward: dW[token[n]] += dx[n], dP[position of n] += dx[n], dB likewise, in the order of n. Rows are sorted by
/// token first, as pairs are by expert, so that one kernel row sums for each row of a table.

#include <array>
#include <cassert>
#include <cstddef>
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

/// number[n] = h(token before n, token[n]), a row of the table of bigrams; −1 where there is none.
struct BigramNumbers {
  View<const Token> tokens, previous;  // (1, N); (1, B): before each sequence's first token, or empty: there is none
  View<std::int32_t> numbers;          // (N, 1)
  Index time, size;                    // T, R
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    group.once([&] {
      const Token token = tokens.data[n];
      Token before = -1;
      if (n % time > 0) {
        before = tokens.data[n - 1];
      } else if (!previous.empty()) {
        before = previous.data[n / time];
      }
      numbers.data[n] = token < 0 || before < 0 ? -1 : std::int32_t(hash(before, token) % std::uint32_t(size));
    });
  }

 private:
  /// Multiplies and mixes, with the constants of MurmurHash3.
  TINYMOE_EVERYWHERE static std::uint32_t hash(Token before, Token token) {
    std::uint32_t h = std::uint32_t(before) * 0xcc9e2d51u ^ std::uint32_t(token) * 0x1b873593u;
    h = (h ^ (h >> 16)) * 0x85ebca6bu;
    h = (h ^ (h >> 13)) * 0xc2b2ae35u;
    return h ^ (h >> 16);
  }
};

/// x[n] += table[number[n]]; a negative number has no row.
template <class T, class Table = View<const T>>
struct AddTableRow {
  View<const std::int32_t> numbers;  // (N, 1)
  Table table;
  View<T> x;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index number = numbers.data[n];
    if (number < 0) return;
    T* to = x.row(n);
    const auto add = [](T& sum, T v) { sum = T(sum + v); };
    if constexpr (std::is_same_v<Table, View<const T>>) {
      group.each(x.cols, add, to, table.row(number));
    } else {
      const Table from = table;
      group.each(x.cols, [=](Index i) { add(to[i], T(from(number, i))); });
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

/// The token table; where the model learns positions, the position table; a table of R bigrams, unless R is 0; and L
/// tables of tokens for the blocks after the first.
template <Index V, Index D, Index C, bool learned_positions, Index R = 0, Index L = 0>
struct Embedding {
  template <class W>
  struct Parameters {
    Tensor<MatrixOf<W, Part::embedding>, V, D> weight;                                      // (V, D)
    std::conditional_t<learned_positions, Tensor<VectorOf<W>, C, D>, NoTensor> position;    // (context, D)
    std::conditional_t<(R > 0), Tensor<MatrixOf<W, Part::table>, R, D>, NoTensor> bigrams;  // (R, D)
    std::array<Tensor<MatrixOf<W, Part::table>, V, D>, std::size_t(L)> of_layers;           // (V, D) each

    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      f(ParameterInfo::matrix(path, "embed_tokens.weight", V, D, Part::embedding, Initial::fan_in), p.weight...);
      if constexpr (learned_positions) {
        f(ParameterInfo::matrix(path, "embed_positions.weight", C, D, Part::position, Initial::fan_in), p.position...);
      }
      if constexpr (R > 0) {
        const Path bigrams{&path, {}, -1, 1, R};  // a token meets one of the R rows
        f(ParameterInfo::matrix(bigrams, "embed_bigrams.weight", R, D, Part::table, Initial::zeros), p.bigrams...);
      }
      for (Index l = 1; l <= L; ++l) {
        const Path of_layer{&path, "embed_layers", l}, row{&of_layer, {}, -1, 1, V};
        f(ParameterInfo::matrix(row, "weight", V, D, Part::table, Initial::zeros), p.of_layers[at(l)]...);
      }
    }
  };

  /// The rows sorted by token and by bigram, for backward.
  struct Saved {
    Dispatch sorted, sorted_bigrams;  // "experts" are the rows of the table, and each token has one choice
    PerRow<std::int32_t> numbers;     // of the bigrams (N, 1)

    /// The numbers are kept; the rest is scratch: nothing but backward itself uses it.
    void plan(Plan& plan, const Pass& pass) {
      const Index n = pass.rows();
      if constexpr (R > 0) numbers = plan.keep<std::int32_t>(n, 1);
      if (plan.purpose() == Plan::Purpose::inference) return;
      sorted = scratch(plan, V, n);
      if constexpr (R > 0) sorted_bigrams = scratch(plan, R, n);
    }

   private:
    static Dispatch scratch(Plan& plan, Index table, Index n) {
      return {plan.scratch<std::int32_t>(1, table + 1), plan.scratch<std::int32_t>(n, 1),
              plan.scratch<std::int32_t>(1, n)};
    }
  };

  /// x (N, D) = the vectors of tokens (1, N), all below V; 0 for pads, which are negative.
  template <Backend B, class W, class T = typename B::Scalar>
  static void forward(B& backend, const Pass& pass, const Parameters<W>& p, View<const Token> tokens, Output<B> x,
                      Saved& saved) {
    assert(tokens.cols == x.rows && (!learned_positions || pass.first_position + pass.time <= C));
    const auto table = p.weight.weights();
    backend.launch(x.rows, kernels::EmbeddingForward<T, std::remove_const_t<decltype(table)>>{tokens, table, p.position,
                                                                                              x, RowPositions(pass)});
    if constexpr (R > 0) {
      const auto numbers = saved.numbers(x.rows);
      backend.launch(x.rows, kernels::BigramNumbers{tokens, pass.previous, numbers, pass.time, R});
      add_rows(backend, numbers, p.bigrams.weights(), x);
    }
  }

  /// x (N, D) += the vectors of tokens (1, N) in the table of block l, from 1.
  template <Backend B, class W>
  static void forward_layer(B& backend, const Parameters<W>& p, Index l, View<const Token> tokens, Output<B> x) {
    add_rows(backend, View<const Token>(tokens.data, x.rows, 1), p.of_layers[at(l)].weights(), x);
  }

  /// Adds to the gradient of block l's table; dx is that of its input.
  template <Backend B, class M = typename B::Master>
  static void backward_layer(B& backend, Index l, View<const Token> tokens, Input<B> dx, Saved& saved,
                             Parameters<M>& gradients) {
    add_gradient(backend, View<const Token>(tokens.data, dx.rows, 1), dx, saved.sorted, gradients.of_layers[at(l)]);
  }

  /// Adds to the gradients of the other tables; there is no dx.
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, View<const Token> tokens, Input<B> dx, Saved& saved,
                       Parameters<M>& gradients) {
    const Index n = tokens.cols;
    add_gradient(backend, View<const Token>(tokens.data, n, 1), dx, saved.sorted, gradients.weight);
    if constexpr (learned_positions) {
      backend.launch(C, kernels::PositionBackward<T, M>{tokens, dx, gradients.position, RowPositions(pass)});
    }
    if constexpr (R > 0) add_gradient(backend, saved.numbers(n), dx, saved.sorted_bigrams, gradients.bigrams);
  }

 private:
  static constexpr std::size_t at(Index layer) { return static_cast<std::size_t>(layer - 1); }

  template <Backend B, class Table>
  static void add_rows(B& backend, View<const std::int32_t> numbers, const Table& table, Output<B> x) {
    backend.launch(x.rows, kernels::AddTableRow<typename B::Scalar, Table>{numbers, table, x});
  }

  /// Adds dx to the rows of a table by their numbers (N, 1); those below 0, as of pads, have no row.
  template <Backend B, class Table>
  static void add_gradient(B& backend, View<const std::int32_t> numbers, Input<B> dx, Dispatch& sorted,
                           const Table& gradient) {
    sorted.resize(dx.rows, dx.rows);
    backend.sort_by_expert(numbers, sorted);
    backend.launch(gradient.rows, kernels::EmbeddingBackward<typename B::Scalar, typename B::Master>{
                                      sorted.offsets, sorted.pairs, dx, gradient});
  }
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
