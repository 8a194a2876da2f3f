#pragma once
/// @file
/// config.json of the architectures of the hub: which of them computes a shape, what its file says, and which shape a
/// file means.
/// Over 300 lines: the way there and the way back stand together, so that a field is read as it was written.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/checkpoint/config_fields.hpp"
#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

/// What an architecture of the hub computes that computes a shape: the shape with what its blocks have besides, whose
/// weights are zeros then. Or else why it does not, and how near it comes.
struct HubFit {
  std::optional<ModelShape> shape;
  std::string reason;  // "has no …"
  int met = 0;         // conditions

  bool exact(const ModelShape& wanted) const { return shape == wanted; }
};

[[gnu::cold]] inline HubFit fit(const HubArchitecture& hub, const ModelShape& wanted) {
  HubFit result{wanted, {}, 0};
  const auto expect = [&](bool holds, std::string_view reason) {
    if (!result.reason.empty()) return;
    if (holds) {
      ++result.met;
    } else {
      result.reason = reason;
    }
  };
  auto& layers = result.shape->layers;
  const auto all = [&](auto holds) { return std::all_of(layers.begin(), layers.end(), holds); };
  const auto any = [&](auto holds) { return std::any_of(layers.begin(), layers.end(), holds); };
  const bool mixture = !hub.scores.empty();
  const LayerShape* first = nullptr;  // mixture
  const LayerShape* dense = nullptr;
  for (const auto& layer : layers) (layer.is_mixture() ? first : dense) = &layer;

  const std::string_view norm = hub.gpt2 ? "layer_norm" : "rms_norm", position = hub.gpt2 ? "learned" : "rope";
  for (const auto& layer : layers) expect(layer.own.empty(), "does not have the part " + layer.own);
  expect(all([&](const auto& l) { return l.norm == norm; }) && wanted.final_norm == norm,
         "has the norm " + std::string(norm) + " everywhere");
  expect(all([&](const auto& l) { return l.position == position; }),
         "has " + std::string(hub.gpt2 ? "learned" : "rotary") + " positions in every layer");
  expect(mixture == (first != nullptr), mixture ? "has mixtures of experts" : "has no mixture of experts");
  expect(all([&](const auto& l) {
           return hub.gpt2 ? l.activation == "gelu" || l.activation == "gelu_tanh" || l.activation == "relu"
                           : l.activation == "swiglu";
         }) &&
             all([&](const auto& l) { return l.activation == layers[0].activation; }),
         hub.gpt2 ? "has networks of GELU or ReLU" : "has networks of SwiGLU alone");
  expect(!wanted.head_bias, "has no bias on the logits");
  expect(wanted.bigrams == 0, "has no table of bigrams");
  expect(!wanted.per_layer_embeddings, "has no tables of tokens in its blocks");
  if (first != nullptr) {
    expect(first->scores == hub.scores && first->selection == "top_k",
           "chooses the top K by " + std::string(hub.scores) + " scores");
    expect(!first->router_bias && !first->noise, "has neither a bias nor noise on the router's logits");
    expect(!first->balance_bias || hub.scores == "sigmoid", "has no balancing bias");
    expect(first->experts > 1, "has two experts or more");
    expect(hub.normalised_gates.field.size() > 0 || first->normalised_gates, "renormalises the gates");
    expect(first->gate_scale == 1 || hub.scales_gates(), "does not multiply the gates by a factor");
    expect(first->shared_hidden == 0 || !hub.shared.empty(), "has no shared expert");
    expect(first->shared_hidden == 0 || first->shared_gate == hub.shared_gate,
           hub.shared_gate ? "multiplies the shared expert by a gate" : "has no gate on the shared expert");
    expect(first->shared_hidden == 0 || (first->shared_activation == "swiglu" && !first->shared_bias),
           "has a shared expert of SwiGLU without biases");
  }
  const auto flag = [&](HubFlag has, bool LayerShape::*member, std::string_view what) {
    const bool wants = any([&](const auto& l) { return l.*member; });
    expect(!wants || !has.never(), "has no " + std::string(what));
    for (auto& layer : layers) layer.*member = has.always || wants;
  };
  flag(hub.qkv_bias, &LayerShape::qkv_bias, "biases on q, k and v");
  flag(hub.output_bias, &LayerShape::output_bias, "bias on attention's output");
  flag(hub.expert_bias, &LayerShape::expert_bias, "biases in its networks");
  if (!hub.qkv_bias.field.empty() && hub.qkv_bias.field == hub.output_bias.field) {  // one field for both
    for (auto& layer : layers) layer.qkv_bias = layer.output_bias = layer.qkv_bias || layer.output_bias;
  }
  const bool normed = layers[0].qk_norm;
  expect(!normed || layers[0].norm_across_heads == hub.norm_across_heads,
         hub.norm_across_heads ? "has norms of q and k over all heads" : "has norms of q and k of each head");
  expect(!hub.norm_across_heads || layers[0].heads * layers[0].head_dim == wanted.width, "has heads of width / heads");
  expect(layers[0].rotated == 0 || hub.partly_rotary(), "rotates all of a head");
  expect(hub.qk_norm.never() ? !normed : (normed || !hub.qk_norm.always),
         normed ? "has no norm of q and k" : "has norms of q and k");
  expect(layers[0].window == 0 || !hub.window.empty(), "has no sliding window");
  if (hub.gpt2) {
    expect(all([&](const auto& l) { return l.kv_heads == l.heads && l.heads * l.head_dim == wanted.width; }),
           "has as many key-value heads as heads, of width / heads numbers each");
  }
  if (first != nullptr) {
    const bool counted = hub.shared == "n_shared_experts";
    for (auto& layer : layers) {
      if (!layer.is_mixture()) continue;
      layer.balance_bias = hub.scores == "sigmoid";
      if (hub.shared.empty()) continue;
      layer.shared_activation = "swiglu", layer.shared_gate = hub.shared_gate;
      layer.shared_hidden = std::max<Index>(layer.shared_hidden, 1);
      if (counted) layer.shared_hidden = (layer.shared_hidden + layer.hidden - 1) / layer.hidden * layer.hidden;
    }
    bool sparse = false, ordered = true;  // dense layers come first
    for (const auto& layer : layers) {
      ordered = ordered && (layer.is_mixture() || !sparse);
      sparse = sparse || layer.is_mixture();
    }
    expect(dense == nullptr || !hub.dense.empty(), "has a mixture in every layer");
    expect(ordered || hub.dense != "first_k_dense_replace", "has its dense layers first");
  }
  expect(all([&](const auto& l) {
           return l == (l.is_mixture() ? *first : *dense) && l.heads == layers[0].heads &&
                  l.kv_heads == layers[0].kv_heads && l.head_dim == layers[0].head_dim &&
                  l.window == layers[0].window && l.qk_norm == layers[0].qk_norm && l.rotated == layers[0].rotated &&
                  l.norm_across_heads == layers[0].norm_across_heads;
         }),
         "has the same attention, the same experts and the same dense networks in all layers");
  if (!result.reason.empty()) result.shape.reset();
  return result;
}

