#pragma once
/// @file
/// NanoGPT and NanoGPT-MoE on TinyStories: the same transformer with dense layers and with experts.
///
/// Pre-LayerNorm, learned positions over 1080 tokens, multi-head attention with a bias on its output alone, ReLU
/// networks of 4·D with biases, an untied head with a bias, a vocabulary of 2048. The experts' router is the noisy
/// top-k gating of Shazeer et al. 2017 with biases: two matrices of E·D + E. Its noise acts in training alone.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// Multi-head attention with learned positions; only its output has a bias.
template <Index H>
using NanoGptAttention = Attention<Heads<H>, Learned, OutputBias>;

/// A ReLU network of width F with biases.
template <Index F>
using NanoGptNetwork = Expert<Relu, Hidden<F>, Bias>;

/// The dense variant; "about 10M", with the sizes of the README's table.
using NanoGpt = Transformer<Vocab<2048>, Context<1080>, Width<256>, HeadBias,
                            Layers<12, DenseBlock<LayerNorm, NanoGptAttention<8>, NanoGptNetwork<1024>>>>;

/// The variant with experts: `L` layers of width `D`, two of `E` experts.
template <Index L, Index D, Index E>
using NanoGptMoEOf = Transformer<
    Vocab<2048>, Context<1080>, Width<D>, HeadBias,
    Layers<L, MoEBlock<LayerNorm, NanoGptAttention<8>, Router<E, 2, NoisyTopK, Bias>, NanoGptNetwork<4 * D>>>>;

/// The README's table.
using NanoGptMoE = NanoGptMoEOf<12, 256, 8>;

/// The model behind "134.6M parameters (trained model)", which is larger than the table says.
using NanoGptMoEReleased = NanoGptMoEOf<16, 288, 12>;

namespace pocket {
/// NanoGPT, small.
using NanoGpt = Transformer<Vocab<2048>, Context<128>, Width<192>, HeadBias,
                            Layers<3, DenseBlock<LayerNorm, NanoGptAttention<6>, NanoGptNetwork<768>>>>;
/// Experts of half the published 4·D, so that two of them cost what the dense network does.
using NanoGptMoE = Transformer<
    Vocab<2048>, Context<128>, Width<192>, HeadBias,
    Layers<3, MoEBlock<LayerNorm, NanoGptAttention<6>, Router<8, 2, NoisyTopK, Bias>, NanoGptNetwork<384>>>>;
}  // namespace pocket

}  // namespace tinymoe::inline v0_1::presets
