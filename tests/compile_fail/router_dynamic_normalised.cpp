// expected sentence: tinymoe::Router: with NormalisedGates a token whose first expert reaches DynamicTopK's probability has the constant gate 1, so that the router gets no gradient; take ScoreGates
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, DynamicTopK, SoftmaxScores>>;
#else
using Tested = WithRouter<Router<8, 2, DynamicTopK, NormalisedGates>>;
#endif

static_assert(instantiated<Tested>);
