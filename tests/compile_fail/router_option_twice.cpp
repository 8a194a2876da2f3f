// expected sentence: tinymoe::Router: an option is given twice
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, SoftmaxScores>>;
#else
using Tested = WithRouter<Router<8, 2, SoftmaxScores, SigmoidScores>>;
#endif

static_assert(instantiated<Tested>);
