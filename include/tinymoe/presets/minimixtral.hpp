#pragma once
/// @file
/// minimixtral, which is also tiny-mixtral: Mixtral of Experts (Jiang et al. 2024) with D = 512 and eight layers.
///
/// Grouped-query attention of 8 heads over 2, rotary positions, a sliding window with a rolling cache, two of eight
/// experts. The README's table and the code behind it are two different models, and neither is quite a Mixtral; here
/// are all three. The projects name a sliding window but publish neither its length nor the context; the lengths here
/// are ours, and no count depends on them.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// What the three readings share.
template <Index V, class Attention, class Router, class Expert, class... Options>
using MiniMixtralOf = Transformer<Vocab<V>, Context<512>, Width<512>, Options...,
                                  Layers<8, MoEBlock<RmsNorm, Attention, Router, Expert>>>;
/// Its attention; `Options`: Bias or none.
template <class... Options>
using MiniMixtralAttention = Attention<Heads<8>, KvHeads<2>, Rope, SlidingWindow<256>, Options...>;

/// The published code: SwiGLU of 1408, with biases on every matrix, the router and the head among them. `V`: 32000 in
/// the README, 50257 with GPT-2's tokenizer.
template <Index V = 32000>
using MiniMixtralWith =
    MiniMixtralOf<V, MiniMixtralAttention<Bias>, Router<8, 2, Bias>, Expert<SwiGlu, Hidden<1408>, Bias>, HeadBias>;
/// The same with the vocabulary of the README.
using MiniMixtral = MiniMixtralWith<32000>;

/// The README's table: experts of two matrices of 2048 with biases, and no other bias.
using MiniMixtralReadme = MiniMixtralOf<32000, MiniMixtralAttention<>, Router<8, 2>, Expert<Gelu, Hidden<2048>, Bias>>;

/// A true Mixtral of these sizes: SwiGLU of 2048, no biases. MixtralForCausalLM reads its checkpoints.
using MiniMixtralTrue = MiniMixtralOf<32000, MiniMixtralAttention<>, Router<8, 2>, Expert<SwiGlu, Hidden<2048>>>;

namespace pocket {
/// minimixtral as published, small.
using MiniMixtral =
    Transformer<Vocab<2048>, Context<256>, Width<192>, HeadBias,
                Layers<3, MoEBlock<RmsNorm, Attention<Heads<6>, KvHeads<2>, Rope, SlidingWindow<128>, Bias>,
                                   Router<8, 2, Bias>, Expert<SwiGlu, Hidden<256>, Bias>>>>;
}  // namespace pocket

}  // namespace tinymoe::inline v0_1::presets
