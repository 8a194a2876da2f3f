// Writes models of every kind that a GGUF file can hold, with the logits and the greedy tokens of tinymoe beside them,
// for gguf_files.py: NAME.TYPE.gguf, and NAME.json with "tokens", "logits" (one line for each token) and "greedy".
//
//   interop_gguf_files FOLDER
//   interop_gguf_files --read FILE NAME          prints the same of a file that another program wrote
//   interop_gguf_files --export TOKENIZER FILE   writes a GGUF file of a tokenizer alone
//   interop_gguf_files --encode TOKENIZER TEXTS  prints the tokens of texts, a JSON array, and what they are decoded to

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/backend/reference.hpp>
#include <tinymoe/checkpoint/gguf.hpp>
#include <tinymoe/core/block_weights.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/gguf_writer.hpp>
#include <tinymoe/files/json.hpp>
#include <tinymoe/model.hpp>
#include <tinymoe/text/pipeline/pipeline.hpp>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace tinymoe;

template <class... O>
using Attend = Attention<Heads<4>, KvHeads<2>, Rope, O...>;
template <class... Layers>
using Of = Transformer<Vocab<304>, Context<64>, Width<64>, Layers...>;
template <Index L, class A, class R, class... Shared>
using Mix = Layers<L, MoEBlock<RmsNorm, A, R, Expert<SwiGlu, Hidden<96>>, Shared...>>;
template <Index L, class A, class... O>
using Plain = Layers<L, DenseBlock<RmsNorm, A, Expert<SwiGlu, Hidden<160>, O...>>>;

/// `O` are options of the attention; `Bias` is one of the network, too.
template <class Head, class... O>
using Gpt2 =
    Of<Head,
       Layers<2, DenseBlock<LayerNorm, Attention<Heads<4>, Learned, O...>,
                            std::conditional_t<(std::is_same_v<O, Bias> || ...), Expert<GeluTanh, Hidden<160>, Bias>,
                                               Expert<GeluTanh, Hidden<160>>>>>>;

template <class Arch>
struct Named {
  using Architecture = Arch;
  const char *name, *architecture;
};

constexpr auto models = std::tuple(
    Named<Of<TiedHead, Mix<2, Attend<>, Router<4, 2>>>>{"mixtral", "llama"},
    Named<Of<UntiedHead, Mix<2, Attend<HeadDim<32>, Bias>, Router<4, 2, Jitter>>>>{"mixtral_biases", "llama"},
    Named<Of<TiedHead, Mix<2, Attend<SlidingWindow<60>>, Router<4, 3>>>>{"mixtral_window", "llama"},
    Named<Transformer<Vocab<304>, Context<64>, Width<48>, UntiedHead,
                      Layers<2, MoEBlock<RmsNorm, Attend<>, Router<3, 2>, Expert<SwiGlu, Hidden<64>>>>>>{
        "mixtral_narrow", "llama"},
    Named<Of<UntiedHead, Plain<2, Attend<Bias>, Bias>>>{"dense_biases", "llama"},
    // Rows of 256, the blocks of llama.cpp's formats named K.
    Named<Transformer<Vocab<304>, Context<64>, Width<256>, UntiedHead,
                      Layers<1, DenseBlock<RmsNorm, Attend<>, Expert<SwiGlu, Hidden<256>>>>>>{"wide", "llama"},
    Named<Of<TiedHead, Plain<2, Attend<QkNorm>>>>{"dense_norms", "qwen3"},
    Named<Of<TiedHead, Mix<2, Attend<QkNorm, QkvBias>, Router<4, 2>>>>{"norms", "qwen3moe"},
    Named<Of<TiedHead, Plain<1, Attend<QkNorm>>,
             Mix<2, Attend<QkNorm>, Router<6, 2, SigmoidScores, BalanceBias, NoBalance>,
                 Shared<Expert<SwiGlu, Hidden<128>>>>>>{"deepseek", "glm4moe"},
    Named<Of<UntiedHead, Mix<3, Attend<QkvBias>, Router<4, 1, Capacity<5, 4>, Jitter>>>>{"top_1", "glm4moe"},
    Named<
        Of<UntiedHead, Plain<1, Attend<>>,
           Mix<1, Attend<>, Router<6, 3, SigmoidScores, BalanceBias, NoBalance>, Shared<Expert<SwiGlu, Hidden<192>>>>>>{
        "glm", "glm4moe"},
    Named<Of<TiedHead, Mix<2, Attend<>, Router<4, 2>, Shared<Expert<SwiGlu, Hidden<96>>>>>>{"shared", "glm4moe"},
    Named<Of<UntiedHead, Plain<1, Attention<Heads<4>, KvHeads<2>, QkvBias, PartialRope<1, 2>>>,
             Mix<1, Attention<Heads<4>, KvHeads<2>, QkvBias, PartialRope<1, 2>>,
                 Router<6, 2, SigmoidScores, BalanceBias, GateScale<5, 2>>, Shared<Expert<SwiGlu, Hidden<96>>>>>>{
        "glm45", "glm4moe"},
    Named<
        Of<UntiedHead, Mix<2, Attend<QkvBias>, Router<4, 2, ScoreGates>, Shared<Expert<SwiGlu, Hidden<160>>, Gated>>>>{
        "gated", "qwen2moe"},
    Named<Of<UntiedHead, Mix<2, Attention<Heads<4>, QkNormAcrossHeads>, Router<4, 2, ScoreGates>>>>{"olmoe", "olmoe"},
    Named<Gpt2<TiedHead, Bias>>{"gpt2", "gpt2"}, Named<Gpt2<UntiedHead, KvHeads<2>, QkvBias>>{"gpt2_bare", "gpt2"});

