#pragma once
// A router as a user might write it, with a setting of its own.

#include <array>
#include <cstddef>
#include <cstdint>

#include "tinymoe/layers/moe.hpp"

namespace tinymoe_test {

using namespace tinymoe;

inline constexpr Setting first_share{.name = "first_share",
                                     .initial = 0.5,
                                     .range = SettingRange::fraction,
                                     .about = "of a token's first expert",
                                     .use = SettingUse::always};

/// Token n goes to experts n mod 3 and n + 1 mod 3, with weights s and 1 − s, where s is the setting `first_share`.
/// Nothing is learned, and there are no losses.
struct SharingRouter {
  static constexpr const char* name = "sharing";
  static constexpr Index experts = 3, choices = 2;
  static constexpr std::array settings = {&first_share};

  template <class M>
  struct Choose {
    Routing<M> routing;
    double share;
    template <class Group>
    void operator()(Group group, Index n) const {
      group.once([&] {
        routing.selected(n, 0) = static_cast<std::int32_t>(n % 3);
        routing.selected(n, 1) = static_cast<std::int32_t>((n + 1) % 3);
        routing.gate(n, 0) = M(share);
        routing.gate(n, 1) = M(1 - share);
        for (Index e = 0; e < 3; ++e) routing.probability(n, e) = M(1.0 / 3);
      });
    }
  };

  template <Index D>
  struct Layer {
    template <class T>
    struct Parameters {
      template <class F, class... P>
      static constexpr void for_each(const Path&, F&&, P&...) {}
    };
    template <class T, class M>
    struct Saved {
      Routing<M> routing;
      void plan(Plan& plan, const Pass& pass) { routing.plan(plan, pass, experts, choices); }
    };
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void forward(B& backend, const Pass& pass, const Parameters<T>&, Input<B> x, Saved<T, M>& saved) {
      backend.launch(x.rows, Choose<M>{saved.routing, pass.settings[first_share]});
    }
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void losses(B& backend, const Pass&, const Dispatch&, Saved<T, M>& saved) {
      backend.zero(saved.routing.losses.data, 2 * sizeof(M));
    }
    template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass&, const Parameters<T>&, MasterInput<B>, Output<B> dx, Saved<T, M>&,
                         Parameters<M>&) {
      backend.zero(dx.data, static_cast<std::size_t>(dx.size()) * sizeof(T));
    }
  };
};
static_assert(RouterKind<SharingRouter>);

}  // namespace tinymoe_test
