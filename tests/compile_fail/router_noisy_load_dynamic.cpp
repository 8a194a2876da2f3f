// expected sentence: tinymoe::Router: with NoisyTopK, CvBalance asks which logits another draw must beat to be among the top K; leave out DynamicTopK and BalanceBias, or take another balance loss
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, NoisyTopK, CvBalance>>;
#else
using Tested = WithRouter<Router<8, 2, NoisyTopK, CvBalance, DynamicTopK>>;
#endif

static_assert(instantiated<Tested>);
