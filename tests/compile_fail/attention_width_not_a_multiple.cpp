// expected sentence: tinymoe::Attention: Width must be a multiple of Heads, unless HeadDim is given
#include "small.hpp"

#ifdef FIXED
using Tested = WithAttention<Attention<Heads<5>, HeadDim<6>>>;
#else
using Tested = WithAttention<Attention<Heads<5>>>;
#endif

static_assert(instantiated<Tested>);
