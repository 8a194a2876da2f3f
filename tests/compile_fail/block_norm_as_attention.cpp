// expected kind: AttentionKind
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
#else
using Tested = WithBlock<RmsNorm, RmsNorm, GoodRouter, GoodExpert>;
#endif

static_assert(instantiated<Tested>);
