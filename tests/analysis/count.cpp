// Counts against numbers worked out by hand and against those published; all at compile time.

#include "tinymoe/analysis/count.hpp"

#include <numeric>
#include <sstream>

#include "analysis/architectures.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/train/checkpoint.hpp"

using namespace tinymoe_test;

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

// A tied head has no matrix, but a token is multiplied with the embedding's.
constexpr Count tied = count<TinyWith<TiedHead>>();
static_assert(tied.part(Part::head) == 0);
static_assert(tied.total == tiny.total - 4160);
static_assert(tied.active == tiny.active - 4160);
static_assert(tied.flops_forward == tiny.flops_forward);
constexpr Count tied_bias = count<TinyWith<TiedHead, HeadBias>>();
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

// Published counts.

/// minimixtral and tiny-mixtral: Mixtral with D 512.
template <class Expert, class... Options>
using MiniMixtral =
    Transformer<Vocab<32000>, Context<256>, Width<512>, Options...,
                Layers<8, MoEBlock<RmsNorm, Attention<Heads<8>, KvHeads<2>, Rope>, Router<8, 2>, Expert>>>;
static_assert(count<MiniMixtral<Expert<SwiGlu, Hidden<2048>>>>().total == 239'378'944);
// The README's table: experts of two matrices of 2048 with biases.
constexpr Count readme = count<MiniMixtral<Expert<Gelu, Hidden<2048>, Bias>>>();
static_assert(readme.total == 172'433'920);
static_assert(readme.total - readme.part(Part::router) - 512 == 172'400'640);  // it leaves out router and last norm
static_assert(readme.active - readme.part(Part::router) - 512 == 71'614'464);

/// A sparse transformer with GPT-2's vocabulary.
constexpr Count sparse = count<Transformer<
    Vocab<50257>, Context<256>, Width<512>,
    Layers<6, MoEBlock<LayerNorm, Attention<Heads<8>, Learned, Bias>, Router<16, 2>, Expert<Gelu, Hidden<1024>>>>>>();
static_assert(sparse.total == 158'623'744);
static_assert(sparse.active == 70'543'360);
static_assert(sparse.active - sparse.part(Part::embedding) == 44'811'776);
static_assert(sparse.active - sparse.part(Part::embedding) - sparse.part(Part::head) == 19'080'192);

/// A mini DeepSeek; the total does not depend on how many experts a token takes.
template <Index F, class Head>
using MiniDeepSeek = Transformer<
    Vocab<50304>, Context<128>, Width<768>, Head,
    Layers<12, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<2, 2>, Expert<SwiGlu, Hidden<F>>>>>;
static_assert(count<MiniDeepSeek<1536, TiedHead>>().total == 144'839'424);
static_assert(count<MiniDeepSeek<1536, UntiedHead>>().total == 183'472'896);
static_assert(count<MiniDeepSeek<1024, TiedHead>>().total == 116'527'872);
static_assert(count<MiniDeepSeek<1024, UntiedHead>>().total == 155'161'344);

/// Mixtral 8x7B itself (Jiang et al. 2024: "47B parameters, 13B active").
constexpr Count mixtral = count<Transformer<Vocab<32000>, Context<4096>, Width<4096>,
                                            Layers<32, MoEBlock<RmsNorm, Attention<Heads<32>, KvHeads<8>, Rope>,
                                                                Router<8, 2>, Expert<SwiGlu, Hidden<14336>>>>>>();
static_assert(mixtral.total == 46'702'792'704);
static_assert(mixtral.active == 12'879'925'248);

/// The model that speed is compared on.
constexpr Count yardstick = count<presets::Yardstick>();
static_assert(yardstick.total == 163'226'112);
static_assert(yardstick.flops_trained / 1'000'000 == 362);  // 362.8 million

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
  check_sums<presets::Yardstick>();
  check_sums<presets::Story>();
  CHECK(stored_elements<Tiny>() == tiny.total);
  CHECK(stored_elements<Mixed>() == mixed.total);
  CHECK(stored_elements<TinyWith<TiedHead, HeadBias>>() == tied_bias.total);
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
