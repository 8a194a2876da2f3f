#pragma once
/// @file
/// The hub's fields of config.json, in one table: what each means where it is absent, null, or has a value. The
/// meanings are those of transformers' MixtralConfig, of 4.46 or of 5, which knows more spellings. What neither of them
/// reads, or tinymoe cannot compute, is an error: a field never gets another value in silence. Fields that are not in
/// the table are ignored, as by transformers. special_tokens_json.hpp reads bos_token_id, eos_token_id and
/// pad_token_id.
/// Over 300 lines: the table and what reads it stand together.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1::detail {

enum class FieldUse : std::uint8_t {
  architecture,  // the program's model must have the value
  context,       // at least the context of the program's model
  setting,       // a setting of the model, by the name that the hub has for it
  fixed,         // another value than that of an absent field is an error: tinymoe does not compute it
  unused,        // changes no number that tinymoe computes; its kind is checked
};

enum class FieldKind : std::uint8_t { whole, number, flag, word, float_type, any };

/// One field. `absent` and `null` say in JSON what such a field means; empty, it is an error.
struct ConfigField {
  std::string_view name;
  FieldUse use;
  FieldKind kind;
  std::string_view absent;
  std::string_view null = {};
};

/// In place of JSON: what two other fields of the file say.
inline constexpr std::string_view all_heads = "num_attention_heads",
                                  width_of_head = "hidden_size / num_attention_heads",
                                  experts_of_layer = "num_local_experts";

