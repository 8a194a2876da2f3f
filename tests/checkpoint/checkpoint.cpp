// Checkpoints: what is in them, resuming to the bit, and everything that can be wrong with one.

#include "tinymoe/checkpoint/checkpoint.hpp"

#include <functional>
#include <initializer_list>
#include <map>
#include <set>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/descent.hpp"

namespace tinymoe_test::checkpoint {

namespace {

using TinyModel = Model<Tiny, Cpu>;

/// The shape of the folders of the hub.
template <class Head>
using OfHub = Transformer<
    Vocab<512>, Context<64>, Width<16>, Head,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, KvHeads<1>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<16>>>>>;

FitOptions options_for(const std::filesystem::path& path, Index steps, Index accumulation = 1) {
  return {.batch = 2,
          .time = 16,
          .accumulation = accumulation,
          .steps = steps,
          .seed = Seed{3},
          .checkpoint = path,
          .tokenizer = &tiny_tokenizer()};
}

/// What a checkpoint holds, to compare: weights and moments.
std::string content(const std::filesystem::path& path) {
  return read_bytes(path / "model.safetensors") + read_bytes(path / "optimizer.safetensors");
}

/// Trains as a separate program would, from the checkpoint if there is one, and stops after `stop` steps.
StepReport run(const std::filesystem::path& path, FitOptions options, Index stop = 1 << 30) {
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 2});
  if (std::filesystem::exists(path)) trainer.resume(path);
  options.stop = [&] { return trainer.step() == stop; };
  return trainer.fit(tiny_data(), options);
}

/// Writes a safetensors file again, changed by f(tensors by name).
struct Values {
  std::vector<Index> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Values>;
template <class F>
void rewrite(const std::filesystem::path& path, F&& f) {
  Tensors tensors;
  {
    const Safetensors file(path);
    for (const auto& name : file.names()) {
      const auto& info = file.info(name);
      auto& tensor = tensors[name];
      tensor.shape = info.shape;
      tensor.values.resize(info.bytes.size() / sizeof(float));
      std::memcpy(tensor.values.data(), info.bytes.data(), info.bytes.size());
    }
  }
  f(tensors);
  write_file_atomically(path, [&](FileWriter& out) {
    std::vector<StoredTensor> stored;
    for (const auto& [name, tensor] : tensors) stored.push_back({name, StoredType::float32, tensor.shape});
    SafetensorsWriter writer(out, stored);
    for (const auto& [name, tensor] : tensors) writer.append(name, std::span<const float>(tensor.values));
    writer.finish();
  });
}

template <class F>
void edit_json(const std::filesystem::path& path, F&& f) {
  Json value = read_json(path);
  f(value);
  write_bytes(path, value.dump());
}

/// A good checkpoint after two steps; each case spoils a copy of it.
class Spoiled {
 public:
  Spoiled() { run(good, options_for(good, 2)); }

  /// A fresh copy of the good checkpoint.
  std::filesystem::path copy() const {
    const auto path = root / "spoiled";
    std::filesystem::remove_all(path);
    std::filesystem::copy(good, path, std::filesystem::copy_options::recursive);
    return path;
  }
  /// Resuming from a copy that `spoil(path)` changed throws an `E` that says all of `parts`, and changes nothing.
  template <class E, class F, class... Parts>
  void check(F&& spoil, const Parts&... parts) const {
    const auto path = copy();
    spoil(path);
    Cpu backend(1);
    TinyModel model(backend, Seed{9});
    Trainer trainer(model);
    const auto before = weights_of(model);
    check_message<E>([&] { trainer.resume(path); }, parts...);
    CHECK(same_bits(weights_of(model), before));
    CHECK(model.settings() == Settings{});
    CHECK(trainer.step() == 0);
  }

  const TemporaryFolder root;
  const std::filesystem::path good = root / "good";
};

}  // namespace

TEST_CASE("A resumed run ends in the bits of one that was never interrupted", "[checkpoint]") {
  for (const Index accumulation : {1, 3}) {
    const TemporaryFolder root;
    run(root / "whole", options_for(root / "whole", 6, accumulation));
    // The schedule spans the budget of six steps in both.
    run(root / "parts", options_for(root / "parts", 6, accumulation), 3);
    CHECK(content(root / "parts") != content(root / "whole"));
    const auto report = run(root / "parts", options_for(root / "parts", 6, accumulation));
    CHECK(report.step == 6);
    CHECK(report.tokens == 6 * 32 * accumulation);
    CHECK(content(root / "parts") == content(root / "whole"));
  }
}

