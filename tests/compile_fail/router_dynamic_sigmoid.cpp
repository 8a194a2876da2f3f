// expected sentence: tinymoe::Router: DynamicTopK adds up probabilities, which SigmoidScores are not; take SoftmaxScores
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, DynamicTopK, SoftmaxScores>>;
#else
using Tested = WithRouter<Router<8, 2, DynamicTopK, SigmoidScores>>;
#endif

static_assert(instantiated<Tested>);
