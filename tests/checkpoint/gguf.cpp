// Models as GGUF files: written and read to the bit, by architecture, from files of other programs, and refused where a
// file or a model does not fit. llama.cpp's own answers are in tests/interop/gguf_files.py.

#include "tinymoe/checkpoint/gguf.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/sentencepiece/protobuf.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::gguf_models {

namespace {

using Plain = Reference<float>;
template <class... O>
using Attend = Attention<Heads<2>, KvHeads<1>, Rope, O...>;
template <class... Layers>
using Of = Transformer<Vocab<264>, Context<16>, Width<32>, Layers...>;
template <class A, class R, class... Shared>
using Mix = Layers<1, MoEBlock<RmsNorm, A, R, Expert<SwiGlu, Hidden<32>>, Shared...>>;
template <class A, class... O>
using Dense = Layers<1, DenseBlock<RmsNorm, A, Expert<SwiGlu, Hidden<40>, O...>>>;

using Mixtral = Of<TiedHead, Mix<Attend<>, Router<3, 2>>>;
/// Dense layers first, sigmoid scores, a shared expert whose width is not the others'.
using DeepSeek =
    Of<UntiedHead, Dense<Attend<QkNorm>>,
       Mix<Attend<QkNorm>, Router<3, 2, SigmoidScores, BalanceBias, NoBalance>, Shared<Expert<SwiGlu, Hidden<48>>>>>;

template <Index C, class A, class... O>
using Gpt2Of = Transformer<Vocab<264>, Context<C>, Width<32>, TiedHead,
                           Layers<1, DenseBlock<LayerNorm, A, Expert<GeluTanh, Hidden<40>, O...>>>>;
template <class... O>
using LearnedOf = Attention<Heads<2>, Learned, O...>;
using Gpt2 = Gpt2Of<16, LearnedOf<Bias>, Bias>;

template <class Arch, class W = float>
using ModelOf = Model<Arch, Plain, W>;

template <class ModelType>
std::string stored_in(const ModelType& model) {
  std::string text;
  for (const auto& place : detail::stored_places(model.weights()).second) {
    text.append(reinterpret_cast<const char*>(place.data), place.bytes);
  }
  return text;
}

/// Each piece of a file replaced by another of the same length.
std::filesystem::path patched(const std::filesystem::path& file, const std::string& piece, const std::string& other) {
  std::string content = read_bytes(file);
  REQUIRE(piece.size() == other.size());
  std::size_t at = content.find(piece);
  REQUIRE(at != std::string::npos);
  for (; at != std::string::npos; at = content.find(piece, at + piece.size())) content.replace(at, piece.size(), other);
  return write_bytes(file.parent_path() / "patched.gguf", content);
}

/// A file as another program would write it: without tinymoe's description.
std::filesystem::path made_foreign(const std::filesystem::path& file) {
  return patched(file, "tinymoe.description", "another.description");
}

template <class Arch>
std::string refusal() {
  return message_of<MismatchError>([] { detail::gguf_shape(describe<Arch>()); });
}

/// A tokenizer.json with these parts besides the bytes, a few merges and special tokens.
Json pipeline_json(const Json& pre_tokenizer) {
  const TemporaryFolder folder;
  small_tokenizer().save(folder / "t.json");
  Json root = read_json(folder / "t.json");
  root["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       Json::array({pre_tokenizer, {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}})}};
  return root;
}

Json splitting_at(const std::string& expression) {
  return {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}

/// A key of 32 bits as it lies in a file.
std::string number_key(const std::string& key, std::uint32_t value) { return key + bytes_of(4u) + bytes_of(value); }

}  // namespace

TEST_CASE("a GGUF file gives back the model that was saved", "[gguf]") {
  const TemporaryFolder folder;
  Plain backend;
  ModelOf<Mixtral> saved(backend, Seed{4}), read(backend, Seed{1});
  saved.settings().set(setting::norm_epsilon = 1e-6);
  saved.settings().set(setting::rope_theta = 5000);
  save_gguf(folder / "a.gguf", saved, tiny_tokenizer(), GgufType::float32);
  load_gguf(folder / "a.gguf", read);
  CHECK(same_bits(weights_of(read), weights_of(saved)));
  CHECK(read.settings() == saved.settings());
  CHECK(load_gguf_tokenizer(folder / "a.gguf") == tiny_tokenizer());
  CHECK(describe_gguf(folder / "a.gguf") == describe<Mixtral>());
  const Token end = tiny_tokenizer().end_of_story();
  CHECK(read.special_tokens().config == SpecialTokens{.begin = end, .end = {end}});

  const Gguf file(folder / "a.gguf");
  CHECK(file.value("general.architecture") == "llama");
  CHECK(file.value("llama.expert_count") == 3);
  CHECK(file.value("llama.rope.freq_base") == 5000);
  CHECK(file.value("tokenizer.ggml.bos_token_id") == end);
  CHECK(file.strings("tokenizer.ggml.tokens").size() == 264);  // the model's; the tokenizer has 260
  CHECK(file.strings("tokenizer.ggml.tokens")[263] == "[PAD263]");
  CHECK(file.tensor("output.weight") == nullptr);
  CHECK(file.tensor("blk.0.ffn_down_exps.weight")->shape == std::vector<Index>{32, 32, 3});
  // Interleaved RoPE: row 1 of a head is row 8 of its 16, the second of a pair.
  std::vector<float> rows(2 * 32);
  const auto* query = file.tensor("blk.0.attn_q.weight");
  detail::gguf_to_floats(query->type, query->bytes.data(), rows);
  for (const auto& tensor : detail::disk_tensors<ModelOf<Mixtral>::Weights>()) {
    if (tensor.name != "model.layers.0.self_attn.q_proj.weight") continue;
    const float* first = saved.masters().data + tensor.offset;
    CHECK(std::vector<float>(first, first + 32) == std::vector<float>(rows.begin(), rows.begin() + 32));
    CHECK(std::vector<float>(first + 8 * 32, first + 9 * 32) == std::vector<float>(rows.begin() + 32, rows.end()));
  }

  save_gguf(folder / "half.gguf", saved, tiny_tokenizer(), GgufType::bfloat16);
  load_gguf(folder / "half.gguf", read);
  CHECK(Gguf(folder / "half.gguf").tensor("blk.0.ffn_gate_inp.weight")->type == GgufType::float32);
  const auto wide = weights_of(saved), narrow = weights_of(read);
  CHECK(greatest_difference(wide, narrow) > 0);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    if (narrow[i] != wide[i] && narrow[i] != float(bfloat16(wide[i]))) FAIL("weight " << i << " is another number");
  }
}

TEMPLATE_TEST_CASE("blocks go into a GGUF file and out of it to the bit", "[gguf]", Int8, Int4) {
  const TemporaryFolder folder;
  Plain backend;
  constexpr GgufType type = std::is_same_v<TestType, Int8> ? GgufType::q8_0 : GgufType::q4_0;
  ModelOf<DeepSeek> numbers(backend, Seed{4}), again(backend, Seed{1});
  ModelOf<DeepSeek, TestType> blocks(backend, Seed{4}), read(backend, Seed{2});
  save_gguf(folder / "numbers.gguf", numbers, tiny_tokenizer(), type);
  save_gguf(folder / "blocks.gguf", blocks, tiny_tokenizer(), type);
  // Rows of 40 and of 48 are no whole blocks: those of 40 are numbers in the file, and equal up to the rounding.
  load_gguf(folder / "blocks.gguf", read);
  CHECK(stored_in(read) == stored_in(blocks));
  load_gguf(folder / "numbers.gguf", read);
  CHECK(stored_in(read) == stored_in(blocks));
  // Numbers are rounded once, straight from the file.
  save_gguf(folder / "plain.gguf", numbers, tiny_tokenizer(), GgufType::float32);
  load_gguf(folder / "plain.gguf", read);
  CHECK(stored_in(read) == stored_in(blocks));
  // Into a float model they go as the numbers that they are.
  load_gguf(folder / "blocks.gguf", again);
  save_gguf(folder / "again.gguf", again, tiny_tokenizer(), type);
  CHECK(read_bytes(folder / "again.gguf") == read_bytes(folder / "blocks.gguf"));

  constexpr GgufType other = type == GgufType::q8_0 ? GgufType::q4_0 : GgufType::q8_0;
  const std::string before = read_bytes(folder / "blocks.gguf"), weights = stored_in(read);
  check_message<OptionError>([&] { save_gguf(folder / "blocks.gguf", blocks, tiny_tokenizer(), other); },
                             "take the model");
  CHECK(read_bytes(folder / "blocks.gguf") == before);
  save_gguf(folder / "other.gguf", numbers, tiny_tokenizer(), other);
  check_message<MismatchError>([&] { load_gguf(folder / "other.gguf", read); }, "other.gguf", "a second time");
  CHECK(stored_in(read) == weights);
}

TEST_CASE("each preset is written as the architecture of llama.cpp that computes it", "[gguf]") {
  const auto architecture = []<class Arch>(std::type_identity<Arch>) {
    return std::string(detail::gguf_shape(describe<Arch>()).architecture);
  };
  namespace p = tinymoe::presets;
  CHECK(architecture(std::type_identity<p::StoryMixtral>{}) == "llama");
  CHECK(architecture(std::type_identity<p::StoryDense>{}) == "llama");
  CHECK(architecture(std::type_identity<p::MiniMixtralTrue>{}) == "llama");
  CHECK(architecture(std::type_identity<p::MyMoE<>>{}) == "glm4moe");
  CHECK(architecture(std::type_identity<p::DeepSeekMini>{}) == "glm4moe");
  CHECK(architecture(std::type_identity<Of<TiedHead, Dense<Attend<QkNorm>>>>{}) == "qwen3");
  CHECK(architecture(std::type_identity<Of<TiedHead, Mix<Attend<QkNorm>, Router<3, 2>>>>{}) == "qwen3moe");
  CHECK(architecture(std::type_identity<Of<TiedHead, Dense<Attend<Bias>, Bias>>>{}) == "llama");
  CHECK(architecture(std::type_identity<Gpt2>{}) == "gpt2");
  CHECK(architecture(std::type_identity<Gpt2Of<16, LearnedOf<KvHeads<1>>>>{}) == "gpt2");
  CHECK(detail::gguf_shape(describe<p::MiniMixtralTrue>()).context == 256);  // its window's

  // What none of them computes says so.
  CHECK(refusal<p::MiniMixtral>().find("a bias on its head") != std::string::npos);
  CHECK(refusal<p::Story>().find("a table of bigrams") != std::string::npos);
  CHECK(refusal<Of<PerLayerEmbeddings, Dense<Attend<>>, Dense<Attend<>>>>().find("tables of tokens in its blocks") !=
        std::string::npos);
  CHECK(refusal<p::MiniMixtralReadme>().find("gelu") != std::string::npos);
  CHECK(refusal<p::NanoGptMoE>().find("a bias on its head") != std::string::npos);
  CHECK(refusal<p::SparseMoE>().find("LayerNorm and mixtures") != std::string::npos);
  CHECK(refusal<Gpt2Of<16, LearnedOf<HeadDim<8>>>>().find("LayerNorm and heads") != std::string::npos);
  CHECK(refusal<Gpt2Of<16, LearnedOf<SlidingWindow<8>>>>().find("LayerNorm and a window") != std::string::npos);
  CHECK(refusal<Gpt2Of<16, LearnedOf<QkNorm>>>().find("LayerNorm and norms of q and k") != std::string::npos);
  CHECK(refusal<Of<Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Learned>, Expert<Relu, Hidden<8>>>>>>().find(
            "LayerNorm and the activation \"relu\"") != std::string::npos);
  CHECK(
      refusal<Of<Layers<1, MoEBlock<LayerNorm, Attention<Heads<2>, Learned>, Router<3, 2>, Expert<Hidden<8>>>>>>().find(
          "LayerNorm and mixtures") != std::string::npos);
  CHECK(refusal<Of<Mix<Attend<>, Router<3, 2, Bias>>>>().find("a bias on the router") != std::string::npos);
  CHECK(refusal<Of<Mix<Attend<>, Router<3, 2, DynamicTopK>>>>().find("dynamic_top_k") != std::string::npos);
  CHECK(refusal<Of<Mix<Attend<>, Router<3, 2, ExpertChoice>>>>().find("expert_choice") != std::string::npos);
  CHECK(refusal<Of<Mix<Attend<>, Router<3, 2>>, Dense<Attend<>>>>().find("behind a mixture") != std::string::npos);
  CHECK(refusal<Of<Dense<Attend<>>, Dense<Attend<HeadDim<8>>>>>().find("different norms or attention") !=
        std::string::npos);
  CHECK(refusal<Of<Mix<Attend<>, Router<3, 2>>, Mix<Attend<>, Router<4, 2>>>>().find("layer to layer") !=
        std::string::npos);
  CHECK(refusal<Of<Mix<Attend<OutputBias, QkNorm>, Router<3, 2>>>>().find("the attention's output") !=
        std::string::npos);
  CHECK(refusal<Of<Dense<Attend<QkNorm>, Bias>>>().find("biases in dense layers") != std::string::npos);
  CHECK(refusal<Of<Dense<Attention<Heads<2>, NoPosition>>>>().find("positions of the type") != std::string::npos);

  const TemporaryFolder folder;
  Plain backend;
  const ModelOf<TinyOf<260, 24, LayerNorm>> model(backend);
  write_bytes(folder / "a.gguf", "old");
  check_message<MismatchError>([&] { save_gguf(folder / "a.gguf", model, tiny_tokenizer(), GgufType::float32); },
                               "LayerNorm and positions", "docs/interop.md");
  CHECK(read_bytes(folder / "a.gguf") == "old");
  CHECK(entries_in(folder.path()) == 1);
}

TEMPLATE_TEST_CASE("a GGUF file of another program is read by its keys", "[gguf]", Mixtral, DeepSeek,
                   (Of<UntiedHead, Mix<Attend<QkNorm, QkvBias>, Router<3, 2>>>),
                   (Of<TiedHead, Dense<Attend<HeadDim<8>, Bias>, Bias>>), Gpt2) {
  const TemporaryFolder folder;
  Plain backend;
  ModelOf<TestType> saved(backend, Seed{4}), read(backend, Seed{1});
  save_gguf(folder / "a.gguf", saved, tiny_tokenizer(), GgufType::float32);
  const auto foreign = made_foreign(folder / "a.gguf");
  if constexpr (std::is_same_v<TestType,
                               DeepSeek>) {  // the file's shared expert has 64 columns; those beyond 48 are zeros
    check_message<MismatchError>([&] { load_gguf(foreign, read); }, "patched.gguf", "layers");
    using Wide = Of<
        UntiedHead, Dense<Attend<QkNorm>>,
        Mix<Attend<QkNorm>, Router<3, 2, SigmoidScores, BalanceBias, NoBalance>, Shared<Expert<SwiGlu, Hidden<64>>>>>;
    CHECK(detail::GgufConfig(Gguf(foreign)).is(describe<Wide>()));
  } else {
    load_gguf(foreign, read);
    CHECK(same_bits(weights_of(read), weights_of(saved)));
  }
}

TEST_CASE("biases that a gpt2 has and a model has not are zeros in its file", "[gguf]") {
  using Bare = Gpt2Of<16, LearnedOf<KvHeads<1>>>;
  const TemporaryFolder folder;
  Plain backend;
  ModelOf<Bare> saved(backend, Seed{4}), read(backend, Seed{1});
  saved.settings().set(setting::norm_epsilon = 3e-6);
  save_gguf(folder / "a.gguf", saved, tiny_tokenizer(), GgufType::float32);
  load_gguf(folder / "a.gguf", read);
  CHECK(same_bits(weights_of(read), weights_of(saved)));
  CHECK(read.settings() == saved.settings());
  const Gguf file(folder / "a.gguf");
  CHECK(file.value("gpt2.attention.layer_norm_epsilon") == double(3e-6f));
  CHECK(file.value("gpt2.rope.freq_base").is_null());
  CHECK(file.tensor("blk.0.attn_qkv.weight")->shape == std::vector<Index>{32, 64});
  CHECK(file.tensor("position_embd.weight")->shape == std::vector<Index>{32, 16});
  const auto* bias = file.tensor("blk.0.attn_qkv.bias");
  CHECK(bias->shape == std::vector<Index>{64});
  std::string bytes = read_bytes(folder / "a.gguf");
  const auto at =
      static_cast<std::size_t>(bias->bytes.data() - file.tensor("token_embd.weight")->bytes.data()) + 40 * 4;
  const std::size_t begin = bytes.size() - [&] {
    std::size_t size = 0;
    for (const auto name : file.names()) size += (file.tensor(name)->bytes.size() + 31) / 32 * 32;
    return size;
  }();
  bytes[begin + at + 3] = '?';
  const auto moved = write_bytes(folder / "moved.gguf", bytes);
  check_message<MismatchError>([&] { load_gguf(moved, read); }, "moved.gguf", "blk.0.attn_qkv.bias", "in row 40");
  CHECK(same_bits(weights_of(read), weights_of(saved)));
  ModelOf<Gpt2Of<12, LearnedOf<KvHeads<1>>>> shorter(backend);
  check_message<MismatchError>([&] { load_gguf(folder / "a.gguf", shorter); }, "learned positions for a context of 16",
                               "make them the same");
}

TEST_CASE("a GGUF file that does not fit is refused, and the model stays as it is", "[gguf]") {
  const TemporaryFolder folder;
  Plain backend;
  ModelOf<Mixtral> saved(backend, Seed{4}), model(backend, Seed{1});
  const auto before = weights_of(model);
  const auto path = folder / "a.gguf";
  save_gguf(path, saved, tiny_tokenizer(), GgufType::float32);
  const auto refused = [&]<class E>(std::type_identity<E>, const std::filesystem::path& file, const auto&... parts) {
    check_message<E>([&] { load_gguf(file, model); }, file.filename().string(), parts...);
    CHECK(same_bits(weights_of(model), before));
  };
  constexpr std::type_identity<MismatchError> mismatch;
  constexpr std::type_identity<FileError> bad;

  refused(mismatch, patched(path, "llama", "mamba"), "\"mamba\"",
          "it reads llama, qwen3, qwen3moe, qwen2moe, olmoe, glm4moe and gpt2");
  refused(bad, patched(path, "general.architecture", "general.architecturE"), "general.architecture is missing");
  refused(bad, patched(path, number_key("llama.expert_count", 3), number_key("llama.expert_count", 4)),
          "llama.expert_count is 4", "means 3");
  refused(bad, patched(path, "llama.expert_count", "llama.expert_coumt"), "llama.expert_count is null");
  refused(bad, patched(path, "\"choices\":2", "\"choices\":1"), "llama.expert_used_count is 2", "means 1");
  refused(mismatch, patched(path, "\"activation\":\"swiglu\"", "\"activation\":\"gelugl\""), "gelugl");
  refused(bad, patched(path, "\"count\":1", "\"count\":0"), "a group has 0 layers");
  const std::string begin = "tokenizer.ggml.bos_token_id" + bytes_of(4u);
  refused(bad, patched(path, begin, "tokenizer.ggml.bos_token_id" + bytes_of(6u)), "tokenizer.ggml.bos_token_id");
  refused(bad, patched(path, "\"layers\":[", "\"layerz\":["), "\"layers\" is missing");
  refused(mismatch, patched(path, "blk.0.attn_q.weight", "blk.0.attn_x.weight"), "blk.0.attn_q.weight is missing");
  refused(bad, patched(path, "\"count\":1", "\"count\":2"), "llama.block_count is 1", "means 2");
  {
    ModelOf<Of<TiedHead, Mix<Attend<>, Router<4, 2>>>> other(backend);
    check_message<MismatchError>([&] { load_gguf(path, other); }, "a.gguf", "\"layers\"", "use a program");
    ModelOf<Transformer<Vocab<264>, Context<17>, Width<32>, TiedHead, Mix<Attend<>, Router<3, 2>>>> longer(backend);
    check_message<MismatchError>([&] { load_gguf(path, longer); }, "a context of 16", "17");
    // What acts in training alone is in no file.
    ModelOf<Of<TiedHead, Mix<Attend<>, Router<3, 2, Jitter, Capacity<5, 4>>>>> training(backend);
    load_gguf(path, training);
    CHECK(same_bits(weights_of(training), weights_of(saved)));
  }

  // Another program's file.
  const auto foreign = made_foreign(path);
  const std::string content = read_bytes(foreign);
  const auto changed = [&](const std::string& piece, const std::string& other) {
    write_bytes(foreign, content);
    return patched(foreign, piece, other);
  };
  refused(bad, changed(number_key("llama.embedding_length", 32), number_key("llama.embedding_length", 0)),
          "llama.embedding_length", "a whole number above 0");
  refused(bad, changed(number_key("llama.rope.dimension_count", 16), number_key("llama.rope.dimension_count", 8)),
          "llama.rope.dimension_count", "the width of a head");
  refused(bad, changed(number_key("llama.expert_count", 3), number_key("llama.expert_count", 2147483647)),
          "experts is 2147483647", "16777216");
  refused(bad, changed(number_key("llama.block_count", 1), number_key("llama.block_count", 2147483647)),
          "more than 65536 layers");
  refused(mismatch, changed("llama.vocab_size", "llama.vocab_zise"), "llama.vocab_zise",
          "which tinymoe does not compute");
  const float theta = 10000, none = std::numeric_limits<float>::quiet_NaN();
  refused(bad,
          changed("rope.freq_base" + bytes_of(6u) + bytes_of(theta), "rope.freq_base" + bytes_of(6u) + bytes_of(none)),
          "llama.rope.freq_base", "a number above 0");
  // A double that is none as a float.
  for (const double number : {1e60, 1e-60}) {
    write_file_atomically(folder / "double.gguf", [&](FileWriter& file) {
      GgufMetadata metadata;
      metadata.add("general.architecture", "llama");
      metadata.add("llama.attention.layer_norm_rms_epsilon", number);
      GgufWriter(file, metadata, {}).finish();
    });
    refused(bad, folder / "double.gguf", "llama.attention.layer_norm_rms_epsilon", "a number above 0");
  }

  // A weight that is no number, in every type.
  for (const GgufType type : {GgufType::float32, GgufType::bfloat16, GgufType::q8_0, GgufType::q4_0}) {
    save_gguf(path, saved, tiny_tokenizer(), type);
    std::string bytes = read_bytes(path);
    const Gguf file(path);
    const std::string row(reinterpret_cast<const char*>(file.tensor("blk.0.attn_v.weight")->bytes.data()), 16);
    const std::size_t at = bytes.find(row);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, 4, std::string(4, '\xff'));
    write_bytes(folder / "nan.gguf", bytes);
    refused(bad, folder / "nan.gguf", "tensor blk.0.attn_v.weight", "nan");
  }
}

