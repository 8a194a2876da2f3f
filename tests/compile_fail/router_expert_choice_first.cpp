// expected sentence: tinymoe::Router: with ExpertChoice a token has no first choice, which GShardBalance counts; take another balance loss
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, ExpertChoice, SwitchBalance>>;
#else
using Tested = WithRouter<Router<8, 2, ExpertChoice, GShardBalance>>;
#endif

static_assert(instantiated<Tested>);
