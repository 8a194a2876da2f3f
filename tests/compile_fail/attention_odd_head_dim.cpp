// expected sentence: tinymoe::Attention: Rope rotates pairs, so HeadDim, or PartialRope's part of it, must be even
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, NoPosition, HeadDim<7>>>;
#else
using Tested = WithAttention<Attention<Heads<4>, Rope, HeadDim<7>>>;
#endif

static_assert(instantiated<Tested>);
