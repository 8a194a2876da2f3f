// expected sentence: tinymoe::Transformer: Vocab is missing; give Vocab<V> with V of 1 or more
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers>;
#else
using Tested = Transformer<Context<16>, Width<32>, GoodLayers>;
#endif

static_assert(instantiated<Tested>);
