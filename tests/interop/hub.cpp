// Small models of the architectures that the hub's classes compute, for hub.py.
//
//   hub NAME logits FOLDER TOKEN…                     the logits after each token, a line each
//   hub NAME greedy FOLDER COUNT TOKEN…               the tokens that greedy decoding adds
//   hub NAME train FOLDER STEPS WEIGHT TOKEN…         the losses of steps of AdamW; WEIGHT is the balance loss's
//   hub NAME save FOLDER OTHER                        loads the first and saves it as the second
//   hub NAME random FOLDER                            saves a model of random weights

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/model.hpp>
#include <vector>

namespace {

using namespace tinymoe;

template <class... Blocks>
using Of = Transformer<Vocab<260>, Context<32>, Width<32>, Blocks...>;
template <class... Options>
using Attend = Attention<Heads<4>, KvHeads<2>, Options...>;
using Network = Expert<SwiGlu, Hidden<48>>;
using Small = Expert<SwiGlu, Hidden<24>>;
template <Index count, class A, class X = Network>
using DenseLayers = Layers<count, DenseBlock<RmsNorm, A, X>>;

using Mixtral = Of<Layers<1, MoEBlock<RmsNorm, Attend<SlidingWindow<6>>, Router<4, 2>, Network>>>;
using Llama = Of<TiedHead, DenseLayers<2, Attend<Bias>, Expert<SwiGlu, Hidden<48>, Bias>>>;
using Mistral = Of<DenseLayers<2, Attend<SlidingWindow<6>, HeadDim<16>>>>;
using Qwen2 = Of<TiedHead, DenseLayers<2, Attend<QkvBias>>>;
using Qwen3 = Of<DenseLayers<2, Attend<QkNorm, HeadDim<16>>>>;
template <class... Options>
using Qwen3Mixture = MoEBlock<RmsNorm, Attend<QkNorm, SlidingWindow<6>>, Router<4, 2, Options...>, Small>;
using Qwen3Moe = Of<Layers<1, Qwen3Mixture<ScoreGates>>, DenseLayers<1, Attend<QkNorm, SlidingWindow<6>>>,
                    Layers<1, Qwen3Mixture<ScoreGates>>>;
using Glm4Moe = Of<DenseLayers<1, Attend<QkNorm, QkvBias>>,
                   Layers<2, MoEBlock<RmsNorm, Attend<QkNorm, QkvBias>, Router<6, 2, SigmoidScores, BalanceBias>, Small,
                                      Shared<Expert<SwiGlu, Hidden<48>>>>>>;
using Glm45 = Of<DenseLayers<1, Attend<QkvBias, PartialRope<1, 2>>>,
                 Layers<1, MoEBlock<RmsNorm, Attend<QkvBias, PartialRope<1, 2>>,
                                    Router<6, 2, SigmoidScores, BalanceBias, GateScale<5, 2>>, Small, Shared<Small>>>>;
using Qwen2Moe = Of<Layers<
    2, MoEBlock<RmsNorm, Attend<QkvBias>, Router<4, 2, ScoreGates>, Small, Shared<Expert<SwiGlu, Hidden<40>>, Gated>>>>;
template <class... Options>
using Olmoe =
    Of<Layers<2, MoEBlock<RmsNorm, Attend<QkNormAcrossHeads>, Router<4, 2, Options...>, Expert<SwiGlu, Hidden<24>>>>>;
using Dots1 = Of<
    DenseLayers<1, Attend<QkNorm>>,
    Layers<1, MoEBlock<RmsNorm, Attend<QkNorm>, Router<6, 2, SigmoidScores, ScoreGates, BalanceBias, GateScale<5, 2>>,
                       Small, Shared<Small>>>>;
using Gpt2 =
    Of<TiedHead,
       Layers<2, DenseBlock<LayerNorm, Attention<Heads<4>, Learned, Bias>, Expert<GeluTanh, Hidden<48>, Bias>>>>;
// What the hub's classes compute with zeros for what these do not have.
using Glm4MoePlain = Of<TiedHead, Layers<1, MoEBlock<RmsNorm, Attend<>, Router<6, 2, SigmoidScores>, Small>>>;
using Glm4MoeOdd =
    Of<Layers<1, MoEBlock<RmsNorm, Attend<>, Router<6, 2, SigmoidScores>, Small, Shared<Expert<SwiGlu, Hidden<32>>>>>>;
using Qwen2MoePlain = Of<TiedHead, Layers<2, MoEBlock<RmsNorm, Attend<>, Router<4, 1>, Small>>>;
using Gpt2Plain =
    Of<Layers<2, DenseBlock<LayerNorm, Attention<Heads<4>, Learned, OutputBias>, Expert<Relu, Hidden<48>>>>>;

using Arguments = std::span<const std::string>;

std::vector<Token> tokens_of(Arguments arguments) {
  std::vector<Token> tokens;
  for (const std::string& argument : arguments) tokens.push_back(static_cast<Token>(std::stoi(argument)));
  return tokens;
}

/// The 256 bytes and the end of a story.
const Tokenizer& bytes() {
  static const Tokenizer tokenizer = [] {
    detail::TokenizerParts parts;
    for (int byte = 0; byte < 256; ++byte) parts.vocabulary.push_back({std::string(1, static_cast<char>(byte)), false});
    parts.vocabulary.push_back({std::string(end_of_story_text), true});
    return Tokenizer(ByteLevelBpe(parts));
  }();
  return tokenizer;
}

template <class Arch>
void run(const std::string& command, const std::string& folder, Arguments rest) {
  Cpu backend(1);
  Model<Arch, Cpu> model(backend, Seed{7});
  if (command == "random") {
    const auto masters = model.masters();  // biases too, which begin as zeros
    for (Index i = 0; i < masters.size(); ++i) masters.data[i] += static_cast<float>(0.2 * std::sin(double(i) * 1.7));
    return save_model(folder, model, bytes());
  }
  load_model(folder, model);
  if (command == "save") {
    save_model(rest[0], model, bytes());
  } else if (command == "logits") {
    Session session(model);
    for (const Token token : tokens_of(rest)) {
      for (const float logit : session.feed(std::array{token})) std::printf("%.9g ", double(logit));
      std::puts("");
    }
  } else if (command == "greedy") {
    Session session(model);
    auto logits = session.feed(tokens_of(rest.subspan(1)));
    for (int i = std::stoi(rest[0]); i > 0; --i) {
      const auto next = static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      std::printf("%d ", next);
      logits = session.feed(std::array{next});
    }
  } else {
    model.settings().set(setting::balance_weight = std::stod(rest[1]));
    model.settings().set(setting::z_weight = 0);
    model.settings().set(setting::bias_rate = 0);
    model.settings().set(setting::attention_dropout = 0);
    model.settings().set(setting::dropout = 0);
    const auto tokens = tokens_of(rest.subspan(2));
    const std::vector<Token> inputs(tokens.begin(), tokens.end() - 1), targets(tokens.begin() + 1, tokens.end());
    Trainer trainer(model, AdamW{.lr = 3e-3, .weight_decay = 0});
    for (int i = std::stoi(rest[0]); i > 0; --i) {
      std::printf("%.9g ", trainer.train_step(inputs, targets, 1, std::ssize(inputs), {.clip = 0}).loss);
    }
  }
}

const std::map<std::string, std::function<void(const std::string&, const std::string&, Arguments)>> models = {
    {"mixtral", run<Mixtral>},
    {"llama", run<Llama>},
    {"mistral", run<Mistral>},
    {"qwen2", run<Qwen2>},
    {"qwen3", run<Qwen3>},
    {"qwen3_moe", run<Qwen3Moe>},
    {"glm4_moe", run<Glm4Moe>},
    {"glm45", run<Glm45>},
    {"qwen2_moe", run<Qwen2Moe>},
    {"olmoe", run<Olmoe<ScoreGates>>},
    {"olmoe_normalised", run<Olmoe<>>},
    {"dots1", run<Dots1>},
    {"gpt2", run<Gpt2>},
    {"glm4_moe_plain", run<Glm4MoePlain>},
    {"glm4_moe_odd", run<Glm4MoeOdd>},
    {"qwen2_moe_plain", run<Qwen2MoePlain>},
    {"gpt2_plain", run<Gpt2Plain>}};

}  // namespace

int main(int count, char** values) {
  const std::vector<std::string> arguments(values + 1, values + count);
  try {
    if (arguments.size() < 3 || !models.contains(arguments[0])) fail<OptionError>("usage: hub NAME COMMAND FOLDER …");
    models.at(arguments[0])(arguments[1], arguments[2], Arguments(arguments).subspan(3));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
