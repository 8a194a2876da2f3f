// expected sentence: tinymoe::Transformer: Context is missing; give Context<C> with C of 1 or more tokens
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers>;
#else
using Tested = Transformer<Vocab<64>, Width<32>, GoodLayers>;
#endif

static_assert(instantiated<Tested>);
