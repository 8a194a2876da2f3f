#pragma once
/// @file
/// Views of matrices. Operations take a View or a Bank, whose sizes are run-time values. A model's parameters are
/// Tensors (core/weights.hpp), whose shape is part of their type.

#include <cassert>
#include <type_traits>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// A non-owning row-major matrix of run-time size; rows lie `stride` elements apart. A vector is a view of one row.
template <class T>
struct View {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;

  constexpr View() = default;
  TINYMOE_EVERYWHERE constexpr View(T* first, Index row_count, Index col_count)
      : data(first), rows(row_count), cols(col_count), stride(col_count) {}
  TINYMOE_EVERYWHERE constexpr View(T* first, Index row_count, Index col_count, Index row_stride)
      : data(first), rows(row_count), cols(col_count), stride(row_stride) {}

  /// A View<T> converts to a View<const T>.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_const_v<U>) TINYMOE_EVERYWHERE constexpr View(View<U> other)
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  TINYMOE_EVERYWHERE constexpr T* row(Index r) const {
    assert(r >= 0 && r < rows);
    return data + r * stride;
  }
  TINYMOE_EVERYWHERE constexpr T& operator()(Index r, Index c) const { return row(r)[c]; }
  TINYMOE_EVERYWHERE constexpr Index size() const { return rows * cols; }
  TINYMOE_EVERYWHERE constexpr bool empty() const { return data == nullptr; }
  TINYMOE_EVERYWHERE constexpr bool contiguous() const { return stride == cols || rows <= 1; }

  /// Rows first … first + count − 1.
  TINYMOE_EVERYWHERE constexpr View middle_rows(Index first, Index count) const {
    assert(first >= 0 && first + count <= rows);
    return {data + first * stride, count, cols, stride};
  }
  /// Columns first … first + count − 1, at the same stride.
  TINYMOE_EVERYWHERE constexpr View middle_cols(Index first, Index count) const {
    assert(first >= 0 && first + count <= cols);
    return {data + first, rows, count, stride};
  }
};

/// One tensor for each of `count` experts, all of the same shape, `stride` elements apart in the model's buffer.
template <class T>
struct Bank {
  T* data = nullptr;
  Index count = 0;   // E
  Index rows = 0;    // outputs
  Index cols = 0;    // inputs
  Index stride = 0;  // from one expert's tensor to the next one's

  constexpr Bank() = default;
  TINYMOE_EVERYWHERE constexpr Bank(T* first, Index experts, Index row_count, Index col_count, Index expert_stride)
      : data(first), count(experts), rows(row_count), cols(col_count), stride(expert_stride) {}
  /// A Bank<T> converts to a Bank<const T>.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_const_v<U>) TINYMOE_EVERYWHERE constexpr Bank(Bank<U> other)
      : data(other.data), count(other.count), rows(other.rows), cols(other.cols), stride(other.stride) {}

  TINYMOE_EVERYWHERE constexpr View<T> operator[](Index expert) const { return {data + expert * stride, rows, cols}; }
  TINYMOE_EVERYWHERE constexpr bool empty() const { return data == nullptr; }
};

}  // namespace tinymoe::inline v0_1
