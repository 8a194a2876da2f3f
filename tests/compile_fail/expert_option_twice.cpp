// expected sentence: tinymoe::Expert: an option is given twice
#include "small.hpp"

#ifdef FIXED
using Tested = WithExpert<Expert<Hidden<64>, Relu>>;
#else
using Tested = WithExpert<Expert<Hidden<64>, Gelu, Relu>>;
#endif

static_assert(instantiated<Tested>);
