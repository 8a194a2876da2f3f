#pragma once
/// @file
/// A small DeepSeekMoE (Dai et al. 2024; DeepSeek-AI 2024, "DeepSeek-V3"), ours.
///
/// Many fine-grained experts of which a token takes six, beside one that every token passes; a first layer without
/// experts; sigmoid scores; and balance without a loss, by a bias that moves after each step and counts in the
/// selection alone (Wang et al. 2024). Grouped-query attention with normalised queries and keys stands for DeepSeek's
/// latent attention.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// The network's active width is 6 · 192 + 384 = 1536 in each mixture, as in the first layer.
using DeepSeekMini = Transformer<
    Vocab<32000>, Context<512>, Width<512>, TiedHead,
    Layers<1, DenseBlock<RmsNorm, Attention<Heads<8>, KvHeads<2>, Rope, QkNorm>, Expert<SwiGlu, Hidden<1536>>>>,
    Layers<11, MoEBlock<RmsNorm, Attention<Heads<8>, KvHeads<2>, Rope, QkNorm>,
                        Router<32, 6, SigmoidScores, BalanceBias, NoBalance>, Expert<SwiGlu, Hidden<192>>,
                        Shared<Expert<SwiGlu, Hidden<384>>>>>>;

namespace pocket {
/// deepseek_mini, small.
using DeepSeekMini = Transformer<
    Vocab<2048>, Context<256>, Width<192>, TiedHead,
    Layers<1, DenseBlock<RmsNorm, Attention<Heads<6>, KvHeads<2>, Rope, QkNorm>, Expert<SwiGlu, Hidden<512>>>>,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<6>, KvHeads<2>, Rope, QkNorm>,
                       Router<16, 4, SigmoidScores, BalanceBias, NoBalance>, Expert<SwiGlu, Hidden<96>>,
                       Shared<Expert<SwiGlu, Hidden<128>>>>>>;
}  // namespace pocket

}  // namespace tinymoe::inline v0_1::presets