/// The first architecture that computes a shape, best one that has nothing besides; nullptr with a reason if none does.
struct HubChoice {
  const HubArchitecture* hub = nullptr;
  std::string reason;
};

[[gnu::cold]] inline HubChoice hub_for(const ModelShape& shape) {
  HubChoice choice;
  int nearest = -1;
  for (const HubArchitecture& hub : hub_architectures) {
    const HubFit found = fit(hub, shape);
    if (found.exact(shape)) return {&hub, {}};
    if (found.shape && choice.hub == nullptr) choice.hub = &hub;
    if (!found.shape && found.met > nearest) {
      nearest = found.met;
      choice.reason = "no architecture of the hub computes this model; " + std::string(hub.class_name) +
                      ", which comes nearest, " + found.reason;
    }
  }
  if (choice.hub != nullptr) choice.reason.clear();
  return choice;
}

/// The numbers of a head that transformers rotates: int(head_dim * partial_rotary_factor), of a product in double
/// precision. It may be one less than the ratio says, as of 30 / 88.
[[gnu::cold]] inline Index hub_rotated(double factor, Index head_dim) {
  return static_cast<Index>(static_cast<double>(head_dim) * factor);
}

/// A factor of which transformers rotates so many numbers: the ratio, or what comes next.
[[gnu::cold]] inline double rotary_factor(Index rotated, Index head_dim) {
  double factor = static_cast<double>(rotated) / static_cast<double>(head_dim);
  while (hub_rotated(factor, head_dim) < rotated) factor = std::nextafter(factor, 1.0);
  return factor;
}

