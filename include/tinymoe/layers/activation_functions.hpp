#pragma once
/// @file
/// The activations of experts, each with its derivative, and the kernels that apply them to rows. An ungated one has
/// value(x) and slope(x), a gated one value(gate, up) and slopes(gate, up, dgate, dup).

#include "tinymoe/backend/dropout.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// silu(gate) · up; silu(x) = x σ(x).
struct SwiGlu {
  using Place = place::Activation;
  static constexpr const char* name = "swiglu";
  static constexpr bool gated = true;
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M value(M gate, M up) {
    return gate * sigmoid(gate) * up;
  }
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static void slopes(M gate, M up, M& dgate, M& dup) {
    const M s = sigmoid(gate);
    dgate = up * s * (M(1) + gate * (M(1) - s));
    dup = gate * s;
  }
};

/// x Φ(x), with the exact error function (Hendrycks and Gimpel 2016).
struct Gelu {
  using Place = place::Activation;
  static constexpr const char* name = "gelu";
  static constexpr bool gated = false;
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M value(M x) {
    return x * M(0.5) * (M(1) + error_function(x * M(0.70710678118654752)));
  }
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M slope(M x) {
    return M(0.5) * (M(1) + error_function(x * M(0.70710678118654752))) +
           x * exponential(-x * x * M(0.5)) * M(0.39894228040143268);
  }
};

/// The form of GELU with a hyperbolic tangent, GPT-2's:  x σ(2 √(2/π) (x + 0.044715 x³)).
struct GeluTanh {
  using Place = place::Activation;
  static constexpr const char* name = "gelu_tanh";
  static constexpr bool gated = false;
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M value(M x) {
    return x * sigmoid(argument(x));
  }
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M slope(M x) {
    const M s = sigmoid(argument(x));
    return s + x * s * (M(1) - s) * (M(1.5957691216057308) + M(0.21406444881780073) * x * x);
  }

 private:
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M argument(M x) {
    return x * (M(1.5957691216057308) + M(0.07135481627260025) * x * x);
  }
};

/// max(x, 0).
struct Relu {
  using Place = place::Activation;
  static constexpr const char* name = "relu";
  static constexpr bool gated = false;
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M value(M x) {
    return real_part(x) > 0 ? x : M(0);
  }
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE static M slope(M x) {
    return real_part(x) > 0 ? M(1) : M(0);
  }
};

namespace kernels {

/// a = act(h), or act(h[:F]) · h[F:] where the activation is gated; then dropout.
template <class Activation, class T>
struct ActivationForward {
  View<const T> hidden;
  View<T> activated;
  Dropout dropout;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    using C = Compute<T>;
    const Index width = activated.cols;
    const T* h = hidden.row(n);
    T* a = activated.row(n);
    if constexpr (Activation::gated) {
      const auto activate = [](T& to, T gate, T up) { to = T(Activation::value(C(gate), C(up))); };
      group.each(width, activate, write_only(a), h, h + width);
    } else {
      const auto activate = [](T& to, T v) { to = T(Activation::value(C(v))); };
      group.each(width, activate, write_only(a), h);
    }
    if (dropout.active()) {
      dropout.template each<C>(group, n, width, 0, width, [=](Index i, C factor) { a[i] = T(C(a[i]) * factor); });
    }
  }
};

/// dh from da and h; da is multiplied by dropout's factors first.
template <class Activation, class T>
struct ActivationBackward {
  View<const T> hidden;
  View<T> dactivated, dhidden;
  Dropout dropout;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    using C = Compute<T>;
    const Index width = dactivated.cols;
    const T* h = hidden.row(n);
    T *da = dactivated.row(n), *dh = dhidden.row(n);
    const T* slopes = da;
    if (dropout.active()) {
      dropout.template each<C>(group, n, width, 0, width, [=](Index i, C factor) { da[i] = T(C(da[i]) * factor); });
    }
    if constexpr (Activation::gated) {
      const auto back = [](T& dgate, T& dup, T slope, T gate, T up) {
        C gate_slope, up_slope;
        Activation::slopes(C(gate), C(up), gate_slope, up_slope);
        dgate = T(C(slope) * gate_slope);
        dup = T(C(slope) * up_slope);
      };
      group.each(width, back, write_only(dh), write_only(dh + width), slopes, h, h + width);
    } else {
      const auto back = [](T& to, T slope, T v) { to = T(C(slope) * Activation::slope(C(v))); };
      group.each(width, back, write_only(dh), slopes, h);
    }
  }
};

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
