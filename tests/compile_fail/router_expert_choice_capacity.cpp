// expected sentence: tinymoe::Router: with ExpertChoice loads are even as they are; leave out NormalisedGates, NoisyTopK, Capacity and BalanceBias
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, ExpertChoice, Jitter>>;
#else
using Tested = WithRouter<Router<8, 2, ExpertChoice, Capacity<5, 4>>>;
#endif

static_assert(instantiated<Tested>);
