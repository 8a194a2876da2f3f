// expected sentence: tinymoe::Attention: Heads must be a multiple of KvHeads
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, KvHeads<4>>>;
#else
using Tested = WithAttention<Attention<Heads<4>, KvHeads<8>>>;
#endif

static_assert(instantiated<Tested>);
