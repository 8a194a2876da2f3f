// config.json against what transformers' MixtralConfig makes of the same fields: tinymoe agrees with it, or refuses.

#include "tinymoe/checkpoint/config.hpp"

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#include "files/bytes.hpp"
#include "tinymoe/checkpoint/hub_config.hpp"
#include "tinymoe/checkpoint/type_text.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::config {

namespace {

/// All that MixtralConfig has by default.
using Mixtral8x7B = Transformer<
    Vocab<32000>, Context<131072>, Width<4096>,
    Layers<32, MoEBlock<RmsNorm, Attention<Heads<32>, KvHeads<8>, Rope>, Router<8, 2>, Expert<SwiGlu, Hidden<14336>>>>>;
/// That of ../shared/faults, with as many key heads as heads.
using Small =
    Transformer<Vocab<512>, Context<64>, Width<16>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<16>>>>>;

template <class Arch>
Settings settings_in(const std::string& text) {
  const TemporaryFolder folder;
  return read_config<Arch>(write_bytes(folder / "config.json", text));
}

Json changed_file(Json file, const Json& fields) {
  for (const auto& [key, value] : fields.members()) file[key] = value;
  return file;
}
std::string changed(const Json& file, const Json& fields) { return changed_file(file, fields).dump(); }

}  // namespace

TEST_CASE("A config.json means what transformers takes it for, or is refused", "[config]") {
  const Json table = read_json(TINYMOE_SOURCE_DIR "/tests/checkpoint/mixtral_config.json");
  const struct {
    const char* name;
    const Setting& setting;
  } settings[] = {{"rope_theta", setting::rope_theta},
                  {"rms_norm_eps", setting::norm_epsilon},
                  {"attention_dropout", setting::attention_dropout},
                  {"router_aux_loss_coef", setting::balance_weight}};
  const Json& plain = table["cases"].items()[0]["transformers 5"];  // of a file without a field
  for (const Json& one : table["cases"].items()) {
    const std::string text = changed({{"model_type", "mixtral"}}, one["fields"]);
    CAPTURE(text);
    if (!one["loads"].boolean()) {
      try {
        settings_in<Mixtral8x7B>(text);
        FAIL_CHECK("was read");
      } catch (const Error& error) {
        const std::string message = error.what(), &field = one["fields"].members()[0].key;
        CAPTURE(message);
        CHECK(message.find("config.json") != std::string::npos);
        CHECK(message.find(field) != std::string::npos);
        CHECK(message.size() < 400);
      }
      continue;
    }
    const Settings read = settings_in<Mixtral8x7B>(text);
    bool agrees = false;
    for (const char* version : {"transformers 4", "transformers 5"}) {
      const Json& values = one[version];
      bool same = values.is_object();
      for (const auto& [name, setting] : settings) {
        same = same && read[setting] == (values.contains(name) ? values[name] : plain[name]).number();
      }
      agrees = agrees || same;
    }
    CHECK(agrees);
  }
}

