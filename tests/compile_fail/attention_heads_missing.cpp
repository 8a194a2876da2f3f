// expected sentence: tinymoe::Attention: Heads is missing; give Heads<H> with H of 1 or more
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, Rope>>;
#else
using Tested = WithAttention<Attention<Rope>>;
#endif

static_assert(instantiated<Tested>);
