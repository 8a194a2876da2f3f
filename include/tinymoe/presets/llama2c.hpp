#pragma once
/// @file
/// Dense story models of llama2.c (Karpathy 2023), and mixtures of their shapes for `upcycle`.

#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1::presets {

/// A dense model as llama2.c has them, with a tied head, and its mixtures.
template <Index V, Index C, Index D, Index L, Index H, Index G, Index F>
struct Llama2c {
  using LlamaAttention = Attention<Heads<H>, KvHeads<G>, Rope>;
  using LlamaNetwork = Expert<SwiGlu, Hidden<F>>;
  template <class Block>
  using Of = Transformer<Vocab<V>, Context<C>, Width<D>, TiedHead, Layers<L, Block>>;
  using Dense = Of<DenseBlock<RmsNorm, LlamaAttention, LlamaNetwork>>;
  /// E experts of the dense network's size, of which a token takes K.
  template <Index E, Index K>
  using Mixture = Of<MoEBlock<RmsNorm, LlamaAttention, Router<E, K>, LlamaNetwork>>;
};

/// A model of 105 characters, and its sizes in llama2.c's file.
using Characters = Llama2c<105, 256, 128, 5, 8, 4, 352>;

/// The sizes of the model that llama2.c offers for download under this name.
using Stories260K = Llama2c<512, 512, 64, 5, 8, 4, 172>;
/// The same.
using Stories15M = Llama2c<32000, 256, 288, 6, 6, 6, 768>;

}  // namespace tinymoe::inline v0_1::presets