/// Writes the fields that say a shape which an architecture `fit`s.
[[gnu::cold]] inline void write_hub_fields(const HubArchitecture& hub, const ModelShape& shape, Json& file) {
  const LayerShape *mixture = nullptr, *dense = nullptr;
  Json dense_layers = Json::array();
  for (std::size_t i = 0; i < shape.layers.size(); ++i) {
    const LayerShape& layer = shape.layers[i];
    (layer.is_mixture() ? mixture : dense) = &layer;
    if (!layer.is_mixture()) dense_layers.push_back(i);
  }
  const LayerShape& any = shape.layers[0];
  if (hub.gpt2) {
    file["n_embd"] = shape.width, file["n_layer"] = shape.layers.size(), file["n_head"] = any.heads;
    file["n_inner"] = any.hidden, file["n_positions"] = shape.context;
    file["activation_function"] = any.activation == "gelu_tanh" ? "gelu_new" : any.activation;
    file["layer_norm_epsilon"] = Json(file["rms_norm_eps"]), file["attn_pdrop"] = Json(file["attention_dropout"]);
    const Json dropout(file["tinymoe_settings"]["dropout"]);
    file["resid_pdrop"] = dropout, file["embd_pdrop"] = dropout;
    return;
  }
  file["num_attention_heads"] = any.heads;
  file["num_key_value_heads"] = any.kv_heads;
  file["head_dim"] = any.head_dim;
  file["hidden_act"] = "silu";
  if (!hub.window.empty()) file[hub.window] = any.window > 0 ? Json(any.window) : Json();
  if (hub.model_type == "dots1") file["sliding_window"] = Json();  // absent, it is 4096 from layer 62 on
  if (!hub.window_switch.empty()) file[hub.window_switch] = any.window > 0;
  const auto flag = [&](HubFlag has, bool value) {
    if (!has.field.empty()) file[has.field] = value;
  };
  flag(hub.output_bias, any.output_bias);
  flag(hub.qkv_bias, any.qkv_bias);
  flag(hub.qk_norm, any.qk_norm);
  flag(hub.expert_bias, any.expert_bias);
  if (dense != nullptr) file["intermediate_size"] = dense->hidden;
  if (mixture == nullptr) return;
  if (dense == nullptr) file["intermediate_size"] = mixture->hidden;
  file[hub.experts] = mixture->experts;
  file["num_experts_per_tok"] = mixture->choices;
  file[hub.hidden] = mixture->hidden;
  flag(hub.normalised_gates, mixture->normalised_gates);
  if (hub.dense == "mlp_only_layers") file[hub.dense] = std::move(dense_layers);
  if (hub.dense == "first_k_dense_replace") file[hub.dense] = dense_layers.size();
  if (!hub.shared.empty()) {
    file[hub.shared] =
        hub.shared == "n_shared_experts" ? mixture->shared_hidden / mixture->hidden : mixture->shared_hidden;
  }
  if (hub.scores == "sigmoid") {
    file["n_group"] = 1, file["topk_group"] = 1;
    const double part = any.rotated > 0 ? rotary_factor(any.rotated, any.head_dim) : 1.0;
    file["routed_scaling_factor"] = mixture->gate_scale;
    file["partial_rotary_factor"] = part;
    file["rope_parameters"] = {
        {"rope_type", "default"}, {"rope_theta", Json(file["rope_theta"])}, {"partial_rotary_factor", part}};
  }
}

