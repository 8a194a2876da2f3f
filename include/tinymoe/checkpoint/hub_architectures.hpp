#pragma once
/// @file
/// The architectures of the hub that compute what tinymoe computes, in one table: what each one's blocks have, the
/// fields of config.json that say so, and how its tensors are named. docs/interop.md tells which option goes where.
/// hub_tensors.hpp has the tensors.
/// Over 300 lines: the table and the three functions that read it (whether it computes a shape, its fields, a shape
/// from its fields) stand together.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/config_fields.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

/// Whether a block has something: never, always, or if the field of this name is true.
struct HubFlag {
  std::string_view field = {};
  bool always = false;

  constexpr bool never() const { return field.empty() && !always; }
};
inline constexpr HubFlag always{{}, true};

/// One architecture of the hub.
struct HubArchitecture {
  std::string_view model_type, class_name;
  std::span<const ConfigField> fields;  // those that are not as in most architectures
  Token begin = -1, end = -1;           // of a config.json that names no special tokens; −1: none
  bool gpt2 = false;                    // LayerNorm, learned positions, biases; else RMSNorm and rotary positions
  HubFlag qkv_bias = {}, output_bias = {}, expert_bias = {}, qk_norm = {};
  bool norm_across_heads = false;       // what a norm of q and k is over
  std::string_view window = {};         // the field of a sliding window, if it has one
  std::string_view window_switch = {};  // the field that says whether the window counts
  // Mixtures.
  std::string_view scores = {};   // empty: blocks are dense
  std::string_view experts = {};  // the field of the number of experts
  std::string_view hidden = {};   // that of an expert's width
  HubFlag normalised_gates = {};  // whether gates sum to one
  std::string_view dense = {};    // the field of the layers that are dense, of kind `first` or a list
  std::string_view shared = {};   // that of the shared expert: its width, or how many experts it is as wide as
  bool shared_gate = false;

  /// Whether a part of a head may be rotated alone: "partial_rotary_factor".
  bool partly_rotary() const { return model_type == "glm4_moe"; }
  /// Whether gates are multiplied by a factor: "routed_scaling_factor".
  bool scales_gates() const { return scores == "sigmoid"; }
};