TEST_CASE("no damage to a GGUF file does more than refuse it", "[gguf]") {
  const TemporaryFolder folder;
  Plain backend;
  ModelOf<Mixtral> model(backend, Seed{4});
  ModelOf<Mixtral, Int8> blocks(backend, Seed{4});
  const auto path = folder / "a.gguf", other = folder / "other.gguf";
  save_gguf(path, blocks, tiny_tokenizer(), GgufType::q8_0);
  const std::string bytes = read_bytes(path);
  const auto attempt = [&](const std::string& content) {
    write_bytes(other, content);
    try {
      load_gguf(other, model);
      load_gguf(other, blocks);
      load_gguf_tokenizer(other);
      return true;
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return false;
    }
  };
  CHECK(attempt(bytes));
  for (std::size_t length = 0; length < bytes.size(); length += 211) CHECK_FALSE(attempt(bytes.substr(0, length)));
  std::mt19937 random(7);
  const std::size_t header = 12000;
  REQUIRE(bytes.size() > header);
  for (int i = 0; i < 600; ++i) {
    std::string changed = bytes;
    const std::size_t at = random() % header;
    changed[at] = static_cast<char>(changed[at] ^ static_cast<char>(1 + random() % 255));
    attempt(changed);
  }
}

TEST_CASE("tokenizers go into a GGUF file and out of it", "[gguf]") {
  const TemporaryFolder folder;
  const auto through = [&](const Tokenizer& tokenizer, const SpecialTokens& special, Index vocab) {
    write_file_atomically(folder / "t.gguf", [&](FileWriter& file) {
      GgufMetadata metadata;
      detail::write_gguf_tokenizer(metadata, tokenizer, special, vocab);
      GgufWriter(file, metadata, {}).finish();
    });
    CHECK(detail::read_gguf_special_tokens(Gguf(folder / "t.gguf")) == special);
    return load_gguf_tokenizer(folder / "t.gguf");
  };
  const SpecialTokens none;
  CHECK(through(small_tokenizer(), none, 300) == small_tokenizer());
  CHECK(through(llama_tokenizer(true), {.begin = 1, .end = {2, 269}, .pad = 0}, 280) == llama_tokenizer(true));
  CHECK(through(llama_tokenizer(false), none, 34) == llama_tokenizer(false));
  check_message<MismatchError>([&] { through(small_tokenizer(), none, 260); }, "a vocabulary of 260");

  through(small_tokenizer(), none, 270);
  const auto path = folder / "t.gguf";
  const auto refused = [&](const std::string& piece, const std::string& other, const auto&... parts) {
    const auto file = patched(path, piece, other);
    check_message<FileError>([&] { load_gguf_tokenizer(file); }, "patched.gguf", parts...);
  };
  refused("gpt-2", "gpt-9", "\"gpt-9\"", "take the model's tokenizer.json");
  refused("gpt2", "bert", "\"bert\"", "gpt2, llama and t5");
  refused("tokenizer.ggml.merges", "tokenizer.ggml.mergez", "tokenizer.ggml.merges is missing");
  refused("tokenizer.ggml.model", "tokenizer.ggml.modem", "it has no tokenizer");
  refused("<|endoftext|>", "<|endofte\xff\xff|>", "token 263 is not UTF-8");
  // Without the end of a story it is a tokenizer.json as others have it.
  const auto other = load_gguf_tokenizer(patched(path, "<|endoftext|>", "<|endoftexT|>"));
  CHECK(other.as<PipelineTokenizer>() != nullptr);
  CHECK(other.encode("the lower") == small_tokenizer().encode("the lower"));
}