/// The numbers of a head that are rotated; 0: all. Throws MismatchError where they are none or no pairs.
[[gnu::cold]] inline Index read_rotated(const HubArchitecture& hub, const Json& file, Index head_dim,
                                        const std::string& name) {
  const char* key = "partial_rotary_factor";
  if (!hub.partly_rotary()) return 0;
  // As rope_theta_of: to transformers 5 a "rope_scaling" with members hides "rope_parameters".
  const Json& scaling = file["rope_scaling"];
  const Json* found = (scaling.size() > 0 ? scaling : file["rope_parameters"]).find(key);
  if (found == nullptr) found = file.find(key);
  const Json part = found != nullptr ? *found : Json(0.5);
  const bool is_part = part.is_number() && part.number() > 0 && part.number() <= 1;
  const Index rotated = is_part ? hub_rotated(part.number(), head_dim) : 0;
  if (rotated > 0 && rotated % 2 == 0) return rotated == head_dim ? 0 : rotated;
  fail<MismatchError>(name, ": ", key, " is ", shown(part), found == nullptr ? " as it is absent" : "",
                      ", where a head is ", head_dim, " wide; expected a part of it that has pairs");
}

/// Throws MismatchError unless all layers have full attention, or all have the window that the file says.
[[gnu::cold]] inline void check_layer_types(const HubArchitecture& hub, const Json& file, bool windowed,
                                            std::size_t layers, const std::string& name) {
  const Json& types = file["layer_types"];
  if (types.is_array()) {
    for (const Json& type : types.items()) {
      if (type == "full_attention" || (windowed && type == "sliding_attention")) continue;
      fail<MismatchError>(name, ": layer_types has ", shown(type), "; tinymoe computes ", hub.class_name,
                          " with \"full_attention\" in each layer");
    }
    return;
  }
  // Without it, Dots1 has windows from this layer on.
  if (hub.model_type != "dots1") return;
  const FieldTable table = fields_of(hub);
  const auto meant = [&](std::string_view key) { return meaning_of(file, *table.find(key), name, table); };
  const Json first = meant("max_window_layers");
  if (meant("sliding_window").is_null()) return;
  if (first.is_number() && first.number() < static_cast<double>(layers)) {
    fail<MismatchError>(name, ": max_window_layers is ", shown(first),
                        file.contains("max_window_layers") ? "" : " as it is absent",
                        ", so that later layers have a sliding window; tinymoe computes Dots1ForCausalLM without one");
  }
}