// clang-format off
/// The fields of all architectures but Mixtral's. A size that is absent means nothing: transformers' defaults are those
/// of one model each.
inline constexpr ConfigField common_hub_fields[] = {
    {"vocab_size",              FieldUse::architecture, FieldKind::whole,  {}},
    {"hidden_size",             FieldUse::architecture, FieldKind::whole,  {}},
    {"intermediate_size",       FieldUse::architecture, FieldKind::whole,  {}},
    {"num_hidden_layers",       FieldUse::architecture, FieldKind::whole,  {}},
    {"num_attention_heads",     FieldUse::architecture, FieldKind::whole,  {}},
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  all_heads, all_heads},
    {"max_position_embeddings", FieldUse::context,      FieldKind::whole,  {}},
    {"rope_theta",              FieldUse::setting,      FieldKind::number, "10000.0"},
    {"rms_norm_eps",            FieldUse::setting,      FieldKind::number, "0.000001"},
    {"attention_bias",          FieldUse::architecture, FieldKind::flag,   "false"},
    {"use_sliding_window",      FieldUse::fixed,        FieldKind::any,    "false", "false"},
    {"sliding_window",          FieldUse::unused,       FieldKind::any,    "null", "null"},
    {"layer_types",             FieldUse::unused,       FieldKind::any,    "null", "null"},  // see check_layer_types
    {"moe_intermediate_size",   FieldUse::architecture, FieldKind::whole,  {}},
    {"num_experts_per_tok",     FieldUse::architecture, FieldKind::whole,  {}},
    {"num_experts",             FieldUse::architecture, FieldKind::whole,  {}},
    {"n_routed_experts",        FieldUse::architecture, FieldKind::whole,  {}},
    {"norm_topk_prob",          FieldUse::architecture, FieldKind::flag,   "false"},
    {"decoder_sparse_step",     FieldUse::unused,       FieldKind::whole,  "1"},
    {"mlp_only_layers",         FieldUse::architecture, FieldKind::any,    "[]", "[]"},
};
inline constexpr ConfigField llama_fields[] = {
    {"mlp_bias",                FieldUse::architecture, FieldKind::flag,   "false"},
};
inline constexpr ConfigField mistral_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "8", all_heads},
    {"sliding_window",          FieldUse::architecture, FieldKind::whole,  "4096", "null"},
    {"attention_bias",          FieldUse::fixed,        FieldKind::any,    "false", "false"},
};
inline constexpr ConfigField qwen2_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "32", all_heads},
    {"attention_bias",          FieldUse::unused,       FieldKind::any,    "null", "null"},
};
inline constexpr ConfigField qwen3_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "32", all_heads},
    {"head_dim",                FieldUse::architecture, FieldKind::whole,  "128"},
};
inline constexpr ConfigField qwen3_moe_fields[] = {
    {"num_experts",             FieldUse::architecture, FieldKind::whole,  experts_of_layer},
    {"num_local_experts",       FieldUse::architecture, FieldKind::whole,  {}},  // its name in transformers 5
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "4"},
    {"use_sliding_window",      FieldUse::architecture, FieldKind::flag,   "false", "false"},
    {"sliding_window",          FieldUse::architecture, FieldKind::whole,  "4096", "null"},
};
inline constexpr ConfigField qwen2_moe_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "16"},
    {"qkv_bias",                FieldUse::architecture, FieldKind::flag,   "true"},
    {"attention_bias",          FieldUse::unused,       FieldKind::any,    "null", "null"},
    {"shared_expert_intermediate_size", FieldUse::architecture, FieldKind::whole, {}},
};
inline constexpr ConfigField olmoe_fields[] = {
    {"rms_norm_eps",            FieldUse::setting,      FieldKind::number, "0.00001"},
    {"clip_qkv",                FieldUse::fixed,        FieldKind::any,    "null", "null"},
    {"head_dim",                FieldUse::architecture, FieldKind::whole,  width_of_head, width_of_head},
};
inline constexpr ConfigField glm4_moe_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "8"},
    {"rms_norm_eps",            FieldUse::setting,      FieldKind::number, "0.00001"},
    {"n_shared_experts",        FieldUse::architecture, FieldKind::whole,  "1"},
    {"first_k_dense_replace",   FieldUse::architecture, FieldKind::whole,  "1"},
    {"norm_topk_prob",          FieldUse::architecture, FieldKind::flag,   "true"},
    {"use_qk_norm",             FieldUse::architecture, FieldKind::flag,   "false"},
    {"n_group",                 FieldUse::fixed,        FieldKind::any,    "1"},
    {"topk_group",              FieldUse::fixed,        FieldKind::any,    "1"},
    {"scoring_func",            FieldUse::unused,       FieldKind::any,    "null", "null"},  // always sigmoid
    {"partial_rotary_factor",   FieldUse::unused,       FieldKind::any,    "null", "null"},  // see read_rotated
    {"routed_scaling_factor",   FieldUse::architecture, FieldKind::number, "1.0"},
};
inline constexpr ConfigField dots1_fields[] = {
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,  "32", all_heads},
    {"sliding_window",          FieldUse::unused,       FieldKind::whole,  "4096", "null"},  // see check_layer_types
    {"max_window_layers",       FieldUse::unused,       FieldKind::whole,  "62"},
    {"n_shared_experts",        FieldUse::architecture, FieldKind::whole,  {}},
    {"first_k_dense_replace",   FieldUse::architecture, FieldKind::whole,  "0", "0"},
    {"routed_scaling_factor",   FieldUse::architecture, FieldKind::number, "1.0"},
    {"n_group",                 FieldUse::fixed,        FieldKind::any,    "1", "1"},
    {"topk_group",              FieldUse::fixed,        FieldKind::any,    "1", "1"},
    {"scoring_func",            FieldUse::unused,       FieldKind::any,    "null", "null"},
};
inline constexpr ConfigField gpt2_fields[] = {
    {"n_embd",                  FieldUse::architecture, FieldKind::whole,  {}},
    {"n_layer",                 FieldUse::architecture, FieldKind::whole,  {}},
    {"n_head",                  FieldUse::architecture, FieldKind::whole,  {}},
    {"n_inner",                 FieldUse::architecture, FieldKind::whole,  "null", "null"},  // 4 · n_embd
    {"n_positions",             FieldUse::context,      FieldKind::whole,  {}},
    {"activation_function",     FieldUse::architecture, FieldKind::word,   R"("gelu_new")"},
    {"layer_norm_epsilon",      FieldUse::setting,      FieldKind::number, "0.00001"},
    {"attn_pdrop",              FieldUse::setting,      FieldKind::number, "0.1"},
    {"resid_pdrop",             FieldUse::setting,      FieldKind::number, "0.1"},
    {"embd_pdrop",              FieldUse::unused,       FieldKind::number, "0.1"},
    {"tie_word_embeddings",     FieldUse::architecture, FieldKind::flag,   "true"},
    {"scale_attn_weights",      FieldUse::fixed,        FieldKind::any,    "true"},
    {"scale_attn_by_inverse_layer_idx", FieldUse::fixed, FieldKind::any,   "false"},
    {"reorder_and_upcast_attn", FieldUse::unused,       FieldKind::flag,   "false"},
    {"hidden_act",              FieldUse::unused,       FieldKind::any,    "null", "null"},
};

