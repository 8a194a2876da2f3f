// expected sentence: tinymoe::Transformer: an option is given twice
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers>;
#else
using Tested = Transformer<Vocab<64>, Vocab<32>, Context<16>, Width<32>, GoodLayers>;
#endif

static_assert(instantiated<Tested>);
