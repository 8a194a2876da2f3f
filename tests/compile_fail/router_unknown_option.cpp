// expected sentence: tinymoe::Router: unknown option
#include "small.hpp"

#ifdef FIXED
using Tested = WithRouter<Router<8, 2, Bias>>;
#else
using Tested = WithRouter<Router<8, 2, Heads<2>>>;
#endif

template void use<Tested>();
