#pragma once
/// @file
/// Row kernels that belong to no one layer: sums, copies and dropout.
///
/// A sum over the rows of a matrix, such as the gradient of a bias, has two stages. First, a kernel row for each chunk
/// of rows writes the chunk's sums to scratch. Then one for each column adds the chunks. This gives a GPU work for all
/// its threads, adds nothing atomically, and the order of the sum depends on the sizes alone.

#include <cassert>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// Operations on rows; each adds or overwrites as its line says.
namespace rowwise {

/// Rows of one chunk.
inline constexpr Index chunk_size = 32;
/// Columns that one kernel row of the first stage adds up.
inline constexpr Index column_block = 512;

/// How many chunks the rows make.
TINYMOE_EVERYWHERE constexpr Index chunks(Index rows) { return (rows + chunk_size - 1) / chunk_size; }
/// How many blocks the columns make.
TINYMOE_EVERYWHERE constexpr Index column_blocks(Index cols) { return (cols + column_block - 1) / column_block; }
/// The parts into which each expert's rows are cut: chunks where experts have the same number of rows.
TINYMOE_EVERYWHERE constexpr Index expert_parts(Index rows, Index experts) {
  const Index each = experts * chunk_size;
  return rows > each ? (rows + each - 1) / each : 1;
}

/// Elements of scratch that `column_sum` of up to `rows` rows needs.
constexpr Index column_sum_scratch(Index rows, Index cols) { return chunks(rows) * cols; }
/// Elements of scratch that `grouped_column_sum` of up to `rows` rows needs.
constexpr Index grouped_column_sum_scratch(Index rows, Index experts, Index cols) {
  return experts * expert_parts(rows, experts) * cols;
}

}  // namespace rowwise

namespace kernels {

/// y += x, row by row.
template <class T>
struct Add {
  View<const T> x;
  View<T> y;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const auto add = [](T& to, T from) { to = T(to + from); };
    group.each(y.cols, add, y.row(row), x.row(row));
  }
};

/// to = from, row by row.
template <class T>
struct CopyRow {
  View<const T> from;
  View<T> to;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const auto copy = [](T& out, T in) { out = in; };
    group.each(to.cols, copy, write_only(to.row(row)), from.row(row));
  }
};

/// out = x + y, row by row.
template <class T>
struct Sum {
  View<const T> x, y;
  View<T> out;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const auto add = [](T& to, T a, T b) { to = T(a + b); };
    group.each(out.cols, add, write_only(out.row(row)), x.row(row), y.row(row));
  }
};

/// out = x · the factors of a dropout, row by row; out may be x.
template <class T>
struct ApplyDropout {
  View<const T> x;
  View<T> out;
  Dropout dropout;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* from = x.row(row);
    T* to = out.row(row);
    dropout.template each<Compute<T>>(group, row, out.cols, 0, out.cols,
                                      [=](Index i, Compute<T> factor) { to[i] = T(Compute<T>(from[i]) * factor); });
  }
};

/// y = x + y · the factors of a dropout, row by row.
template <class T>
struct AddDropout {
  View<const T> x;
  View<T> y;
  Dropout dropout;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    using C = Compute<T>;
    const T* from = x.row(row);
    T* to = y.row(row);
    dropout.template each<C>(group, row, y.cols, 0, y.cols,
                             [=](Index i, C factor) { to[i] = T(C(from[i]) + C(to[i]) * factor); });
  }
};

/// to[c] += Σ_r row(r)[c], rows in order; four at a time, so that their loads do not wait for one another.
template <class M, class Group, class Row>
TINYMOE_EVERYWHERE TINYMOE_INLINE void add_rows(Group group, Index rows, Index cols, M* to, Row row) {
  Index r = 0;
  const auto add_four = [](M& total, auto a, auto b, auto c, auto d) { total = total + M(a) + M(b) + M(c) + M(d); };
  for (; r + 4 <= rows; r += 4) {
    group.each(cols, add_four, to, row(r), row(r + 1), row(r + 2), row(r + 3));
  }
  const auto add = [](M& total, auto a) { total += M(a); };
  for (; r < rows; ++r) group.each(cols, add, to, row(r));
}

/// partial[chunk, c] = Σ x[n, c] over the rows of one chunk: kernel row chunk · blocks + block of columns.
template <class T, class M>
struct ChunkSum {
  View<const T> x;  // (N, C)
  View<M> partial;  // (rowwise::chunks(N), C)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index blocks = rowwise::column_blocks(x.cols), chunk = part / blocks,
                left = part % blocks * rowwise::column_block;
    const Index cols = x.cols - left < rowwise::column_block ? x.cols - left : rowwise::column_block,
                first = chunk * rowwise::chunk_size;
    const Index rows = x.rows - first < rowwise::chunk_size ? x.rows - first : rowwise::chunk_size, stride = x.stride;
    const T* from = x.row(first) + left;
    M* to = partial.row(chunk) + left;
    group.each(cols, [=](Index c) { to[c] = M(0); });
    add_rows(group, rows, cols, to, [=](Index r) { return from + r * stride; });
  }
};

/// total[c] += Σ partial[chunk, c] over the chunks: kernel row c.
template <class M>
struct ColumnTotals {
  static constexpr bool compiled_once = true;
  View<const M> partial;  // (chunks, C)
  View<M> total;          // (1, C)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index c) const {
    const M* from = partial.data + c;
    const Index stride = partial.stride;
    const M sum = group.sum(partial.rows, [=](Index i) { return from[i * stride]; });
    group.once([&] { total.data[c] += sum; });
  }
};

