#pragma once
/// @file
/// The norm of q and k (attention.hpp): x̂ = x r, r = 1 / sqrt(mean(x²) + ε), y = x̂ g; and its gradient. The mean is one
/// group's of numbers: a head's, or all of q's and all of k's. So H and G below are groups, h and g numbers wide.

#include <cmath>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// The groups of row n of q and k: raw = x;  x = x · r · g,  r = 1 / sqrt(mean(x²) + ε) of each group.
template <class T, class M>
struct QkNormForward {
  View<T> x, raw;                      // (N, H·h + G·g)
  View<const T> query_gain, key_gain;  // (1, h), (1, g)
  View<M> inverse;                     // (N, H + G)
  Index queries;                       // H
  double epsilon;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    for (Index number = 0, first = 0; number < inverse.cols; ++number) {
      const Index width = number < queries ? query_gain.cols : key_gain.cols;
      T *to = x.row(n) + first, *kept = raw.row(n) + first;
      const T* gain = number < queries ? query_gain.data : key_gain.data;
      first += width;
      const T* in = to;
      const auto keep = [](T& raw_v, T v) {
        raw_v = v;
        return M(v) * M(v);
      };
      const M square = group.sum(width, keep, write_only(kept), in);
      const M r = M(1) / std::sqrt(square / M(double(width)) + M(epsilon));
      const auto scale = [=](T& v, T g) { v = T(M(v) * r * M(g)); };
      group.each(width, scale, to, gain);
      group.once([&] { inverse.row(n)[number] = r; });
    }
  }
};

/// One chunk of rows: replaces dy by dx = r (ĝ − x̂ mean(ĝ x̂)), with x̂ = x r and ĝ = dy g. Also the chunk's part of
/// dg = Σ over tokens and groups of dy · x̂.
template <class T, class M>
struct QkNormBackward {
  View<T> dx;  // dy at first
  View<const T> raw, query_gain, key_gain;
  View<const M> inverse;
  Index queries;    // H
  View<M> partial;  // (rowwise::chunks(N), h + g): of the queries' gain, then of the keys'
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index chunk) const {
    const Index first = chunk * rowwise::chunk_size;
    const Index last = dx.rows - first < rowwise::chunk_size ? dx.rows : first + rowwise::chunk_size;
    M* dgains = partial.row(chunk);
    group.each(partial.cols, [=](Index i) { dgains[i] = M(0); });
    for (Index n = first; n < last; ++n) {
      for (Index number = 0, col = 0; number < inverse.cols; ++number) {
        const bool of_query = number < queries;
        const Index width = of_query ? query_gain.cols : key_gain.cols;
        T* d = dx.row(n) + col;
        const T *x = raw.row(n) + col, *gain = of_query ? query_gain.data : key_gain.data;
        M* dgain = of_query ? dgains : dgains + query_gain.cols;
        const M r = inverse.row(n)[number];
        col += width;
        const T* slopes = d;
        const auto dot = [=](T dv, T g, T v) { return M(dv) * M(g) * M(v) * r; };
        const M along = group.sum(width, dot, slopes, gain, x) / M(double(width));
        const auto back = [=](T& dv, M& total, T g, T v) {
          const M slope = M(dv);
          total += slope * M(v) * r;
          dv = T(r * (slope * M(g) - M(v) * r * along));
        };
        group.each(width, back, d, dgain, gain, x);
      }
    }
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
