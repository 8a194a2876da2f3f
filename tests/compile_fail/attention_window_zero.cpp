// expected sentence: tinymoe::Attention: SlidingWindow must be 1 or more tokens
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, SlidingWindow<1>>>;
#else
using Tested = WithAttention<Attention<Heads<4>, SlidingWindow<0>>>;
#endif

static_assert(instantiated<Tested>);
