// Harnesses of models on disk: config.json, the folder of a checkpoint, GGUF, and llama2.c's model.bin.

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "fuzz/harness.hpp"
#include "fuzz/tokenizers.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/gguf.hpp"
#include "tinymoe/checkpoint/llama2c.hpp"
#include "tinymoe/checkpoint/training_checkpoint.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"

namespace tinymoe_fuzz {

namespace checkpoints {

using Mixture = Transformer<
    Vocab<8>, Context<8>, Width<4>, UntiedHead,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, KvHeads<1>, Rope>, Router<2, 2>, Expert<SwiGlu, Hidden<4>>>>>;
using Dense =
    Transformer<Vocab<8>, Context<4>, Width<4>, UntiedHead,
                Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>, KvHeads<1>, Rope>, Expert<SwiGlu, Hidden<4>>>>>;

Cpu& backend() {
  static Cpu one(1);
  return one;
}

/// Six tokens of Llama's kind.
Tokenizer small_llama() {
  std::vector<VocabularyEntry> names = {{"<unk>"}, {"<s>"}, {"</s>"}, {" "}, {"a"}, {"aa"}};
  const std::vector<float> scores = {0, 0, 0, -1, -2, -3};
  tinymoe::detail::Llama2cVocabulary vocabulary(std::move(names));
  auto merges = tinymoe::detail::scored_merges(vocabulary, scores);
  return Tokenizer(tinymoe::detail::Llama2cBpe({std::move(vocabulary), std::move(merges)}));
}

template <class Arch>
std::vector<float> weights_of(const Model<Arch, Cpu>& model) {
  const auto view = model.masters();
  return {view.data, view.data + view.size()};
}

/// Calls load(model). Where it fails the model is what it was, else its weights are finite.
template <class Arch, class Load>
void load_whole_or_not(Model<Arch, Cpu>& model, Load&& load) {
  const std::vector<float> before = weights_of(model);
  const bool loaded = accepts([&] { load(model); });
  const std::vector<float> after = weights_of(model);
  if (!loaded)
    expect(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)) == 0, "half of a model is loaded");
  for (const float weight : after) expect(std::isfinite(weight), "a weight is not finite");
}

// config.json

void config(std::string_view input) {
  const auto path = write_scratch("config.json", input);
  accepts([&] {
    const auto shape = tinymoe::detail::shape_of_file(read_json(path), "config.json");
    expect(!shape.layers.empty() && shape.vocab > 0 && shape.width > 0, "a shape that is none");
  });
  accepts([&] { static_cast<void>(read_config<Mixture>(path)); });
  accepts([&] { static_cast<void>(read_config<Dense>(path)); });
}

void config_seeds(const TakeSeed& take) {
  take(config_json<Mixture>({}, 2).dump());
  take(config_json<Dense>({}, 2).dump());
  // The least of each architecture of the hub.
  for (const auto& hub : tinymoe::detail::hub_architectures) {
    Json file = {{"model_type", hub.model_type},
                 {"vocab_size", 8},
                 {"hidden_size", 8},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 2},
                 {"num_key_value_heads", 1},
                 {"n_embd", 8},
                 {"n_head", 2},
                 {"n_layer", 2},
                 {"n_positions", 16},
                 {"head_dim", 4}};
    file["intermediate_size"] = 8, file["moe_intermediate_size"] = 8, file["max_position_embeddings"] = 16;
    file["num_local_experts"] = 4, file["num_experts"] = 4, file["n_routed_experts"] = 4,
    file["num_experts_per_tok"] = 2;
    file["shared_expert_intermediate_size"] = 8, file["n_shared_experts"] = 1, file["first_k_dense_replace"] = 1;
    file["rope_theta"] = 10000.0;
    take(file.dump());
  }
}

// The folder of a checkpoint, of whose files the input is one.

constexpr const char* checkpoint_names[] = {"config.json",        "generation_config.json", "tokenizer.json",
                                            "trainer.json",       "model.safetensors",      "optimizer.safetensors",
                                            "average.safetensors"};

/// The folder, written once.
const std::filesystem::path& good_checkpoint() {
  static const std::filesystem::path folder = [] {
    const auto path = scratch() / "checkpoint";
    Model<Mixture, Cpu> model(backend(), Seed{5});
    std::vector<float> numbers = weights_of(model);
    TrainingState state;
    state.optimizer = "adamw", state.moments = 2, state.step = 7, state.tokens = 70, state.average = 0.5;
    state.averages = 7, state.recipe = {{"preset", "tiny"}};
    const View<float> average(numbers.data(), 1, std::ssize(numbers));
    tinymoe::detail::save_training(path, model, small_llama(), state, average,
                                   [&](std::size_t, Index place, std::span<float> values) {
                                     std::copy_n(numbers.begin() + place, std::ssize(values), values.begin());
                                   });
    return path;
  }();
  return folder;
}

std::vector<std::string> good_files() {
  std::vector<std::string> files;
  for (const char* name : checkpoint_names) files.push_back(read_file(good_checkpoint() / name));
  return files;
}

