// Prints hashes of weights after five steps, by which builds are compared (docs/trust.md#determinism). Of two models,
// so that each activation, norm and position that calls a function of mathematics is in one of them.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "tinymoe/model.hpp"

namespace {

using namespace tinymoe;

using Modern = Transformer<Vocab<512>, Context<64>, Width<64>, TiedHead,
                           Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope, QkNorm>, Router<4, 2>,
                                              Expert<SwiGlu, Hidden<96>>>>>;
using Classic =
    Transformer<Vocab<512>, Context<64>, Width<64>, HeadBias,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<4>, Learned, Bias>, Expert<Gelu, Hidden<96>, Bias>>>,
                Layers<1, MoEBlock<LayerNorm, Attention<Heads<4>, Learned, Bias>, Router<4, 2, NoisyTopK>,
                                   Expert<GeluTanh, Hidden<96>, Bias>>>>;

template <class Arch, class B>
void print_hash(const char* name) {
  B backend(1);
  Model<Arch, B> model(backend, Seed{5});
  Trainer trainer(model, Muon{.lr = 1e-2});
  std::vector<Token> tokens;
  for (std::uint64_t i = 0; i < 2048; ++i) {
    tokens.push_back(static_cast<Token>(random_below(RandomStream(Seed{7}, 0, RandomSite{3}), i, 512)));
  }
  const StepReport report =
      trainer.fit(TokenData::from_tokens(tokens, 512, std::ssize(tokens), 1), {.batch = 2, .time = 64, .steps = 5});
  const View<float> weights = model.masters();
  detail::Xxh64 hash;
  hash.bytes(std::as_bytes(std::span(weights.data, static_cast<std::size_t>(weights.cols))));
  std::printf("%s %016llx (loss %.9g)\n", name, static_cast<unsigned long long>(hash.value()), report.loss);
}

}  // namespace

int main() {
  print_hash<Modern, Cpu>("modern, float32 ");
  print_hash<Classic, Cpu>("classic, float32");
  print_hash<Modern, CpuBfloat16>("modern, bfloat16");
}
