// A second file that includes model.hpp: a function in the headers that is not inline would be defined twice and not
// link.
#include "story_teller.hpp"

float first_logit(tinymoe::Seed seed) {
  tinymoe::Cpu device;
  const tinymoe::Model<StoryTeller, tinymoe::Cpu> model(device, seed);
  const xt::xtensor<tinymoe::Token, 2> tokens = {{1, 2, 3}};
  return tinymoe::inspect(model, tokens).logits(0, 0, 0);
}
