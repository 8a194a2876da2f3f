// expected kind: ExpertKind
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
#else
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodRouter>;
#endif

static_assert(instantiated<Tested>);
