// expected kind: NormKind
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
#else
using Tested = WithBlock<GoodAttention, GoodAttention, GoodRouter, GoodExpert>;
#endif

static_assert(instantiated<Tested>);
