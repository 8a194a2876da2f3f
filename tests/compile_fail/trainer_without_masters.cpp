// expected sentence: tinymoe::Trainer: the model has rounded weights only, for inference; train one without a third argument and load what it saved
#include <tinymoe/core/block_weights.hpp>
#include <tinymoe/train/trainer.hpp>

#include "small.hpp"

#ifdef FIXED
using Weights = float;
#else
using Weights = tinymoe::Int8;
#endif

using Small = WithBlock<RmsNorm, GoodAttention, GoodRouter, GoodExpert>;
static_assert(sizeof(tinymoe::Trainer<tinymoe::Model<Small, tinymoe::Reference<float>, Weights>>) > 0);