// clang-format off
inline constexpr ConfigField config_fields[] = {
    {"model_type",              FieldUse::architecture, FieldKind::word,       {}},
    {"architectures",           FieldUse::fixed,        FieldKind::any,        R"(["MixtralForCausalLM"])",
                                                                               R"(["MixtralForCausalLM"])"},
    {"vocab_size",              FieldUse::architecture, FieldKind::whole,      "32000"},
    {"hidden_size",             FieldUse::architecture, FieldKind::whole,      "4096"},
    {"intermediate_size",       FieldUse::architecture, FieldKind::whole,      "14336"},
    {"num_hidden_layers",       FieldUse::architecture, FieldKind::whole,      "32"},
    {"num_attention_heads",     FieldUse::architecture, FieldKind::whole,      "32"},
    {"num_key_value_heads",     FieldUse::architecture, FieldKind::whole,      "8", all_heads},
    {"head_dim",                FieldUse::architecture, FieldKind::whole,      width_of_head, width_of_head},
    {"hidden_act",              FieldUse::architecture, FieldKind::word,       R"("silu")"},  // or "swish", the same
    {"sliding_window",          FieldUse::architecture, FieldKind::whole,      "null", "null"},
    {"num_local_experts",       FieldUse::architecture, FieldKind::whole,      "8"},
    {"num_experts",             FieldUse::architecture, FieldKind::whole,      experts_of_layer},  // its name in 5
    {"num_experts_per_tok",     FieldUse::architecture, FieldKind::whole,      "2"},
    {"tie_word_embeddings",     FieldUse::architecture, FieldKind::flag,       "false"},
    {"max_position_embeddings", FieldUse::context,      FieldKind::whole,      "131072"},
    {"rope_theta",              FieldUse::setting,      FieldKind::number,     "1000000.0"},  // see rope_theta_of
    {"rms_norm_eps",            FieldUse::setting,      FieldKind::number,     "0.00001"},
    {"attention_dropout",       FieldUse::setting,      FieldKind::number,     "0"},
    {"router_aux_loss_coef",    FieldUse::setting,      FieldKind::number,     "0.001"},
    {"router_jitter_noise",     FieldUse::fixed,        FieldKind::number,     "0"},
    {"output_router_logits",    FieldUse::unused,       FieldKind::flag,       "false"},
    {"initializer_range",       FieldUse::unused,       FieldKind::number,     "0.02"},
    {"use_cache",               FieldUse::unused,       FieldKind::flag,       "true"},
    {"torch_dtype",             FieldUse::unused,       FieldKind::float_type, "null", "null"},  // the tensors say theirs
    {"dtype",                   FieldUse::unused,       FieldKind::float_type, "null", "null"},
    // What other models have, or a Mixtral that was changed: only as it is in a Mixtral.
    {"quantization_config",     FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"per_layer_config",        FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"auto_map",                FieldUse::fixed,        FieldKind::any,        "null", "null"},  // code of its own
    {"pruned_heads",            FieldUse::fixed,        FieldKind::any,        "{}", "{}"},
    {"layer_types",             FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"mlp_only_layers",         FieldUse::fixed,        FieldKind::any,        "[]", "[]"},
    {"no_rope_layers",          FieldUse::fixed,        FieldKind::any,        "[]", "[]"},
    {"decoder_sparse_step",     FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"first_k_dense_replace",   FieldUse::fixed,        FieldKind::any,        "0", "0"},
    {"moe_layer_freq",          FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"is_causal",               FieldUse::fixed,        FieldKind::any,        "true"},  // null is false in 5
    {"is_encoder_decoder",      FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"add_cross_attention",     FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"attention_bias",          FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"qkv_bias",                FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"attention_out_bias",      FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"mlp_bias",                FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"use_bias",                FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"lm_head_bias",            FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"qk_norm",                 FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"use_qk_norm",             FieldUse::fixed,        FieldKind::any,        "false", "false"},
    {"clip_qkv",                FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"query_pre_attn_scalar",   FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"attn_logit_softcapping",  FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"final_logit_softcapping", FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"router_logit_softcapping", FieldUse::fixed,       FieldKind::any,        "null", "null"},
    {"attention_multiplier",    FieldUse::fixed,        FieldKind::any,        "null", "null"},
    {"embedding_multiplier",    FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"residual_multiplier",     FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"logits_scaling",          FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"logit_scale",             FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"partial_rotary_factor",   FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"norm_topk_prob",          FieldUse::fixed,        FieldKind::any,        "true", "true"},
    {"scoring_func",            FieldUse::fixed,        FieldKind::any,        R"("softmax")", R"("softmax")"},
    {"routed_scaling_factor",   FieldUse::fixed,        FieldKind::any,        "1", "1"},
    {"n_shared_experts",        FieldUse::fixed,        FieldKind::any,        "0", "0"},
    {"num_shared_experts",      FieldUse::fixed,        FieldKind::any,        "0", "0"},
    {"shared_intermediate_size", FieldUse::fixed,       FieldKind::any,        "0", "0"},
    {"shared_expert_intermediate_size", FieldUse::fixed, FieldKind::any,       "0", "0"},
    {"hidden_dropout",          FieldUse::fixed,        FieldKind::any,        "0", "0"},
    {"resid_pdrop",             FieldUse::fixed,        FieldKind::any,        "0", "0"},
    {"embd_pdrop",              FieldUse::fixed,        FieldKind::any,        "0", "0"},
};
// clang-format on

/// The fields of an architecture: its own, those that it shares with others, and a Mixtral's. An earlier row hides a
/// later one of the same name. Without any it is the table of a Mixtral.
struct FieldTable {
  std::span<const ConfigField> own = {}, common = {};

  /// The row of a field; nullptr if it has none.
  const ConfigField* find(std::string_view name) const {
    for (const auto rows : {own, common, std::span<const ConfigField>(config_fields)}) {
      for (const ConfigField& field : rows) {
        if (field.name == name) return &field;
      }
    }
    return nullptr;
  }
  /// f(row) for each field.
  template <class F>
  void for_each(F&& f) const {
    for (const auto rows : {own, common, std::span<const ConfigField>(config_fields)}) {
      for (const ConfigField& field : rows) {
        if (find(field.name) == &field) f(field);
      }
    }
  }
};

