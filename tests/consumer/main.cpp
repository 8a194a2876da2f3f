#include <cmath>
#include <iostream>

#include "story_teller.hpp"

static_assert(tinymoe::count<StoryTeller>().active < tinymoe::count<StoryTeller>().total);

int main() {
  tinymoe::Cpu device;
  const tinymoe::Model<StoryTeller, tinymoe::Cpu> model(device, tinymoe::Seed{1337});
  const xt::xtensor<tinymoe::Token, 2> tokens = {{1, 2, 3}};
  const float here = tinymoe::inspect(model, tokens).logits(0, 0, 0);
  std::cout << "tinymoe " << TINYMOE_VERSION_MAJOR << '.' << TINYMOE_VERSION_MINOR << '.' << TINYMOE_VERSION_PATCH
            << ": " << tinymoe::count<StoryTeller>().total << " parameters; both files agree: "
            << (std::isfinite(here) && here == first_logit(tinymoe::Seed{1337}) ? "yes" : "no") << '\n';
}
