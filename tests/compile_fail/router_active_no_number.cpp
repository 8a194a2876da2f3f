// expected sentence: tinymoe: a router's `active` must be a number of experts
#include <tinymoe/layers/moe.hpp>
#include <tinymoe/layers/router.hpp>

using namespace tinymoe;

struct Mine : Router<4, 2> {
#ifdef FIXED
  static constexpr Index active = 1;
#else
  static constexpr const char* active = "one";
#endif
};
static_assert(tinymoe::detail::active_experts<Mine>() == 1);
