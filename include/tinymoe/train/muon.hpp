#pragma once
/// @file
/// Muon: momentum updates that are orthogonalised, for the matrices of blocks; AdamW for the other tensors.
///
///     m = μ m + g;   u = g + μ m;   O = NewtonSchulz(u) ≈ U Vᵀ, where u = U S Vᵀ
///     w = w (1 − lr·decay) − lr · 0.2 sqrt(max(rows, cols)) · O
///
/// g, m, u, w, O (rows, cols): one matrix of attention, of an expert or of a dense network. Of a stacked tensor (q, k
/// and v; w1 and w3), each part with its own name on disk is a matrix.
///
/// Newton-Schulz, with r = min(rows, cols), c = max(rows, cols) and X (r, c), transposed if rows > cols:
///
///     X = u / (‖u‖ + ε);   five times:  A = X Xᵀ;  X = (a I + b A + c A²) X        a, b, c = 3.4445, −4.7750, 2.0315
///
/// After it every singular value is between 0.7 and 1.2 (Jordan et al. 2024). A step costs 5 · (4 r² c + 2 r³)
/// operations for each matrix, independent of the batch: it pays if a step has many tokens.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/adamw.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One chunk. Of a block's matrix: updates m, turns the gradient into u, and sums u². Otherwise: AdamW.
template <class T, class M>
struct MuonMomentum {
  static constexpr bool long_rows = true;
  AdamWStep<T, M> adamw;
  M momentum;
  M* squares;  // (1, chunks): Σ u² of each chunk
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Chunk chunk = adamw.chunks[part];
    if (chunk.matrix == 0) return adamw(group, part);
    M *g = adamw.gradients + chunk.offset, *m = adamw.mean + chunk.offset;
    const M scale = adamw.clip[1], mu = momentum;
    const auto move = [=](M& gradient, M& average) {
      const M slope = gradient * scale;
      average = mu * average + slope;
      gradient = slope + mu * average;
      return gradient * gradient;
    };
    const M total = group.sum(chunk.size, move, g, m);
    group.once([&] { squares[part] = total; });
  }
};

/// One row of u: x = u / (‖u‖ + ε), transposed if `transpose`.
template <class T, class M>
struct MuonNormalise {
  View<const M> update;  // u (rows, cols)
  const M* squares;      // (1, chunks): their sum is ‖u‖²
  Index chunks;
  M epsilon;
  bool transpose;
  View<T> x;  // (rows, cols), or (cols, rows)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const M* partial = squares;
    const M scale = M(1) / (std::sqrt(group.sum(chunks, [=](Index i) { return partial[i]; })) + epsilon);
    const M* from = update.row(row);
    T* to = transpose ? x.data + row : x.row(row);
    const Index apart = transpose ? x.stride : 1;
    group.each(update.cols, [=](Index i) { to[i * apart] = T(from[i] * scale); });
  }
};

/// One row:  square = a I + b A + c square, where square holds A².
template <class T, class M>
struct MuonPolynomial {
  View<const T> gram;  // A (r, r)
  View<T> square;      // (r, r)
  M a, b, c;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* from = gram.row(row);
    T* to = square.row(row);
    const M constant = a, linear = b, quadratic = c;
    group.each(gram.cols,
               [=](Index i) { to[i] = T(linear * M(from[i]) + quadratic * M(to[i]) + (i == row ? constant : M(0))); });
  }
};

/// One row of the weights:  w = keep · w − step · O; the gradient is left zero for the next step.
template <class T, class M>
struct MuonApply {
  View<M> weights, gradients;  // (rows, cols)
  View<T> copy;                // the weights in the layers' type; empty where layers read `weights`
  View<const T> x;             // O, transposed if `transposed`
  bool transposed;
  M keep, step;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    M *w = weights.row(row), *g = gradients.row(row);
    const T* from = transposed ? x.data + row : x.row(row);
    const Index apart = transposed ? x.stride : 1;
    const M decay = keep, rate = step;
    const auto move = [=](Index i) {
      g[i] = M(0);
      return w[i] = decay * w[i] - rate * M(from[i * apart]);
    };
    if (copy.empty()) {
      group.each(weights.cols, [=](Index i) { move(i); });
    } else {
      T* to = copy.row(row);
      group.each(weights.cols, [=](Index i) { to[i] = T(move(i)); });
    }
  }
};

}  // namespace kernels

