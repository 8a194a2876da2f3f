// expected sentence: tinymoe::Capacity: the factor must be above 0
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, Capacity<5, 4>>>;
#else
using Tested = WithRouter<Router<8, 2, Capacity<0, 4>>>;
#endif

static_assert(instantiated<Tested>);