/// A value as a message shows it, in a few words.
[[gnu::cold]] inline std::string shown(const Json& value) {
  std::string text = value.dump();
  constexpr std::size_t many = 160;
  return text.size() <= many ? text : std::string(value.kind()) + " of " + std::to_string(text.size()) + " bytes";
}

/// Whether a value is of a kind. JSON has one kind of number: 16.0 is not whole, as for transformers.
[[gnu::cold]] inline bool is_of_kind(const Json& value, FieldKind kind) {
  switch (kind) {
    case FieldKind::whole:
      return value.is_whole();
    case FieldKind::number:
      return value.is_number();
    case FieldKind::flag:
      return value.is_boolean();
    case FieldKind::word:
      return value.is_string();
    case FieldKind::float_type:
      return value == "float32" || value == "float16" || value == "bfloat16" || value == "float64";
    case FieldKind::any:
      break;
  }
  return true;
}

[[gnu::cold]] inline void check_kind(const Json& value, const ConfigField& field, const std::string& name) {
  constexpr const char* kinds[] = {"a whole number",           "a number", "true or false", "a word",
                                   "a type of floating point", "a value"};
  if (is_of_kind(value, field.kind)) return;
  fail<FileError>(name, ": \"", field.name, "\" is ", shown(value), ", which is not ",
                  kinds[static_cast<std::size_t>(field.kind)], "; correct the file");
}

/// What a field of a file says, or means where it is absent or null. Throws where it means nothing.
[[gnu::cold]] inline Json meaning_of(const Json& file, const ConfigField& field, const std::string& name,
                                     const FieldTable& table) {
  const Json* found = file.find(field.name);
  if (found != nullptr && !found->is_null()) {
    if (field.name == "hidden_act" && *found == "swish") return "silu";
    // The same model without its head, which tensor_names.hpp asks for where it is not the embedding.
    if (field.name == "architectures" && *found == Json::array({"MixtralModel"})) {
      return Json::array({"MixtralForCausalLM"});
    }
    return *found;
  }
  const std::string_view text = found != nullptr ? field.null : field.absent;
  if (text.empty()) {
    fail<MismatchError>(name, ": \"", field.name, "\" is ", found != nullptr ? "null" : "missing",
                        ", which means no value; write the one that the model was trained with");
  }
  const auto other = [&](std::string_view key) { return meaning_of(file, *table.find(key), name, table); };
  if (text == all_heads || text == experts_of_layer) return other(text);
  if (text == width_of_head) {
    const auto width = other("hidden_size").whole<Index>(), heads = other(all_heads).whole<Index>();
    return width && heads && *heads > 0 ? Json(*width / *heads) : Json();
  }
  return parse_json(text, std::string(field.name));
}

/// The value of rope_theta: in a file of transformers 5 it may stand in "rope_parameters" or "rope_scaling", whose
/// other members must be those of plain rotary positions. To transformers 5 a "rope_scaling" with members hides all of
/// "rope_parameters", and the one that counts has the file's "rope_theta", or else the default, where it names none.
/// Null where no place names it; an error where what the places mean differs.
[[gnu::cold]] inline Json rope_theta_of(const Json& file, const std::string& name, const FieldTable& table) {
  constexpr std::string_view key = "rope_theta";
  Json theta = file[key];
  const Json unnamed = file.contains(key) ? Json(theta) : parse_json(table.find(key)->absent, std::string(key));
  bool named = !theta.is_null();
  std::string first = R"(in "rope_theta")";
  for (const char* place : {"rope_parameters", "rope_scaling"}) {
    const Json& parameters = file[place];
    if (parameters.is_null()) continue;
    if (!parameters.is_object()) {
      fail<FileError>(name, ": \"", place, "\" is ", shown(parameters), ", which is no object; correct the file");
    }
    for (const auto& [member, value] : parameters.members()) {
      bool known = value.is_null();
      if (member == "rope_type" || member == "type") known = value == "default";
      if (member == key) known = value.is_number() && value.number() > 0;
      if (member == "partial_rotary_factor") known = known || value == 1 || table.find(member)->use != FieldUse::fixed;
      if (!known) {
        fail<MismatchError>(
            name, ": ", place, ".", member, " is ", shown(value),
            "; tinymoe computes rotary positions of the type \"default\" alone, with a rope_theta above 0");
      }
    }
    if (parameters.size() == 0) continue;
    const Json* inner = parameters.find(key);
    const Json& meant = inner != nullptr ? *inner : unnamed;
    const std::string where = (inner != nullptr ? "in \"" : "by default in \"") + std::string(place) + "\"";
    if (!theta.is_null() && theta != meant) {
      fail<MismatchError>(name, ": rope_theta is ", shown(theta), " ", first, " and ", shown(meant), " ", where,
                          ", of which versions of transformers take one or the other; leave the right one alone");
    }
    named = named || inner != nullptr;
    theta = meant;
    first = where;
  }
  return named ? theta : Json();
}

