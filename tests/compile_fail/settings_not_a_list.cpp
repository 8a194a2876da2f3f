// expected sentence: tinymoe: a part's `settings` must be an array of pointers to Setting
#include "small.hpp"

inline constexpr Setting heat{.name = "heat", .initial = 1};

struct Mine : GoodRouter {
#ifdef FIXED
  static constexpr std::array settings = {&heat};
#else
  static constexpr Setting settings = heat;
#endif
};
using Tested = WithRouter<Mine>;
static_assert(settings_of<Tested>().size() > 0);
