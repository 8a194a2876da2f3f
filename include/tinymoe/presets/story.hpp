#pragma once
/// @file
/// This project's own models: the demo's, the smallest, and the one that speed is compared on.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// The demo's model: it learns most in minutes on two cores. No architecture of the hub has its tables.
/// docs/benchmarks/recipe.md has what was compared.
using Story = Transformer<Vocab<2048>, Context<512>, Width<128>, TiedHead, Bigrams<16384>, PerLayerEmbeddings,
                          Layers<4, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope, QkNorm>, Router<4, 2>,
                                             Expert<SwiGlu, Hidden<96>>>>>;

/// A Mixtral that learns to tell stories in minutes on two cores: other libraries read its checkpoints.
using StoryMixtral = Transformer<
    Vocab<2048>, Context<256>, Width<128>, TiedHead,
    Layers<3, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<256>>>>>;

/// The same without experts, of the width of one of them: what `upcycle` can make a StoryMixtral from.
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
