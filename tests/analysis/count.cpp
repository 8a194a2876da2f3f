// Counts against numbers worked out by hand and against those published; all at compile time.

#include "tinymoe/analysis/count.hpp"

#include <numeric>
#include <sstream>

#include "analysis/architectures.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/train/trainer.hpp"

namespace tinymoe_test::count_tests {

namespace {

constexpr Count tiny = count<Tiny>();
static_assert(tiny.part(Part::embedding) == 260 * 16);
static_assert(tiny.part(Part::position) == 0);
static_assert(tiny.part(Part::norm) == 5 * 16);
static_assert(tiny.part(Part::attention) == 2 * (2 * 16 * 16 + 2 * 8 * 16));  // q and o of 4 heads, k and v of 2
static_assert(tiny.part(Part::router) == 2 * 4 * 16);
static_assert(tiny.part(Part::expert) == 2 * 4 * 3 * 24 * 16);
static_assert(tiny.part(Part::feed_forward) == 0);
static_assert(tiny.part(Part::head) == 260 * 16);
static_assert(tiny.total == 4160 + 80 + 1536 + 128 + 9216 + 4160);
static_assert(tiny.active_part(Part::expert) == 4608);  // two of four
static_assert(tiny.active_part(Part::router) == 128);
static_assert(tiny.active == tiny.total - 4608);
// Products: head, attention, router, two experts. Attention: 2 · 16 for each of 1 … 16 keys, over 16 positions, twice.
static_assert(tiny.flops_forward == 2 * (4160 + 1536 + 128 + 4608 + 2 * 2 * 16 * 136 / 16));
static_assert(tiny.flops_trained == 3 * tiny.flops_forward);
static_assert(tiny.weight_bytes == 4 * tiny.total);
static_assert(tiny.training_bytes == 16 * tiny.total);
static_assert(tiny.kv_cache_bytes == 2 * 2 * 8 * 16 * 4);
// In mixed precision the masters, gradients and moments stay float32, and the layers' copy comes on top.
static_assert(training_bytes<Tiny>() == tiny.training_bytes);
static_assert(training_bytes<Tiny, bfloat16>() == 18 * tiny.total);
static_assert(training_bytes<Tiny, float16>() == 18 * tiny.total);
static_assert(training_bytes<Tiny, bfloat16>(1) == 14 * tiny.total);  // Lion
static_assert(training_bytes<Tiny, double, double>() == 32 * tiny.total);

// A tied head has no matrix, but a token is multiplied with the embedding's.
constexpr Count tied = count<TinyWith<TiedHead>>();
static_assert(tied.part(Part::head) == 0);
static_assert(tied.total == tiny.total - 4160);
static_assert(tied.active == tiny.active - 4160);
static_assert(tied.flops_forward == tiny.flops_forward);
constexpr Count tied_bias = count<TinyWith<TiedHead, HeadBias>>();
static_assert(count<TinyWith<Bigrams<32>>>().total == tiny.total + 32 * TinyWith<>::width);
static_assert(count<TinyWith<Bigrams<32>>>().active == tiny.active + TinyWith<>::width);  // one row of 32
static_assert(count<TinyWith<Bigrams<32>>>().flops_forward == tiny.flops_forward);
constexpr Count layered = count<TinyWith<PerLayerEmbeddings>>();
static_assert(layered.total == tiny.total + (TinyWith<>::layers - 1) * TinyWith<>::vocab * TinyWith<>::width);
static_assert(layered.active == tiny.active + (TinyWith<>::layers - 1) * TinyWith<>::width);
static_assert(layered.flops_forward == tiny.flops_forward);
static_assert(layered.part(Part::table) == layered.total - tiny.total);
static_assert(tied_bias.part(Part::head) == 260);
static_assert(count<TinyWith<HeadBias>>().total == tiny.total + 260);
static_assert(count<TinyWith<FinalNorm<LayerNorm>>>().part(Part::norm) == 6 * 16);

constexpr Count mixed = count<Mixed>();
static_assert(mixed.part(Part::embedding) == 50 * 8);
static_assert(mixed.part(Part::position) == 12 * 8);
static_assert(mixed.part(Part::norm) == 7 * 16);  // gains and biases
static_assert(mixed.part(Part::attention) == (24 * 8 + 24 + 8 * 8 + 8) + 2 * (16 * 8 + 8 * 8));
static_assert(mixed.part(Part::router) == 2 * 3 * 8);
static_assert(mixed.part(Part::expert) == 2 * 3 * 2 * 10 * 8);
static_assert(mixed.part(Part::feed_forward) == 20 * 8 + 20 + 8 * 20 + 8);
static_assert(mixed.part(Part::head) == 50 * 8 + 50);
static_assert(mixed.total == 400 + 96 + 112 + 672 + 48 + 960 + 348 + 450);
static_assert(mixed.active_part(Part::expert) == 640);  // two of three, whose 80 is no multiple of three
static_assert(mixed.active_part(Part::feed_forward) == 348);
static_assert(mixed.active == mixed.total - 320);
// Biases and tables that are looked up are no products; the window of 5 sees 1, 2, 3, 4, 5, 5 … keys.
static_assert(mixed.flops_forward ==
              2 * (400 + 256 + 2 * 192 + 320 + 48 + 640 + (2 * 8 * 78 + 2 * 2 * 8 * (10 + 8 * 5)) / 12));
static_assert(mixed.kv_cache_bytes == 2 * 8 * 12 * 4 + 2 * (2 * 4 * 5 * 4));

// What only training multiplies with, what the optimizer leaves alone, and what every token meets.

/// D 16, two layers; `Options`: of the router, or of the block.
template <class Router, class... Rest>
using Routed = Transformer<
    Vocab<260>, Context<16>, Width<16>,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router, Expert<SwiGlu, Hidden<24>>, Rest...>>>;

constexpr Count noisy = count<Routed<Router<4, 2, NoisyTopK, Bias>>>();
static_assert(noisy.part(Part::router) == 2 * 2 * (4 * 16 + 4));
static_assert(noisy.active_part(Part::router) == noisy.part(Part::router));
static_assert(noisy.total == tiny.total + 2 * (4 * 16 + 2 * 4));
static_assert(noisy.flops_forward == tiny.flops_forward);  // there is no noise outside training, and biases are none
static_assert(noisy.flops_trained == 3 * (tiny.flops_forward + 2 * 2 * 4 * 16));

constexpr Count balanced = count<Routed<Router<4, 2, SigmoidScores, BalanceBias>>>();
static_assert(balanced.total == tiny.total + 2 * 4);
static_assert(balanced.trained == tiny.total);
static_assert(balanced.flops_trained == tiny.flops_trained);
static_assert(tiny.trained == tiny.total);

constexpr Count dynamic = count<Routed<Router<4, 2, DynamicTopK>>>();
static_assert(dynamic.total == tiny.total && dynamic.active == tiny.active);
static_assert(dynamic.flops_forward == tiny.flops_forward);
constexpr Count choosing = count<Routed<Router<4, 2, ExpertChoice>>>();  // a threshold for each expert
static_assert(choosing.total == tiny.total + 2 * 4 && choosing.trained == tiny.total);
static_assert(choosing.active == tiny.active + 2 * 4);  // two experts, though `choices` is four

constexpr Count shared = count<Routed<Router<4, 2>, Shared<Expert<SwiGlu, Hidden<10>>>>>();
static_assert(shared.total == tiny.total + 2 * 3 * 10 * 16);
static_assert(shared.active == tiny.active + 2 * 3 * 10 * 16);
static_assert(shared.flops_forward == tiny.flops_forward + 2 * 2 * 3 * 10 * 16);

constexpr Count gated = count<Routed<Router<4, 2>, Shared<Expert<SwiGlu, Hidden<10>>, Gated>>>();
static_assert(gated.total == shared.total + 2 * 16 && gated.part(Part::router) == shared.part(Part::router) + 2 * 16);

constexpr Count normalised =
    count<Transformer<Vocab<260>, Context<16>, Width<16>,
                      Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope, QkNorm>, Router<4, 2>,
                                         Expert<SwiGlu, Hidden<24>>>>>>();
static_assert(normalised.total == tiny.total + 2 * 2 * 4);  // a gain for q and one for k, of a head's four numbers
static_assert(normalised.flops_forward == tiny.flops_forward);

/// Mixtral 8x7B itself (Jiang et al. 2024: "47B parameters, 13B active").
constexpr Count mixtral = count<Transformer<Vocab<32000>, Context<4096>, Width<4096>,
                                            Layers<32, MoEBlock<RmsNorm, Attention<Heads<32>, KvHeads<8>, Rope>,
                                                                Router<8, 2>, Expert<SwiGlu, Hidden<14336>>>>>>();
static_assert(mixtral.total == 46'702'792'704);
static_assert(mixtral.active == 12'879'925'248);

static_assert(count<presets::Yardstick>().flops_trained / 1'000'000 == 362);  // 362.8 million

/// The elements of all tensors of a model on disk.
template <class Arch>
Index stored_elements() {
  const TemporaryFolder root;
  Cpu backend(1);
  save_model(root / "model", Model<Arch, Cpu>(backend), tiny_tokenizer());
  const Safetensors file(root / "model/model.safetensors");
  Index total = 0;
  for (const auto& name : file.names()) {
    const auto& shape = file.info(name).shape;
    total += std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
  }
  return total;
}

template <class Arch>
void check_sums() {
  constexpr Count counted = count<Arch>();
  CHECK(std::accumulate(counted.parts.begin(), counted.parts.end(), Index{0}) == counted.total);
  CHECK(std::accumulate(counted.active_parts.begin(), counted.active_parts.end(), Index{0}) == counted.active);
  for (std::size_t part = 0; part < counted.parts.size(); ++part) {
    CHECK(counted.active_parts[part] <= counted.parts[part]);
  }
}

}  // namespace

TEST_CASE("The parts of a count are the whole, and what is on disk", "[count]") {
  check_sums<Tiny>();
  check_sums<Mixed>();
  check_sums<TinyWith<TiedHead, HeadBias>>();
  check_sums<TinyWith<Bigrams<32>>>();
  check_sums<TinyWith<PerLayerEmbeddings>>();
  check_sums<presets::Yardstick>();
  check_sums<presets::MiniMixtral>();
  check_sums<presets::NanoGptMoEReleased>();
  check_sums<presets::DeepSeekMini>();
  CHECK(stored_elements<Tiny>() == tiny.total);
  CHECK(stored_elements<Mixed>() == mixed.total);
  CHECK(stored_elements<TinyWith<TiedHead, HeadBias>>() == tied_bias.total);
  CHECK(stored_elements<Routed<Router<4, 2, NoisyTopK, Bias>>>() == noisy.total);
  // As a GLM-4-MoE it has a shared expert of zeros besides, as wide as an expert, in each of two layers.
  CHECK(stored_elements<Routed<Router<4, 2, SigmoidScores, BalanceBias>>>() == balanced.total + 2 * 3 * 16 * 24);
  CHECK(stored_elements<Routed<Router<4, 2>, Shared<Expert<SwiGlu, Hidden<10>>>>>() == shared.total);
}

TEST_CASE("Activations are counted as they are planned", "[count]") {
  Cpu cpu(1);
  Model<Tiny, Cpu> model(cpu);
  Trainer trainer(model);
  const auto tokens = random_tokens(32, 260);
  for (const bool recompute : {false, true}) {
    trainer.train_step(tokens, tokens, 2, 16, {.recompute = recompute});
    CHECK(activation_bytes<Tiny>(cpu, 2, 16, recompute) == static_cast<Index>(trainer.activation_bytes()));
  }
  CHECK(activation_bytes<Tiny>(cpu, 2, 16, true) < activation_bytes<Tiny>(cpu, 2, 16));
  CHECK(activation_bytes<Tiny>(Reference<bfloat16, float>(), 2, 16) <
        activation_bytes<Tiny>(Reference<float>(), 2, 16));
}

TEST_CASE("A count as a table", "[count]") {
  std::ostringstream out;
  print_count<Tiny>(out);
  CHECK(out.str() ==
        "  parameters              total         active\n"
        "  embedding               4,160          4,160\n"
        "  norm                       80             80\n"
        "  attention               1,536          1,536\n"
        "  router                    128            128\n"
        "  expert                  9,216          4,608\n"
        "  head                    4,160          4,160\n"
        "  all                    19,280         14,672\n"
        "  FLOPs a token, forward                21,952\n"
        "  FLOPs a token, trained                65,856\n"
        "  weights                              0.1 MiB\n"
        "  training state                       0.3 MiB\n"
        "  training state, 16 bits              0.3 MiB\n"
        "  KV cache of a sequence               0.0 MiB\n");
}

TEST_CASE("Numbers are grouped by thousands, bytes are in MiB", "[count]") {
  CHECK(detail::grouped(0) == "0");
  CHECK(detail::grouped(999) == "999");
  CHECK(detail::grouped(1000) == "1,000");
  CHECK(detail::grouped(46702792704) == "46,702,792,704");
  CHECK(detail::grouped(-999) == "-999");
  CHECK(detail::grouped(-100000) == "-100,000");
  CHECK(detail::mebibytes(Index{3} << 19) == "1.5 MiB");
  CHECK(detail::mebibytes(Index{100} << 20) == "100 MiB");
}

}  // namespace tinymoe_test::count_tests
