// Mixtures that start as a dense model: the same first logits, what is copied and what is not, and training on.

#include "tinymoe/checkpoint/upcycle.hpp"

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/llama2c.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::upcycle_tests {

namespace {

template <class... Parts>
using Model16 = Transformer<Vocab<19>, Context<12>, Width<16>, Parts...>;

using GroupedAttention = Attention<Heads<4>, KvHeads<2>, Rope>;
using Network = Expert<SwiGlu, Hidden<12>>;
using DenseLlama = Model16<Layers<3, DenseBlock<RmsNorm, GroupedAttention, Network>>>;
template <class R, class... S>
using Mixtral = Model16<Layers<3, MoEBlock<RmsNorm, GroupedAttention, R, Network, S...>>>;

/// Biases everywhere, learned positions, another activation and norm.
using OtherAttention = Attention<Heads<2>, Learned, Bias>;
using OtherNetwork = Expert<Gelu, Hidden<20>, Bias>;
using DenseGpt =
    Model16<TiedHead, HeadBias, Layers<2, DenseBlock<LayerNorm, OtherAttention, OtherNetwork>>, FinalNorm<RmsNorm>>;
using MixedGpt = Model16<TiedHead, HeadBias, Layers<2, MoEBlock<LayerNorm, OtherAttention, Router<3, 2>, OtherNetwork>>,
                         FinalNorm<RmsNorm>>;

/// The logits of two sequences, in the model's own number type.
template <class Arch, class B>
std::vector<typename B::Scalar> logits_of(const Model<Arch, B>& model, const std::vector<Token>& tokens) {
  auto& backend = model.backend();
  const Pass pass{.batch = 2, .time = std::ssize(tokens) / 2, .settings = model.settings()};
  Activations<Arch, B> saved(backend, Plan::Purpose::training, pass);
  Arch::forward(backend, pass, model.weights(), View<const Token>(tokens.data(), 1, pass.rows()), *saved);
  std::vector<typename B::Scalar> logits(static_cast<std::size_t>(pass.rows() * Arch::vocab));
  Arch::logits(backend, model.weights(), saved->normed(pass.rows()), View(logits.data(), pass.rows(), Arch::vocab));
  return logits;
}

/// Changes all weights: in a new model biases are zero and gains one.
template <class Arch, class B>
void stir(Model<Arch, B>& model) {
  auto weights = weights_of(model);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] += 0.3 * random_normal(RandomStream(Seed{8}, 0, RandomSite{3}), i);
  }
  set_weights(model, weights);
  model.settings().set(setting::norm_epsilon = 1e-3);
  model.settings().set(setting::rope_theta = 700);
}

/// The maximum difference of the two models' logits, as a share of the maximum logit.
template <class From, class To, class B, class C = B>
double first_difference(const UpcycleOptions& options = {}) {
  B backend;
  C other;
  Model<From, B> dense(backend, Seed{3});
  stir(dense);
  Model<To, C> mixture(other, Seed{4});
  upcycle(dense, mixture, options);
  CHECK(mixture.settings()[setting::norm_epsilon] == 1e-3);
  CHECK(mixture.settings()[setting::rope_theta] == 700);
  const auto tokens = random_tokens(2 * 12, From::vocab);
  const auto expected = logits_of(dense, tokens), found = logits_of(mixture, tokens);
  double largest = 0;
  for (const auto value : expected) largest = std::max(largest, std::abs(double(value)));
  CHECK(largest > 0.1);
  return greatest_difference(expected, found) / largest;
}

/// The tensor of this name on disk.
template <class M>
std::vector<typename M::Master> tensor_of(const M& model, const std::string& name) {
  const auto weights = weights_of(model);
  for (const auto& tensor : tinymoe::detail::disk_tensors<typename M::Weights>()) {
    if (tensor.name == name) return {weights.begin() + tensor.offset, weights.begin() + tensor.offset + tensor.size};
  }
  FAIL("there is no tensor " << name);
  return {};
}

}  // namespace