/// Muon (Jordan et al. 2024) for the matrices of blocks; AdamW with the same rate and decay for the other tensors. The
/// scale 0.2 · sqrt(max(rows, cols)) of Liu et al. 2025 makes an update as large as AdamW's, so that AdamW's rate and
/// decay can be kept. AdamW also trains routers, the head and the embeddings: a router is small, and its rows are
/// separate directions that tell tokens apart, not a map that must be well-conditioned.
///
/// The second moment of the matrices stays zero.
struct Muon {
  static constexpr const char* name = "muon";
  static constexpr Index moments = 2;
  double lr = 1e-3;
  double momentum = 0.95;
  double weight_decay = 0.1;
  int iterations = 5;                                // of Newton-Schulz
  double a = 3.4445, b = -4.7750, c = 2.0315;        // its polynomial
  double scale = 0.2;                                // the root mean square of the update, about
  double matrix_epsilon = 1e-7;                      // added to the norm of a matrix
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;  // of AdamW for the rest

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("Muon", {{"lr", lr, from_0},
                                   {"momentum", momentum, from_0_below_1},
                                   {"weight_decay", weight_decay, from_0},
                                   {"iterations", iterations, whole(0, 100)},
                                   {"a", a, any},
                                   {"b", b, any},
                                   {"c", c, any},
                                   {"scale", scale, from_0},
                                   {"matrix_epsilon", matrix_epsilon, above_0},
                                   {"beta1", beta1, from_0_below_1},
                                   {"beta2", beta2, from_0_below_1},
                                   {"epsilon", epsilon, above_0}});
  }

  /// Bytes for two copies of the largest matrix, two Gram matrices, and a number for each chunk.
  template <Backend B>
  std::size_t scratch_bytes(B&, std::span<const Segment> segments) const {
    return Scratch<B>(segments, nullptr).bytes;
  }

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    const Scratch<B> scratch(at.segments, at.scratch);
    const AdamW adamw{lr, beta1, beta2, epsilon, weight_decay};
    backend.launch(at.chunks.cols, kernels::MuonMomentum<T, M>{adamw.kernel(at), M(momentum), scratch.squares});
    const M* squares = scratch.squares;
    for (const Segment& segment : at.segments) {
      if (!segment.trained) continue;
      const Index chunks = chunk_count(segment);
      if (detail::is_block_matrix(segment)) step_matrix(backend, at, segment, squares, chunks, scratch);
      squares += chunks;
    }
  }

 private:
  static constexpr Index chunk_count(const Segment& segment) {
    return (segment.size() + Chunk::largest - 1) / Chunk::largest;
  }

  /// The places of a step's intermediate results in the scratch memory.
  template <Backend B>
  struct Scratch {
    using T = typename B::Scalar;
    using M = typename B::Master;
    M* squares;      // one for each chunk
    T *x, *next;     // (r, c)
    T *gram, *poly;  // (r, r)
    std::size_t bytes = 0;

    Scratch(std::span<const Segment> segments, std::byte* block) {
      Index chunks = 0, largest = 0, square = 0;
      for (const Segment& segment : segments) {
        chunks += segment.trained ? chunk_count(segment) : 0;
        if (!detail::is_block_matrix(segment)) continue;
        const Index r = std::min(segment.rows, segment.cols);
        largest = std::max(largest, segment.size()), square = std::max(square, r * r);
      }
      squares = take<M>(block, chunks);
      x = take<T>(block, largest), next = take<T>(block, largest);
      gram = take<T>(block, square), poly = take<T>(block, square);
    }
    template <class E>
    E* take(std::byte* block, Index count) {
      const std::size_t offset =
          std::exchange(bytes, bytes + detail::round_up(static_cast<std::size_t>(count) * sizeof(E), memory_alignment));
      return block == nullptr ? nullptr : reinterpret_cast<E*>(block + offset);
    }
  };

  /// Orthogonalises u, which has replaced the gradient, and updates the weights.
  template <Backend B>
  void step_matrix(B& backend, const OptimizerStep<B>& at, const Segment& segment, const typename B::Master* squares,
                   Index chunks, const Scratch<B>& scratch) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    const bool tall = segment.rows > segment.cols;
    const Index least = std::min(segment.rows, segment.cols), most = std::max(segment.rows, segment.cols);
    const auto part_of = [&](auto row) {
      return decltype(row)(row.empty() ? nullptr : row.data + segment.offset, segment.rows, segment.cols);
    };
    View<T> x(scratch.x, least, most), next(scratch.next, least, most);
    const View<T> gram(scratch.gram, least, least), poly(scratch.poly, least, least);
    const View<M> update = part_of(at.gradients);
    backend.launch(segment.rows, kernels::MuonNormalise<T, M>{update, squares, chunks, M(matrix_epsilon), tall, x});
    for (int i = 0; i < iterations; ++i) {
      backend.matmul(x, x, {}, gram);
      backend.matmul(gram, gram, {}, poly);  // A is symmetric: A Aᵀ = A²
      backend.launch(least, kernels::MuonPolynomial<T, M>{gram, poly, M(a), M(b), M(c)});
      backend.matmul_input(poly, x, next, Write::overwrite);
      std::swap(x, next);
    }
    const double size = scale * std::sqrt(static_cast<double>(most));
    const double keep = segment.decay ? 1 - at.rate * weight_decay : 1;
    backend.launch(segment.rows, kernels::MuonApply<T, M>{part_of(at.weights), update, part_of(at.copy), x, tall,
                                                          M(keep), M(at.rate * size)});
  }
};
static_assert(Optimizer<Muon> && CheckedOptions<Muon>);

}  // namespace tinymoe::inline v0_1
