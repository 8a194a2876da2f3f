#pragma once
/// @file
/// A Group is a collective of lanes that works on one row: one thread and its vector unit on a CPU, a warp or a block
/// on a GPU. Row mathematics is written once, as a functor `operator()(Group, row)`, and runs on both.

#include <concepts>
#include <type_traits>

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe {

/// The group of a CPU: one lane, whose loops are vectorised. Calls of `f` for different indices must not depend on each
/// other.
struct SerialGroup {
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 1; }

  /// f(0) … f(n − 1).
  template <class F>
  TINYMOE_INLINE void each(Index n, F&& f) const {
#pragma omp simd
    for (Index i = 0; i < n; ++i) f(i);
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

  /// The greatest of f(0) … f(n − 1), by real part; n > 0.
  template <class F>
  TINYMOE_INLINE auto max(Index n, F&& f) const {
    using T = std::remove_cvref_t<decltype(real_part(f(Index{})))>;
    T greatest = real_part(f(0));
#pragma omp simd reduction(max : greatest)
    for (Index i = 1; i < n; ++i) {
      const T value = real_part(f(i));
      greatest = value > greatest ? value : greatest;
    }
    return greatest;
  }

  /// Runs f on one lane only; what it writes is visible to all lanes after.
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
template <class Kernel>
concept RowKernel = std::copyable<Kernel> && requires(const Kernel kernel, SerialGroup group, Index row) {
  { kernel(group, row) } -> std::same_as<void>;
};

}  // namespace tinymoe
