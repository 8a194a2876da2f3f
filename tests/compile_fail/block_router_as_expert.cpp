// expected kind: ExpertKind
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
#else
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodRouter>;
#endif

template void use<Tested>();