TEST_CASE("a tokenizer.json goes into a GGUF file where llama.cpp has its pre-tokenizer", "[gguf]") {
  const TemporaryFolder folder;
  const auto loaded = [](const Json& root) { return Tokenizer::from_json(root, root.dump(), "t.json"); };
  const auto write = [&](const Tokenizer& tokenizer) {
    write_file_atomically(folder / "t.gguf", [&](FileWriter& file) {
      GgufMetadata metadata;
      detail::write_gguf_tokenizer(metadata, tokenizer, {}, 270);
      GgufWriter(file, metadata, {}).finish();
    });
  };
  const std::vector<std::string> texts = {"the lower a<b>c", "aa 1234567  the\n\n low\t'll 12",
                                          "\xc3\xa9\xe9\x9b\xaa!? aaa"};
  for (const detail::GgufPreTokenizer& known : detail::gguf_pre_tokenizers) {
    INFO(known.name);
    Json root = pipeline_json({{"type", "Sequence"}, {"pretokenizers", Json::array()}});
    root["pre_tokenizer"] = detail::gguf_cutting_json(known);
    root["model"]["ignore_merges"] = known.ignore_merges;
    // Found in each text; what it looks like does not count for decoding.
    root["added_tokens"].push_back(parse_json(
        R"({"id": 264, "content": "<b>", "special": false, "normalized": false, "lstrip": false, "rstrip": false})",
        "a"));
    const auto tokenizer = loaded(root);
    REQUIRE(tokenizer.as<PipelineTokenizer>() != nullptr);
    write(tokenizer);
    const Json pre = Gguf(folder / "t.gguf").value("tokenizer.ggml.pre");
    CHECK(detail::find_gguf_pre_tokenizer(pre.string())->cuts() == known.cuts());
    const auto again = load_gguf_tokenizer(folder / "t.gguf");
    for (const std::string& text : texts) {
      CHECK(again.encode(text) == tokenizer.encode(text));
      CHECK(again.decode(again.encode(text)) == text);
    }
    CHECK(again.is_special(263));
    CHECK(again.vocabulary_size() == 265);
  }
  CHECK(detail::read_gguf_model_tokens(Gguf(folder / "t.gguf")).before.has_value());
  for (const auto& [name, same] : detail::gguf_pre_tokenizer_names) {
    CHECK(detail::find_gguf_pre_tokenizer(name) == detail::find_gguf_pre_tokenizer(same));
    CHECK(detail::find_gguf_pre_tokenizer(name) != nullptr);
  }
  // The same in other words.
  const auto name_of = [](const Json& root) { return detail::gguf_pre_tokenizer_of(root).name; };
  const Json digits =
      pipeline_json({{"type", "Sequence"},
                     {"pretokenizers", Json::array({{{"type", "Digits"}, {"individual_digits", true}},
                                                    splitting_at(std::string(detail::gpt2_expression))})}});
  CHECK(name_of(digits) == "starcoder");
  Json deepseek = pipeline_json(nullptr);
  deepseek["pre_tokenizer"] = detail::gguf_cutting_json(*detail::find_gguf_pre_tokenizer("deepseek-llm"));
  Json steps = Json::array();
  for (const Json& step : deepseek["pre_tokenizer"]["pretokenizers"].items()) {
    const bool numbers = step["pattern"]["Regex"] == R"(\p{N}+)";
    steps.push_back(numbers ? Json{{"type", "Digits"}, {"individual_digits", true}} : step);
  }
  deepseek["pre_tokenizer"]["pretokenizers"] = std::move(steps);
  CHECK(name_of(deepseek) == "deepseek-llm");
  deepseek["model"]["vocab"]["12"] = 264;
  check_message<TextError>([&] { name_of(deepseek); }, "cuts at", "docs/interop.md");
  Json removed = splitting_at(std::string(detail::qwen2_expression));
  removed["behavior"] = "Removed", removed["invert"] = true;
  CHECK(name_of(pipeline_json(removed)) == "qwen2");

  const auto refused = [&](const Json& root, const auto&... parts) {
    const auto tokenizer = loaded(root);
    check_message<TextError>([&] { write(tokenizer); }, "the tokenizer has", parts...,
                             "which llama.cpp does not have; docs/interop.md");
  };
  const Json usual = pipeline_json(splitting_at(std::string(detail::gpt4_expression)));
  const auto changed = [&](const char* part, const Json& value) {
    Json root(usual);
    root[part] = value;
    return root;
  };
  refused(pipeline_json({{"type", "Whitespace"}}), "the pre_tokenizer Whitespace");
  refused(pipeline_json(splitting_at("[a-z]+")), "cuts at \"[a-z]+\"");
  refused(changed("pre_tokenizer", nullptr), "no pre_tokenizer ByteLevel");
  refused(changed("normalizer", {{"type", "Lowercase"}}), "a normalizer other than NFC");
  refused(changed("decoder", {{"type", "Fuse"}}), "another decoder than ByteLevel");
  Json part(usual);
  part["added_tokens"].push_back(
      parse_json(R"({"id": 264, "content": "<b>", "special": false, "normalized": false, "lstrip": true})", "a"));
  refused(part, "the option lstrip of the token \"<b>\"");
  part = Json(usual);
  part["model"]["merges"] = Json::array();
  part["model"]["vocab"].erase("a");
  part["model"]["vocab"].erase("aa");
  refused(part, "no token for the byte 97");
  part = pipeline_json(splitting_at(std::string(detail::qwen2_expression)));
  part["model"]["ignore_merges"] = true;
  refused(part, "ignore_merges true beside the pre-tokenizer of qwen2");
  write(loaded(changed("normalizer", {{"type", "NFC"}})));
  CHECK(Gguf(folder / "t.gguf").value("tokenizer.ggml.pre") == "smaug-bpe");
}