/// ChunkSum for a bank: an expert's rows are cut into `parts` even parts; kernel row (expert · parts + part) · blocks +
/// block of columns. An expert without rows writes nothing.
template <class T, class M>
struct GroupedChunkSum {
  View<const T> x;  // (S, C), sorted by expert
  ExpertRows of;
  View<M> partial;  // (E · parts, C)
  Index parts;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index number) const {
    const Index blocks = rowwise::column_blocks(x.cols), at = number / blocks,
                left = number % blocks * rowwise::column_block;
    const Index expert = at / parts, part = at % parts;
    const Index begin = of.first(expert), count = of.end(expert) - begin;
    if (count == 0) return;
    const Index cols = x.cols - left < rowwise::column_block ? x.cols - left : rowwise::column_block, stride = x.stride;
    const Index low = count * part / parts, rows = count * (part + 1) / parts - low;
    const T* from = x.data + (begin + low) * stride + left;
    M* to = partial.row(at) + left;
    group.each(cols, [=](Index c) { to[c] = M(0); });
    add_rows(group, rows, cols, to, [=](Index r) { return from + r * stride; });
  }
};

/// ColumnTotals for a bank: kernel row expert · C + c.
template <class M>
struct GroupedColumnTotals {
  static constexpr bool compiled_once = true;
  View<const M> partial;  // (E · parts, C)
  ExpertRows of;
  Bank<M> total;  // E of (1, C)
  Index parts;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index number) const {
    const Index expert = number / total.cols, c = number % total.cols;
    if (of.end(expert) == of.first(expert)) return;
    ColumnTotals<M>{partial.middle_rows(expert * parts, parts), total[expert]}(group, c);
  }
};

}  // namespace kernels

namespace rowwise {

/// y += x.
template <Backend B>
void add(B& backend, View<const typename B::Scalar> x, View<typename B::Scalar> y) {
  assert(x.rows == y.rows && x.cols == y.cols);
  backend.launch(y.rows, kernels::Add<typename B::Scalar>{x, y});
}

/// out = x · the factors; out may be x.
template <Backend B>
void dropout(B& backend, const Dropout& factors, View<const typename B::Scalar> x, View<typename B::Scalar> out) {
  assert(x.rows == out.rows && x.cols == out.cols);
  backend.launch(out.rows, kernels::ApplyDropout<typename B::Scalar>{x, out, factors});
}

/// y = x + y · the factors, if it is active.
template <Backend B>
void add_dropout(B& backend, const Dropout& factors, View<const typename B::Scalar> x, View<typename B::Scalar> y) {
  if (!factors.active()) return add(backend, x, y);
  assert(x.rows == y.rows && x.cols == y.cols);
  backend.launch(y.rows, kernels::AddDropout<typename B::Scalar>{x, y, factors});
}

/// out = x + y.
template <Backend B>
void add(B& backend, View<const typename B::Scalar> x, View<const typename B::Scalar> y, View<typename B::Scalar> out) {
  assert(x.rows == out.rows && x.cols == out.cols && y.rows == out.rows && y.cols == out.cols);
  backend.launch(out.rows, kernels::Sum<typename B::Scalar>{x, y, out});
}

/// total (1, C) += the column sums of `partial` (chunks, C): the second stage of a sum over rows, for layers whose own
/// kernels do the first.
template <Backend B>
void column_totals(B& backend, View<const typename B::Master> partial, View<typename B::Master> total) {
  assert(partial.cols == total.cols);
  backend.launch(total.cols, kernels::ColumnTotals<typename B::Master>{partial, total});
}

/// total (1, C) += the column sums of x (N, C): the gradient of a bias. `scratch`: column_sum_scratch(N, C) elements.
template <Backend B>
void column_sum(B& backend, View<const typename B::Scalar> x, View<typename B::Master> total,
                View<typename B::Master> scratch) {
  using M = typename B::Master;
  assert(x.cols == total.cols && scratch.size() >= column_sum_scratch(x.rows, x.cols));
  const View<M> partial(scratch.data, chunks(x.rows), x.cols);
  backend.launch(partial.rows * column_blocks(x.cols), kernels::ChunkSum<typename B::Scalar, M>{x, partial});
  column_totals(backend, partial, total);
}

/// The gradient of a bank's biases: row total[e] += the column sums of expert e's rows of x (S, C). `scratch`:
/// grouped_column_sum_scratch(S, E, C) elements.
template <Backend B>
void grouped_column_sum(B& backend, View<const typename B::Scalar> x, const Dispatch& dispatch,
                        Bank<typename B::Master> total, View<typename B::Master> scratch) {
  using M = typename B::Master;
  assert(x.cols == total.cols && dispatch.experts() == total.count && total.rows == 1);
  assert(scratch.size() >= grouped_column_sum_scratch(x.rows, total.count, x.cols));
  const Index parts = expert_parts(x.rows, total.count);
  const View<M> partial(scratch.data, total.count * parts, x.cols);
  backend.launch(partial.rows * column_blocks(x.cols),
                 kernels::GroupedChunkSum<typename B::Scalar, M>{x, dispatch.expert_rows(), partial, parts});
  backend.launch(total.count * total.cols,
                 kernels::GroupedColumnTotals<M>{partial, dispatch.expert_rows(), total, parts});
}

}  // namespace rowwise

}  // namespace tinymoe::inline v0_1
