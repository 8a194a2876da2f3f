// expected sentence: tinymoe::load_llama2c: llama2.c has no experts; load it into a model of DenseBlock, then upcycle that
#include <tinymoe/backend/reference.hpp>
#include <tinymoe/checkpoint/llama2c.hpp>

using namespace tinymoe;

#ifdef FIXED
using Block = DenseBlock<RmsNorm, Attention<Heads<4>>, Expert<SwiGlu, Hidden<64>>>;
#else
using Block = MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 2>, Expert<SwiGlu, Hidden<64>>>;
#endif

template void tinymoe::load_llama2c(
    const std::filesystem::path&,
    Model<Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, Block>>, Reference<float>>&);
