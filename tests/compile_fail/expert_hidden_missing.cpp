// expected sentence: tinymoe::Expert: Hidden is missing; give Hidden<F> with F of 1 or more
#include "small.hpp"

#ifdef FIXED
using Tested = WithExpert<Expert<SwiGlu, Hidden<64>>>;
#else
using Tested = WithExpert<Expert<SwiGlu>>;
#endif

static_assert(instantiated<Tested>);
