// expected sentence: tinymoe::Attention: an option is given twice
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<4>, NoPosition>>;
#else
using Tested = WithAttention<Attention<Heads<4>, Rope, NoPosition>>;
#endif

static_assert(instantiated<Tested>);
