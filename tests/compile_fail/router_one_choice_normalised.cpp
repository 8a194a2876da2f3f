// expected sentence: tinymoe::Router: top-1 with the softmax after the selection has the constant gate 1, so that the router gets no gradient; take ScoreGates, or K of 2 or more
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 1, ScoreGates>>;
#else
using Tested = WithRouter<Router<8, 1, NormalisedGates>>;
#endif

static_assert(instantiated<Tested>);
