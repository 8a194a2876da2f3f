#pragma once
/// @file
/// MyMoE, "a mini DeepSeek": one of two SwiGLU experts, with a capacity, jitter and a balance loss.
///
/// V 50304, D 768, twelve layers, 4 heads over 2 of 192 numbers each, rotary positions, RMSNorm, a context of 128, no
/// biases. With one choice the gate is the router's score itself: renormalised it would be constant 1, and the router
/// would learn nothing. The README names a capacity factor without its value; 5/4 is Switch's (Fedus et al. 2021). What
/// the name promises and the project lacks is in deepseek_mini.hpp.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// `F`: 1536 by "FFN dimension multiplier: 2.0", 1024 by the rule of two thirds. `Head`: TiedHead or UntiedHead.
template <Index F = 1536, class Head = TiedHead>
using MyMoE = Transformer<Vocab<50304>, Context<128>, Width<768>, Head,
                          Layers<12, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>,
                                              Router<2, 1, Capacity<5, 4>, Jitter>, Expert<SwiGlu, Hidden<F>>>>>;

namespace pocket {
/// MyMoE, small.
using MyMoE = Transformer<Vocab<2048>, Context<256>, Width<192>, TiedHead,
                          Layers<3, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>,
                                             Router<2, 1, Capacity<5, 4>, Jitter>, Expert<SwiGlu, Hidden<512>>>>>;
}  // namespace pocket

}  // namespace tinymoe::inline v0_1::presets
