#pragma once
// The variants that `sweep` compares, and how each is trained. Adding one is a line in `variants`.

#include <cstddef>
#include <string_view>
#include <tinymoe/model.hpp>
#include <tinymoe/presets.hpp>
#include <tuple>
#include <type_traits>

#include "recipes.hpp"

namespace examples {

using namespace tinymoe;

/// The options that all variants share. In each layer the experts of a token have 512 hidden units together, so that
/// all variants have about the same active parameters.
template <class Block>
using Variant = Transformer<Vocab<2048>, Context<256>, Width<128>, TiedHead, Layers<3, Block>>;
using SweepAttention = Attention<Heads<4>, KvHeads<2>, Rope>;
/// `Options`: of the router.
template <Index E, Index K, Index F, class... Options>
using Mix = Variant<MoEBlock<RmsNorm, SweepAttention, Router<E, K, Options...>, Expert<SwiGlu, Hidden<F>>>>;
using Dense512 = Variant<DenseBlock<RmsNorm, SweepAttention, Expert<SwiGlu, Hidden<512>>>>;
using SharedOfFour = Variant<
    MoEBlock<RmsNorm, SweepAttention, Router<15, 3>, Expert<SwiGlu, Hidden<128>>, Shared<Expert<SwiGlu, Hidden<128>>>>>;

/// Models of several sizes, each as a mixture, two of four experts of F hidden units, and as a dense model with as many
/// active parameters but for the router. The blocks are those of presets::Story; width and depth grow together.
template <Index D, class Block, Index L>
using Sized =
    Transformer<Vocab<2048>, Context<512>, Width<D>, TiedHead, Bigrams<16384>, PerLayerEmbeddings, Layers<L, Block>>;
template <Index D>
using SizedAttention = Attention<Heads<D / 32>, KvHeads<D / 64>, Rope, QkNorm>;
template <Index D, Index L, Index F>
using SizedMix = Sized<D, MoEBlock<RmsNorm, SizedAttention<D>, Router<4, 2>, Expert<SwiGlu, Hidden<F>>>, L>;
template <Index D, Index L, Index F>
using SizedDense = Sized<D, DenseBlock<RmsNorm, SizedAttention<D>, Expert<SwiGlu, Hidden<2 * F>>>, L>;

/// A variant, its name in the table, and its training options, of which `sweep` tries other learning rates.
template <class Arch>
struct NamedVariant {
  using Architecture = Arch;
  std::string_view name, about;
  Recipe recipe = {};
  std::string_view group = "experts";  // of --group: what is compared with each other
};
static_assert(std::is_same_v<SizedMix<128, 4, 96>, presets::Story>);
inline constexpr std::string_view sizes = "sizes";

// One line each: CMake counts the lines.
// clang-format off
inline constexpr auto variants = std::tuple(
    NamedVariant<Dense512>{"dense", "no experts"},
    NamedVariant<Mix<4, 2, 256>>{"experts_4", "two of 4 experts"},
    NamedVariant<Mix<8, 2, 256>>{"experts_8", "two of 8: what those below change"},
    NamedVariant<Mix<16, 2, 256>>{"experts_16", "two of 16"},
    NamedVariant<Mix<4, 1, 512>>{"top_1", "one of 4 experts of twice the size"},
    NamedVariant<Mix<16, 4, 128>>{"fine_2", "four of 16 experts of half the size"},
    NamedVariant<Mix<32, 8, 64>>{"fine_4", "eight of 32 experts of a quarter of the size"},
    NamedVariant<SharedOfFour>{"shared", "three of 15 of half the size, and one for every token"},
    NamedVariant<Mix<8, 2, 256, NoBalance>>{"no_balance", "nothing balances the experts"},
    NamedVariant<Mix<8, 2, 256, NoisyTopK>>{"noisy", "learnt noise on the router"},
    NamedVariant<Mix<8, 2, 256, GShardBalance>>{"gshard", "GShard's balance loss"},
    NamedVariant<Mix<8, 2, 256, CvBalance>>{"cv", "Shazeer's balance loss"},
    NamedVariant<Mix<8, 2, 256, Jitter>>{"jitter", "a router with noise on its input"},
    NamedVariant<Mix<8, 2, 256, DynamicTopK>>{"dynamic", "one of 8 if it has half of the probability, else two"},
    NamedVariant<Mix<8, 2, 256, BalanceBias, NoBalance>>{"bias", "balanced by a bias, not by a loss"},
    NamedVariant<Mix<8, 2, 256, SigmoidScores, BalanceBias, NoBalance>>{"sigmoid", "the same with sigmoid scores"},
    NamedVariant<Mix<8, 2, 256, ExpertChoice>>{"expert_choice", "experts choose tokens"},
    NamedVariant<Mix<8, 2, 256, Capacity<5, 4>>>{"capacity", "experts drop what is above 5/4 of their share"},
    NamedVariant<SizedMix<64, 4, 96>>{"mix_0m3", "0.3M active parameters, two of 4 experts", recipes::story, sizes},
    NamedVariant<SizedDense<64, 4, 96>>{"dense_0m3", "0.3M, dense", recipes::story_without_experts, sizes},
    NamedVariant<SizedMix<128, 4, 96>>{"mix_0m8", "0.8M, the preset story", recipes::story, sizes},
    NamedVariant<SizedDense<128, 4, 96>>{"dense_0m8", "0.8M, dense", recipes::story_without_experts, sizes},
    NamedVariant<SizedMix<192, 5, 160>>{"mix_1m9", "1.9M, two of 4 experts", recipes::story, sizes},
    NamedVariant<SizedDense<192, 5, 160>>{"dense_1m9", "1.9M, dense", recipes::story_without_experts, sizes},
    NamedVariant<SizedMix<256, 6, 256>>{"mix_4m", "4M, two of 4 experts", recipes::story, sizes},
    NamedVariant<SizedDense<256, 6, 256>>{"dense_4m", "4M, dense", recipes::story_without_experts, sizes},
    NamedVariant<SizedMix<384, 8, 320>>{"mix_10m", "10M, two of 4 experts", recipes::story, sizes},
    NamedVariant<SizedDense<384, 8, 320>>{"dense_10m", "10M, dense", recipes::story_without_experts, sizes});
// clang-format on

/// The variant of line i, from 0.
template <std::size_t line>
using VariantAt = typename std::tuple_element_t<line, decltype(variants)>::Architecture;

}  // namespace examples
