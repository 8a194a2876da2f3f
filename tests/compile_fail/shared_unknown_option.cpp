// expected sentence: tinymoe::Shared: unknown option; after the expert it takes Gated
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert, Shared<GoodExpert, Gated>>;
#else
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert, Shared<GoodExpert, Bias>>;
#endif

static_assert(instantiated<Tested>);