TEST_CASE("sentencepiece models go into a GGUF file and out of it", "[gguf]") {
  const TemporaryFolder folder;
  struct Piece {
    std::string text;
    float score;
    detail::GgufToken type;
  };
  using enum detail::GgufToken;
  double scale = 1;
  const auto load = [&](const char* model, const std::vector<Piece>& pieces, bool adds, bool removes) {
    write_file_atomically(folder / "t.gguf", [&](FileWriter& file) {
      detail::GgufVocabulary vocabulary;
      std::vector<double> scores;
      for (const Piece& piece : pieces) vocabulary.add(piece.text, piece.type), scores.push_back(scale * piece.score);
      GgufMetadata metadata;
      metadata.add("tokenizer.ggml.model", model);
      vocabulary.write(metadata);
      metadata.add("tokenizer.ggml.scores", std::span<const double>(scores));
      metadata.add("tokenizer.ggml.add_space_prefix", adds);
      metadata.add("tokenizer.ggml.remove_extra_whitespaces", removes);
      GgufWriter(file, metadata, {}).finish();
    });
    return load_gguf_tokenizer(folder / "t.gguf");
  };
  const auto through = [&](const Tokenizer& tokenizer) {
    write_file_atomically(folder / "t.gguf", [&](FileWriter& file) {
      GgufMetadata metadata;
      detail::write_gguf_tokenizer(metadata, tokenizer, {}, 300);
      GgufWriter(file, metadata, {}).finish();
    });
    return load_gguf_tokenizer(folder / "t.gguf");
  };
  const std::string mark(detail::space_mark);
  const std::vector<Piece> words = {{"<unk>", 0, unknown}, {"</s>", 0, control},     {mark + "the", -1, normal},
                                    {mark, -3, normal},    {mark + "a", -2, normal}, {"t", -4, normal}};
  const auto unigram = load("t5", words, true, true);
  REQUIRE(unigram.as<SentencePieceTokenizer>() != nullptr);
  CHECK(unigram.encode(" the  a t?") == std::vector<Token>{2, 4, 3, 5, 0});
  CHECK(unigram.decode(std::vector<Token>{2, 4, 0}) == "the a");
  CHECK(through(unigram) == unigram);
  CHECK_FALSE(detail::read_gguf_model_tokens(Gguf(folder / "t.gguf")).before->token.has_value());

  // Spaces as they are, a symbol that is found in each text, and bytes behind the other pieces.
  std::vector<Piece> pieces = {{"<pad>", 0, control},       {"<eos>", 0, control},    {"<bos>", 0, control},
                               {"<unk>", 0, unknown},       {"<b>", 0, user_defined}, {"t", -3, normal},
                               {"h", -4, normal},           {"th", -1, normal},       {mark, -2, normal},
                               {mark + "th", -1.5f, normal}};
  for (std::size_t byte = 0; byte < 256; ++byte)
    pieces.push_back({detail::byte_name(byte), 0, detail::GgufToken::byte});
  const auto bpe = load("llama", pieces, false, false);
  REQUIRE(bpe.as<SentencePieceTokenizer>() != nullptr);
  CHECK(bpe.encode("th th<b>a") == std::vector<Token>{7, 9, 4, 10 + 'a'});
  CHECK(bpe.decode(bpe.encode("th th<b>a")) == "th th<b>a");
  CHECK(through(bpe) == bpe);

  check_message<FileError>([&] { load("llama", pieces, true, false); }, "t.gguf", "\"<b>\"", "user_defined");
  check_message<FileError>([&] { load("t5", words, true, false); }, "t.gguf", "remove_extra_whitespaces differ");
  pieces.back().text = "<0x\nF>";  // a message is one line
  check_message<FileError>([&] { load("llama", pieces, false, false); }, "t.gguf", "found \"<0x<0x0A>F>\"");
  pieces.pop_back();
  check_message<FileError>([&] { load("llama", pieces, false, false); }, "t.gguf", "256 pieces of the type byte");
  pieces = words;
  pieces[2].score = std::numeric_limits<float>::quiet_NaN();
  check_message<FileError>([&] { load("t5", pieces, true, true); }, "t.gguf", "the score of token 2 is not finite");
  scale = 1e60;  // infinite as a float
  check_message<FileError>([&] { load("t5", words, true, true); }, "t.gguf", "the score of token 2 is not finite");
  scale = 1;

  // What llama.cpp does otherwise.
  const auto refused = [&](const std::string& spaces, const std::string& training, const std::string& part) {
    detail::ProtobufWriter model;
    for (const Piece& piece : words) {
      detail::ProtobufWriter message;
      message.bytes(1, piece.text);
      message.number(3, static_cast<std::uint64_t>(piece.type));
      model.bytes(1, message.text());
    }
    model.bytes(2, training);
    model.bytes(3, spaces);
    const auto tokenizer = Tokenizer::from_sentencepiece(model.text(), "t.model");
    check_message<TextError>([&] { through(tokenizer); }, "the sentencepiece model has " + part, "docs/interop.md");
  };
  const auto field = [](std::uint32_t id, std::uint64_t value) {
    detail::ProtobufWriter writer;
    writer.number(id, value);
    return writer.text();
  };
  refused(field(4, 0), "", "only one of a space before a text and extra spaces");
  refused(field(5, 0), "", "spaces that are not escaped");
  refused("", field(24, 1), "white space behind words");
  refused("", field(3, 2), "extra spaces that are removed beside the type bpe");
  refused(field(4, 0), field(3, 2), "no pieces for bytes beside the type bpe");
}

}  // namespace tinymoe_test::gguf_models
