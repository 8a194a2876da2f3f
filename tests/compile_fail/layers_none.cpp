// expected sentence: tinymoe::Layers: there must be at least one layer
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<1, GoodLayers::Block>>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<0, GoodLayers::Block>>;
#endif

static_assert(instantiated<Tested>);
