#pragma once
// A router by itself, as a layer that the gradient checks can drive.

#include <algorithm>

#include "support/gradients.hpp"
#include "tinymoe/layers/router.hpp"

namespace tinymoe_test {

/// The width that routers are tried with.
inline constexpr Index router_width = 4;

/// A router as a layer whose y is the gates (N, K), with its losses; the sort by expert that they need included.
template <class R>
struct Alone {
  using Layer = typename R::template Layer<router_width>;
  template <class T>
  using Parameters = typename Layer::template Parameters<T>;

  template <class T, class M>
  struct Saved {
    typename Layer::template Saved<T, M> router;
    Dispatch dispatch;
    void plan(Plan& plan, const Pass& pass) {
      router.plan(plan, pass);
      dispatch = {plan.keep<std::int32_t>(1, R::experts + 1), plan.keep<std::int32_t>(pass.rows(), R::choices),
                  plan.keep<std::int32_t>(1, pass.rows() * R::choices)};
    }
    const Routing<M>& routing() const { return router.routing; }
  };

  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void forward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> x, Output<B> y,
                      Saved<T, M>& saved) {
    saved.router.routing.resize(x.rows);
    Layer::forward(backend, pass, p, x, saved.router);
    backend.sort_by_expert(saved.router.routing.selected, saved.dispatch);
    Layer::losses(backend, pass, saved.dispatch, saved.router);
    std::copy_n(saved.router.routing.gate.data, y.size(), y.data);
  }
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> dy, Output<B> dx,
                       Saved<T, M>& saved, Parameters<M>& gradients) {
    Layer::backward(backend, pass, p, dy, dx, saved.router, gradients);
  }
};

}  // namespace tinymoe_test
