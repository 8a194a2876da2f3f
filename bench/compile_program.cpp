// A whole program, as in the project's README: bench/compile.sh compiles it and measures what that costs.

#include <iostream>
#include <tinymoe/model.hpp>

using namespace tinymoe;

using StoryTeller = Transformer<
    Vocab<1024>, Context<128>, Width<128>, TiedHead,
    Layers<4, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<8, 2>, Expert<SwiGlu, Hidden<128>>>>>;

int main() {
  const EmbeddedStories stories{.count = 5000};
  const auto tokenizer = train_tokenizer(stories, {.vocabulary = StoryTeller::vocab});
  const auto data = TokenData::encode(stories, tokenizer);

  Cpu device;
  Model<StoryTeller, Cpu> model(device, Seed{1337});
  Trainer trainer(model, AdamW{.lr = 3e-3}, WarmupCosine{.warmup = 20});
  trainer.fit(data, {.batch = 8, .steps = 200});
  std::cout << generate(model, tokenizer, "Once upon a time", {.temperature = 0.8f, .top_p = 0.95f}) << "\n";
}
