// expected sentence: tinymoe::save_model: a model without masters has rounded weights only; save the model that it was read from
#include <tinymoe/checkpoint/checkpoint.hpp>

#include "small.hpp"

/// A weight format without masters.
struct Rounded {};
template <>
struct tinymoe::WeightFormat<Rounded> : tinymoe::WeightFormat<float> {
#ifndef FIXED
  static constexpr bool plain = false;
#endif
};

using Small = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
template void tinymoe::save_model(const std::filesystem::path&, const Model<Small, Reference<float>, Rounded>&,
                                  const Tokenizer&);
