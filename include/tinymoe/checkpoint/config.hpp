#pragma once
/// @file
/// config.json: an architecture and its settings. The field "tinymoe" describes the architecture in full. The other
/// fields are those of the hub's architecture that computes the same, if there is one.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <utility>

#include "tinymoe/checkpoint/config_fields.hpp"
#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/checkpoint/hub_config.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/activation_functions.hpp"
#include "tinymoe/layers/attention.hpp"
#include "tinymoe/layers/block.hpp"
#include "tinymoe/layers/contracts.hpp"
#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/moe.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/router.hpp"
#include "tinymoe/layers/router_options.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/layers/shared_expert.hpp"
#include "tinymoe/layers/transformer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The name of a part: its own `name`, or the compiler's for a user's type without one.
template <class K>
std::string part_name() {
  static_assert(
      NamedPart<K> || !requires { K::name; }, "tinymoe: a part's `name` must be a string");
  if constexpr (NamedPart<K>) {
    return std::string(K::name);
  } else {
    return typeid(K).name();
  }
}

// Options that came later have a member only where they are in use, so that older files stay readable.
template <class K>
struct Describe {
  [[gnu::cold]] static Json text() { return {{"type", part_name<K>()}}; }
};
template <class... Options>
struct Describe<Attention<Options...>> {
  [[gnu::cold]] static Json text() {
    using A = Attention<Options...>;
    using Position = typename A::Position;
    Json text = {{"type", "attention"},
                 {"heads", A::heads},
                 {"kv_heads", A::kv_heads},
                 {"head_dim", option_t<place::HeadDim, HeadDim<0>, Options...>::value},
                 {"position", Position::rotary ? "rope" : (Position::learned ? "learned" : "none")},
                 {"window", A::window},
                 {"qkv_bias", A::qkv_bias},
                 {"output_bias", A::output_bias},
                 {"qk_norm", A::qk_norm}};
    if constexpr (requires { Position::part; }) text["rotated_part"] = Position::part;
    if constexpr (A::norm_across_heads) text["norm_across_heads"] = true;
    return text;
  }
};
template <Index E, Index K, class... Options>
struct Describe<Router<E, K, Options...>> {
  [[gnu::cold]] static Json text() {
    using R = Router<E, K, Options...>;
    Json capacity = nullptr;
    if constexpr (R::has_capacity) {
      capacity =
          static_cast<double>(R::CapacityOption::numerator) / static_cast<double>(R::CapacityOption::denominator);
    }
    Json text = {{"type", R::Selection::name}, {"scores", R::Scores::name},   {"normalised_gates", R::normalised},
                 {"bias", R::has_bias},        {"noise", R::noisy},           {"jitter", R::jitters},
                 {"capacity", capacity},       {"balance", R::Balance::name}, {"balance_bias", R::balance_bias}};
    if constexpr (R::gate_scale != 1) text["gate_scale"] = R::gate_scale;
    return text;
  }
};
template <class X, class... Options>
struct Describe<Shared<X, Options...>> {
  [[gnu::cold]] static Json text() {
    Json text = Describe<X>::text();
    if constexpr (Shared<X, Options...>::gated) text["gate"] = true;
    return text;
  }
};
template <>
struct Describe<NoShared> {
  [[gnu::cold]] static Json text() { return nullptr; }
};
template <class... Options>
struct Describe<Expert<Options...>> {
  [[gnu::cold]] static Json text() {
    using X = Expert<Options...>;
    return {{"type", "feed_forward"},
            {"activation", part_name<typename X::Activation>()},
            {"hidden", X::hidden},
            {"bias", X::has_bias}};
  }
};

template <class K>
[[gnu::cold]] Json describe_block() {
  Json block = {{"norm", Describe<typename K::Norm>::text()},
                {"attention", Describe<typename K::AttentionType>::text()},
                {"expert", Describe<typename K::Expert>::text()}};
  if constexpr (K::is_mixture) {
    block["router"] = Describe<typename K::Router>::text();
    block["router"]["experts"] = K::Router::experts;
    block["router"]["choices"] = active_experts<typename K::Router>();
    block["shared_expert"] = Describe<typename K::SharedExpert>::text();
  }
  return block;
}

template <class Group>
[[gnu::cold]] Json describe_group() {
  auto block = describe_block<typename Group::Block>();
  block["count"] = Group::count;
  return block;
}

/// The settings that config.json keeps: the architecture's, and those of library parts that it does not use, whose keys
/// the file has always had.
template <class Arch>
constexpr SettingList stored_settings() {
  SettingList list = settings_of<Arch>();
  add_settings<MoEBlock<RmsNorm, Attention<Heads<1>>, Router<2, 2>, Expert<Hidden<1>>>>(list);
  return list;
}

}  // namespace detail

