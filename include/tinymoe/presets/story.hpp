#pragma once
/// @file
/// This project's own models: the demo's, the smallest, and the one that speed is compared on.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// The demo's model: small enough to learn to tell stories in minutes on two cores.
using Story = Transformer<
    Vocab<2048>, Context<256>, Width<128>, TiedHead,
    Layers<3, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<256>>>>>;

/// The story preset with a table of bigrams: it learns more from each token, and no architecture of the hub has it.
using StoryBigrams = Transformer<
    Vocab<2048>, Context<256>, Width<128>, TiedHead, Bigrams<16384>,
    Layers<3, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<256>>>>>;

/// The story preset without experts, of the width of one of them: what `upcycle` can make a Story from.
using StoryDense =
    Transformer<Vocab<2048>, Context<256>, Width<128>, TiedHead,
                Layers<3, DenseBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Expert<SwiGlu, Hidden<256>>>>>;

/// The smallest model that learns something of a story; for trying things out.
using Pocket = Transformer<
    Vocab<512>, Context<64>, Width<64>, TiedHead,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<64>>>>>;

/// The model that speed is compared on: 163.2M parameters.
using Yardstick =
    Transformer<Vocab<32000>, Context<256>, Width<512>, TiedHead,
                Layers<8, MoEBlock<RmsNorm, Attention<Heads<8>, Rope>, Router<8, 2>, Expert<SwiGlu, Hidden<1408>>>>>;

}  // namespace tinymoe::inline v0_1::presets