/// What the config.json of an architecture means, which is not Mixtral's. Throws MismatchError for what tinymoe does
/// not compute, FileError for a value of another kind; both name the file and the field.
[[gnu::cold]] inline ModelShape read_hub_shape(const HubArchitecture& hub, const Json& file, const std::string& name) {
  const FieldTable table = fields_of(hub);
  const auto meant = [&](std::string_view key) {
    const ConfigField& field = *table.find(key);
    Json value = meaning_of(file, field, name, table);
    if (!value.is_null()) check_kind(value, field, name);
    return value;
  };
  const auto whole = [&](std::string_view key, Index least = 1) {
    const Json value = meant(key);
    const auto number = value.whole<Index>();
    if (number && *number >= least && *number <= largest_size) return *number;
    fail<MismatchError>(name, ": \"", key, "\" is ", shown(value), "; expected a whole number from ", least, " to ",
                        largest_size);
  };
  const auto flag = [&](HubFlag has) { return has.always || (!has.never() && meant(has.field) == true); };
  ModelShape shape;
  LayerShape layer;
  shape.vocab = whole("vocab_size");
  shape.tied = meant("tie_word_embeddings") == true;
  shape.width = whole(hub.gpt2 ? "n_embd" : "hidden_size");
  shape.context = whole(hub.gpt2 ? "n_positions" : "max_position_embeddings");
  const auto layers = static_cast<std::size_t>(whole(hub.gpt2 ? "n_layer" : "num_hidden_layers"));
  if (layers > std::size_t{most_layers})
    fail<MismatchError>(name, ": there are ", layers, " layers, above ", most_layers);
  layer.heads = whole(hub.gpt2 ? "n_head" : "num_attention_heads");
  layer.qkv_bias = flag(hub.qkv_bias), layer.output_bias = flag(hub.output_bias);
  layer.expert_bias = flag(hub.expert_bias), layer.qk_norm = flag(hub.qk_norm);
  if (hub.gpt2) {
    layer.norm = shape.final_norm = "layer_norm";
    layer.position = "learned";
    layer.kv_heads = layer.heads, layer.head_dim = shape.width / layer.heads;
    if (layer.heads * layer.head_dim != shape.width) {
      fail<MismatchError>(name, ": n_embd is ", shape.width, " and n_head ", layer.heads,
                          "; expected a multiple of it");
    }
    layer.activation = meant("activation_function").string();
    if (layer.activation == "gelu_new" || layer.activation == "gelu_pytorch_tanh") layer.activation = "gelu_tanh";
    if (layer.activation != "gelu" && layer.activation != "gelu_tanh" && layer.activation != "relu") {
      fail<MismatchError>(name, ": activation_function is ", layer.activation,
                          "; tinymoe computes \"gelu\", \"gelu_new\" and \"relu\"");
    }
    layer.hidden = meant("n_inner").is_null() ? 4 * shape.width : whole("n_inner");
    shape.layers.assign(layers, layer);
    check_sizes(shape, name);
    return shape;
  }
  if (const Json activation = meant("hidden_act"); activation != "silu") {
    fail<MismatchError>(name, ": hidden_act is ", shown(activation), "; tinymoe computes \"silu\" in ", hub.class_name);
  }
  layer.kv_heads = whole("num_key_value_heads"), layer.head_dim = whole("head_dim");
  layer.norm_across_heads = hub.norm_across_heads;
  layer.rotated = read_rotated(hub, file, layer.head_dim, name);
  const bool windowed = !hub.window.empty() && (hub.window_switch.empty() || meant(hub.window_switch) == true) &&
                        !meant(hub.window).is_null();
  if (windowed) layer.window = whole(hub.window);
  check_layer_types(hub, file, windowed, layers, name);
  LayerShape mixture = layer;
  if (!hub.scores.empty()) {
    mixture.experts = whole(hub.experts), mixture.choices = whole("num_experts_per_tok");
    mixture.hidden = whole(hub.hidden);
    if (const Json* other = file.find(experts_of_layer); hub.experts == "num_experts" && other != nullptr) {
      if (*other != Json(mixture.experts)) {
        fail<MismatchError>(name, ": num_experts is ", mixture.experts, " and ", experts_of_layer, " ", shown(*other),
                            ", which are two names of one number; leave the right one alone");
      }
    }
    mixture.selection = "top_k", mixture.scores = hub.scores;
    mixture.normalised_gates = flag(hub.normalised_gates);
    if (mixture.normalised_gates && mixture.choices == 1) {
      fail<MismatchError>(name,
                          ": num_experts_per_tok is 1 and gates are renormalised, so that each gate is 1; tinymoe ",
                          "computes one expert of a token with its score as the gate");
    }
    mixture.balance_bias = hub.scores == "sigmoid";
    if (hub.scales_gates()) mixture.gate_scale = meant("routed_scaling_factor").number();
    if (!hub.shared.empty()) {
      const bool counted = hub.shared == "n_shared_experts";
      mixture.shared_activation = "swiglu", mixture.shared_gate = hub.shared_gate;
      mixture.shared_hidden = whole(hub.shared) * (counted ? mixture.hidden : 1);
    }
  }
  const std::size_t leading = hub.dense == "first_k_dense_replace" ? static_cast<std::size_t>(whole(hub.dense, 0)) : 0;
  const Index step = hub.dense == "mlp_only_layers" ? whole("decoder_sparse_step") : 1;
  const Json dense = hub.dense == "mlp_only_layers" ? meant(hub.dense) : Json::array();
  if (!dense.is_array()) fail<FileError>(name, ": \"", hub.dense, "\" is ", shown(dense), ", which is not a list");
  for (std::size_t i = 0; i < layers; ++i) {
    const auto listed = [&](const Json& one) { return one == Json(i); };
    const bool is_dense = hub.scores.empty() || i < leading || (static_cast<Index>(i) + 1) % step != 0 ||
                          std::any_of(dense.items().begin(), dense.items().end(), listed);
    if (is_dense && layer.hidden == 0) layer.hidden = whole("intermediate_size");
    shape.layers.push_back(is_dense ? layer : mixture);
  }
  check_sizes(shape, name);
  return shape;
}

