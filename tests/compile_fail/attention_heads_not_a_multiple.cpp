// expected sentence: tinymoe::Attention: Heads must be a multiple of KvHeads
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, KvHeads<2>>>;
#else
using Tested = WithAttention<Attention<Heads<4>, KvHeads<3>>>;
#endif

static_assert(instantiated<Tested>);