TEST_CASE("Resuming restores weights, moments, step and settings", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  TinyModel model(backend, Seed{5},
                  {setting::norm_epsilon = 1e-6, setting::rope_theta = 500, setting::balance_weight = 0.03,
                   setting::z_weight = 0.5});
  Trainer trainer(model, AdamW{}, Constant{});
  trainer.fit(tiny_data(), options_for({}, 3));
  trainer.save(root / "a", tiny_tokenizer());
  TinyModel other(backend, Seed{6});
  Trainer resumed(other, AdamW{}, Constant{});
  resumed.resume(root / "a");
  CHECK(same_bits(weights_of(other), weights_of(model)));
  CHECK(other.settings() == model.settings());
  CHECK(resumed.step() == 3);
  const auto tokens = random_tokens(32, 260);
  const auto expected = trainer.train_step(tokens, tokens, 2, 16), found = resumed.train_step(tokens, tokens, 2, 16);
  CHECK(found.loss == expected.loss);
  CHECK(found.gradient_norm == expected.gradient_norm);
  CHECK(found.step == 4);
  CHECK(found.tokens == expected.tokens);
  resumed.save(root / "b", tiny_tokenizer());
  trainer.save(root / "a", tiny_tokenizer());  // over the old one
  CHECK(content(root / "a") == content(root / "b"));
  CHECK(load_tokenizer<Tiny>(root / "b").fingerprint() == tiny_tokenizer().fingerprint());
}

TEST_CASE("A run is resumed with its own data order only", "[checkpoint]") {
  const TemporaryFolder root;
  const auto path = root / "run";
  run(path, options_for(path, 2));
  const auto before = content(path);
  const auto refuse = [&](FitOptions options) { return [&path, options] { run(path, options); }; };
  auto options = options_for(path, 4);
  options.seed = Seed{4};
  check_message<MismatchError>(refuse(options), "seed 3", "4");
  options = options_for(path, 4);
  options.batch = 3;
  check_message<MismatchError>(refuse(options), "batch 2", "found 3");
  options = options_for(path, 4);
  options.time = 8;
  check_message<MismatchError>(refuse(options), "sequence 16", "8");
  check_message<MismatchError>(refuse(options_for(path, 4, 2)), "accumulation 1", "2");
  options = options_for(path, 4);
  options.batching = Batching::padded;
  check_message<MismatchError>(refuse(options), "packed", "padded");
  options = options_for(path, 4);
  options.average = 0.5;
  check_message<MismatchError>(refuse(options), "average", "0.5");
  // Data of as many tokens, one of which is another.
  std::vector<Token> tokens(static_cast<std::size_t>(tiny_data().size()));
  tiny_data().copy(0, tokens);
  tokens[tokens.size() / 2] ^= 1;
  const auto other = TokenData::from_tokens(tokens, 260);
  CHECK(fingerprint(other) != fingerprint(tiny_data()));
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  trainer.resume(path);
  check_message<MismatchError>([&] { trainer.fit(other, options_for(path, 4)); }, "other data", "fingerprint");
  check_message<MismatchError>([&] { trainer.fit(other.first(200), options_for(path, 4)); }, "found 200");
  CHECK(content(path) == before);
  CHECK(run(path, options_for(path, 4)).step == 4);
  CHECK(run(path, options_for(path, 4)).step == 4);  // nothing left to do
}

TEST_CASE("An optimizer without moments has checkpoints too", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  TinyModel model(backend, Seed{5}), other(backend, Seed{6});
  Trainer trainer(model, Descent{.lr = 0.1});
  trainer.fit(tiny_data(), options_for(root / "run", 2));
  Trainer resumed(other, Descent{.lr = 0.1});
  resumed.resume(root / "run");
  CHECK(resumed.step() == 2);
  CHECK(same_bits(weights_of(other), weights_of(model)));
  // One with other moments is another optimizer.
  Trainer adam(other);
  check_message<MismatchError>([&] { adam.resume(root / "run"); }, "trainer.json", "0 moments",
                               "expected adamw with 2");
}

TEST_CASE("A checkpoint is written only if the run has taken steps since the last one", "[checkpoint]") {
  const TemporaryFolder root;
  std::vector<Index> saved;
  auto options = options_for(root / "run", 7);
  options.checkpoint_every = 3;
  Callbacks watch;
  watch.checkpoint = [&](const StepReport& report, const CheckpointReport&) { saved.push_back(report.step); };
  options.observers = {&watch};
  run(root / "run", options);
  CHECK(saved == std::vector<Index>{3, 6, 7});
  saved.clear();
  run(root / "run", options);
  CHECK(saved.empty());
  CHECK(entries_in(root / "run") == 8);

  // Steps that were trained without a checkpoint, or saved elsewhere, are not in this one yet.
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model);
  trainer.fit(tiny_data(), options_for({}, 2));
  trainer.fit(tiny_data(), options_for(root / "one", 2));
  CHECK(std::filesystem::exists(root / "one" / "model.safetensors"));
  Trainer resumed(model);
  resumed.resume(root / "one");
  resumed.fit(tiny_data(), options_for(root / "two", 2));
  CHECK(content(root / "two") == content(root / "one"));
}

TEST_CASE("A full disk leaves the last good checkpoint and names the file", "[checkpoint]") {
  const TemporaryFolder root;
  const auto path = root / "run";
  run(path, options_for(path, 2));
  const auto before = content(path);
  {
    const FileSizeLimit limit(20000);
    check_message<FileError>([&] { run(path, options_for(path, 4)); }, "model.safetensors", "cannot be written",
                             "last good checkpoint: " + path.string() + " (step 2)");
  }
  CHECK(content(path) == before);
  CHECK(entries_in(root.path()) == 1);
  {
    // The weights fit, the moments, which are twice as large, do not.
    const FileSizeLimit limit(std::filesystem::file_size(path / "model.safetensors"));
    check_message<FileError>([&] { run(path, options_for(path, 4)); }, "optimizer.safetensors", "cannot be written");
  }
  CHECK(content(path) == before);
  CHECK(run(path, options_for(path, 4)).step == 4);
  CHECK(content(path) != before);
}

