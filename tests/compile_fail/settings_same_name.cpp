// expected sentence: tinymoe: two settings of the architecture have the same name
#include "small.hpp"

#ifdef FIXED
inline constexpr Setting heat{.name = "my_jitter", .initial = 1};
#else
inline constexpr Setting heat{.name = "dropout", .initial = 1};
#endif

struct Mine : GoodRouter {
  static constexpr std::array settings = {&heat};
};
using Tested = WithRouter<Mine>;
constexpr auto all = settings_of<Tested>();
