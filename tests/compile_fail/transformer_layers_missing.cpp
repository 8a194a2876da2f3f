// expected sentence: tinymoe::Transformer: Layers is missing; give Layers<n, MoEBlock<...>> at least once
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>>;
#endif

static_assert(instantiated<Tested>);
