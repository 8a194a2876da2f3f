// Models with fewer experts: the same as the larger model with those experts left out, in a program that has both types
// and through a checkpoint.

#include "tinymoe/checkpoint/prune.hpp"

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/checkpoint/type_text.hpp"
#include "tinymoe/train/evaluation.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::prune_tests {

namespace {

using Feed = Expert<SwiGlu, Hidden<6>>;
template <class... R>
using With = Transformer<Vocab<260>, Context<16>, Width<8>, Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>>, Feed>>,
                         Layers<2, MoEBlock<RmsNorm, Attention<Heads<2>>, R, Feed, Shared<Feed, Gated>>>...>;
/// All that a router may have of its own: rows of noise, biases, a balancing bias, thresholds.
template <Index E, class... Option>
using Varied = With<Router<E, 2, NoisyTopK, Bias>, Router<E, 2, SigmoidScores, BalanceBias, Option...>>;
template <Index E>
using Chosen = With<Router<E, 2, DynamicTopK>, Router<E, 2, ExpertChoice>>;
/// A Mixtral, and one whose tensors the hub names otherwise.
template <class R, class... Option>
using Plain = Transformer<Vocab<260>, Context<16>, Width<8>,
                          Layers<2, MoEBlock<RmsNorm, Attention<Heads<2>, Rope, Option...>, R, Feed>>>;

/// Changes all weights: in a new model biases are zero.
template <class M>
void stir(M& model) {
  auto weights = weights_of(model);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] += 0.2f * float(random_normal(RandomStream(Seed{8}, 0, RandomSite{3}), i));
  }
  set_weights(model, weights);
}

const ExpertLimits limits{.left_out = {{1, 0}, {2, 3}, {3, 1}, {4, 2}, {3, 4}, {4, 0}, {1, 2}, {2, 4}}};

/// The pruned model's loss is that of the larger one under the same limits, and its checkpoint is the pruned model.
template <class From, class To>
void check_same(const ExpertLimits& wanted, Index first_mixture) {
  Cpu backend(1);
  Model<From, Cpu> model(backend, Seed{3}, {setting::norm_epsilon = 1e-3});
  stir(model);
  const TokenData data = tiny_data().first(150);
  const double whole = evaluate(model, data, 4).loss;
  Model<To, Cpu> smaller(backend, Seed{4});
  prune_experts(model, smaller, wanted);
  CHECK(smaller.settings()[setting::norm_epsilon] == 1e-3);
  model.limit_experts(wanted);
  const auto masked = evaluate(model, data, 4), found = evaluate(smaller, data, 4);
  CHECK(found.loss == Approx(masked.loss).epsilon(1e-6));
  CHECK(std::abs(found.loss - whole) > 1e-4);
  // Loads are those of the experts that are left.
  REQUIRE(found.loads.size() == masked.loads.size());
  for (std::size_t m = 0; m < found.loads.size(); ++m) {
    std::vector<Index> left;
    for (std::size_t e = 0; e < masked.loads[m].size(); ++e) {
      const LayerExpert expert{static_cast<Index>(m) + first_mixture, static_cast<Index>(e)};
      if (std::find(wanted.left_out.begin(), wanted.left_out.end(), expert) == wanted.left_out.end()) {
        left.push_back(masked.loads[m][e]);
      } else {
        CHECK(masked.loads[m][e] == 0);
      }
    }
    CHECK(left == found.loads[m]);
  }
  const TemporaryFolder root;
  auto pruned = tinymoe::detail::prune(tinymoe::detail::model_tensors(model), wanted);
  tinymoe::detail::save_pruned(backend, root.path(), pruned, tiny_tokenizer());
  Model<To, Cpu> loaded(backend, Seed{5});
  load_model(root.path(), loaded);
  CHECK(same_bits(weights_of(loaded), weights_of(smaller)));
  CHECK(loaded.settings() == smaller.settings());
  CHECK(Tokenizer::load(root / "tokenizer.json") == tiny_tokenizer());
}

}  // namespace

TEST_CASE("A pruned model is the larger one with its experts left out", "[prune]") {
  check_same<Varied<5, Capacity<1>>, Varied<3>>(limits, 1);
  check_same<Chosen<5>, Chosen<3>>(limits, 1);
  check_same<Plain<Router<5, 3>>, Plain<Router<4, 2>>>({.choices = 2, .left_out = {{0, 1}, {1, 4}}}, 0);
  using Olmoe = Plain<Router<4, 2, ScoreGates>, QkNorm>;
  CHECK_FALSE(hub_class<Olmoe>().empty());
  CHECK(hub_class<Olmoe>() != "MixtralForCausalLM");
  check_same<Plain<Router<5, 2, ScoreGates>, QkNorm>, Olmoe>({.left_out = {{0, 0}, {1, 0}}}, 0);
}

TEST_CASE("Pruning refuses what no type has, and what it does not know", "[prune]") {
  Cpu backend(1);
  using From = Plain<Router<4, 2>>;
  const Model<From, Cpu> model(backend, Seed{3});
  Model<Plain<Router<3, 2>>, Cpu> smaller(backend, Seed{4});
  const auto before = weights_of(smaller);
  const auto refuse = [&]<class Error>(const ExpertLimits& wanted, const auto&... parts) {
    check_message<Error>([&] { prune_experts(model, smaller, wanted); }, parts...);
  };
  refuse.operator()<OptionError>({.left_out = {{0, 1}}}, "layers 0 and 1", "3 and 4 experts");
  refuse.operator()<OptionError>({.left_out = {{0, 1}, {0, 0}, {0, 2}, {1, 1}, {1, 2}, {1, 3}}}, "keep 1 expert,",
                                 "takes 2");
  refuse.operator()<OptionError>({.choices = 1, .left_out = {{0, 1}, {1, 1}}}, "normalised gates");
  refuse.operator()<OptionError>({.left_out = {{2, 1}}}, "layer 2");
  refuse.operator()<MismatchError>({}, "Router<4, 2>");
  CHECK(same_bits(weights_of(smaller), before));
  auto tensors = tinymoe::detail::model_tensors(model);
  tensors.format = "int8";
  check_message<MismatchError>([&] { tinymoe::detail::prune(tensors, {}); }, "rounded to int8");
}

TEST_CASE("The type of a pruned model is told, and has the description of its checkpoint", "[prune]") {
  Cpu backend(1);
  const Model<Varied<5, Capacity<1>>, Cpu> model(backend, Seed{3});
  const auto pruned = tinymoe::detail::prune(tinymoe::detail::model_tensors(model), limits);
  CHECK(tinymoe::detail::type_text(pruned.shape()).find("Router<3, 2, NoisyTopK, Bias>") != std::string::npos);
  using Told = With<Router<3, 2, NoisyTopK, Bias>, Router<3, 2, SigmoidScores, BalanceBias>>;
  CHECK(pruned.description == describe<Told>());
}

}  // namespace tinymoe_test::prune_tests
