// expected sentence: tinymoe::Router: there must be at least one expert
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<2, 2>>;
#else
using Tested = WithRouter<Router<0, 2>>;
#endif

static_assert(instantiated<Tested>);
