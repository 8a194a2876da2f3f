// expected sentence: tinymoe::upcycle: the router's gates must sum to one to start as the dense model; take NormalisedGates
#include <tinymoe/backend/reference.hpp>
#include <tinymoe/checkpoint/upcycle.hpp>

using namespace tinymoe;

template <class Block>
using With = Model<Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, Block>>, Reference<float>>;
using Dense32 = DenseBlock<RmsNorm, Attention<Heads<4>>, Expert<Hidden<64>>>;
#ifdef FIXED
using Block = MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 2>, Expert<Hidden<64>>>;
#else
using Block = MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 2, ScoreGates>, Expert<Hidden<64>>>;
#endif

template void tinymoe::upcycle(const With<Dense32>&, With<Block>&, const UpcycleOptions&);
