// expected sentence: tinymoe::Router: with K = 1 the renormalised gate is constant 1 and the router gets no gradient; take K of 2 or more
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2>>;
#else
using Tested = WithRouter<Router<8, 1>>;
#endif

template void use<Tested>();