/// Checks the field "tinymoe" of a file, which describes an architecture in full.
[[gnu::cold]] inline void check_description(const Json& found, const Json& expected, const std::string& name) {
  for (const auto& [key, wanted] : expected.members()) {
    const Json& value = json_member(found, key, name);
    if (value == wanted) continue;
    fail<MismatchError>(name, ": the architecture's \"", key, "\" is ", value.dump(), "; this program's model has ",
                        wanted.dump(), ": use a program whose model has the file's");
  }
  for (const auto& [key, value] : found.members()) {
    if (expected.contains(key)) continue;
    fail<MismatchError>(name, ": the architecture's \"", key, "\" is unknown to this program; use a newer tinymoe");
  }
}

/// Checks the fields of a file against the config.json that the program's model would have, which is of the same
/// model_type or of tinymoe's alone. In a file of tinymoe's the field "tinymoe" says what is absent; what is there must
/// agree. Throws MismatchError for another value, FileError for one of another kind.
[[gnu::cold]] inline void check_config_fields(const Json& file, const Json& expected, const std::string& name,
                                              const FieldTable& table) {
  const bool ours = file.contains("tinymoe"), hub = expected["model_type"] != "tinymoe";
  if (ours) check_description(file["tinymoe"], expected["tinymoe"], name);
  if (!ours && !hub) {
    fail<MismatchError>(name, ": \"tinymoe\" is missing and model_type is ", shown(file["model_type"]),
                        "; this program's model is none of the hub's, so it needs a file of tinymoe's");
  }
  // A checkpoint of tinymoe's that no other program reads, or that an earlier version wrote so.
  const bool alone = ours && file["model_type"] == "tinymoe";
  table.for_each([&](const ConfigField& field) {
    if (field.use == FieldUse::setting || (ours && !file.contains(field.name))) return;
    const Json* wanted =
        expected.find(field.name == "num_experts" && table.own.empty() ? experts_of_layer : field.name);
    const bool named = field.name == "model_type" || field.name == "architectures";
    if ((!hub || alone) && (field.use == FieldUse::fixed || wanted == nullptr)) return;  // only tinymoe reads it
    if ((alone && named) || (field.use == FieldUse::architecture && wanted == nullptr)) return;
    const Json found = meaning_of(file, field, name, table);
    const char* const absent = file.contains(field.name) ? "" : " as it is absent";
    switch (field.use) {
      case FieldUse::architecture:
        if (found.is_number() && field.kind == FieldKind::whole) check_kind(found, field, name);
        if (found != *wanted) {
          fail<MismatchError>(name, ": ", field.name, " is ", shown(found), absent, "; this program's model has ",
                              shown(*wanted), ": use a program whose model has the file's");
        }
        break;
      case FieldUse::context:
        if (wanted == nullptr) break;
        check_kind(found, field, name);
        if (found.number() < wanted->number()) {
          fail<MismatchError>(name, ": ", field.name, " is ", shown(found), "; this program's model has a context of ",
                              shown(*wanted), ", whose last positions were not trained: make it shorter");
        }
        break;
      case FieldUse::fixed: {
        const Json known = named ? *wanted : parse_json(field.absent, std::string(field.name));
        if (found != known) {
          fail<MismatchError>(name, ": ", field.name, " is ", shown(found), "; tinymoe computes ",
                              expected["architectures"].items()[0].string(), ", where it is ", shown(known));
        }
        break;
      }
      case FieldUse::unused:
        if (!found.is_null()) check_kind(found, field, name);
        break;
      case FieldUse::setting:
        break;
    }
  });
}

