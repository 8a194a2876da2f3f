#pragma once
/// @file
/// A Group is a collective of lanes that works on one row: one thread and its vector unit on a CPU, a warp or a block
/// on a GPU. Row mathematics is written once, as a functor `operator()(Group, row)`, and runs on both.
///
/// Every lane runs the whole functor. A kernel is right with any number of lanes if it keeps five rules:
///
/// | rule                            | right                                    | wrong                          |
/// |---------------------------------|------------------------------------------|--------------------------------|
/// | 1. write in a call only         | `once([&] { *y = s; })`                  | `*y = s`                       |
/// | 2. all lanes make the same calls| `if (cols == 0) return; each(n, f)`      | `if (rank() == 0) each(n, f)`  |
/// | 3. a barrier, then others read  | `each(n, fill_x); once(read_x)`          | `sum(n, fill_x); once(read_x)` |
/// | 4. a barrier, then others write | `v = x[0]; each(n, f); each(n, clear_x)` | `v = x[0]; each(n, clear_x)`   |
/// | 5. indices are independent      | `each(n, y[i] = x[i])`                   | `each(n, y[i] = y[i - 1])`     |
///
/// 1. Memory is written in `each`, `sum`, `max` and `once` alone. Outside of them every lane would write.
/// 2. The same calls, in the same order, with the same n. So a condition around a call depends on the row, on sizes, on
///    a result of `sum` or `max`, or on memory that rule 4 allows.
/// 3. `each` and `once` end in a barrier: all lanes see what was written before. `sum` and `max` do not: until the next
///    barrier only the lane that wrote sees it. Index i is the same lane's in each call (i mod size()), so a softmax
///    may write e^x in `sum` and divide it in the `each` that follows.
/// 4. What lanes read between calls is not written before an `each` or `once` has ended. A fast lane would overwrite
///    what a slow one has yet to read.
/// 5. Calls of f for different i do not depend on one another.
///
/// `each` and `sum` also go through arrays: `group.each(n, f, write_only(y), x)` calls f(y[i], x[i]). An array of
/// constants is read, `write_only(array)` is written, any other one is read and written. A GPU then moves 16 bytes at a
/// time, so this is the form for all loops over a row's memory. It has rules of its own:
///
/// - Which lane has an index depends on the arrays. Such a `sum` ends in a barrier, too.
/// - f may get copies, so it writes each element of a `write_only` array: what it leaves out is garbage.
/// - Arrays do not overlap, unless they are the same from the start. Then at most one of them is written, and f reads
///   the other before it writes.

#include <concepts>
#include <type_traits>
#include <utility>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Two sums that are formed at once.
template <class T>
struct Two {
  T first{}, second{};
  TINYMOE_EVERYWHERE TINYMOE_INLINE Two& operator+=(const Two& other) {
    first += other.first, second += other.second;
    return *this;
  }
  TINYMOE_EVERYWHERE TINYMOE_INLINE Two operator+(const Two& other) const {
    return {first + other.first, second + other.second};
  }
};

}  // namespace detail

/// An array that `each` or `sum` only writes to.
template <class T>
struct WriteOnly {
  T* data;
};
/// The array as one that is only written to.
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE WriteOnly<T> write_only(T* data) {
  return {data};
}

namespace detail {
/// What f gets for one index of an array.
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T& element(T* array, Index i) {
  return array[i];
}
template <class T>
TINYMOE_EVERYWHERE TINYMOE_INLINE T& element(WriteOnly<T> array, Index i) {
  return array.data[i];
}
template <class Array>
using Element = decltype(element(std::declval<Array>(), Index{}));
}  // namespace detail

/// The group of a CPU: one lane, whose loops are vectorised. Calls of `f` for different indices must not depend on each
/// other.
struct SerialGroup {
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 1; }

  /// f(0) … f(n − 1); afterwards all lanes see what it wrote.
  template <class F>
  TINYMOE_INLINE void each(Index n, F&& f) const {
#pragma omp simd
    for (Index i = 0; i < n; ++i) f(i);
  }
  /// f(the arrays' elements 0) … f(the arrays' elements n − 1).
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) TINYMOE_INLINE void each(Index n, F&& f, Arrays... arrays) const {
    each(n, [=](Index i) { f(detail::element(arrays, i)...); });
  }

  /// f(0) + … + f(n − 1); every lane gets the sum.
  template <class F>
  TINYMOE_INLINE auto sum(Index n, F&& f) const {
    using T = std::remove_cvref_t<std::invoke_result_t<F&, Index>>;
    T total{};
    if constexpr (std::is_arithmetic_v<T>) {
#pragma omp simd reduction(+ : total)
      for (Index i = 0; i < n; ++i) total += f(i);
    } else {
      for (Index i = 0; i < n; ++i) total += f(i);
    }
    return total;
  }

  /// The sum of f(the arrays' elements 0) … f(the arrays' elements n − 1).
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) TINYMOE_INLINE auto sum(Index n, F&& f, Arrays... arrays) const {
    return sum(n, [=](Index i) { return f(detail::element(arrays, i)...); });
  }

  /// The maximum of f(0) … f(n − 1), by real part; n > 0.
  template <class F>
  TINYMOE_INLINE auto max(Index n, F&& f) const {
    using T = std::remove_cvref_t<decltype(real_part(f(Index{})))>;
    T maximum = real_part(f(0));
#pragma omp simd reduction(max : maximum)
    for (Index i = 1; i < n; ++i) {
      const T value = real_part(f(i));
      maximum = value > maximum ? value : maximum;
    }
    return maximum;
  }

  /// Runs f on one lane only; afterwards all lanes see what it wrote.
  template <class F>
  TINYMOE_INLINE void once(F&& f) const {
    f();
  }
};

namespace detail {
struct AnyRowKernel {
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group, Index) const {}
};
}  // namespace detail

/// A functor over (group, row): what `Backend::launch` runs.
///
/// It may also be a LongRowKernel, a SizedRowKernel or a CompiledOnceKernel.
template <class Kernel>
concept RowKernel = std::copyable<Kernel> && requires(const Kernel kernel, SerialGroup group, Index row) {
  { kernel(group, row) } -> std::same_as<void>;
};

/// Optional: a kernel says by `static constexpr bool long_rows = true` that its rows are thousands of elements. A GPU
/// then gives each row a whole block of threads instead of a warp.
template <class Kernel>
concept LongRowKernel = Kernel::long_rows;

/// Optional: a kernel says by a member function `row_elements()` how many elements a row's loops go through. A GPU
/// chooses by it how many lanes a row gets, a CPU whether a few rows are worth more threads.
template <class Kernel>
concept SizedRowKernel = requires(const Kernel kernel) {
  { kernel.row_elements() } -> std::same_as<Index>;
};

/// Optional: a kernel says by `static constexpr bool compiled_once = true` that wider vectors would not help it: its
/// rows are a handful of elements, or logarithms and sines, or it runs once. A CPU then compiles it once, and not for
/// each instruction set, which would cost every program compile time.
template <class Kernel>
concept CompiledOnceKernel = Kernel::compiled_once;

}  // namespace tinymoe::inline v0_1
