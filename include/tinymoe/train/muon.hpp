#pragma once
/// @file
/// Muon: momentum updates that are orthogonalised, for the matrices of blocks or of their attention and dense networks
/// alone; AdamW for the other tensors.
/// Over 300 lines: the kernels of a step stand beside the grouping that they take.
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
/// operations for each matrix, independent of the batch: it pays if a step has many tokens. Matrices of one shape go
/// together: on a CPU each product takes all of them, as it takes the experts of a bank.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/host.hpp"
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
  bool experts, feed_forward;  // whether their matrices are orthogonalised
  M* squares;                  // (1, chunks): Σ u² of each chunk
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Chunk chunk = adamw.chunks[part];
    const bool left = (chunk.part == Part::expert && !experts) || (chunk.part == Part::feed_forward && !feed_forward);
    if (chunk.matrix == 0 || left) return adamw(group, part);
    M *g = adamw.gradients + chunk.offset, *m = adamw.mean + chunk.moment;
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

/// Matrices of one shape that are orthogonalised together, and where each lies.
struct MuonGroup {
  static constexpr Index largest = 32;  // a kernel takes it by value
  Index count = 0;                      // n
  Index rows = 0, cols = 0;             // of a matrix
  Index chunks = 0;                     // of a matrix
  double rate = 1, decay = 0;           // factors of lr and of the weight decay
  Index offsets[largest] = {};          // of the first element in the weights' buffer
  Index squares[largest] = {};          // of the first chunk's Σ u²

  TINYMOE_EVERYWHERE constexpr bool tall() const { return rows > cols; }
  TINYMOE_EVERYWHERE constexpr Index least() const { return tall() ? cols : rows; }  // r
  TINYMOE_EVERYWHERE constexpr Index most() const { return tall() ? rows : cols; }   // c
  TINYMOE_EVERYWHERE constexpr Index size() const { return rows * cols; }
  /// Row `row` of matrix i in a buffer laid out as the weights.
  template <class E>
  TINYMOE_EVERYWHERE E* row(E* buffer, Index i, Index row) const {
    return buffer + offsets[i] + row * cols;
  }
};

/// offsets[i] = i r: where the rows of matrix i begin.
struct MuonOffsets {
  static constexpr bool compiled_once = true;
  View<std::int32_t> offsets;  // (1, n + 1)
  Index rows;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    std::int32_t* to = offsets.data;
    const Index apart = rows;
    group.each(offsets.cols, [=](Index i) { to[i] = static_cast<std::int32_t>(i * apart); });
  }
};

/// One row of one u: x = u / (‖u‖ + ε), transposed if the matrices are tall.
template <class T, class M>
struct MuonNormalise {
  MuonGroup matrices;
  const M* updates;  // the buffer of u
  const M* squares;  // their sum over a matrix's chunks is ‖u‖²
  M epsilon;
  T* x;  // (n, r, c)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index at) const {
    const Index i = at / matrices.rows, row = at % matrices.rows;
    const M* partial = squares + matrices.squares[i];
    const M scale =
        M(1) / (std::sqrt(group.sum(matrices.chunks, [=](Index chunk) { return partial[chunk]; })) + epsilon);
    const M* from = matrices.row(updates, i, row);
    T* to = x + i * matrices.size() + row * (matrices.tall() ? 1 : matrices.cols);
    const Index apart = matrices.tall() ? matrices.rows : 1;
    group.each(matrices.cols, [=](Index col) { to[col * apart] = T(from[col] * scale); });
  }
};

/// One row of one matrix:  square = a I + b A + c square, where square holds A².
template <class T, class M>
struct MuonPolynomial {
  View<const T> gram;  // A of each (n r, r)
  View<T> square;      // (n r, r)
  M a, b, c;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* from = gram.row(row);
    T* to = square.row(row);
    const M constant = a, linear = b, quadratic = c;
    const Index diagonal = row % gram.cols;
    group.each(gram.cols, [=](Index i) {
      to[i] = T(linear * M(from[i]) + quadratic * M(to[i]) + (i == diagonal ? constant : M(0)));
    });
  }
};