/// A setting's value at `key` in a file of the hub's form, or null where the file has none.
[[gnu::cold]] inline Json setting_in(const Json& file, std::string_view key, double initial, const std::string& name,
                                     const FieldTable& table) {
  const ConfigField* field = table.find(key);
  if (field == nullptr || field->use != FieldUse::setting) return file[key];
  const Json* found = file.find(field->name);
  const Json rope = key == "rope_theta" ? rope_theta_of(file, name, table) : Json();
  if (!rope.is_null()) return rope;
  const bool ours = found == nullptr && file.contains("tinymoe");
  if (ours && file["model_type"] == "tinymoe") return {};  // only tinymoe reads it
  const Json meant = meaning_of(file, *field, name, table);
  if (ours && meant != Json(initial)) {  // tinymoe writes all of them
    fail<MismatchError>(name, ": \"", field->name, "\" is missing, which is ", shown(meant), " to transformers and ",
                        initial, " to tinymoe; write the value that the model was trained with");
  }
  return meant;
}

/// The settings in a config.json. One that the table does not have is the default where it is absent. `key_of` gives
/// the name of a setting in the file; empty: it stands in "tinymoe_settings".
template <class KeyOf>
[[gnu::cold]] Settings read_settings(const Json& file, const std::string& name, const SettingList& known,
                                     const FieldTable& table, KeyOf key_of) {
  Settings settings;
  for (const Setting* setting : known) {
    const bool hub = !key_of(*setting).empty();
    const std::string_view key = hub ? key_of(*setting) : setting->name;
    const Json& place = hub ? file : file["tinymoe_settings"];
    if (!hub && !place.is_null() && !place.is_object()) json_member(place, key, name);
    const Json value = hub ? setting_in(place, key, setting->initial, name, table) : place[key];
    if (value.is_null() && !place.contains(key)) continue;
    const double number = setting->range == SettingRange::flag ? (json_value<bool>(value, key, name) ? 1.0 : 0.0)
                                                               : json_value<double>(value, key, name);
    if (!setting->allows(number)) {
      fail<FileError>(name, ": \"", key, "\"", setting->numbers().refusal(number));
    }
    settings.set(*setting = number);
  }
  return settings;
}

/// Where a checkpoint says that its weights are no numbers but in a format of tinymoe's (stored_weights.hpp).
inline constexpr std::string_view stored_weights_key = "quantization_config";

/// What a config.json has for weights of this name.
[[gnu::cold]] inline Json stored_weights_json(std::string_view name) {
  return {{"quant_method", "tinymoe"}, {"weights", name}};
}

/// The name of the format that a checkpoint's weights are stored in; empty: numbers. Throws FileError for a
/// "quantization_config" of tinymoe's without one.
[[gnu::cold]] inline std::string stored_weights(const Json& config, const std::string& file) {
  const Json* found = config.find(stored_weights_key);
  if (found == nullptr || !found->is_object() || (*found)["quant_method"] != "tinymoe") return {};
  return json_field<std::string>(*found, "weights", file + ": " + std::string(stored_weights_key));
}

}  // namespace tinymoe::inline v0_1::detail
