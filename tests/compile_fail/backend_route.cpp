// expected sentence: tinymoe: a backend's `route` must be void route(x, w, bias, logits, choose, selected, dispatch) for any kernel `choose`, beside a constant max_fused_pairs
#include <tinymoe/backend/reference.hpp>

using namespace tinymoe;

struct Mine : Reference<float> {
#ifdef FIXED
  using X = View<const float>;
  static constexpr Index max_fused_pairs = 16;
  template <class Choose>
  void route(X, X, X, View<float>, const Choose&, View<const std::int32_t>, Dispatch&) {}
#else
  using X = View<const float>;
  static constexpr Index max_fused_pairs = 16;
  template <class Choose>
  void route(X, X, X, View<float>, const Choose&, const Dispatch&) {}
#endif
};
static_assert(Backend<Mine>);
