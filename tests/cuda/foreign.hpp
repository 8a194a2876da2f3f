#pragma once
// A row kernel of a user's own: foreign.cu compiles it for the device, foreign.cpp runs it.

#include "tinymoe/backend/backend.hpp"

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

}  // namespace foreign