/// One row of one matrix of weights:  w = keep · w − step · O; the gradient is left zero for the next step.
template <class T, class M>
struct MuonApply {
  MuonGroup matrices;
  M *weights, *gradients;  // buffers
  T* copy;                 // the weights in the layers' type; null where layers read `weights`
  const T* x;              // O of each (n, r, c), transposed if the matrices are tall
  M keep, step;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index at) const {
    const Index i = at / matrices.rows, row = at % matrices.rows;
    M *w = matrices.row(weights, i, row), *g = matrices.row(gradients, i, row);
    const T* from = x + i * matrices.size() + row * (matrices.tall() ? 1 : matrices.cols);
    const Index apart = matrices.tall() ? matrices.rows : 1;
    const M decay = keep, rate = step;
    const auto move = [=](Index col) {
      g[col] = M(0);
      return w[col] = decay * w[col] - rate * M(from[col * apart]);
    };
    if (copy == nullptr) {
      group.each(matrices.cols, [=](Index col) { move(col); });
    } else {
      T* to = matrices.row(copy, i, row);
      group.each(matrices.cols, [=](Index col) { to[col] = T(move(col)); });
    }
  }
};

}  // namespace kernels

/// Muon (Jordan et al. 2024) for the matrices of blocks; AdamW for the other tensors, with the rate lr · adamw_rate,
/// which scales its decay as well. The scale 0.2 · sqrt(max(rows, cols)) of Liu et al. 2025 makes an update as large
/// as AdamW's, so that AdamW's rate and decay can be kept. AdamW also trains routers, the head and the embeddings: a
/// router is small, and its rows are separate directions that tell tokens apart, not a map that must be
/// well-conditioned.
///
/// With `experts` = false AdamW trains the experts, too. An expert has few tokens of a step, and its matrices cost as
/// much as if it had all: with small steps the time is better spent on more tokens. `feed_forward` = false does the
/// same for dense networks. AdamW may need a lower rate than orthogonal updates; `adamw_rate` is its share. A run keeps
/// both to the end: the moments mean another thing.
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
  double adamw_rate = 1;                             // AdamW's learning rate for the rest, as a multiple of lr
  bool experts = true, feed_forward = true;  // whether the matrices of experts, of dense networks are orthogonalised
  PartFactors rates = {}, decays = {};       // of lr and of weight_decay, for each part of a model

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
                                   {"epsilon", epsilon, above_0},
                                   {"adamw_rate", adamw_rate, from_0}});
    PartFactors of_lr = rates;
    for (double* left : {&of_lr.embedding, &of_lr.position, &of_lr.norm, &of_lr.router, &of_lr.head, &of_lr.table}) {
      *left *= adamw_rate;
    }
    if (!experts) of_lr.expert *= adamw_rate;
    if (!feed_forward) of_lr.feed_forward *= adamw_rate;
    detail::check_factors("Muon", lr, weight_decay, of_lr, decays);
  }

  /// Bytes for two copies of the largest group of matrices and two of its Gram matrices, and a number for each chunk.
  template <Backend B>
  std::size_t scratch_bytes(B&, std::span<const Segment> segments) const {
    return Scratch<B>(*this, segments, nullptr).bytes;
  }

  template <Backend B>
  void step(B& backend, const OptimizerStep<B>& at) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    const Scratch<B> scratch(*this, at.segments, at.scratch);
    const AdamW adamw{lr, beta1, beta2, epsilon, weight_decay};
    kernels::MuonMomentum<T, M> move{adamw.kernel(at), M(momentum), experts, feed_forward, scratch.squares};
    move.adamw.rate = M(at.rate * adamw_rate);
    backend.launch(at.chunks.cols, move);
    for_each_group(at.segments, [&](const kernels::MuonGroup& group) { step_group(backend, at, group, scratch); });
  }

 private:
  /// Whether products take a group's matrices at once. A GPU's host would have to wait for the offsets of their rows,
  /// which no sort has told it.
  template <Backend B>
  static constexpr bool together_in_products = std::is_base_of_v<detail::HostBackend, B>;

  /// Matrices of a shape that go together: more of small ones, so that a product is work for all cores.
  static constexpr Index together(const Segment& segment) {
    constexpr Index elements = Index{1} << 20;
    return std::clamp<Index>(elements / segment.size(), 1, kernels::MuonGroup::largest);
  }
  constexpr bool orthogonalises(const Segment& segment) const {
    return detail::is_block_matrix(segment) && (experts || segment.part != Part::expert) &&
           (feed_forward || segment.part != Part::feed_forward);
  }
  /// f(group) for the matrices that are orthogonalised, each in one group. It allocates nothing.
  template <class F>
  void for_each_group(std::span<const Segment> segments, F&& f) const {
    kernels::MuonGroup open[8] = {};  // each of another shape; empty where `count` is 0
    std::size_t oldest = 0;
    Index chunks = 0;
    const auto close = [&](kernels::MuonGroup& group) {
      if (group.count > 0) f(std::as_const(group));
      group.count = 0;
    };
    for (const Segment& segment : segments) {
      const Index first_chunk = std::exchange(chunks, chunks + detail::chunk_count(segment));
      if (!orthogonalises(segment)) continue;
      const double rate = rates[segment.part], decay = segment.decay ? decays[segment.part] : 0;
      auto* group = std::ranges::find_if(open, [&](const kernels::MuonGroup& one) {
        return one.count > 0 && one.rows == segment.rows && one.cols == segment.cols && one.rate == rate &&
               one.decay == decay;
      });
      if (group == std::end(open)) {
        group = open + std::exchange(oldest, (oldest + 1) % std::size(open));
        close(*group);
        *group = {.rows = segment.rows,
                  .cols = segment.cols,
                  .chunks = detail::chunk_count(segment),
                  .rate = rate,
                  .decay = decay};
      }
      group->offsets[group->count] = segment.offset;
      group->squares[group->count++] = first_chunk;
      if (group->count == together(segment)) close(*group);
    }
    for (kernels::MuonGroup& group : open) close(group);
  }

  /// The places of a step's intermediate results in the scratch memory.
  template <Backend B>
  struct Scratch {
    using T = typename B::Scalar;
    using M = typename B::Master;
    M* squares;             // one for each chunk
    std::int32_t* offsets;  // (n + 1)
    T *x, *next;            // (n, r, c)
    T *gram, *poly;         // (n, r, r)
    std::size_t bytes = 0;

    Scratch(const Muon& muon, std::span<const Segment> segments, std::byte* block) {
      Index chunks = 0, largest = 0, square = 0;
      for (const Segment& segment : segments) chunks += detail::chunk_count(segment);
      muon.for_each_group(segments, [&](const kernels::MuonGroup& group) {
        largest = std::max(largest, group.count * group.size());
        square = std::max(square, group.count * group.least() * group.least());
      });
      squares = take<M>(block, chunks);
      offsets = take<std::int32_t>(block, kernels::MuonGroup::largest + 1);
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

  /// Orthogonalises each u of the group, which has replaced the gradient, and updates the weights.
  template <Backend B>
  void step_group(B& backend, const OptimizerStep<B>& at, const kernels::MuonGroup& group,
                  const Scratch<B>& scratch) const {
    using T = typename B::Scalar;
    using M = typename B::Master;
    const Index n = group.count, r = group.least(), cols = group.most();
    T *x = scratch.x, *next = scratch.next;
    backend.launch(n * group.rows,
                   kernels::MuonNormalise<T, M>{group, at.gradients.data, scratch.squares, M(matrix_epsilon), x});
    const View<T> gram(scratch.gram, n * r, r), poly(scratch.poly, n * r, r);
    // Matrix i is expert i of a bank, and its rows are the rows that expert i works on.
    const Dispatch dispatch(View<std::int32_t>(scratch.offsets, 1, n + 1), n * r);
    if constexpr (together_in_products<B>) backend.launch(1, kernels::MuonOffsets{dispatch.offsets, r});
    for (int i = 0; i < iterations; ++i) {
      const View<T> all(x, n * r, cols), result(next, n * r, cols);
      const auto add_powers = [&] {
        backend.launch(n * r, kernels::MuonPolynomial<T, M>{gram, poly, M(a), M(b), M(c)});
      };
      if constexpr (together_in_products<B>) {
        const Bank<const T> matrices(x, n, r, cols, r * cols);
        backend.grouped_matmul(all, matrices, {}, dispatch, gram);
        backend.grouped_matmul(gram, Bank<const T>(gram.data, n, r, r, r * r), {}, dispatch, poly);  // A is symmetric
        add_powers();
        backend.grouped_matmul_input(poly, matrices, dispatch, result);
      } else {
        const auto part = [r](const View<T>& of, Index k) { return View<T>(of.row(k * r), r, of.cols); };
        for (Index k = 0; k < n; ++k) {
          backend.matmul(part(all, k), part(all, k), {}, part(gram, k));
          backend.matmul(part(gram, k), part(gram, k), {}, part(poly, k));
        }
        add_powers();
        for (Index k = 0; k < n; ++k) {
          backend.matmul_input(part(poly, k), part(all, k), part(result, k), Write::overwrite);
        }
      }
      std::swap(x, next);
    }
    const double size = scale * std::sqrt(static_cast<double>(cols));
    const double rate = at.rate * group.rate, keep = 1 - rate * weight_decay * group.decay;
    backend.launch(n * group.rows, kernels::MuonApply<T, M>{group, at.weights.data, at.gradients.data, at.copy.data, x,
                                                            M(keep), M(rate * size)});
  }
};
static_assert(Optimizer<Muon> && PartOptimizer<Muon> && CheckedOptions<Muon>);

}  // namespace tinymoe::inline v0_1
