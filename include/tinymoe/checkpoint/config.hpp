#pragma once
/// @file
/// config.json: an architecture and its settings. The field "tinymoe" describes the architecture in full. The other
/// fields are the hub's: all of a Mixtral's where the architecture is one.

#include <cstddef>
#include <filesystem>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "tinymoe/checkpoint/config_fields.hpp"
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

template <class K>
struct Describe {
  [[gnu::cold]] static Json text() { return {{"type", part_name<K>()}}; }
};
template <class... Options>
struct Describe<Attention<Options...>> {
  [[gnu::cold]] static Json text() {
    using A = Attention<Options...>;
    using Position = typename A::Position;
    return {{"type", "attention"},
            {"heads", A::heads},
            {"kv_heads", A::kv_heads},
            {"head_dim", option_t<place::HeadDim, HeadDim<0>, Options...>::value},
            {"position", Position::rotary ? "rope" : (Position::learned ? "learned" : "none")},
            {"window", A::window},
            {"qkv_bias", A::qkv_bias},
            {"output_bias", A::output_bias},
            {"qk_norm", A::qk_norm}};
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
    return {{"type", R::Selection::name}, {"scores", R::Scores::name},   {"normalised_gates", R::normalised},
            {"bias", R::has_bias},        {"noise", R::noisy},           {"jitter", R::jitters},
            {"capacity", capacity},       {"balance", R::Balance::name}, {"balance_bias", R::balance_bias}};
  }
};
template <class X>
struct Describe<Shared<X>> {
  [[gnu::cold]] static Json text() { return Describe<X>::text(); }
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

/// Whether a router does in inference what Mixtral's does.
template <class R>
inline constexpr bool is_mixtral_router = std::is_same_v<typename R::Selection, TopK>&& R::normalised &&
                                          !R::Scores::sigmoid && !R::has_bias && !R::noisy && !R::balance_bias;

template <class N, class A, class R, class X, class S>
inline constexpr bool are_mixtral_parts = false;
template <class... A, Index E, Index K, class... R, class... X>
inline constexpr bool are_mixtral_parts<RmsNorm, Attention<A...>, Router<E, K, R...>, Expert<X...>, NoShared> =
    Attention<A...>::Position::rotary && !Attention<A...>::qkv_bias && !Attention<A...>::output_bias &&
    !Attention<A...>::qk_norm && is_mixtral_router<Router<E, K, R...>> &&
    std::is_same_v<typename Expert<X...>::Activation, SwiGlu> && !Expert<X...>::has_bias;

template <class K>
consteval bool is_mixtral_block() {
  if constexpr (K::is_mixture) {
    return are_mixtral_parts<typename K::Norm, typename K::AttentionType, typename K::Router, typename K::Expert,
                             typename K::SharedExpert>;
  } else {
    return false;
  }
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
  described.sort_keys();
  return described;
}

/// Whether the hub's MixtralForCausalLM computes the same.
template <class Arch>
constexpr bool is_mixtral() {
  using First = std::tuple_element_t<0, typename Arch::Groups>;
  return std::tuple_size_v<typename Arch::Groups> == 1 && detail::is_mixtral_block<typename First::Block>() &&
         std::is_same_v<typename Arch::FinalNormType, RmsNorm> && !Arch::head_bias;
}

/// config.json's content.
template <class Arch>
[[gnu::cold]] Json config_json(const Settings& settings, Token end_of_story) {
  Json file = {{"architectures", {is_mixtral<Arch>() ? "MixtralForCausalLM" : "TinymoeForCausalLM"}},
               {"model_type", is_mixtral<Arch>() ? "mixtral" : "tinymoe"},
               {"torch_dtype", "float32"},
               {"vocab_size", Arch::vocab},
               {"hidden_size", Arch::width},
               {"num_hidden_layers", Arch::layers},
               {"max_position_embeddings", Arch::context},
               {"tie_word_embeddings", Arch::tied},
               {"output_router_logits", false},
               {"router_jitter_noise", 0.0},
               {"initializer_range", 0.02},
               {"bos_token_id", end_of_story},
               {"eos_token_id", end_of_story},
               {"pad_token_id", nullptr},
               {"tinymoe", describe<Arch>()}};
  for (const Setting* setting : detail::stored_settings<Arch>()) {
    auto& place = setting->hub.empty() ? file["tinymoe_settings"][setting->name] : file[setting->hub];
    const double value = settings[*setting];
    place = setting->range == SettingRange::flag ? Json(value != 0) : Json(value);
  }
  if constexpr (is_mixtral<Arch>()) {
    using Block = typename std::tuple_element_t<0, typename Arch::Groups>::Block;
    using A = typename Block::AttentionType;
    file["intermediate_size"] = Block::Expert::hidden;
    file["num_attention_heads"] = A::heads;
    file["num_key_value_heads"] = A::kv_heads;
    file["head_dim"] = A::template Layer<Arch::width>::head_dim;
    file["hidden_act"] = "silu";
    file["sliding_window"] = A::window > 0 ? Json(A::window) : Json();
    file["num_local_experts"] = Block::Router::experts;
    file["num_experts_per_tok"] = Block::Router::choices;
  }
  file.sort_keys();
  return file;
}

namespace detail {

/// A config.json that describes `Arch`. The constructor throws FileError for a file that cannot be read, MismatchError
/// naming the file and the first field that differs.
template <class Arch>
struct ConfigFile {
  std::string name;  // of the file
  Settings settings;
  std::string weights;  // the format that they are stored in; empty: numbers

  explicit ConfigFile(const std::filesystem::path& path) : name(path.string()) {
    Json file = read_json(path, std::size_t{1} << 20);
    weights = stored_weights(file, name);
    if (!weights.empty()) file.erase(stored_weights_key);  // no field of the hub's
    check_config_fields(file, config_json<Arch>({}, 0), name);
    settings = read_settings(file, name, stored_settings<Arch>());
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