/// The architecture in full: every option that changes a shape or a formula.
template <class Arch>
[[gnu::cold]] Json describe() {
  Json layers = Json::array();
  [&]<std::size_t... g>(std::index_sequence<g...>) {
    (layers.push_back(detail::describe_group<std::tuple_element_t<g, typename Arch::Groups>>()), ...);
  }
  (std::make_index_sequence<std::tuple_size_v<typename Arch::Groups>>{});
  Json described = {{"vocab", Arch::vocab},
                    {"context", Arch::context},
                    {"width", Arch::width},
                    {"layers", layers},
                    {"final_norm", detail::Describe<typename Arch::FinalNormType>::text()},
                    {"tied_head", Arch::tied},
                    {"head_bias", Arch::head_bias}};
  if (Arch::bigrams > 0) described["bigrams"] = Arch::bigrams;
  if (Arch::per_layer_embeddings) described["per_layer_embeddings"] = true;
  described.sort_keys();
  return described;
}

namespace detail {

/// config.json of an architecture with this description: all but its settings.
[[gnu::cold]] inline Json config_of(Json description, const ModelShape& shape, Token end_of_story) {
  const HubChoice choice = hub_for(shape);
  const bool hub = choice.hub != nullptr;
  Json file = {{"architectures", {hub ? choice.hub->class_name : "TinymoeForCausalLM"}},
               {"model_type", hub ? choice.hub->model_type : "tinymoe"},
               {"torch_dtype", "float32"},
               {"vocab_size", shape.vocab},
               {"hidden_size", shape.width},
               {"num_hidden_layers", shape.layers.size()},
               {"max_position_embeddings", shape.context},
               {"tie_word_embeddings", shape.tied},
               {"output_router_logits", false},
               {"router_jitter_noise", 0.0},
               {"initializer_range", 0.02},
               {"bos_token_id", end_of_story},
               {"eos_token_id", end_of_story},
               {"pad_token_id", nullptr},
               {"tinymoe", std::move(description)}};
  if (!hub) file["tinymoe_alone"] = choice.reason;
  return file;
}

/// The same with its settings, of which the file keeps those of the list.
[[gnu::cold]] inline Json config_of(Json description, const SettingList& stored, const Settings& settings,
                                    Token end_of_story) {
  const auto shape = shape_of(description);
  Json file = config_of(std::move(description), shape, end_of_story);
  for (const Setting* setting : stored) {
    auto& place = setting->hub.empty() ? file["tinymoe_settings"][setting->name] : file[setting->hub];
    const double value = settings[*setting];
    place = setting->range == SettingRange::flag ? Json(value != 0) : Json(value);
  }
  if (const auto* hub = hub_architecture(file["model_type"])) write_hub_fields(*hub, *fit(*hub, shape).shape, file);
  file.sort_keys();
  return file;
}

}  // namespace detail

/// The class of the hub's that computes what an architecture does, "MixtralForCausalLM" say; empty if there is none.
template <class Arch>
std::string_view hub_class() {
  const auto choice = detail::hub_for(detail::shape_of(describe<Arch>()));
  return choice.hub != nullptr ? choice.hub->class_name : std::string_view();
}

/// config.json's content. The model is of the first architecture of the hub's that computes it, or else of tinymoe's
/// alone, with the reason in "tinymoe_alone".
template <class Arch>
[[gnu::cold]] Json config_json(const Settings& settings, Token end_of_story) {
  return detail::config_of(describe<Arch>(), detail::stored_settings<Arch>(), settings, end_of_story);
}

namespace detail {

/// A config.json that describes `Arch`. The constructor throws FileError for a file that cannot be read, MismatchError
/// naming the file and the first field that differs.
template <class Arch>
struct ConfigFile {
  std::string name;  // of the file
  Settings settings;
  std::string weights;                   // the format that they are stored in; empty: numbers
  const HubArchitecture* hub = nullptr;  // whose names the tensors have; none: tinymoe's

  [[gnu::cold]] explicit ConfigFile(const std::filesystem::path& path) : name(path.string()) {
    Json file = read_json(path, std::size_t{1} << 20);
    weights = stored_weights(file, name);
    if (!weights.empty()) file.erase(stored_weights_key);  // no field of the hub's
    hub = hub_architecture(std::as_const(file)["model_type"]);
    const FieldTable table = hub != nullptr ? fields_of(*hub) : FieldTable();
    if (hub == nullptr || file.contains("tinymoe") || hub->model_type == "mixtral") {
      check_config_fields(file, config_json<Arch>({}, 0), name, table);
    } else {
      check_hub_file(*hub, file, shape_of(describe<Arch>()), name);
    }
    settings = read_settings(file, name, stored_settings<Arch>(), table,
                             [&](const Setting& setting) { return setting_key(hub, setting); });
  }
};

}  // namespace detail

/// Checks that a config.json describes `Arch` and returns its settings.
/// Throws FileError for a file that cannot be read, MismatchError naming the file and the first field that differs.
template <class Arch>
Settings read_config(const std::filesystem::path& path) {
  return detail::ConfigFile<Arch>(path).settings;
}

}  // namespace tinymoe::inline v0_1