TEST_CASE("An upcycled mixture computes what the dense model does", "[upcycle]") {
  using R = Reference<double>;
  CHECK(first_difference<DenseLlama, Mixtral<Router<8, 2>>, R>() < 1e-12);
  CHECK(first_difference<DenseLlama, Mixtral<Router<5, 3, SigmoidScores>>, R>() < 1e-12);
  CHECK(first_difference<DenseLlama, Mixtral<Router<4, 4, NoisyTopK, Jitter>>, R>() < 1e-12);
  CHECK(first_difference<DenseGpt, MixedGpt, R>() < 1e-12);
  // Shared experts add nothing at first, of whatever size they are.
  CHECK(first_difference<DenseLlama, Mixtral<Router<4, 2>, Shared<Expert<SwiGlu, Hidden<7>>>>, R>() < 1e-12);
  CHECK(first_difference<DenseLlama, Mixtral<Router<4, 2>, Shared<Expert<Gelu, Hidden<9>, Bias>>>, R>() < 1e-12);
  // Blocks may stay dense, layers be grouped differently, and options stand in another order.
  using Reordered = Attention<Rope, KvHeads<2>, Heads<4>>;
  using TwoGroups = Model16<Layers<1, DenseBlock<RmsNorm, GroupedAttention, Network>>,
                            Layers<2, DenseBlock<RmsNorm, GroupedAttention, Network>>>;
  using Half = Model16<Layers<2, DenseBlock<RmsNorm, Reordered, Expert<Hidden<12>>>>,
                       Layers<1, MoEBlock<RmsNorm, GroupedAttention, Router<4, 2>, Network>>>;
  CHECK(first_difference<TwoGroups, Half, R>() < 1e-12);
  CHECK(first_difference<TwoGroups, Mixtral<Router<4, 2>>, R>() < 1e-12);

  CHECK(first_difference<DenseLlama, Mixtral<Router<8, 2>>, Cpu>() < 1e-5);
  CHECK(first_difference<DenseGpt, MixedGpt, Cpu>() < 1e-5);
}

TEST_CASE("A mixture is upcycled from another backend and to a longer context", "[upcycle]") {
  Cpu cpu(1);
  Reference<double> reference;
  using Longer = Transformer<Vocab<19>, Context<40>, Width<16>,
                             Layers<3, MoEBlock<RmsNorm, GroupedAttention, Router<4, 2>, Network>>>;
  Model<DenseLlama, Cpu> dense(cpu, Seed{3});
  Model<Longer, Reference<double>> mixture(reference, Seed{4});
  dense.special_tokens().config = SpecialTokens{.begin = 1, .end = {2, 3}};
  upcycle(dense, mixture);
  CHECK(mixture.special_tokens() == dense.special_tokens());
  const auto tokens = random_tokens(2 * 12, 19);
  const auto expected = logits_of(dense, tokens);
  const auto found = logits_of(mixture, tokens);
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found[i] == Approx(double(expected[i])).margin(1e-5));
}

TEST_CASE("Experts are copies; routers and what a shared expert does not zero start from their seed", "[upcycle]") {
  Cpu backend(1);
  using Arch = Mixtral<Router<4, 2, Bias>, Shared<Expert<SwiGlu, Hidden<7>>>>;
  Model<DenseLlama, Cpu> dense(backend, Seed{3});
  stir(dense);
  Model<Arch, Cpu> mixture(backend, Seed{4}), fresh(backend, Seed{4});
  upcycle(dense, mixture);
  const std::string layer = "model.layers.1.", moe = layer + "block_sparse_moe.";
  for (const char* expert : {"0", "3"}) {
    for (const auto& [one, other] :
         {std::pair("w1", "gate_proj"), std::pair("w3", "up_proj"), std::pair("w2", "down_proj")}) {
      const auto copied = tensor_of(mixture, moe + "experts." + expert + "." + one + ".weight");
      CHECK(same_bits(copied, tensor_of(dense, layer + "mlp." + other + ".weight")));
    }
  }
  const auto same = [&](const auto& one, const std::string& name) {
    return same_bits(tensor_of(one, name), tensor_of(mixture, name));
  };
  CHECK(same(dense, layer + "self_attn.k_proj.weight"));
  CHECK(same(dense, "lm_head.weight"));
  CHECK(same(fresh, moe + "gate.weight"));
  CHECK(same(fresh, moe + "shared_experts.gate_proj.weight"));
  const auto silent = tensor_of(mixture, moe + "shared_experts.down_proj.weight");
  CHECK(std::all_of(silent.begin(), silent.end(), [](float value) { return value == 0; }));
}

