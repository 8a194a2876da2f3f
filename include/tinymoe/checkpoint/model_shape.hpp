#pragma once
/// @file
/// What an architecture computes, layer by layer, as run-time values: where the architectures of other programs and
/// the types of this one meet. Options that act in training alone (capacity, jitter, a balance loss) are left out.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

/// One block. The words are those of `describe`; an option without a meaning here is 0, false or empty.
struct LayerShape {
  std::string own;  // the name of a part that is not the library's
  std::string norm = "rms_norm", position = "rope";
  Index heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  bool qkv_bias = false, output_bias = false, qk_norm = false;
  std::string activation = "swiglu";
  Index hidden = 0;
  bool expert_bias = false;
  Index experts = 0, choices = 0;  // 0: a dense block
  std::string selection, scores;
  bool normalised_gates = false, router_bias = false, noise = false, balance_bias = false;
  std::string shared_activation;
  Index shared_hidden = 0;  // 0: no shared expert
  bool shared_bias = false, shared_gate = false;

  bool is_mixture() const { return experts > 0; }
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

struct ModelShape {
  Index vocab = 0, context = 0, width = 0;
  std::vector<LayerShape> layers;
  std::string final_norm = "rms_norm";
  bool tied = false, head_bias = false;

  friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

/// The shape of a description that `describe` made.
[[gnu::cold]] inline ModelShape shape_of(const Json& description) {
  const auto whole = [](const Json& at, const char* key) { return at[key].whole<Index>().value_or(0); };
  const auto flag = [](const Json& at, const char* key) { return at[key].is_boolean() && at[key].boolean(); };
  const auto word = [](const Json& at, const char* key) { return at[key].is_string() ? at[key].string() : ""; };
  ModelShape shape{.vocab = whole(description, "vocab"),
                   .context = whole(description, "context"),
                   .width = whole(description, "width"),
                   .layers = {},
                   .final_norm = word(description["final_norm"], "type"),
                   .tied = flag(description, "tied_head"),
                   .head_bias = flag(description, "head_bias")};
  for (const Json& block : description["layers"].items()) {
    const Json &attention = block["attention"], &expert = block["expert"], &router = block["router"],
               &shared = block["shared_expert"];
    LayerShape layer;
    layer.norm = word(block["norm"], "type");
    layer.position = word(attention, "position");
    layer.heads = whole(attention, "heads"), layer.kv_heads = whole(attention, "kv_heads");
    layer.head_dim = whole(attention, "head_dim"), layer.window = whole(attention, "window");
    if (layer.head_dim == 0 && layer.heads > 0) layer.head_dim = shape.width / layer.heads;
    layer.qkv_bias = flag(attention, "qkv_bias"), layer.output_bias = flag(attention, "output_bias");
    layer.qk_norm = flag(attention, "qk_norm");
    layer.activation = word(expert, "activation");
    layer.hidden = whole(expert, "hidden"), layer.expert_bias = flag(expert, "bias");
    if (router.is_object()) {
      layer.experts = whole(router, "experts"), layer.choices = whole(router, "choices");
      layer.selection = word(router, "type"), layer.scores = word(router, "scores");
      layer.normalised_gates = flag(router, "normalised_gates"), layer.router_bias = flag(router, "bias");
      layer.noise = flag(router, "noise"), layer.balance_bias = flag(router, "balance_bias");
    }
    if (shared.is_object()) {
      layer.shared_activation = word(shared, "activation");
      layer.shared_hidden = whole(shared, "hidden"), layer.shared_bias = flag(shared, "bias");
      layer.shared_gate = flag(shared, "gate");
    }
    for (const Json* part : {&attention, &expert, &router, &shared}) {
      const bool ours =
          part->is_null() || part->contains("heads") || part->contains("hidden") || part->contains("scores");
      if (!ours && layer.own.empty()) layer.own = word(*part, "type");
    }
    for (Index i = whole(block, "count"); i > 0; --i) shape.layers.push_back(layer);
  }
  return shape;
}

/// f(name, value of `one`, value of `other`) for each member of two blocks.
template <class F>
void for_each_member(const LayerShape& one, const LayerShape& other, F&& f) {
  f("own part", one.own, other.own);
  f("norm", one.norm, other.norm);
  f("position", one.position, other.position);
  f("heads", one.heads, other.heads);
  f("kv_heads", one.kv_heads, other.kv_heads);
  f("head_dim", one.head_dim, other.head_dim);
  f("window", one.window, other.window);
  f("qkv_bias", one.qkv_bias, other.qkv_bias);
  f("output_bias", one.output_bias, other.output_bias);
  f("qk_norm", one.qk_norm, other.qk_norm);
  f("activation", one.activation, other.activation);
  f("hidden", one.hidden, other.hidden);
  f("expert_bias", one.expert_bias, other.expert_bias);
  f("experts", one.experts, other.experts);
  f("choices", one.choices, other.choices);
  f("selection", one.selection, other.selection);
  f("scores", one.scores, other.scores);
  f("normalised_gates", one.normalised_gates, other.normalised_gates);
  f("router_bias", one.router_bias, other.router_bias);
  f("noise", one.noise, other.noise);
  f("balance_bias", one.balance_bias, other.balance_bias);
  f("shared_activation", one.shared_activation, other.shared_activation);
  f("shared_hidden", one.shared_hidden, other.shared_hidden);
  f("shared_bias", one.shared_bias, other.shared_bias);
  f("shared_gate", one.shared_gate, other.shared_gate);
}

/// Throws MismatchError that names the file and the first thing in which what it means differs from this program's
/// model. The file's context may be longer.
[[gnu::cold]] inline void check_shape(const ModelShape& found, const ModelShape& wanted, const std::string& name,
                                      std::string_view model_type) {
  const auto compare = [&](const std::string& what, const Json& one, const Json& other) {
    if (one == other) return;
    fail<MismatchError>(name, ": model_type is ", model_type, " and ", what, " is ", one.dump(),
                        "; this program's model has ", other.dump(), ": use a program whose model has the file's");
  };
  compare("the vocabulary", found.vocab, wanted.vocab);
  compare("the width", found.width, wanted.width);
  compare("the number of layers", found.layers.size(), wanted.layers.size());
  compare("the final norm", found.final_norm, wanted.final_norm);
  compare("tied_head", found.tied, wanted.tied);
  compare("head_bias", found.head_bias, wanted.head_bias);
  if (found.context < wanted.context) {
    fail<MismatchError>(name, ": the context is ", found.context, "; this program's model has a context of ",
                        wanted.context, ", whose last positions were not trained: make it shorter");
  }
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    const auto one = [&](const char* what, const auto& a, const auto& b) {
      if (a != b) compare("layer " + std::to_string(i) + "'s " + what, a, b);
    };
    for_each_member(found.layers[i], wanted.layers[i], one);
  }
}

}  // namespace tinymoe::inline v0_1::detail
