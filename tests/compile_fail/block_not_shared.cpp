// expected sentence: tinymoe::MoEBlock: after the expert there may be Shared<Expert<...>> and nothing else
#include "small.hpp"

#ifdef FIXED
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert, Shared<GoodExpert>>;
#else
using Tested = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert, Bias>;
#endif

static_assert(instantiated<Tested>);