TEST_CASE("Noise makes experts differ by a share of their weights", "[upcycle]") {
  Cpu backend(1);
  Model<DenseGpt, Cpu> dense(backend, Seed{3});
  stir(dense);
  Model<MixedGpt, Cpu> one(backend, Seed{4}), again(backend, Seed{4}), other(backend, Seed{4});
  upcycle(dense, one, {.noise = 0.05, .seed = Seed{1}});
  upcycle(dense, again, {.noise = 0.05, .seed = Seed{1}});
  upcycle(dense, other, {.noise = 0.05, .seed = Seed{2}});
  CHECK(same_bits(weights_of(one), weights_of(again)));
  const std::string layer = "model.layers.1.", expert = layer + "block_sparse_moe.experts.";
  const auto plain = tensor_of(dense, layer + "mlp.up_proj.weight");
  const auto noisy = tensor_of(one, expert + "1.w1.weight");
  double square = 0, moved = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    square += plain[i] * plain[i];
    moved += (noisy[i] - plain[i]) * (noisy[i] - plain[i]);
  }
  CHECK(std::sqrt(moved / square) == Approx(0.05).epsilon(0.15));  // of 320 numbers
  CHECK(greatest_difference(noisy, tensor_of(one, expert + "2.w1.weight")) > 0);
  CHECK(greatest_difference(noisy, tensor_of(other, expert + "1.w1.weight")) > 0);
  CHECK(same_bits(tensor_of(one, expert + "1.w1.bias"), tensor_of(dense, layer + "mlp.up_proj.bias")));
  CHECK(same_bits(tensor_of(one, layer + "self_attn.o_proj.weight"),
                  tensor_of(dense, layer + "self_attn.o_proj.weight")));
  const double moved_logits = first_difference<DenseGpt, MixedGpt, Cpu>({.noise = 0.05});
  CHECK(moved_logits > 1e-4);
  CHECK(moved_logits < 0.3);

  const auto before = weights_of(one);
  for (const double noise : {-0.1, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    check_message<OptionError>([&] { upcycle(dense, one, {.noise = noise}); }, "noise");
  }
  CHECK(same_bits(weights_of(one), before));
}

TEST_CASE("A trained model of llama2.c becomes a mixture that keeps learning, and its experts become different",
          "[upcycle]") {
  using Trained =
      Transformer<Vocab<105>, Context<256>, Width<128>, TiedHead,
                  Layers<5, DenseBlock<RmsNorm, Attention<Heads<8>, KvHeads<4>, Rope>, Expert<SwiGlu, Hidden<352>>>>>;
  using Mixed = Transformer<
      Vocab<105>, Context<256>, Width<128>, TiedHead,
      Layers<5, MoEBlock<RmsNorm, Attention<Heads<8>, KvHeads<4>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<352>>>>>;
  const auto tokenizer = Tokenizer::load_llama2c(shared_data("llama2c/tokenizer.bin"));
  Cpu backend(2);
  Model<Trained, Cpu> dense(backend);
  load_llama2c(shared_data("llama2c/model.bin"), dense);
  Model<Mixed, Cpu> mixture(backend, Seed{5});
  upcycle(dense, mixture);

  // Stories in the format that the model has learnt, each after the token that begins it.
  std::string text = read_bytes(shared_data("tinystories-valid.txt")).substr(0, 8000);
  std::vector<Token> tokens;
  for (std::size_t at = 0, end = 0; (end = text.find("<|endoftext|>", at)) != std::string::npos; at = end + 14) {
    std::string story = text.substr(at, end - at);
    std::replace(story.begin(), story.end(), '\n', ' ');
    if (!tokenizer.knows(story)) continue;
    const auto encoded = tokenizer.encode(story);
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
    tokens.push_back(tokenizer.end_of_story());
  }
  REQUIRE(tokens.size() > 2000);
  tokens.resize(1500);  // few, so that some steps see each of them often
  const std::vector<Token> some(tokens.begin(), tokens.begin() + 256);
  const auto expected = logits_of(dense, some), found = logits_of(mixture, some);
  double largest = 0;
  for (const float value : expected) largest = std::max(largest, double(std::abs(value)));
  CHECK(greatest_difference(expected, found) < 1e-5 * largest);

  const auto data = TokenData::from_tokens(tokens, 105);
  Trainer trainer(mixture, AdamW{.lr = 3e-4}, Constant{.warmup = 5});
  const auto before = trainer.evaluate(data, 4, 128);
  trainer.fit(data, {.batch = 4, .time = 128, .steps = 12, .seed = Seed{6}});
  const auto after = trainer.evaluate(data, 4, 128);
  INFO("loss " << before.loss << ", then " << after.loss);
  CHECK(before.loss < 2);  // in nats for each character: the model has learnt its language
  CHECK(after.loss < before.loss - 0.1);
  const std::string expert = "model.layers.2.block_sparse_moe.experts.";
  const auto one = tensor_of(mixture, expert + "0.w1.weight"), other = tensor_of(mixture, expert + "1.w1.weight");
  const double apart = greatest_difference(one, other);
  CHECK(apart > 1e-3);
}

}  // namespace tinymoe_test::upcycle_tests