constexpr std::pair<const char*, GgufType> types[] = {{"float32", GgufType::float32},
                                                      {"bfloat16", GgufType::bfloat16},
                                                      {"q8_0", GgufType::q8_0},
                                                      {"q4_0", GgufType::q4_0}};

/// Random gains and biases, too, so that one that is left out shows.
template <class ModelType>
void stir(ModelType& model) {
  const RandomStream random(Seed{5}, 0, RandomSite::named("stir"));
  tinymoe::detail::for_each_placed<typename ModelType::Weights>([&](const ParameterInfo& info, Index offset) {
    if (!info.is_vector) return;
    for (Index i = 0; i < info.size(); ++i) {
      model.masters().data[offset + i] += 0.4f * (random_uniform(random, std::uint64_t(offset + i)) - 0.5f);
    }
  });
}

template <class ModelType>
void describe_outputs(const ModelType& model, const Tokenizer& tokenizer, const char* architecture, std::ostream& out) {
  std::vector<Token> tokens = {tokenizer.end_of_story()};
  for (const Token token : tokenizer.encode("Once upon a time, there was a little girl named Lily."))
    tokens.push_back(token);
  const auto floats = [&](std::span<const float> logits) {
    for (std::size_t i = 0; i < logits.size(); ++i) out << (i > 0 ? "," : "[") << logits[i];
    out << "]";
  };
  out.precision(9);
  Session session(model);
  out << "{\"architecture\": \"" << architecture << "\",\n\"logits\": [";
  std::vector<float> last;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto logits = session.feed(std::span(&tokens[i], 1));
    last.assign(logits.begin(), logits.end());
    out << (i > 0 ? ",\n" : "\n");
    floats(last);
  }
  out << "],\n\"tokens\": [";
  for (std::size_t i = 0; i < tokens.size(); ++i) out << (i > 0 ? "," : "") << tokens[i];
  out << "],\n\"greedy\": [";
  for (int i = 0; i < 12; ++i) {
    const auto next = static_cast<Token>(std::max_element(last.begin(), last.end()) - last.begin());
    out << (i > 0 ? "," : "") << next;
    const auto logits = session.feed(std::span(&next, 1));
    last.assign(logits.begin(), logits.end());
  }
  out << "]}\n";
}

template <class Arch>
void write(const Named<Arch>& named, const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  using Backend = Reference<float>;
  Backend backend;
  Model<Arch, Backend> model(backend, Seed{3});
  stir(model);
  model.settings().set(setting::norm_epsilon = 3e-5);
  model.settings().set(setting::rope_theta = 5000);
  for (const auto& [name, type] : types) {
    save_gguf(folder / (std::string(named.name) + "." + name + ".gguf"), model, tokenizer, type);
  }
  std::ofstream out(folder / (std::string(named.name) + ".json"));
  describe_outputs(model, tokenizer, named.architecture, out);
}

template <class Arch>
void read(const Named<Arch>& named, const std::filesystem::path& file) {
  using Backend = Reference<float>;
  Backend backend;
  Model<Arch, Backend> model(backend);
  load_gguf(file, model);
  const Tokenizer tokenizer = load_gguf_tokenizer(file);
  describe_outputs(model, tokenizer, named.architecture, std::cout);
}

/// A file of a tokenizer; the model's keys are there because llama.cpp wants them.
void export_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
  const Tokenizer tokenizer = Tokenizer::load(from);
  write_file_atomically(to, [&](FileWriter& file) {
    GgufMetadata metadata;
    metadata.add("general.architecture", "llama");
    for (const char* key : {"context_length", "embedding_length", "block_count", "feed_forward_length",
                            "attention.head_count", "rope.dimension_count"}) {
      metadata.add(std::string("llama.") + key, std::uint32_t{1});
    }
    metadata.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tinymoe::detail::write_gguf_tokenizer(metadata, tokenizer, {}, tokenizer.vocabulary_size() + 3);
    GgufWriter(file, metadata, {}).finish();
  });
}

void encode_texts(const std::filesystem::path& file, const std::filesystem::path& texts) {
  const Tokenizer tokenizer = file.extension() == ".gguf" ? load_gguf_tokenizer(file) : Tokenizer::load(file);
  const Json list = read_json(texts);
  for (const Json& text : list.items()) {
    const auto tokens = tokenizer.encode(text.string());
    Json numbers = Json::array();
    for (const Token token : tokens) numbers.push_back(token);
    std::printf("%s\n", Json::array({numbers, tokenizer.decode(tokens)}).dump().c_str());
  }
}

}  // namespace

int main(int count, char** values) {
  try {
    if (count == 4 && values[1] == std::string_view("--read")) {
      std::apply(
          [&](const auto&... named) {
            ((named.name == std::string_view(values[3]) ? read(named, values[2]) : void()), ...);
          },
          models);
      return 0;
    }
    if (count == 4 && values[1] == std::string_view("--export")) return export_tokenizer(values[2], values[3]), 0;
    if (count == 4 && values[1] == std::string_view("--encode")) return encode_texts(values[2], values[3]), 0;
    const Tokenizer tokenizer = train_tokenizer(EmbeddedStories{.count = 200}, {.vocabulary = 300});
    std::apply([&](const auto&... named) { (write(named, values[1], tokenizer), ...); }, models);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
