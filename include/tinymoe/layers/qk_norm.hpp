#pragma once
/// @file
/// The norm of the heads of q and k (attention.hpp): x̂ = x r, r = 1 / sqrt(mean(x²) + ε), y = x̂ g; and its gradient.

#include <cmath>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/rows.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// The heads of row n of q and k: raw = x;  x = x · r · g,  r = 1 / sqrt(mean(x²) + ε) of each head.
template <class T, class M>
struct QkNormForward {
  View<T> x, raw;                      // (N, H·d + G·d)
  View<const T> query_gain, key_gain;  // (1, d)
  View<M> inverse;                     // (N, H + G)
  Index heads;                         // H
  double epsilon;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index width = query_gain.cols;
    for (Index head = 0; head < inverse.cols; ++head) {
      T *to = x.row(n) + head * width, *kept = raw.row(n) + head * width;
      const T* gain = head < heads ? query_gain.data : key_gain.data;
      const T* in = to;
      const auto keep = [](T& raw_v, T v) {
        raw_v = v;
        return M(v) * M(v);
      };
      const M square = group.sum(width, keep, write_only(kept), in);
      const M r = M(1) / std::sqrt(square / M(double(width)) + M(epsilon));
      const auto scale = [=](T& v, T g) { v = T(M(v) * r * M(g)); };
      group.each(width, scale, to, gain);
      group.once([&] { inverse.row(n)[head] = r; });
    }
  }
};

/// One chunk of rows: replaces dy by dx = r (ĝ − x̂ mean(ĝ x̂)), with x̂ = x r and ĝ = dy g. Also the chunk's part of
/// dg = Σ over tokens and heads of dy · x̂.
template <class T, class M>
struct QkNormBackward {
  View<T> dx;  // dy at first
  View<const T> raw, query_gain, key_gain;
  View<const M> inverse;
  Index heads;
  View<M> partial;  // (rowwise::chunks(N), 2d): of the queries' gain, then of the keys'
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index chunk) const {
    const Index width = query_gain.cols, first = chunk * rowwise::chunk_size;
    const Index last = dx.rows - first < rowwise::chunk_size ? dx.rows : first + rowwise::chunk_size;
    M* dgains = partial.row(chunk);
    group.each(2 * width, [=](Index i) { dgains[i] = M(0); });
    for (Index n = first; n < last; ++n) {
      for (Index head = 0; head < inverse.cols; ++head) {
        T* d = dx.row(n) + head * width;
        const T *x = raw.row(n) + head * width, *gain = head < heads ? query_gain.data : key_gain.data;
        M* dgain = head < heads ? dgains : dgains + width;
        const M r = inverse.row(n)[head];
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
