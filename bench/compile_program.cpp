// The README's program, but for the length of its training: bench/compile.sh compiles it and measures what that costs.

#include <iostream>
#include <tinymoe/model.hpp>
using namespace tinymoe;

struct StoryTeller : Transformer<Vocab<1024>, Context<128>, Width<128>, TiedHead,
                                 Layers<4, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope, SlidingWindow<64>>,
                                                    Router<8, 2>, Expert<SwiGlu, Hidden<128>>>>> {};
static_assert(count<StoryTeller>().total == 1'905'792);  // parameters
static_assert(count<StoryTeller>().active == 726'144);   // of which a token meets

int main() {
  const EmbeddedStories stories{.count = 5'000};  // or TextCorpus("stories.txt")
  const auto tokenizer = train_tokenizer(stories, {.vocabulary = 1024});
  const auto data = TokenData::encode(stories, tokenizer);

  Cpu device;
  Model<StoryTeller, Cpu> model(device, Seed{1337});
  Trainer trainer(model, AdamW{.lr = 3e-3}, WarmupCosine{.warmup = 50});
  const auto last = trainer.fit(data, {.batch = 16, .steps = 60});
  std::cout << "step " << last.step << ", loss " << last.loss << "\n\n";
  std::cout << generate(model, tokenizer, "Once upon a time", {.temperature = 0.7f}) << '\n';
}
