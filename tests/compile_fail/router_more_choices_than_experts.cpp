// expected sentence: tinymoe::Router: a token takes at least one expert and no more than there are
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 8>>;
#else
using Tested = WithRouter<Router<8, 9>>;
#endif

static_assert(instantiated<Tested>);