TEST_CASE("model.safetensors has the names and shapes of the hub's Mixtral", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  const TinyModel model(backend, Seed{5});
  save_model(root / "model", model, tiny_tokenizer());
  CHECK(entries_in(root / "model") == 6);
  std::map<std::string, std::vector<Index>> expected = {
      {"model.embed_tokens.weight", {260, 16}}, {"model.norm.weight", {16}}, {"lm_head.weight", {260, 16}}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    expected[layer + "input_layernorm.weight"] = {16};
    expected[layer + "post_attention_layernorm.weight"] = {16};
    expected[layer + "self_attn.q_proj.weight"] = {16, 16};
    expected[layer + "self_attn.k_proj.weight"] = {8, 16};
    expected[layer + "self_attn.v_proj.weight"] = {8, 16};
    expected[layer + "self_attn.o_proj.weight"] = {16, 16};
    expected[layer + "block_sparse_moe.gate.weight"] = {4, 16};
    for (int e = 0; e < 4; ++e) {
      const std::string expert = layer + "block_sparse_moe.experts." + std::to_string(e);
      expected[expert + ".w1.weight"] = {24, 16};
      expected[expert + ".w3.weight"] = {24, 16};
      expected[expert + ".w2.weight"] = {16, 24};
    }
  }
  const Safetensors file(root / "model" / "model.safetensors");
  std::map<std::string, std::vector<Index>> found;
  for (const auto& name : file.names()) {
    found[name] = file.info(name).shape;
    CHECK(file.info(name).type == StoredType::float32);
  }
  CHECK(found == expected);
  CHECK(file.metadata().at("format") == "pt");
  // Rows of a stacked tensor are the right ones: k_proj lies behind q_proj's 16 rows.
  std::vector<float> k(8 * 16), w3(24 * 16);
  file.read("model.layers.1.self_attn.k_proj.weight", std::vector<Index>{8, 16}, std::span<float>(k));
  const auto& layer = std::get<0>(model.weights().layers)[1];
  CHECK(std::memcmp(k.data(), layer.attention.qkv.data + 16 * 16, k.size() * sizeof(float)) == 0);
  file.read("model.layers.1.block_sparse_moe.experts.2.w3.weight", std::vector<Index>{24, 16}, std::span<float>(w3));
  CHECK(std::memcmp(w3.data(), layer.network.experts.experts[2].input.data + 24 * 16, w3.size() * sizeof(float)) == 0);
}

TEST_CASE("config.json is the hub's for a Mixtral", "[checkpoint]") {
  const Json file = config_json<TinyOf<260, 24, RmsNorm, 16, SlidingWindow<8>>>(
      {setting::norm_epsilon = 1e-6, setting::rope_theta = 5000, setting::balance_weight = 0.02,
       setting::z_weight = 0.003},
      259);
  const Json expected = {{"architectures", {"MixtralForCausalLM"}},
                         {"model_type", "mixtral"},
                         {"vocab_size", 260},
                         {"hidden_size", 16},
                         {"intermediate_size", 24},
                         {"num_hidden_layers", 2},
                         {"num_attention_heads", 4},
                         {"num_key_value_heads", 2},
                         {"head_dim", 4},
                         {"hidden_act", "silu"},
                         {"max_position_embeddings", 16},
                         {"rms_norm_eps", 1e-6},
                         {"rope_theta", 5000.0},
                         {"sliding_window", 8},
                         {"num_local_experts", 4},
                         {"num_experts_per_tok", 2},
                         {"router_aux_loss_coef", 0.02},
                         {"tie_word_embeddings", false},
                         {"bos_token_id", 259},
                         {"eos_token_id", 259}};
  for (const auto& [key, value] : expected.members()) {
    INFO(key);
    CHECK(file.contains(key));
    CHECK(file[key] == value);
  }
  CHECK(config_json<Tiny>({}, 0)["sliding_window"].is_null());
  // What the hub's Mixtral cannot compute does not pretend to be one.
  using Normed = TinyOf<260, 24, LayerNorm>;
  using Biased = TinyOf<260, 24, RmsNorm, 16, Bias>;
  for (const auto& other : {config_json<Normed>({}, 0), config_json<Biased>({}, 0)}) {
    CHECK(other["model_type"] == "tinymoe");
    CHECK(other["architectures"] == Json::array({"TinymoeForCausalLM"}));
    CHECK_FALSE(other.contains("num_local_experts"));
  }
}

