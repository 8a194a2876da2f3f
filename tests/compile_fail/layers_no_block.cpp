// expected kind: BlockKind
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, GoodLayers::Block>>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, GoodAttention>>;
#endif

static_assert(instantiated<Tested>);
