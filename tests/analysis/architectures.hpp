#pragma once
// Small architectures whose parts were counted by hand.

#include "train/tiny.hpp"

namespace tinymoe_test {

template <class... Options>
using TinyWith = Transformer<
    Vocab<260>, Context<16>, Width<16>, Options...,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;

/// A dense block with everything that has a bias, then two mixtures whose K / E is not a whole number.
using Mixed =
    Transformer<Vocab<50>, Context<12>, Width<8>, HeadBias,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Learned, Bias>, Expert<Gelu, Hidden<20>, Bias>>>,
                Layers<2, MoEBlock<LayerNorm, Attention<Heads<2>, KvHeads<1>, Learned, SlidingWindow<5>>, Router<3, 2>,
                                   Expert<Relu, Hidden<10>>>>>;

}  // namespace tinymoe_test