TEST_CASE("A checkpoint of another architecture is refused, and the field named", "[checkpoint]") {
  const Spoiled good;
  Cpu backend(1);
  const auto refuse = [&]<class Arch>(std::type_identity<Arch>, const auto&... parts) {
    Model<Arch, Cpu> model(backend, Seed{9});
    const auto before = weights_of(model);
    check_message<MismatchError>([&] { load_model(good.good, model); }, "config.json", parts...);
    CHECK(same_bits(weights_of(model), before));
  };
  refuse(std::type_identity<TinyOf<260, 32>>{}, "layers", "\"hidden\":24", "\"hidden\":32");
  refuse(std::type_identity<TinyOf<261>>{}, "vocab", "260", "261");
  refuse(std::type_identity<TinyOf<260, 24, LayerNorm>>{}, "final_norm", "rms_norm", "layer_norm");
  refuse(std::type_identity<TinyOf<260, 24, RmsNorm, 32>>{}, "context", "16", "32");
  check_message<MismatchError>([&] { load_tokenizer<TinyOf<259>>(good.good); }, "tokenizer.json", "260", "259");
  CHECK(load_tokenizer<TinyOf<261>>(good.good).vocabulary_size() == 260);  // what trains may be loaded
}

TEST_CASE("A checkpoint from the hub is checked by the hub's fields", "[checkpoint]") {
  const Spoiled good;
  Cpu backend(1);
  TinyModel model(backend, Seed{9});
  const auto path = good.copy();
  edit_json(path / "config.json", [](auto& file) {
    file.erase("tinymoe");
    file["rope_theta"] = 777;
    file.erase("router_z_loss_coef");
  });
  load_model(path, model);
  CHECK(model.settings()[setting::rope_theta] == 777);
  CHECK(model.settings()[setting::z_weight] == setting::z_weight.initial);
  for (const char* field :
       {"model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "num_local_experts", "num_experts_per_tok", "tie_word_embeddings", "sliding_window"}) {
    good.check<MismatchError>(
        [&](const auto& at) {
          edit_json(at / "config.json", [&](auto& file) {
            file.erase("tinymoe");
            file[field] = 7;
          });
        },
        "config.json", field, "7");
  }
}

TEST_CASE("The special tokens of a model's files come with it, and are saved again", "[checkpoint]") {
  const Spoiled good;
  Cpu backend(1);
  TinyModel model(backend, Seed{9});
  const auto end = tiny_tokenizer().end_of_story();
  CHECK(model.special_tokens() == ModelTokens{});
  load_model(good.good, model);
  CHECK(model.special_tokens().config == SpecialTokens{.begin = end, .end = {end}});
  CHECK(model.special_tokens().generation == model.special_tokens().config);

  const char* const fields[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
  const TemporaryFolder root;
  // What a foreign config.json and a generation_config.json say is read, and is there again in what is saved.
  const auto check = [&](const Json& config, const Json& generation, const SpecialTokens& expected) {
    CAPTURE(config.dump(), generation.dump());
    const auto path = good.copy();
    std::filesystem::remove(path / "generation_config.json");
    std::filesystem::remove(path / "tokenizer.json");  // it would decide how texts begin
    edit_json(path / "config.json", [&](auto& file) {
      file.erase("tinymoe");
      for (const char* field : fields) {
        file.erase(field);
        if (config.contains(field)) file[field] = config[field];
      }
    });
    if (!generation.is_null()) write_bytes(path / "generation_config.json", generation.dump());
    load_model(path, model);
    CHECK(model.special_tokens().with({}, 5) == expected);
    save_model(root / "saved", model, tiny_tokenizer());
    const Json saved = read_json(root / "saved" / "config.json");
    for (const auto& [field, value] : config.members()) CHECK(saved[field] == value);
    const Json again = read_json(root / "saved" / "generation_config.json");
    for (const char* field : fields) CHECK((!generation.is_null() || again[field] == saved[field]));
    if (!generation.is_null()) {
      for (const char* field : fields) CHECK(again[field] == generation[field]);
      for (const auto& [field, value] : generation.members()) CHECK(again[field] == value);
    }
    TinyModel other(backend, Seed{10});
    load_model(root / "saved", other);
    CHECK(other.special_tokens().config == model.special_tokens().config);
    CHECK(other.special_tokens().with({}, 5) == model.special_tokens().with({}, 5));
    std::filesystem::remove(root / "saved" / "generation_config.json");
  };
  check({{"bos_token_id", 1}, {"eos_token_id", 2}, {"pad_token_id", nullptr}}, nullptr, {.begin = 1, .end = {2}});
  check({{"bos_token_id", 3}, {"eos_token_id", {2, 5, 99}}, {"pad_token_id", 0}}, nullptr,
        {.begin = 3, .end = {2, 5, 99}, .pad = 0});
  // As MixtralConfig: what is absent is 1 and 2, null is none; ids outside the vocabulary are kept.
  check(Json::object(), nullptr, {.begin = 1, .end = {2}});
  check({{"bos_token_id", nullptr}, {"eos_token_id", nullptr}}, nullptr, {.begin = 5});
  check({{"eos_token_id", 50256}, {"pad_token_id", -1}}, nullptr, {.begin = 1, .end = {50256}, .pad = -1});
  check({{"eos_token_id", 2}, {"pad_token_id", 7}}, {{"eos_token_id", {2, 4}}}, {.begin = 1, .end = {2, 4}});
  check({{"eos_token_id", 2}}, {{"bos_token_id", 6}, {"temperature", 0.5}}, {.begin = 6});
  check({{"eos_token_id", 2}},
        {{"do_sample", true}, {"eos_token_id", 4}, {"stop_strings", {"é", "\n"}}, {"top_k", nullptr}},
        {.begin = 1, .end = {4}});

  // A Mixtral of tinymoe's means what transformers reads, too. Another model's file is tinymoe's alone.
  const auto without = [&](std::initializer_list<const char*> absent) {
    const auto path = good.copy();
    edit_json(path / "config.json", [&](auto& file) {
      for (const char* field : absent) file.erase(field);
    });
    load_model(path, model);
    return model.special_tokens().config;
  };
  CHECK(without({"eos_token_id"}) == SpecialTokens{.begin = end, .end = {2}});
  CHECK(without({"bos_token_id"}) == SpecialTokens{.begin = 1, .end = {end}});
  CHECK(without({"bos_token_id", "eos_token_id"}) == SpecialTokens{.begin = 1, .end = {2}});
  const auto of_another = [&](const Json& config) {
    Json file = config;
    file["model_type"] = "tinymoe", file["tinymoe"] = Json::object();
    write_bytes(root / "config.json", file.dump());
    return tinymoe::detail::read_model_tokens(root.path()).config;
  };
  CHECK_FALSE(of_another(Json::object()));
  CHECK(of_another({{"eos_token_id", 3}}) == SpecialTokens{.end = {3}});
  check_message<FileError>([&] { of_another({{"bos_token_id", 3}}); }, "\"eos_token_id\" is missing", "bos_token_id");

  // What stands before a text is what the files of another program say, be it nothing, and what is saved says it too.
  const auto before = [&](const Json& processor) {
    const auto path = good.copy();
    edit_json(path / "config.json", [&](auto& file) { file.erase("tinymoe"); });
    edit_json(path / "tokenizer.json", [&](auto& file) { file["post_processor"] = processor; });
    load_model(path, model);
    const auto found = model.special_tokens().with({}, 5).begin;
    save_model(root / "saved", model, tiny_tokenizer());
    TinyModel again(backend, Seed{10});
    load_model(root / "saved", again);
    CHECK(again.special_tokens().with({}, 5).begin == found);
    const Json saved = read_json(root / "saved" / "tokenizer.json");
    if (!found) CHECK(saved["post_processor"].is_null());
    if (found == end)
      CHECK(saved["post_processor"] == tinymoe::detail::beginning_with(std::string(end_of_story_text), end));
    return found;
  };
  const Json template_of_end = tinymoe::detail::beginning_with(std::string(end_of_story_text), end);
  CHECK(before(nullptr) == std::nullopt);
  CHECK(before({{"type", "ByteLevel"}}) == std::nullopt);
  CHECK(before(template_of_end) == end);
  CHECK(before({{"type", "Sequence"}, {"processors", Json::array({{{"type", "ByteLevel"}}, template_of_end})}}) == end);
  CHECK(before({{"type", "RobertaProcessing"}, {"cls", {"<s>", 3}}}) == 3);
  const auto refuse_before = [&](const Json& processor, const auto&... parts) {
    good.check<FileError>(
        [&](const auto& at) {
          edit_json(at / "config.json", [&](auto& file) { file.erase("tinymoe"); });
          edit_json(at / "tokenizer.json", [&](auto& file) { file["post_processor"] = processor; });
        },
        "tokenizer.json: the post_processor puts", parts...);
  };
  refuse_before(tinymoe::detail::template_around({{"<s>", 3}, {"<t>", 4}}, {}), "2 tokens before each text");
  refuse_before(tinymoe::detail::beginning_with("<s>", 99999), "token 99999", "tokens from 0 to");

  // A model that learns stories ends them as they do, in the files of its run too.
  model.special_tokens() = {.config = SpecialTokens{.begin = 1, .end = {2}}, .generation = SpecialTokens{}};
  Trainer trainer(model);
  trainer.fit(tiny_data(), options_for(root / "run", 1));
  CHECK(model.special_tokens().config->end == std::vector<Token>{2, end});
  CHECK(model.special_tokens().generation->end == std::vector<Token>{end});
  CHECK(read_json(root / "run" / "config.json")["eos_token_id"] == Json::array({2, end}));
  TinyModel loaded(backend, Seed{10});
  load_model(root / "run", loaded);
  CHECK(loaded.special_tokens() == model.special_tokens());

  const auto refuse = [&](const char* name, const char* field, const char* value) {
    good.check<FileError>(
        [&](const auto& at) {
          if (!std::filesystem::exists(at / name)) write_bytes(at / name, "{}");
          edit_json(at / name, [&](auto& file) { file[field] = parse_json(value, "test"); });
        },
        name, field);
  };
  for (const char* name : {"config.json", "generation_config.json"}) {
    for (const char* value : {"\"</s>\"", "1.5", "true", "3000000000", "[[1]]", "{}"}) {
      for (const char* field : fields) refuse(name, field, value);
    }
    refuse(name, "eos_token_id", "[2, null]");
    refuse(name, "bos_token_id", "[1]");
  }
  for (const char* bytes : {"{", "[]", "2", ""}) {
    good.check<FileError>([=](const auto& at) { write_bytes(at / "generation_config.json", bytes); },
                          "generation_config.json");
  }
}

TEST_CASE("The files beside a tokenizer name the special tokens of the model's texts", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  TinyModel model(backend, Seed{1});
  const Token end = tiny_tokenizer().end_of_story();
  const auto saved = [&](const Tokenizer& tokenizer, const char* name) {
    save_model(root / "model", model, tokenizer);
    CHECK(Tokenizer::load(root / "model" / "tokenizer.json") == tokenizer);
    return read_json(root / "model" / name);
  };
  const auto begins = [](const Json& file, const char* name, Token id) {
    const Json& template_of = file["post_processor"];
    CHECK(template_of["single"].items()[0]["SpecialToken"]["id"] == name);
    CHECK(template_of["special_tokens"][name]["ids"] == Json::array({id}));
  };
  begins(saved(tiny_tokenizer(), "tokenizer.json"), "<|endoftext|>", end);
  CHECK(saved(tiny_tokenizer(), "special_tokens_map.json") ==
        Json{{"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}});
  CHECK(saved(tiny_tokenizer(), "tokenizer_config.json")["model_max_length"] == Tiny::context);
  CHECK(saved(tiny_tokenizer(), "generation_config.json") ==
        Json{{"bos_token_id", end}, {"eos_token_id", end}, {"pad_token_id", nullptr}});

  auto parts = tiny_tokenizer().as<ByteLevelBpe>()->parts();
  parts.vocabulary[static_cast<std::size_t>(end)].bytes = "<s>";
  parts.vocabulary.push_back({"<|endoftext|>", true});
  const Tokenizer two{ByteLevelBpe(parts)};
  const Token last = static_cast<Token>(two.vocabulary_size() - 1);
  begins(saved(two, "tokenizer.json"), "<|endoftext|>", last);
  // config.json decides what begins a text; an ordinary token has no name, and neither has one that there is not.
  model.special_tokens() = {.config = SpecialTokens{.begin = end, .end = {7, last}, .pad = 9999}};
  begins(saved(two, "tokenizer.json"), "<s>", end);
  CHECK(saved(two, "special_tokens_map.json") == Json{{"bos_token", "<s>"}, {"eos_token", "<|endoftext|>"}});
}

TEST_CASE("Tensors that follow from others are left out where they agree", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  const Model<OfHub<TiedHead>, Cpu> model(backend, Seed{5});
  Model<OfHub<TiedHead>, Cpu> read(backend, Seed{6});
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight", layer = "model.layers.0.",
                    frequencies = layer + "self_attn.rotary_emb.inv_freq", norm = "model.norm.weight";
  const auto spoil = [&](const std::function<void(Tensors&)>& f) {
    save_model(root / "model", model, tiny_tokenizer());
    rewrite(root / "model" / "model.safetensors", f);
  };
  const auto loads = [&](const std::function<void(Tensors&)>& f) {
    spoil(f);
    read.replace([](auto values, Index) { std::fill(values.data, values.data + values.size(), 0.0f); });
    load_model(root / "model", read);
    CHECK(same_bits(weights_of(read), weights_of(model)));
  };
  const auto refuses = [&](const std::function<void(Tensors&)>& f, const auto&... parts) {
    spoil(f);
    check_message<MismatchError>([&] { load_model(root / "model", read); }, "model.safetensors", parts...);
    CHECK(same_bits(weights_of(read), weights_of(model)));
  };
  loads([&](Tensors& t) { t[head] = t[embedding]; });
  loads([&](Tensors& t) { t[head] = t[embedding], t.erase(embedding); });        // as safetensors keeps one of two
  loads([&](Tensors& t) { t[frequencies] = {{4}, {1, 0.1f, 0.01f, 0.001f}}; });  // 10000^(−2i/8)
  const auto without_head = [&](Tensors& t) {                                    // a MixtralModel's
    Tensors shorter;
    for (auto& [name, tensor] : t) shorter[name.substr(6)] = tensor;
    t = shorter;
    edit_json(root / "model" / "config.json",
              [](auto& file) { file["architectures"] = Json::array({"MixtralModel"}); });
  };
  loads(without_head);
  edit_json(root / "model" / "config.json",
            [](auto& file) { file.erase("tinymoe"), file["tie_word_embeddings"] = false; });
  Model<OfHub<UntiedHead>, Cpu> untied(backend, Seed{7});
  check_message<MismatchError>([&] { load_model(root / "model", untied); }, head + " is missing",
                               "the model with its head", "tie_word_embeddings");
  refuses([&](Tensors& t) { (t[head] = t[embedding]).values[7] += 1; }, head, "differs from " + embedding, "ties");
  refuses([&](Tensors& t) { t[head] = {{1, 16}, std::vector<float>(16)}; }, head, "[512, 16]", "[1, 16]");
  refuses(
      [&](Tensors& t) {
        t[frequencies] = {{4}, {1, 0.1f, 0.01f, 0.002f}};
      },
      frequencies, "0.002", "rope_theta 10000");
  refuses([&](Tensors& t) { t["lm_head.bias"] = {{512}, std::vector<float>(512)}; }, "lm_head.bias", "does not belong");
  refuses([&](Tensors& t) { t["a"] = t["b"] = {{1}, {0}}; }, "tensor a does not belong", "(and 1 more)");
  refuses([&](Tensors& t) { t.erase(norm); }, norm + " is missing;", "save the model again");
  refuses([&](Tensors& t) { t["norm.weight"] = t[norm]; }, "norm.weight does not belong");
  refuses([&](Tensors& t) { t["model." + norm] = t[norm], t.erase(norm); }, "the file has model." + norm);
  refuses(
      [&](Tensors& t) {
        Tensors longer;
        for (auto& [name, tensor] : t) longer["model." + name] = tensor;
        t = longer;
      },
      "(and 20 more)", "the file has model.model.", "rename it");
  refuses(
      [&](Tensors& t) {
        std::erase_if(t, [](auto& one) { return one.first.find("experts") != std::string::npos; });
        t[layer + "mlp.experts.gate_up_proj"] = {{4, 32, 16}, std::vector<float>(4 * 32 * 16)};
      },
      "experts.0.w1.weight is missing (and 11 more)", "save_original_format=True");
  const std::string gate = layer + "block_sparse_moe.gate.weight";
  refuses([&](Tensors& t) { t[gate].shape = {16, 4}; }, gate, "[4, 16]", "[16, 4]", "transposed");
}

TEST_CASE("Every fault of a checkpoint is named, and the model stays as it was", "[checkpoint]") {
  const Spoiled good;
  const auto remove = [](const char* name) { return [=](const auto& at) { std::filesystem::remove(at / name); }; };
  const auto cut = [](const char* name) {
    return [=](const auto& at) { std::filesystem::resize_file(at / name, std::filesystem::file_size(at / name) - 5); };
  };
  const auto edit = [](const char* name, auto f) { return [=](const auto& at) { edit_json(at / name, f); }; };
  const auto tensors = [](const char* name, auto f) { return [=](const auto& at) { rewrite(at / name, f); }; };
  const char *weights = "model.safetensors", *moments = "optimizer.safetensors", *state = "trainer.json";
  const char* gate = "model.layers.1.block_sparse_moe.gate.weight";

  good.check<FileError>([](const auto& at) { std::filesystem::remove_all(at); }, "spoiled", "no such folder");
  for (const char* name : {weights, moments, state, "config.json"}) good.check<FileError>(remove(name), name);
  for (const char* name : {weights, moments, state, "config.json"}) good.check<FileError>(cut(name), name);
  good.check<FileError>([&](const auto& at) { write_bytes(at / weights, ""); }, weights);

  for (const std::string prefix : {"", "moment2."}) {
    const char* name = prefix.empty() ? weights : moments;
    const std::string tensor = prefix + gate;
    good.check<MismatchError>(tensors(name, [](auto& t) { t["extra.weight"] = {{1}, {0}}; }), name, "extra.weight");
    good.check<MismatchError>(tensors(name, [=](auto& t) { t.erase(tensor); }), name, tensor);
    good.check<MismatchError>(tensors(name, [=](auto& t) { t["x"] = t[tensor], t.erase(tensor); }), name, tensor);
    good.check<MismatchError>(tensors(name,
                                      [=](auto& t) {
                                        t[tensor].shape = {16, 4};
                                      }),
                              name, tensor, "[4, 16]", "[16, 4]");
    good.check<FileError>(tensors(name, [=](auto& t) { t[tensor].values[5] = std::numeric_limits<float>::infinity(); }),
                          name, tensor);
    good.check<FileError>(
        tensors(name, [=](auto& t) { t[tensor].values[63] = std::numeric_limits<float>::quiet_NaN(); }), name, tensor);
  }

  good.check<MismatchError>(edit("config.json", [](auto& f) { f["tinymoe"]["width"] = 32; }), "config.json", "width",
                            "32", "16");
  good.check<FileError>(edit("config.json", [](auto& f) { f["tinymoe"] = 3; }), "config.json");
  good.check<FileError>(edit("config.json", [](auto& f) { f["tinymoe"].erase("vocab"); }), "config.json", "vocab");
  good.check<FileError>(edit("config.json", [](auto& f) { f["rope_theta"] = "big"; }), "config.json", "rope_theta");
  good.check<MismatchError>([&](const auto& at) { write_bytes(at / "config.json", "[]"); }, "config.json");

  good.check<FileError>(edit(state, [](auto& f) { f["step"] = -1; }), state, "step", "-1");
  good.check<FileError>(edit(state, [](auto& f) { f["step"] = "two"; }), state, "step");
  good.check<FileError>(edit(state, [](auto& f) { f["step"] = 2.5; }), state, "step");
  good.check<FileError>(edit(state, [](auto& f) { f["step"] = 1e30; }), state, "step");
  good.check<FileError>(edit(state, [](auto& f) { f["seed"] = -3; }), state, "seed");
  good.check<FileError>(edit(state, [](auto& f) { f["tokens"] = nullptr; }), state, "tokens");
  good.check<FileError>(edit(state, [](auto& f) { f["seconds"] = true; }), state, "seconds");
  good.check<FileError>(edit(state, [](auto& f) { f.erase("accumulation"); }), state, "accumulation");
  good.check<FileError>(edit(state, [](auto& f) { f = Json::array(); }), state, "array");
  good.check<MismatchError>(edit(state, [](auto& f) { f["moments"] = 1; }), state, "1 moments");
  good.check<MismatchError>(edit(state, [](auto& f) { f["optimizer"] = "lion"; }), state, "lion", "adamw");
  good.check<MismatchError>(edit(state, [](auto& f) { f["version"] = 1; }), state, "version");
  good.check<FileError>(edit(state, [](auto& f) { f["batching"] = "loose"; }), state, "batching", "loose");
  good.check<FileError>(edit(state, [](auto& f) { f["average"] = 1.5; }), state, "average", "1.5");
  good.check<FileError>(edit(state, [](auto& f) { f["average"] = 0.5; }), "average.safetensors");
  good.check<FileError>(edit(state, [](auto& f) { f["best_step"] = 2; }), state, "best_loss");

  // An unchanged copy can be resumed from, so the cases above failed for their own reasons.
  Cpu backend(1);
  TinyModel model(backend, Seed{9});
  Trainer trainer(model);
  trainer.resume(good.copy());
  CHECK(trainer.step() == 2);
}

TEST_CASE("Saving and loading a model alone round-trips, over an older one too", "[checkpoint]") {
  const TemporaryFolder root;
  Cpu backend(1);
  const TinyModel first(backend, Seed{1}), second(backend, Seed{2});
  TinyModel loaded(backend, Seed{3});
  save_model(root / "model", first, tiny_tokenizer());
  save_model(root / "model", second, tiny_tokenizer());
  load_model(root / "model", loaded);
  CHECK(same_bits(weights_of(loaded), weights_of(second)));
  CHECK_FALSE(same_bits(weights_of(loaded), weights_of(first)));
  CHECK(entries_in(root.path()) == 1);

  // Another program's generation_config.json stays; the special tokens that it names become the model's.
  const auto generation = root / "model" / "generation_config.json";
  for (const char* text : {"mine", "{}", "[]", "{\"temperature\": 0.5}"}) {
    write_bytes(generation, text);
    save_model(root / "model", second, tiny_tokenizer());
    CHECK(read_bytes(generation) == text);
  }
  write_bytes(generation, "{\"temperature\": 0.5, \"eos_token_id\": 3}");
  save_model(root / "model", second, tiny_tokenizer());
  CHECK(read_json(generation)["temperature"] == Json(0.5));
  load_model(root / "model", loaded);
  CHECK(loaded.special_tokens().generation == loaded.special_tokens().config);
  CHECK(entries_in(root / "model") == 6);
}

TEST_CASE("A checkpoint is removed whole, also where a crash has cut its replacement", "[checkpoint]") {
  const TemporaryFolder root;
  const auto path = root / "model", fresh = path / ".tinymoe.new";
  const bool cut = GENERATE(false, true);
  std::filesystem::create_directory(path);
  for (const char* name : {"model.safetensors", "config.json"}) write_bytes(path / name, "old");
  if (cut) {  // before the first file was put in place
    std::filesystem::create_directory(fresh);
    for (const char* name : {"model.safetensors", "config.json"}) std::filesystem::rename(path / name, fresh / name);
  }
  write_bytes(root / "notes.txt", "mine");
  remove_checkpoint(path);
  CHECK_FALSE(std::filesystem::exists(path));
  remove_checkpoint(path);
  remove_checkpoint(root.path());
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("A checkpoint that a kill has removed in part is removed to its end", "[checkpoint]") {
  const TemporaryFolder root;
  const auto path = root / "model";
  std::filesystem::create_directories(path / ".tinymoe.new");  // nothing is new: all old files go
  write_bytes(path / "config.json", "old");
  CHECK_FALSE(detail::folder_has(path, "model.safetensors"));
  remove_checkpoint(path);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("Removing a checkpoint keeps a link to its folder, and files of others", "[checkpoint]") {
  const TemporaryFolder root;
  const auto path = root / "model", link = root / "link";
  std::filesystem::create_directory(path);
  std::filesystem::create_directory_symlink("model", link);
  for (const char* name : {"model.safetensors", "config.json", "notes.txt"}) write_bytes(path / name, "old");
  remove_checkpoint(link);
  CHECK(std::filesystem::is_symlink(link));
  CHECK(entries_in(path) == 1);
  CHECK(read_bytes(path / "notes.txt") == "old");
}

TEST_CASE("Folders that transformers saved load with the values that it reads", "[checkpoint]") {
  const std::filesystem::path folders = TINYMOE_SOURCE_DIR "/../shared/faults";
  if (!std::filesystem::exists(folders / "hub_f32")) skip("there are no folders of the hub");
  Cpu backend(1);
  Model<OfHub<UntiedHead>, Cpu> model(backend), plain(backend);
  load_model(folders / "hub_f32", plain);
  for (const char* folder : {"hub_f32", "hub_saved_by_v5", "hub_no_theta", "hub_no_tie", "hub_rope_null"}) {
    INFO(folder);
    load_model(folders / folder, model);
    CHECK(model.settings()[setting::rope_theta] == 1e6);
    CHECK(same_bits(weights_of(model), weights_of(plain)));
  }
  Model<OfHub<TiedHead>, Cpu> tied(backend);
  load_model(folders / "hub_tied_both", tied);
  check_message<MismatchError>([&] { load_model(folders / "hub_tied_both", model); }, "tie_word_embeddings is true");
}

}  // namespace tinymoe_test::checkpoint
