// expected kind: BlockKind
#include "small.hpp"

/// It has the name of a part and nothing else of a block.
struct Junk {
  using AttentionType = int;
};

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, GoodLayers::Block>>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, Junk>>;
#endif

static_assert(instantiated<Tested>);
