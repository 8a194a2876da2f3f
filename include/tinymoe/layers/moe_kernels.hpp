#pragma once
/// @file
/// The kernels that take tokens to their experts and back; moe.hpp has the equations.

#include <cstdint>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// x̃[slot] = x[n] for the slots of one token.
template <class T>
struct Gather {
  View<const T> x;  // (N, D)
  View<const std::int32_t> slots;
  View<T> sorted;  // (S, D)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const T* from = x.row(n);
    for (Index k = 0; k < slots.cols; ++k) {
      if (slots.row(n)[k] < 0) continue;
      const auto copy = [](T& to, T v) { to = v; };
      group.each(x.cols, copy, write_only(sorted.row(slots.row(n)[k])), from);
    }
  }
};

/// loads[e] = the pairs that expert e got; one kernel row.
struct Loads {
  static constexpr bool compiled_once = true;
  View<const std::int32_t> offsets;
  View<std::int32_t> loads;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index) const {
    const std::int32_t* start = offsets.data;
    std::int32_t* to = loads.data;
    group.each(loads.cols, [=](Index e) { to[e] = start[e + 1] - start[e]; });
  }
};

/// y[n] = r[n] + Σ_k g[n, k] ỹ[slot of (n, k)], in the order of k.
template <class T, class M>
struct Combine {
  View<const T> sorted;  // (S, D)
  View<const std::int32_t> slots;
  View<const M> gate;      // (N, K)
  View<const T> residual;  // r (N, D), or empty: 0
  View<T> y;               // (N, D)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const M* g = gate.row(n);
    const std::int32_t* slot = slots.row(n);
    const Index choices = slots.cols, stride = sorted.stride;
    const T *from = sorted.data, *r = residual.empty() ? nullptr : residual.row(n);
    T* to = y.row(n);
    if (choices == 2 && slot[0] >= 0 && slot[1] >= 0) {  // by far the most common case: one pass
      const T *first = from + slot[0] * stride, *second = from + slot[1] * stride;
      const M g0 = g[0], g1 = g[1];
      if (r == nullptr) {
        const auto weigh = [=](T& out, T a, T b) { out = T(g0 * M(a) + g1 * M(b)); };
        return group.each(y.cols, weigh, write_only(to), first, second);
      }
      const auto weigh = [=](T& out, T v, T a, T b) { out = T(M(v) + (g0 * M(a) + g1 * M(b))); };
      return group.each(y.cols, weigh, write_only(to), r, first, second);
    }
    group.each(y.cols, [=](Index i) {
      M total(0);
      for (Index k = 0; k < choices; ++k) {
        if (slot[k] >= 0) total += g[k] * M(from[slot[k] * stride + i]);
      }
      to[i] = T(r == nullptr ? total : M(r[i]) + total);
    });
  }
};

/// dỹ[slot] = g · dy[n] and dg = dy[n] · ỹ[slot], for the slots of one token.
template <class T, class M>
struct CombineBackward {
  View<const T> dy, sorted;
  View<const std::int32_t> slots;
  View<const M> gate;
  View<T> dsorted;  // (S, D)
  View<M> dgate;    // (N, K)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const T* from = dy.row(n);
    for (Index k = 0; k < slots.cols; ++k) {
      const Index slot = slots.row(n)[k];
      if (slot < 0) {
        group.once([&] { dgate.row(n)[k] = M(0); });
        continue;
      }
      const M g = gate.row(n)[k];
      const auto back = [=](T& to, T slope, T out) {
        to = T(g * M(slope));
        return M(slope) * M(out);
      };
      const M along = group.sum(dy.cols, back, write_only(dsorted.row(slot)), from, sorted.row(slot));
      group.once([&] { dgate.row(n)[k] = along; });
    }
  }
};

/// dx[n] += Σ_k dx̃[slot of (n, k)], in the order of k.
template <class T>
struct GatherBackward {
  View<const T> dsorted;
  View<const std::int32_t> slots;
  View<T> dx;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    using C = Compute<T>;
    const std::int32_t* slot = slots.row(n);
    const Index choices = slots.cols, stride = dsorted.stride;
    const T* from = dsorted.data;
    T* to = dx.row(n);
    if (choices == 2 && slot[0] >= 0 && slot[1] >= 0) {
      const T *first = from + slot[0] * stride, *second = from + slot[1] * stride;
      const auto add = [](T& total, T a, T b) { total = T(C(total) + C(a) + C(b)); };
      return group.each(dx.cols, add, to, first, second);
    }
    group.each(dx.cols, [=](Index i) {
      C total = C(to[i]);
      for (Index k = 0; k < choices; ++k) {
        if (slot[k] >= 0) total += C(from[slot[k] * stride + i]);
      }
      to[i] = T(total);
    });
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
