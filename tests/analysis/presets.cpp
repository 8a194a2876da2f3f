// The presets: each pocket version has its system's structure, learns from stories and generates text, and each
// published count is met.

#include "tinymoe/presets.hpp"

#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "examples/architectures.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/text/text.hpp"
#include "tinymoe/train/trainer.hpp"

using namespace tinymoe;

namespace {

/// Stories that the library makes up, and a tokenizer learnt from them.
struct Lesson {
  EmbeddedStories stories{.count = 400};
  Tokenizer tokenizer = train_tokenizer(stories, {.vocabulary = 600});
  TokenData data = TokenData::encode(stories, tokenizer);
};

const Lesson& lesson() {
  static const Lesson once;
  return once;
}

/// Trains for some steps, and generates a story with the same weights.
template <class Arch>
void check_learns_and_generates(double rate = 5e-3) {
  constexpr Index steps = 16, batch = 4, time = 64;
  Cpu cpu;
  Model<Arch, Cpu> model(cpu, Seed{7});
  Trainer trainer(model, AdamW{.lr = rate}, Constant{.warmup = 4});
  const Batches batches(lesson().data, batch, time, Seed{1});
  std::vector<Token> inputs(batch * time), targets(inputs.size());
  const auto evaluation = lesson().data.first(4 * time + 1);
  const double before = trainer.evaluate(evaluation, 2, time).loss;
  for (Index step = 0; step < steps; ++step) {
    batches.fill(step, inputs, targets);
    static_cast<void>(trainer.train_step(inputs, targets, batch, time));
  }
  const double after = trainer.evaluate(evaluation, 2, time).loss;
  INFO("from " << before << " to " << after);
  // Untrained, the loss is log 2048 = 7.6 and some noise. Learning which tokens are frequent lowers it by two.
  CHECK(before > 7);
  CHECK(after < before - 2);
  CHECK(after > 1);

  Generator generator(model, lesson().tokenizer);
  const Story story = generator.write("Once upon a time", {.tokens = 30, .seed = Seed{3}});
  CHECK(story.text.starts_with("Once upon a time"));
  CHECK((story.tokens == 30 || story.ended));
  CHECK(generator.write("Once upon a time", {.tokens = 30, .seed = Seed{3}}).text == story.text);
}

template <class Arch, std::size_t group>
using BlockOf = typename std::tuple_element_t<group, typename Arch::Groups>::Block;

/// Whether two blocks have the same kinds of layers and the same options that are no sizes.
template <class F, class P>
constexpr bool same_block() {
  using FA = typename F::AttentionType;
  using PA = typename P::AttentionType;
  bool same = F::is_mixture == P::is_mixture && std::is_same_v<typename F::Norm, typename P::Norm> &&
              std::is_same_v<typename FA::Position, typename PA::Position> && FA::qkv_bias == PA::qkv_bias &&
              FA::output_bias == PA::output_bias && FA::qk_norm == PA::qk_norm &&
              (FA::window > 0) == (PA::window > 0) && (FA::kv_heads < FA::heads) == (PA::kv_heads < PA::heads) &&
              std::is_same_v<typename F::Expert::Activation, typename P::Expert::Activation> &&
              F::Expert::has_bias == P::Expert::has_bias;
  if constexpr (F::is_mixture && P::is_mixture) {
    using FR = typename F::Router;
    using PR = typename P::Router;
    same = same && std::is_same_v<typename FR::Scores, typename PR::Scores> &&
           std::is_same_v<typename FR::Selection, typename PR::Selection> &&
           std::is_same_v<typename FR::Balance, typename PR::Balance> &&
           std::is_same_v<typename FR::CapacityOption, typename PR::CapacityOption> && FR::noisy == PR::noisy &&
           FR::jitters == PR::jitters && FR::balance_bias == PR::balance_bias && FR::has_bias == PR::has_bias &&
           FR::normalised == PR::normalised && (FR::choices == 1) == (PR::choices == 1) &&
           F::Network::has_shared == P::Network::has_shared;
  }
  return same;
}

/// Whether two architectures have the same groups of blocks, in the same order, and the same head.
template <class Full, class Pocket>
constexpr bool same_structure() {
  constexpr auto groups = std::tuple_size_v<typename Full::Groups>;
  if constexpr (groups != std::tuple_size_v<typename Pocket::Groups>) {
    return false;
  } else {
    constexpr auto same_blocks = []<std::size_t... g>(std::index_sequence<g...>) {
      return (same_block<BlockOf<Full, g>, BlockOf<Pocket, g>>() && ...);
    };
    return Full::tied == Pocket::tied && Full::head_bias == Pocket::head_bias &&
           same_blocks(std::make_index_sequence<groups>{});
  }
}

namespace pocket = presets::pocket;
static_assert(same_structure<presets::MiniMixtral, pocket::MiniMixtral>());
static_assert(same_structure<presets::NanoGpt, pocket::NanoGpt>());
static_assert(same_structure<presets::NanoGptMoE, pocket::NanoGptMoE>());
static_assert(same_structure<presets::MyMoE<>, pocket::MyMoE>());
static_assert(same_structure<presets::SparseMoE, pocket::SparseMoE>());
static_assert(same_structure<presets::DeepSeekMini, pocket::DeepSeekMini>());
static_assert(!same_structure<presets::NanoGptMoE, pocket::SparseMoE>());

// The counts that the projects publish.
template <class Arch>
constexpr Index total = count<Arch>().total;
template <class Arch>
constexpr Index active = count<Arch>().active;
template <class Arch>
constexpr Index total_of(Part part) {
  return count<Arch>().part(part);
}
static_assert(total<presets::Story> == 3'935'616 && active<presets::Story> == 757'632);
static_assert(total<presets::StoryMixtral> == 1'591'680 && active<presets::StoryMixtral> == 1'001'856);
static_assert(total<presets::Yardstick> == 163'226'112);
static_assert(total<presets::MiniMixtral> == 176'719'680 && active<presets::MiniMixtral> == 72'750'912);
static_assert(total<presets::MiniMixtralWith<50257>> == 195'433'105);
static_assert(total<presets::MiniMixtralReadme> == 172'433'920);
// The README's table leaves out the router and the last norm.
constexpr Index left_out = total_of<presets::MiniMixtralReadme>(Part::router) + 512;
static_assert(total<presets::MiniMixtralReadme> - left_out == 172'400'640);
static_assert(active<presets::MiniMixtralReadme> - left_out == 71'614'464);
static_assert(total<presets::MiniMixtralTrue> == 239'378'944);
static_assert(total<presets::NanoGpt> == 10'795'520 && active<presets::NanoGpt> == total<presets::NanoGpt>);
static_assert(total<presets::NanoGptMoE> == 54'992'576 && active<presets::NanoGptMoE> == 17'151'680);
static_assert(total<presets::NanoGptMoEReleased> == 134'614'208 && active<presets::NanoGptMoEReleased> == 28'215'488);
static_assert(total<presets::MyMoE<1536, TiedHead>> == 144'839'424);
static_assert(total<presets::MyMoE<1536, UntiedHead>> == 183'472'896);
static_assert(total<presets::MyMoE<1024, TiedHead>> == 116'527'872);
static_assert(total<presets::MyMoE<1024, UntiedHead>> == 155'161'344);
static_assert(active<presets::MyMoE<1536, TiedHead>> == 102'372'096);
static_assert(active<presets::MyMoE<1536, UntiedHead>> == 141'005'568);
static_assert(total<presets::SparseMoE> == 158'623'744 && active<presets::SparseMoE> == 70'543'360);
// "~20M active" leaves out both vocabulary matrices; other readings leave out the embedding, or nothing.
constexpr Index without_embedding = active<presets::SparseMoE> - total_of<presets::SparseMoE>(Part::embedding);
static_assert(without_embedding == 44'811'776);
static_assert(without_embedding - total_of<presets::SparseMoE>(Part::head) == 19'080'192);
static_assert(total<presets::DeepSeekMini> == 137'099'616 && active<presets::DeepSeekMini> == 52'754'784);
static_assert(total<presets::Characters::Dense> ==
              105 * 128 + 5 * (2 * 128 + 128 * (2 * 128 + 2 * 64) + 3 * 128 * 352) + 128);

// A few million parameters, and no more work for a token than five minutes on two cores allow. (clang 14 takes a <
// behind a member for a template's.)
template <class Arch>
constexpr bool fits_a_pocket = 7'000'000 > count<Arch>().total && 14'000'000 > count<Arch>().flops_trained;
static_assert(fits_a_pocket<pocket::MiniMixtral> && fits_a_pocket<pocket::NanoGpt> &&
              fits_a_pocket<pocket::NanoGptMoE> && fits_a_pocket<pocket::MyMoE> && fits_a_pocket<pocket::SparseMoE> &&
              fits_a_pocket<pocket::DeepSeekMini>);

}  // namespace

TEST_CASE("The pocket minimixtral learns and generates", "[presets]") {
  check_learns_and_generates<pocket::MiniMixtral>();
}
TEST_CASE("The pocket nanogpt learns and generates", "[presets]") { check_learns_and_generates<pocket::NanoGpt>(); }
TEST_CASE("The pocket nanogpt_moe learns and generates", "[presets]") {
  check_learns_and_generates<pocket::NanoGptMoE>();
}
TEST_CASE("The pocket mymoe learns and generates", "[presets]") { check_learns_and_generates<pocket::MyMoE>(); }
TEST_CASE("The pocket sparse_moe learns and generates", "[presets]") {
  check_learns_and_generates<pocket::SparseMoE>();
}
TEST_CASE("The pocket deepseek_mini learns and generates", "[presets]") {
  check_learns_and_generates<pocket::DeepSeekMini>();
}

TEST_CASE("docs/presets.md has a row for each preset, with its counts", "[presets]") {
  std::ifstream file(TINYMOE_SOURCE_DIR "/docs/presets.md");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  Index rows = 0;
  examples::for_each_architecture([&]<class Arch>(examples::Named<Arch> named) {
    constexpr Count counted = count<Arch>();
    using tinymoe::detail::grouped;
    const std::string begin = "\n| `" + std::string(named.name) + "` | ";
    const std::string counts = " | " + grouped(counted.total) + " | " + grouped(counted.active) + " | ";
    INFO("expected a row" << begin << "…" << counts);
    const std::size_t row = text.find(begin);
    REQUIRE(row != std::string::npos);
    CHECK(text.substr(row + 1, text.find('\n', row + 1) - row).find(counts) != std::string::npos);
    ++rows;
  });
  const std::string table = text.substr(0, text.find("\n## "));
  Index found = -1;  // the heading
  for (std::size_t at = table.find("\n| "); at != std::string::npos; at = table.find("\n| ", at + 1)) ++found;
  CHECK(found == rows);
}

TEST_CASE("config.json tells every preset from every other", "[presets]") {
  std::set<std::string> descriptions;
  const auto add = [&]<class... Arch>(std::type_identity<Arch>...) {
    (descriptions.insert(describe<Arch>().dump()), ...);
    return sizeof...(Arch);
  };
  const auto presets =
      add(std::type_identity<presets::StoryMixtral>(), std::type_identity<presets::Story>(),
          std::type_identity<presets::StoryDense>(), std::type_identity<presets::Pocket>(),
          std::type_identity<presets::Yardstick>(), std::type_identity<presets::MiniMixtral>(),
          std::type_identity<presets::MiniMixtralWith<50257>>(), std::type_identity<presets::MiniMixtralReadme>(),
          std::type_identity<presets::MiniMixtralTrue>(), std::type_identity<presets::NanoGpt>(),
          std::type_identity<presets::NanoGptMoE>(), std::type_identity<presets::NanoGptMoEReleased>(),
          std::type_identity<presets::MyMoE<>>(), std::type_identity<presets::MyMoE<1024, UntiedHead>>(),
          std::type_identity<presets::SparseMoE>(), std::type_identity<presets::DeepSeekMini>(),
          std::type_identity<pocket::MiniMixtral>(), std::type_identity<pocket::NanoGpt>(),
          std::type_identity<pocket::NanoGptMoE>(), std::type_identity<pocket::MyMoE>(),
          std::type_identity<pocket::SparseMoE>(), std::type_identity<pocket::DeepSeekMini>());
  CHECK(descriptions.size() == presets);
  // The hub's class that computes each.
  CHECK(hub_class<presets::StoryMixtral>() == "MixtralForCausalLM");
  CHECK(hub_class<presets::Story>() != "MixtralForCausalLM");
  CHECK(hub_class<presets::Yardstick>() == "MixtralForCausalLM");
  CHECK(hub_class<presets::MiniMixtralTrue>() == "MixtralForCausalLM");
  CHECK(hub_class<presets::StoryDense>() == "LlamaForCausalLM");
  CHECK(hub_class<presets::Stories15M::Dense>() == "LlamaForCausalLM");
  CHECK(hub_class<presets::MyMoE<>>() == "Qwen2MoeForCausalLM");
  CHECK(hub_class<presets::DeepSeekMini>() == "Glm4MoeForCausalLM");
  CHECK(hub_class<pocket::DeepSeekMini>() == "Glm4MoeForCausalLM");
  using Mixture = Router<4, 2>;
  using Network = Expert<SwiGlu, Hidden<8>>;
  const auto class_of = []<class Block>(std::type_identity<Block>) {
    return hub_class<Transformer<Vocab<64>, Context<8>, Width<16>, Layers<1, Block>>>();
  };
  CHECK(class_of(std::type_identity<MoEBlock<RmsNorm, Attention<Heads<2>, QkNorm>, Mixture, Network>>()) ==
        "Qwen3MoeForCausalLM");
  CHECK(class_of(std::type_identity<DenseBlock<RmsNorm, Attention<Heads<2>, QkvBias>, Network>>()) ==
        "Qwen2ForCausalLM");
  CHECK(class_of(std::type_identity<DenseBlock<RmsNorm, Attention<Heads<2>, QkNorm>, Network>>()) ==
        "Qwen3ForCausalLM");
  CHECK(class_of(std::type_identity<DenseBlock<RmsNorm, Attention<Heads<2>, SlidingWindow<4>>, Network>>()) ==
        "MistralForCausalLM");
  CHECK(class_of(std::type_identity<DenseBlock<RmsNorm, Attention<Heads<2>, OutputBias>, Network>>()) ==
        "LlamaForCausalLM");  // with zeros for the biases of q, k and v
  CHECK(class_of(std::type_identity<DenseBlock<LayerNorm, Attention<Heads<2>, Learned>, Expert<Gelu, Hidden<8>>>>()) ==
        "GPT2LMHeadModel");
  // The others have a reason in config.json.
  const auto alone = []<class Arch>(std::type_identity<Arch>, const char* reason) {
    CHECK(hub_class<Arch>().empty());
    const Json file = config_json<Arch>({}, 0);
    CHECK(file["model_type"] == "tinymoe");
    CHECK(file["tinymoe_alone"].string().find(reason) != std::string::npos);
  };
  alone(std::type_identity<presets::MiniMixtral>(),
        "MixtralForCausalLM, which comes nearest, has no bias on the logits");
  alone(std::type_identity<presets::MiniMixtralReadme>(), "networks of SwiGLU alone");
  alone(std::type_identity<presets::NanoGpt>(), "GPT2LMHeadModel, which comes nearest, has no bias on the logits");
  alone(std::type_identity<presets::NanoGptMoE>(), "has no mixture of experts");
  alone(std::type_identity<presets::SparseMoE>(), "has no mixture of experts");
}
