// expected kind: NormKind
#include "small.hpp"

#ifdef FIXED
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers, FinalNorm<RmsNorm>>;
#else
using Tested = Transformer<Vocab<64>, Context<16>, Width<32>, GoodLayers, FinalNorm<GoodExpert>>;
#endif

static_assert(instantiated<Tested>);