/// Throws unless each field that no shape has is as tinymoe computes it.
[[gnu::cold]] inline void check_hub_fields(const HubArchitecture& hub, const Json& file, const std::string& name) {
  fields_of(hub).for_each([&](const ConfigField& field) {
    if (field.use != FieldUse::fixed && field.use != FieldUse::unused) return;
    if (field.name == "architectures") {
      std::string base(hub.class_name);
      for (const std::string_view end : {"ForCausalLM", "LMHeadModel"}) {
        if (const auto at = base.find(end); at != std::string::npos) base.replace(at, base.size() - at, "Model");
      }
      const Json& found = file["architectures"];
      if (found.is_null() || found == Json::array({hub.class_name}) || found == Json::array({base})) return;
      fail<MismatchError>(name, ": architectures is ", shown(found), "; expected [\"", hub.class_name,
                          "\"], the model of ", "the model_type ", hub.model_type, " that predicts tokens");
    }
    const Json found = meaning_of(file, field, name, fields_of(hub));
    if (field.use == FieldUse::unused) {
      if (!found.is_null()) check_kind(found, field, name);
      return;
    }
    if (const Json known = parse_json(field.absent, std::string(field.name)); found != known) {
      fail<MismatchError>(name, ": ", field.name, " is ", shown(found), "; tinymoe computes ", hub.class_name,
                          " where it is ", shown(known));
    }
  });
  if (hub.gpt2 && file.contains("embd_pdrop") && file["embd_pdrop"] != file["resid_pdrop"]) {
    fail<MismatchError>(name, ": embd_pdrop is ", shown(file["embd_pdrop"]), " and resid_pdrop ",
                        shown(file["resid_pdrop"]), "; tinymoe has one rate for both: write it in both places");
  }
}

/// The shape that a config.json means, of a checkpoint of tinymoe's or of a folder of the hub's. Throws MismatchError
/// for what tinymoe does not compute.
[[gnu::cold]] inline ModelShape shape_of_file(const Json& file, const std::string& name) {
  if (file.contains("tinymoe")) return checked_shape(file["tinymoe"], name + ": \"tinymoe\"");
  const HubArchitecture* hub = hub_architecture(file["model_type"]);
  if (hub == nullptr) {
    std::string known;
    for (const HubArchitecture& one : hub_architectures) {
      known.append(known.empty() ? "" : ", ").append(one.model_type);
    }
    fail<MismatchError>(name, ": model_type is ", shown(file["model_type"]), "; tinymoe reads ", known);
  }
  check_hub_fields(*hub, file, name);
  if (!hub->gpt2) rope_theta_of(file, name, fields_of(*hub));
  return read_hub_shape(*hub, file, name);
}

/// Throws unless a file of an architecture's, not tinymoe's and not Mixtral's, describes the program's model: its
/// shape, and each field that changes a number.
[[gnu::cold]] inline void check_hub_file(const HubArchitecture& hub, const Json& file, const ModelShape& wanted,
                                         const std::string& name) {
  if (const HubFit own = fit(hub, wanted); !own.shape) {
    fail<MismatchError>(name, ": model_type is ", hub.model_type, ", and ", hub.class_name, " ", own.reason,
                        ", unlike this program's model: use a program whose model has the file's");
  }
  check_hub_fields(hub, file, name);
  check_shape(read_hub_shape(hub, file, name), wanted, name, hub.model_type);
}

}  // namespace tinymoe::inline v0_1::detail
