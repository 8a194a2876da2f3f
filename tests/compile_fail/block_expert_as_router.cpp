// expected kind: RouterKind
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
#else
using Tested = WithBlock<RmsNorm, GoodAttention, GoodExpert, GoodExpert>;
#endif

static_assert(instantiated<Tested>);
