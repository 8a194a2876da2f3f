// expected sentence: tinymoe::Attention: unknown option; it takes Heads, KvHeads, HeadDim, Rope, PartialRope, Learned, NoPosition, SlidingWindow, Bias, QkvBias, OutputBias, QkNorm and QkNormAcrossHeads
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>>>;
#else
using Tested = WithAttention<Attention<Heads<4>, int>>;
#endif

static_assert(instantiated<Tested>);
