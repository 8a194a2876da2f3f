#pragma once

#include <tinymoe/backend/reference.hpp>
#include <tinymoe/layers/model.hpp>

/// Uses an architecture as a program does.
template <class Architecture>
void use() {
  tinymoe::Reference<float> device;
  const tinymoe::Model<Architecture, tinymoe::Reference<float>> model(device);
}
template <class Architecture>
inline constexpr bool instantiated = &use<Architecture> != nullptr;

using namespace tinymoe;

using GoodAttention = Attention<Heads<4>>;
using GoodRouter = Router<4, 2>;
using GoodExpert = Expert<Hidden<64>>;
template <class... Parts>
using WithBlock = Transformer<Vocab<64>, Context<16>, Width<32>, Layers<2, MoEBlock<Parts...>>>;
template <class A>
using WithAttention = WithBlock<RmsNorm, A, GoodRouter, GoodExpert>;
template <class R>
using WithRouter = WithBlock<RmsNorm, GoodAttention, R, GoodExpert>;
template <class X>
using WithExpert = WithBlock<RmsNorm, GoodAttention, GoodRouter, X>;
using GoodLayers = Layers<2, MoEBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>>;
