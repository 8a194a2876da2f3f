// expected sentence: tinymoe::Transformer: Width is missing; give Width<D> with D of 1 or more
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, GoodLayers>;
#endif

static_assert(instantiated<Tested>);
