// A second file with the door in it: whatever in the headers is not inline is defined twice and does not link.
#include "story_teller.hpp"

float first_logit(tinymoe::Seed seed) {
  tinymoe::Cpu device;
  const tinymoe::Model<StoryTeller, tinymoe::Cpu> model(device, seed);
  const xt::xtensor<tinymoe::Token, 2> tokens = {{1, 2, 3}};
  return tinymoe::inspect(model, tokens).logits(0, 0, 0);
}