inline constexpr HubArchitecture hub_architectures[] = {
    {.model_type = "mixtral", .class_name = "MixtralForCausalLM", .fields = {}, .begin = 1, .end = 2,
     .window = "sliding_window", .scores = "softmax", .experts = "num_local_experts", .hidden = "intermediate_size",
     .normalised_gates = always},
    {.model_type = "llama", .class_name = "LlamaForCausalLM", .fields = llama_fields, .begin = 1, .end = 2,
     .qkv_bias = {"attention_bias"}, .output_bias = {"attention_bias"}, .expert_bias = {"mlp_bias"}},
    {.model_type = "mistral", .class_name = "MistralForCausalLM", .fields = mistral_fields,
     .begin = 1, .end = 2, .window = "sliding_window"},
    {.model_type = "qwen2", .class_name = "Qwen2ForCausalLM", .fields = qwen2_fields, .qkv_bias = always},
    {.model_type = "qwen3", .class_name = "Qwen3ForCausalLM", .fields = qwen3_fields, .qkv_bias = {"attention_bias"},
     .output_bias = {"attention_bias"}, .qk_norm = always},
    {.model_type = "qwen3_moe", .class_name = "Qwen3MoeForCausalLM", .fields = qwen3_moe_fields,
     .qkv_bias = {"attention_bias"}, .output_bias = {"attention_bias"}, .qk_norm = always, .window = "sliding_window",
     .window_switch = "use_sliding_window", .scores = "softmax", .experts = "num_experts",
     .hidden = "moe_intermediate_size", .normalised_gates = {"norm_topk_prob"}, .dense = "mlp_only_layers"},
    {.model_type = "olmoe", .class_name = "OlmoeForCausalLM", .fields = olmoe_fields, .end = 50279,
     .qkv_bias = {"attention_bias"}, .output_bias = {"attention_bias"}, .qk_norm = always, .norm_across_heads = true,
     .scores = "softmax", .experts = "num_experts", .hidden = "intermediate_size",
     .normalised_gates = {"norm_topk_prob"}},
    {.model_type = "glm4_moe", .class_name = "Glm4MoeForCausalLM", .fields = glm4_moe_fields,
     .qkv_bias = {"attention_bias"}, .qk_norm = {"use_qk_norm"}, .scores = "sigmoid", .experts = "n_routed_experts",
     .hidden = "moe_intermediate_size", .normalised_gates = {"norm_topk_prob"}, .dense = "first_k_dense_replace",
     .shared = "n_shared_experts"},
    {.model_type = "dots1", .class_name = "Dots1ForCausalLM", .fields = dots1_fields, .qkv_bias = {"attention_bias"},
     .output_bias = {"attention_bias"}, .qk_norm = always, .scores = "sigmoid", .experts = "n_routed_experts",
     .hidden = "moe_intermediate_size", .normalised_gates = {"norm_topk_prob"}, .dense = "first_k_dense_replace",
     .shared = "n_shared_experts"},
    {.model_type = "qwen2_moe", .class_name = "Qwen2MoeForCausalLM", .fields = qwen2_moe_fields,
     .qkv_bias = {"qkv_bias"}, .scores = "softmax", .experts = "num_experts", .hidden = "moe_intermediate_size",
     .normalised_gates = {"norm_topk_prob"}, .dense = "mlp_only_layers", .shared = "shared_expert_intermediate_size",
     .shared_gate = true},
    {.model_type = "gpt2", .class_name = "GPT2LMHeadModel", .fields = gpt2_fields,
     .begin = 50256, .end = 50256, .gpt2 = true, .qkv_bias = always, .output_bias = always,
     .expert_bias = always},
};
// clang-format on

/// The architecture of a model_type; nullptr if the table does not have it.
[[gnu::cold]] inline const HubArchitecture* hub_architecture(const Json& model_type) {
  for (const HubArchitecture& hub : hub_architectures) {
    if (model_type == Json(hub.model_type)) return &hub;
  }
  return nullptr;
}

/// The table of an architecture's fields.
inline FieldTable fields_of(const HubArchitecture& hub) {
  if (hub.model_type == "mixtral") return {};
  return {hub.fields, common_hub_fields};
}

/// The key of a setting in config.json: of the file, or else of its "tinymoe_settings".
[[gnu::cold]] inline std::string_view setting_key(const HubArchitecture* hub, const Setting& setting) {
  if (hub != nullptr && hub->gpt2) {
    if (setting.hub == "rms_norm_eps") return "layer_norm_epsilon";
    if (setting.hub == "attention_dropout") return "attn_pdrop";
    if (setting.name == "dropout") return "resid_pdrop";
  }
  return setting.hub;
}

}  // namespace tinymoe::inline v0_1::detail
