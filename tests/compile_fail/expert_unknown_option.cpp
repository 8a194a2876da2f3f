// expected sentence: tinymoe::Expert: unknown option; it takes SwiGlu, Gelu, GeluTanh or Relu, Hidden and Bias
#include "small.hpp"

#ifdef FIXED
using Tested = WithExpert<Expert<Hidden<64>>>;
#else
using Tested = WithExpert<Expert<Hidden<64>, Heads<4>>>;
#endif

static_assert(instantiated<Tested>);
