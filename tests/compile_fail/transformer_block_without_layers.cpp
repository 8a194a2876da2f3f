// expected sentence: tinymoe::Transformer: unknown option; it takes Vocab, Context, Width, Layers (one or more), TiedHead, UntiedHead, HeadBias, FinalNorm, Bigrams and PerLayerEmbeddings
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<1, GoodLayers::Block>>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers::Block>;
#endif

static_assert(instantiated<Tested>);