void checkpoint(std::string_view input) {
  static const std::vector<std::string> good = good_files();
  static Model<Mixture, Cpu> model(backend(), Seed{5});
  static std::optional<std::size_t> spoiled;
  const auto write = [](std::size_t file, std::string_view content) {
    write_scratch("checkpoint/" + std::string(checkpoint_names[file]), content);
  };
  Bytes bytes(input);
  const std::size_t file = bytes.below(std::size(checkpoint_names));
  if (spoiled && *spoiled != file) write(*spoiled, good[*spoiled]);
  write(file, bytes.rest());
  spoiled = file;

  const auto path = good_checkpoint();
  load_whole_or_not(model, [&](auto& to) { load_model(path, to); });
  load_whole_or_not(model, [&](auto& to) { load_average(path, to); });
  load_whole_or_not(model, [&](auto& to) {
    const tinymoe::detail::TrainingCheckpoint<Mixture, Cpu> found(path, "adamw", 2);
    std::vector<std::vector<float>> buffers(3, std::vector<float>(weights_of(to).size()));
    const auto view = [](std::vector<float>& values) { return View<float>(values.data(), 1, std::ssize(values)); };
    // Two runs of elements, as of a rank with two buckets, which lie together in the moments.
    const Index all = std::ssize(buffers[0]), half = all / 2;
    found.load(backend(), view(buffers[2]), {view(buffers[0]), view(buffers[1])},
               [&](auto&& f) { f(Index{0}, half, Index{0}), f(half, all, half); });
    for (const auto& buffer : buffers) {
      for (const float value : buffer) expect(std::isfinite(value), "a moment is not finite");
    }
    found.load(to);
  });
  accepts([&] { use(load_tokenizer<Mixture>(path)); });
  accepts([&] { static_cast<void>(training_recipe(path)); });
}

void checkpoint_seeds(const TakeSeed& take) {
  const std::vector<std::string> good = good_files();
  for (std::size_t i = 0; i < good.size(); ++i) take(numbered(i, good[i]));
}

// GGUF as a model and as a tokenizer

void gguf_model(std::string_view input) {
  static Model<Mixture, Cpu> mixture(backend(), Seed{5});
  static Model<Dense, Cpu> dense(backend(), Seed{5});
  const auto path = write_scratch("model.gguf", input);
  accepts([&] { static_cast<void>(describe_gguf(path)); });
  accepts([&] { use_and_save(load_gguf_tokenizer(path)); });
  load_whole_or_not(mixture, [&](auto& model) { load_gguf(path, model); });
  load_whole_or_not(dense, [&](auto& model) { load_gguf(path, model); });
}

void gguf_model_seeds(const TakeSeed& take) {
  const auto path = scratch() / "seed.gguf";
  accepts([&] {
    save_gguf(path, Model<Mixture, Cpu>(backend(), Seed{5}), small_llama(), GgufType::float32);
    take(read_file(path));
    save_gguf(path, Model<Dense, Cpu>(backend(), Seed{5}), small_llama(), GgufType::bfloat16);
    take(read_file(path));
  });
  GgufMetadata metadata;
  const Tokenizer tokenizer = small_byte_level();
  tinymoe::detail::write_gguf_tokenizer(metadata, tokenizer, {.begin = 259, .end = {259}}, tokenizer.vocabulary_size());
  write_file_atomically(path, [&](FileWriter& file) { GgufWriter(file, metadata, {}).finish(); });
  take(read_file(path));
}

// llama2.c's model.bin

void llama2c_model(std::string_view input) {
  static Model<Dense, Cpu> model(backend(), Seed{5});
  const auto path = write_scratch("model.bin", input);
  accepts([&] {
    const Llama2cHeader header = llama2c_header(path);
    const auto places = tinymoe::detail::llama2c_places(header);
    for (const auto& [name, place] : places) {
      const auto size = static_cast<std::uint64_t>(place.rows * place.cols);
      expect((place.offset + size) * sizeof(float) <= input.size(), "a tensor lies outside of its file");
    }
  });
  load_whole_or_not(model, [&](auto& to) { load_llama2c(path, to); });
}

void llama2c_model_seeds(const TakeSeed& take) {
  constexpr Llama2cHeader header = llama2c_header_of<Dense>();
  std::string bytes;
  for (const Index field :
       {header.width, header.hidden, header.layers, header.heads, header.kv_heads, -header.vocab, header.context}) {
    bytes += bytes_of(static_cast<std::int32_t>(field));
  }
  const auto count = tinymoe::detail::llama2c_numbers(header);
  for (std::uint64_t i = 0; i < count; ++i) bytes += bytes_of(static_cast<float>(i) / 100.0f);
  take(bytes);
}

constexpr Harness harnesses[] = {
    {"config", config, config_seeds, 1 << 13, 4 * json_memory_factor, "config"},
    {"checkpoint", checkpoint, checkpoint_seeds, 1 << 13, 4 * json_memory_factor, "config"},
    {"gguf_model", gguf_model, gguf_model_seeds, 1 << 14, 4 * json_memory_factor, "gguf"},
    {"llama2c_model", llama2c_model, llama2c_model_seeds, 1 << 11, 256},
};

}  // namespace checkpoints

std::span<const Harness> checkpoint_harnesses() { return checkpoints::harnesses; }

}  // namespace tinymoe_fuzz
