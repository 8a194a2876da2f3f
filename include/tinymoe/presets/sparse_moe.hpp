#pragma once
/// @file
/// The sparse MoE transformer: two of sixteen GELU experts in six layers, with GPT-2's vocabulary.
///
/// Pre-LayerNorm, learned positions over 256 tokens, attention with biases, experts of 1024 and a head without.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// As published.
using SparseMoE = Transformer<
    Vocab<50257>, Context<256>, Width<512>,
    Layers<6, MoEBlock<LayerNorm, Attention<Heads<8>, Learned, Bias>, Router<16, 2>, Expert<Gelu, Hidden<1024>>>>>;

namespace pocket {
/// The same, small.
using SparseMoE = Transformer<
    Vocab<2048>, Context<128>, Width<192>,
    Layers<3, MoEBlock<LayerNorm, Attention<Heads<6>, Learned, Bias>, Router<16, 2>, Expert<Gelu, Hidden<256>>>>>;
}  // namespace pocket

}  // namespace tinymoe::inline v0_1::presets