TEST_CASE("Null heads and dimensions follow from others, and errors name what is wrong", "[config]") {
  const Json small = {{"model_type", "mixtral"}, {"vocab_size", 512},
                      {"hidden_size", 16},       {"intermediate_size", 16},
                      {"num_hidden_layers", 1},  {"num_attention_heads", 2},
                      {"num_local_experts", 4},  {"num_key_value_heads", nullptr}};
  CHECK(settings_in<Small>(small.dump())[setting::rope_theta] == 1e6);
  CHECK(settings_in<Small>(changed(small, {{"head_dim", nullptr}, {"max_position_embeddings", 64}})) ==
        settings_in<Small>(small.dump()));
  const auto refuse = [&]<class E>(std::type_identity<E>, const Json& fields, const auto&... parts) {
    check_message<E>([&] { settings_in<Small>(changed(small, fields)); }, "config.json", parts...);
  };
  constexpr std::type_identity<MismatchError> mismatch;
  constexpr std::type_identity<FileError> file_error;
  refuse(mismatch, {{"head_dim", 16}}, "head_dim is 16", "8");
  refuse(mismatch, {{"max_position_embeddings", 63}}, "63", "context of 64", "shorter");
  refuse(file_error, {{"vocab_size", 512.0}}, "\"vocab_size\" is 512.0", "not a whole number");
  refuse(mismatch, {{"rope_parameters", {{"rope_type", "yarn"}}}}, "rope_parameters.rope_type", "yarn", "default");
  refuse(mismatch, {{"rope_theta", nullptr}}, "\"rope_theta\" is null");
  refuse(file_error, {{"rms_norm_eps", -1.0}}, "\"rms_norm_eps\"", "above 0", "-1");
  refuse(mismatch, {{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config", "gptq");

  // Python's json writes NaN and takes the last of equal keys.
  const auto refuse_text = [&](const std::string& fields, const auto&... parts) {
    const std::string text = small.dump();
    check_message<FileError>([&] { settings_in<Small>(text.substr(0, text.size() - 1) + fields); }, parts...);
  };
  refuse_text(R"(,"rms_norm_eps":NaN})", "not finite", "byte");
  refuse_text(R"(,"rope_theta":-Infinity})", "not finite");
  refuse_text(R"(,"rope_theta":1e999})", "overflow");
  refuse_text(R"(,"vocab_size":512})", "vocab_size", "twice");
  check_message<MismatchError>([] { settings_in<Small>("[]"); }, "model_type");
}

TEST_CASE("A config.json of tinymoe's agrees with itself", "[config]") {
  using Dense =
      Transformer<Vocab<260>, Context<16>, Width<16>,
                  Layers<1, DenseBlock<LayerNorm, Attention<Heads<4>, Rope, Bias>, Expert<Gelu, Hidden<24>>>>>;
  const Json mixtral = config_json<Tiny>({setting::rope_theta = 500, setting::z_weight = 0.25}, 3);
  const auto read = [&](const Json& fields) { return settings_in<Tiny>(changed(mixtral, fields)); };
  CHECK(read(Json::object()) == Settings{setting::rope_theta = 500, setting::z_weight = 0.25});
  // As transformers 5 writes it again.
  Json again = mixtral;
  for (const char* field : {"rope_theta", "torch_dtype", "architectures", "output_router_logits"}) again.erase(field);
  again["rope_parameters"] = {{"rope_theta", 500.0}, {"rope_type", "default"}};
  again["head_dim"] = nullptr;
  again["dtype"] = "float32";
  CHECK(settings_in<Tiny>(again.dump()) == read(Json::object()));

  check_message<MismatchError>([&] { read({{"hidden_size", 32}}); }, "hidden_size is 32", "16");
  check_message<MismatchError>([&] { read({{"tie_word_embeddings", true}}); }, "tie_word_embeddings");
  check_message<MismatchError>([&] { read({{"attention_bias", true}}); }, "attention_bias");
  check_message<MismatchError>([&] { read({{"rope_theta", nullptr}}); }, "rope_theta", "null");
  check_message<FileError>([&] { read({{"router_z_loss_coef", nullptr}}); }, "router_z_loss_coef");
  Json less = mixtral;
  less.erase("rope_theta");
  check_message<MismatchError>([&] { settings_in<Tiny>(less.dump()); }, "rope_theta", "missing", "1000000", "10000");
  Json more = mixtral;
  more["tinymoe"]["later"] = 1;
  check_message<MismatchError>([&] { settings_in<Tiny>(more.dump()); }, "later", "newer tinymoe");
  less = mixtral;
  for (const char* field : {"hidden_size", "num_local_experts", "rms_norm_eps", "attention_dropout"}) less.erase(field);
  CHECK(settings_in<Tiny>(less.dump()) == read(Json::object()));  // "tinymoe" says it, or both have one default

  const Json dense = config_json<Dense>({setting::rope_theta = 500}, 3);
  CHECK(settings_in<Dense>(dense.dump()) == Settings{setting::rope_theta = 500});
  less = dense;
  less.erase("rope_theta");
  CHECK(settings_in<Dense>(less.dump()) == Settings{});  // only tinymoe reads it
  less = dense;
  less.erase("tinymoe");
  check_message<MismatchError>([&] { settings_in<Dense>(less.dump()); }, "\"tinymoe\" is missing", "none of the hub's");
}

namespace {

constexpr std::type_identity<MismatchError> not_computed;
constexpr std::type_identity<FileError> senseless;

Json hub_file(const char* model_type, const Json& fields = Json::object()) {
  Json file = {{"model_type", model_type},       {"vocab_size", 260},       {"hidden_size", 64},
               {"intermediate_size", 48},        {"num_hidden_layers", 2},  {"num_attention_heads", 32},
               {"max_position_embeddings", 128}, {"num_experts_per_tok", 2}};
  return changed_file(std::move(file), fields);
}

template <class E>
void refuse_shape(std::type_identity<E>, const Json& file, const auto&... parts) {
  CAPTURE(file.dump());
  check_message<E>([&] { detail::shape_of_file(file, "config.json"); }, "config.json", parts...);
}

}  // namespace

TEST_CASE("A described model is one that describe can have made", "[config]") {
  const auto of = [](const std::string& text) { return parse_json(text, "text"); };
  refuse_shape(senseless, of(R"({"tinymoe":[]})"), "layers");
  refuse_shape(senseless, of(R"({"tinymoe":{"layers":[]}})"), "\"layers\"");
  refuse_shape(senseless, of(R"({"tinymoe":{"layers":[{"count":4000000000000}]}})"), "\"count\"");
  refuse_shape(senseless, of(R"({"tinymoe":{"layers":[{"count":1}]}})"), "\"norm\" is missing");
  const Json file = {{"tinymoe", describe<Tiny>()}};
  CHECK(detail::shape_of_file(file, "config.json") == detail::shape_of(describe<Tiny>()));
  const auto group = [&](const char* part, const char* key, const Json& value) {
    Json layers = Json::array(), first = file["tinymoe"]["layers"].items()[0];
    (part != nullptr ? first[part] : first)[key] = value;
    layers.push_back(first);
    Json changed_file = file;
    changed_file["tinymoe"]["layers"] = layers;
    return changed_file;
  };
  refuse_shape(senseless, group(nullptr, "count", 65537), "65536 layers");
  for (const char* part : {"norm", "attention", "expert", "router", "shared_expert"}) {
    refuse_shape(senseless, group(nullptr, part, 3), std::string("\"") + part + "\" is no object");
  }
  refuse_shape(senseless, group("expert", "hidden", std::int64_t{1} << 31), "\"hidden\"");
  refuse_shape(senseless, group("expert", "hidden", (1 << 24) + 1), "hidden is 16777217", "16777216");
  refuse_shape(senseless, group("expert", "hidden", -1), "hidden is -1");
  refuse_shape(senseless, group("router", "choices", 9), "a token chooses 9");
  Json wide = group("router", "experts", 1 << 24);
  wide["tinymoe"]["width"] = 1 << 24;
  refuse_shape(senseless, wide, "parameters a matrix");
  refuse_shape(senseless, group("attention", "kv_heads", 3), "key-value heads 3");
  check_message<MismatchError>(
      [&] { detail::type_text(detail::shape_of_file(group("norm", "type", "mine"), "config.json")); }, "mine");
  check_message<MismatchError>(
      [&] { detail::type_header(detail::shape_of_file(group("norm", "type", "mine"), "a"), "a.json", "Told"); },
      "a.json: ", "mine");
}

TEST_CASE("A type is told of what tinymoe computes alone", "[config]") {
  CHECK(detail::shape_of_file(hub_file("llama"), "config.json").layers[1].kv_heads == 32);
  for (const char* place : {"rope_scaling", "rope_parameters"}) {
    refuse_shape(not_computed, hub_file("llama", {{place, {{"rope_type", "llama3"}, {"factor", 8.0}}}}), "llama3");
    refuse_shape(not_computed, hub_file("llama", {{place, {{"type", "linear"}, {"factor", 8.0}}}}), "linear");
  }
  refuse_shape(not_computed, hub_file("qwen2_moe", {{"num_experts", 4}}), "moe_intermediate_size", "missing");
  const Json mixture = {{"num_experts", 4}, {"moe_intermediate_size", 16}};
  refuse_shape(senseless, changed_file(hub_file("qwen3_moe", mixture), {{"num_experts_per_tok", 9}}), "chooses 9");
  refuse_shape(senseless, hub_file("llama", {{"num_attention_heads", 6}, {"num_key_value_heads", 4}}), "heads are 6");
  refuse_shape(senseless, hub_file("llama", {{"head_dim", 3}}), "head_dim is 3");
  refuse_shape(not_computed, hub_file("llama", {{"vocab_size", std::int64_t{1} << 31}}), "vocab_size", "16777216");
  refuse_shape(not_computed, hub_file("llama", {{"num_hidden_layers", 65537}}), "65537 layers, above 65536");
  refuse_shape(not_computed, hub_file("mixtral", {{"num_experts_per_tok", 1}}), "each gate is 1");
  refuse_shape(not_computed,
               {{"model_type", "gpt2"},
                {"vocab_size", 260},
                {"n_embd", 64},
                {"n_layer", 1},
                {"n_head", 3},
                {"n_positions", 128}},
               "n_embd is 64 and n_head 3");
}

TEST_CASE("A type's text says where biases of attention are", "[config]") {
  const auto text = [](auto attention) {
    using Arch = Transformer<Vocab<260>, Context<16>, Width<16>,
                             Layers<2, DenseBlock<RmsNorm, decltype(attention), Expert<SwiGlu, Hidden<24>>>>>;
    return detail::type_text(detail::shape_of(describe<Arch>()));
  };
  CHECK(text(Attention<Heads<4>, Rope>()).find("Bias") == std::string::npos);
  CHECK(text(Attention<Heads<4>, Rope, Bias>()).find(", Bias>") != std::string::npos);
  CHECK(text(Attention<Heads<4>, Rope, QkvBias>()).find(", QkvBias>") != std::string::npos);
  CHECK(text(Attention<Heads<4>, Rope, QkvBias>()).find(", Bias") == std::string::npos);
  CHECK(text(Attention<Heads<4>, Rope, OutputBias>()).find(", OutputBias>") != std::string::npos);
}

TEST_CASE("A type's text has ratios in lowest terms, and a shared expert has what the hub's has", "[config]") {
  CHECK(detail::ratio_text("Capacity", 10, 8) == ", Capacity<5, 4>");
  CHECK(detail::ratio_text("Capacity", 2, 1) == ", Capacity<2, 1>");
  using Sharing =
      Transformer<Vocab<260>, Context<16>, Width<16>,
                  Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, Rope, QkvBias>, Router<4, 2>,
                                     Expert<SwiGlu, Hidden<24>>, Shared<Expert<SwiGlu, Hidden<24>>, Gated>>>>;
  const auto reason = [](const auto& change) {
    detail::ModelShape shape = detail::shape_of(describe<Sharing>());
    for (detail::LayerShape& layer : shape.layers) change(layer);
    return detail::fit(*detail::hub_architecture("qwen2_moe"), shape).reason;
  };
  const std::string without = "has a shared expert of SwiGLU without biases";
  CHECK(reason([](detail::LayerShape&) {}) != without);
  CHECK(reason([](detail::LayerShape& layer) { layer.shared_bias = true; }) == without);
  CHECK(reason([](detail::LayerShape& layer) { layer.shared_activation = "gelu"; }) == without);
}

TEST_CASE("Tables of bigrams and of layers are told, and no model of the hub has them", "[config]") {
  using Plain = TinyOf<>;
  using Paired = Transformer<
      Vocab<260>, Context<16>, Width<16>, Bigrams<32>,
      Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;
  const auto plain = detail::shape_of(describe<Plain>()), paired = detail::shape_of(describe<Paired>());
  CHECK(plain.bigrams == 0);
  CHECK_FALSE(describe<Plain>().contains("bigrams"));  // as it was before there were any
  CHECK(paired.bigrams == 32);
  CHECK(plain != paired);
  CHECK(detail::type_text(paired).find(", Bigrams<32>") != std::string::npos);
  CHECK(detail::count_of(paired).total == detail::count_of(plain).total + 32 * 16);
  CHECK(detail::count_of(paired).active == detail::count_of(plain).active + 16);  // a token has one row
  check_message<MismatchError>([&] { detail::check_shape(paired, plain, "config.json", "tinymoe"); },
                               "the table of bigrams is 32", "has 0");
  using Layered = Transformer<
      Vocab<260>, Context<16>, Width<16>, PerLayerEmbeddings,
      Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;
  const auto layered = detail::shape_of(describe<Layered>());
  CHECK_FALSE(plain.per_layer_embeddings);
  CHECK_FALSE(describe<Plain>().contains("per_layer_embeddings"));
  CHECK(layered.per_layer_embeddings);
  CHECK(plain != layered);
  CHECK(detail::type_text(layered).find(", PerLayerEmbeddings") != std::string::npos);
  check_message<MismatchError>([&] { detail::check_shape(layered, plain, "config.json", "tinymoe"); },
                               "per_layer_embeddings is true", "has false");
  CHECK(hub_class<Layered>() != "MixtralForCausalLM");
  Json file = {{"tinymoe", describe<Layered>()}};
  file["tinymoe"]["per_layer_embeddings"] = 1;
  refuse_shape(senseless, file, "\"per_layer_embeddings\"");
  file["tinymoe"] = describe<Layered>();
  Json group = describe<Layered>()["layers"].items()[0];
  const auto set_layers = [&](int count) {
    group["count"] = count;
    file["tinymoe"]["layers"] = Json::array();
    file["tinymoe"]["layers"].push_back(group);
  };
  set_layers(1);
  refuse_shape(senseless, file, "per_layer_embeddings need two layers or more, found 1");
  set_layers(3);
  file["tinymoe"]["vocab"] = 1 << 24, file["tinymoe"]["width"] = 1 << 20;
  refuse_shape(senseless, file, "the tables of per_layer_embeddings have more than 1099511627776 parameters");
  file = {{"tinymoe", describe<Paired>()}};
  file["tinymoe"]["bigrams"] = -1;
  refuse_shape(senseless, file, "the table of bigrams is -1");
  file["tinymoe"]["bigrams"] = "many";
  refuse_shape(senseless, file, "\"bigrams\"");
}

TEST_CASE("Absent key-value heads and windows are those of transformers", "[config]") {
  const Json heads = {{"num_attention_heads", 64},
                      {"head_dim", 2},
                      {"num_experts", 4},
                      {"n_routed_experts", 4},
                      {"n_shared_experts", 1},
                      {"moe_intermediate_size", 16},
                      {"partial_rotary_factor", 1.0},
                      {"shared_expert_intermediate_size", 16}};
  for (const auto& [model_type, absent] : std::initializer_list<std::pair<const char*, Index>>{{"llama", 64},
                                                                                               {"mistral", 8},
                                                                                               {"qwen2", 32},
                                                                                               {"qwen3", 32},
                                                                                               {"qwen3_moe", 4},
                                                                                               {"qwen2_moe", 16},
                                                                                               {"glm4_moe", 8},
                                                                                               {"dots1", 32}}) {
    CAPTURE(model_type);
    const detail::HubArchitecture& hub = *detail::hub_architecture(model_type);
    CHECK(detail::read_hub_shape(hub, hub_file(model_type, heads), "config.json").layers[1].kv_heads == absent);
  }
  Json plain = hub_file("dots1", heads);
  plain.erase("shared_expert_intermediate_size");
  const auto dots1 = [&](const Json& fields) { return changed_file(plain, fields); };
  const auto layers = [](const Json& file) { return detail::shape_of_file(file, "config.json").layers.size(); };
  CHECK(layers(dots1({{"num_hidden_layers", 62}})) == 62);
  CHECK(layers(dots1({{"num_hidden_layers", 63}, {"sliding_window", nullptr}})) == 63);
  refuse_shape(not_computed, dots1({{"num_hidden_layers", 63}}), "max_window_layers is 62 as it is absent");
}

TEST_CASE("The part of a head that is rotated is the one that transformers takes", "[config]") {
  const Json plain = hub_file("glm4_moe", {{"num_attention_heads", 4},
                                           {"num_key_value_heads", 4},
                                           {"head_dim", 16},
                                           {"n_routed_experts", 4},
                                           {"n_shared_experts", 1},
                                           {"moe_intermediate_size", 16}});
  const auto part = [](const char* place, Json value) {
    return Json{
        {place, {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", std::move(value)}}}};
  };
  const auto rotated = [&](const Json& fields) {
    return detail::shape_of_file(changed_file(plain, fields), "config.json").layers[1].rotated;
  };
  CHECK(rotated({{"partial_rotary_factor", 0.5}}) == 8);
  CHECK(rotated(part("rope_parameters", 0.25)) == 4);
  CHECK(rotated(part("rope_scaling", 0.25)) == 4);
  Json both = part("rope_scaling", 0.25);
  both["partial_rotary_factor"] = 1.0;
  CHECK(rotated(both) == 4);
  for (const Json& wrong : {Json("0.25"), Json(0), Json(1.5), Json(0.2)}) {
    refuse_shape(not_computed, changed_file(plain, part("rope_scaling", wrong)), "partial_rotary_factor is");
  }
  // int(head_dim * factor) of doubles: 28 of 100 * 0.29, 29 of 88 * (30 / 88).
  const auto rotated_of = [&](Index head_dim, double factor) {
    return rotated({{"head_dim", head_dim}, {"partial_rotary_factor", factor}});
  };
  CHECK(rotated_of(100, 0.29) == 28);
  refuse_shape(not_computed, changed_file(plain, {{"head_dim", 88}, {"partial_rotary_factor", 30.0 / 88}}),
               "partial_rotary_factor is 0.3409090909090909", "88 wide");
  const detail::HubArchitecture& hub = *detail::hub_architecture("glm4_moe");
  detail::ModelShape shape = detail::shape_of_file(changed_file(plain, part("rope_scaling", 0.25)), "config.json");
  for (Index head_dim = 2; head_dim <= 256; head_dim += 2) {
    for (Index wanted = 2; wanted < head_dim; wanted += 2) {
      const double factor = detail::rotary_factor(wanted, head_dim);
      if (static_cast<Index>(double(head_dim) * factor) != wanted) FAIL(wanted << " of " << head_dim);
    }
  }
  for (auto& layer : shape.layers) layer.head_dim = 88, layer.rotated = 30;
  Json written = {{"rope_theta", 10000.0}};
  detail::write_hub_fields(hub, shape, written);
  CHECK(static_cast<int>(88 * written["partial_rotary_factor"].number()) == 30);
  CHECK(written["rope_parameters"]["partial_rotary_factor"] == written["partial_rotary_factor"]);
  CHECK(parse_json(written.dump(), "text")["partial_rotary_factor"] == written["partial_rotary_factor"]);
  CHECK(rotated({{"head_dim", 88}, {"partial_rotary_factor", written["partial_rotary_factor"]}}) == 30);
}

TEST_CASE("Experts in groups are refused, and a factor of the gates is named", "[config]") {
  for (const char* model_type : {"glm4_moe", "dots1"}) {
    const Json plain = hub_file(model_type, {{"num_attention_heads", 4},
                                             {"num_key_value_heads", 4},
                                             {"head_dim", 16},
                                             {"n_routed_experts", 4},
                                             {"n_shared_experts", 1},
                                             {"first_k_dense_replace", 1},
                                             {"moe_intermediate_size", 16}});
    const auto shape = [&](const Json& fields) {
      return detail::shape_of_file(changed_file(plain, fields), "config.json");
    };
    CHECK(shape({{"n_group", 1}, {"topk_group", 1}}) == shape(Json::object()));
    refuse_shape(not_computed, changed_file(plain, {{"n_group", 8}, {"topk_group", 4}}), "n_group is 8",
                 "where it is 1");
    refuse_shape(not_computed, changed_file(plain, {{"n_group", 1}, {"topk_group", 2}}), "topk_group is 2");
    const auto told = [&](const Json& factor) {
      return detail::type_header(shape({{"routed_scaling_factor", factor}}), "config.json", "Told");
    };
    CHECK(told(2.5).find("GateScale<5, 2>") != std::string::npos);
    CHECK(told(1.123456).find("GateScale<17554, 15625>") != std::string::npos);
    CHECK(told(1.0 / 3).find("GateScale<1, 3>") != std::string::npos);
    check_message<MismatchError>([&] { told(2.1234567); }, "config.json: routed_scaling_factor", "is 2.1234567;",
                                 "six decimals");
    for (const double wrong : {0.0, -2.5}) {
      refuse_shape(senseless, changed_file(plain, {{"routed_scaling_factor", wrong}}), "routed_scaling_factor",
                   "above 0");
    }
  }
  for (const char* model_type : {"deepseek_v2", "deepseek_v3"}) {
    refuse_shape(not_computed, hub_file(model_type, {{"n_group", 1}}), "model_type", model_type);
  }
}

TEST_CASE("Neither a path nor a name puts code into a told type", "[config]") {
  const detail::ModelShape shape = detail::shape_of(describe<Tiny>());
  const std::string text = detail::type_header(shape, "a\nint b;\\", "Told");
  CHECK(text.starts_with("// a?int b;\\ \n// "));
  CHECK(text.find("struct Told : Told_parts::Type {};\n") != std::string::npos);
  for (const char* name : {"", "9", "a b", "A {};\nint x;", "\xc3\xa4"}) {
    check_message<OptionError>([&] { detail::type_header(shape, "a", name); }, "the name \"");
  }
}

TEST_CASE("A GPT-2 of another context is another model", "[config]") {
  const Json file = {{"model_type", "gpt2"}, {"vocab_size", 260}, {"n_embd", 64},
                     {"n_layer", 1},         {"n_head", 2},       {"n_positions", 128}};
  detail::ModelShape shape = detail::shape_of_file(file, "config.json");
  const detail::HubArchitecture& hub = *detail::hub_architecture("gpt2");
  detail::check_hub_file(hub, file, shape, "config.json");
  shape.context = 64;
  check_message<MismatchError>([&] { detail::check_hub_file(hub, file, shape, "config.json"); }, "learned positions",
                               "128", "64");
}

}  // namespace tinymoe_test::config
