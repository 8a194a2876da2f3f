#pragma once
// A row kernel and an activation of a user's own: foreign.cu compiles them for the device, foreign.cpp runs them.

#include "tinymoe/layers/expert.hpp"

namespace foreign {

/// y = x² − the row's mean of x, and the mean.
template <class T>
struct SquareLessMean {
  tinymoe::View<const T> x;
  tinymoe::View<T> y;
  tinymoe::View<float> mean;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, tinymoe::Index n) const {
    const T* from = x.row(n);
    T* to = y.row(n);
    const float centre = group.sum(x.cols, [=](tinymoe::Index i) { return float(from[i]); }) / float(x.cols);
    group.each(x.cols, [=](tinymoe::Index i) { to[i] = T(float(from[i]) * float(from[i]) - centre); });
    group.once([&] { mean.data[n] = centre; });
  }
};

struct SquaredRelu {
  using Place = tinymoe::place::Activation;
  static constexpr const char* name = "squared_relu";
  static constexpr bool gated = false;
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M value(M x) {
    return tinymoe::real_part(x) > 0 ? x * x : M(0);
  }
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M slope(M x) {
    return tinymoe::real_part(x) > 0 ? M(2) * x : M(0);
  }
};

}  // namespace foreign
