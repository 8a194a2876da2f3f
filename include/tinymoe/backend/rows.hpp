#pragma once
/// @file
/// Row kernels that belong to no one layer: sums, copies and conversions.

#include "tinymoe/backend/backend.hpp"

namespace tinymoe {

/// Columns that one kernel row of a column-wise kernel works on.
inline constexpr Index column_block = 64;

constexpr Index column_blocks(Index cols) { return (cols + column_block - 1) / column_block; }

namespace kernels {

/// y += x, row by row.
template <class T>
struct Add {
  View<const T> x;
  View<T> y;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* from = x.row(row);
    T* to = y.row(row);
    group.each(y.cols, [=](Index i) { to[i] = T(to[i] + from[i]); });
  }
};

/// to = from, row by row.
template <class T>
struct CopyRow {
  View<const T> from;
  View<T> to;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* in = from.row(row);
    T* out = to.row(row);
    group.each(to.cols, [=](Index i) { out[i] = in[i]; });
  }
};

/// out = x + y, row by row.
template <class T>
struct Sum {
  View<const T> x, y;
  View<T> out;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index row) const {
    const T* a = x.row(row);
    const T* b = y.row(row);
    T* to = out.row(row);
    group.each(out.cols, [=](Index i) { to[i] = T(a[i] + b[i]); });
  }
};

/// out = x · the factors of a dropout, row by row; out may be x.
template <class T>
struct Drop {
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
struct AddDropped {
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

/// total[c] += Σ_n x[n, c]: one kernel row for each block of columns, rows in order, so that the sum's order is fixed.
template <class T, class M>
struct ColumnSum {
  View<const T> x;
  View<M> total;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index block) const {
    const Index first = block * column_block;
    const Index count = x.cols - first < column_block ? x.cols - first : column_block;
    M* to = total.data + first;
    for (Index n = 0; n < x.rows; ++n) {
      const T* from = x.row(n) + first;
      group.each(count, [=](Index i) { to[i] += M(from[i]); });
    }
  }
};

/// ColumnSum for a bank: expert e's total gets the rows that were sent to it.
template <class T, class M>
struct GroupedColumnSum {
  View<const T> x;
  View<const std::int32_t> offsets;
  Bank<M> total;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index blocks = column_blocks(x.cols), expert = part / blocks;
    const Index first = offsets.data[expert], count = offsets.data[expert + 1] - first;
    if (count == 0) return;
    ColumnSum<T, M>{x.middle_rows(first, count), total[expert]}(group, part % blocks);
  }
};

}  // namespace kernels

/// y += x.
template <Backend B>
void add(B& backend, View<const typename B::Scalar> x, View<typename B::Scalar> y) {
  assert(x.rows == y.rows && x.cols == y.cols);
  backend.launch(y.rows, kernels::Add<typename B::Scalar>{x, y});
}

/// out = x · the factors of `dropout`; out may be x.
template <Backend B>
void drop(B& backend, const Dropout& dropout, View<const typename B::Scalar> x, View<typename B::Scalar> out) {
  assert(x.rows == out.rows && x.cols == out.cols);
  backend.launch(out.rows, kernels::Drop<typename B::Scalar>{x, out, dropout});
}

/// y = x + y · the factors of `dropout`, if it is active.
template <Backend B>
void add_dropped(B& backend, const Dropout& dropout, View<const typename B::Scalar> x, View<typename B::Scalar> y) {
  if (!dropout.active()) return add(backend, x, y);
  assert(x.rows == y.rows && x.cols == y.cols);
  backend.launch(y.rows, kernels::AddDropped<typename B::Scalar>{x, y, dropout});
}

/// out = x + y.
template <Backend B>
void sum(B& backend, View<const typename B::Scalar> x, View<const typename B::Scalar> y, View<typename B::Scalar> out) {
  assert(x.rows == out.rows && x.cols == out.cols && y.rows == out.rows && y.cols == out.cols);
  backend.launch(out.rows, kernels::Sum<typename B::Scalar>{x, y, out});
}

/// total (1, C) += the column sums of x (N, C): the gradient of a bias.
template <Backend B>
void column_sum(B& backend, View<const typename B::Scalar> x, View<typename B::Master> total) {
  assert(x.cols == total.cols);
  backend.launch(column_blocks(x.cols), kernels::ColumnSum<typename B::Scalar, typename B::Master>{x, total});
}

/// The gradient of a bank's biases: row total[e] += the column sums of expert e's rows of x.
template <Backend B>
void grouped_column_sum(B& backend, View<const typename B::Scalar> x, View<const std::int32_t> offsets,
                        Bank<typename B::Master> total) {
  assert(x.cols == total.cols && offsets.cols == total.count + 1);
  backend.launch(total.count * column_blocks(x.cols),
                 kernels::GroupedColumnSum<typename B::Scalar, typename B::Master>{x, offsets, total});
}

}  // namespace tinymoe
