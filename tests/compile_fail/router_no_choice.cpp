// expected sentence: tinymoe::Router: a token takes at least one expert and no more than there are
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2>>;
#else
using Tested = WithRouter<Router<8, 0>>;
#endif

static_assert(instantiated<Tested>);
