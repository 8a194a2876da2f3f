// expected sentence: tinymoe::Transformer: PerLayerEmbeddings need two layers or more
#include "small.hpp"

template <Index layers>
using WithTables = Transformer<Vocab<64>, Context<16>, Width<32>, PerLayerEmbeddings,
                               Layers<layers, MoEBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>>>;
#ifdef FIXED
using Tested = WithTables<2>;
#else
using Tested = WithTables<1>;
#endif

static_assert(instantiated<Tested>);
