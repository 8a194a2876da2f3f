// expected sentence: tinymoe::Router: unknown option; it takes SoftmaxScores, SigmoidScores, NormalisedGates, ScoreGates, GateScale, TopK, DynamicTopK, ExpertChoice, NoisyTopK, Jitter, Capacity, Dropless, SwitchBalance, GShardBalance, CvBalance, NoBalance, BalanceBias, Bias and NoBias
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, Bias>>;
#else
using Tested = WithRouter<Router<8, 2, Heads<2>>>;
#endif

static_assert(instantiated<Tested>);
