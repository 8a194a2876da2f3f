#pragma once
/// @file
/// The C++ type of a shape, as a user writes it, and its counts: how a model of another program becomes one of this.

#include <cstddef>
#include <string>
#include <string_view>

#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// Parameters in all, and those that one token uses, as `count<Arch>()` counts them.
struct ShapeCount {
  Index total = 0, active = 0;
};

[[gnu::cold]] inline ShapeCount count_of(const ModelShape& shape) {
  ShapeCount count;
  const auto add = [&](Index parameters) { count.total += parameters, count.active += parameters; };
  const Index width = shape.width;
  const auto norm = [&](const std::string& name) { add(name == "layer_norm" ? 2 * width : width); };
  const auto network = [&](const std::string& activation, Index hidden, bool bias) {
    const Index inputs = activation == "swiglu" ? 2 * hidden : hidden;
    return inputs * width + width * hidden + (bias ? inputs + width : 0);
  };
  bool learned = false;
  for (const LayerShape& layer : shape.layers) {
    const Index queries = layer.heads * layer.head_dim, keys = layer.kv_heads * layer.head_dim;
    learned = learned || layer.position == "learned";
    norm(layer.norm), norm(layer.norm);
    add((queries + 2 * keys) * width + width * queries);
    add((layer.qkv_bias ? queries + 2 * keys : 0) + (layer.output_bias ? width : 0));
    add(layer.qk_norm ? 2 * layer.head_dim : 0);
    const Index expert = network(layer.activation, layer.hidden, layer.expert_bias);
    if (!layer.is_mixture()) {
      add(expert);
      continue;
    }
    count.total += layer.experts * expert, count.active += layer.choices * expert;
    const Index routes = layer.noise ? 2 * layer.experts : layer.experts;
    add(routes * width + (layer.router_bias ? routes : 0) + (layer.balance_bias ? layer.experts : 0));
    if (layer.selection == "expert_choice") add(layer.experts);  // thresholds
    if (layer.shared_hidden > 0) add(network(layer.shared_activation, layer.shared_hidden, layer.shared_bias));
  }
  norm(shape.final_norm);
  add(shape.vocab * width + (learned ? shape.context * width : 0));
  add((shape.tied ? 0 : shape.vocab * width) + (shape.head_bias ? shape.vocab : 0));
  return count;
}

[[gnu::cold]] inline std::string norm_text(const std::string& norm) {
  return norm == "layer_norm" ? "LayerNorm" : "RmsNorm";
}

[[gnu::cold]] inline std::string expert_text(const std::string& activation, Index hidden, bool bias) {
  const char* name = activation == "gelu"        ? "Gelu"
                     : activation == "gelu_tanh" ? "GeluTanh"
                     : activation == "relu"      ? "Relu"
                                                 : "SwiGlu";
  return sentence_of({"Expert<", name, ", Hidden<", hidden, ">", bias ? ", Bias>" : ">"});
}

[[gnu::cold]] inline std::string block_text(const LayerShape& layer, Index width) {
  std::string text = layer.is_mixture() ? "MoEBlock<" : "DenseBlock<";
  text += norm_text(layer.norm) + sentence_of({", Attention<Heads<", layer.heads, ">"});
  const auto option = [&](bool given, const char* name) {
    if (given) text.append(", ").append(name);
  };
  const auto number = [&](bool given, const char* name, Index value) {
    if (given) text += sentence_of({", ", name, "<", value, ">"});
  };
  number(layer.kv_heads != layer.heads, "KvHeads", layer.kv_heads);
  number(layer.head_dim * layer.heads != width, "HeadDim", layer.head_dim);
  option(true, layer.position == "rope" ? "Rope" : layer.position == "learned" ? "Learned" : "NoPosition");
  number(layer.window > 0, "SlidingWindow", layer.window);
  option(layer.qkv_bias && layer.output_bias, "Bias");
  option(layer.qkv_bias && !layer.output_bias, "QkvBias");
  option(!layer.qkv_bias && layer.output_bias, "OutputBias");
  option(layer.qk_norm, "QkNorm");
  text += '>';
  if (layer.is_mixture()) {
    text += sentence_of({", Router<", layer.experts, ", ", layer.choices});
    option(layer.selection == "dynamic_top_k", "DynamicTopK");
    option(layer.selection == "expert_choice", "ExpertChoice");
    option(layer.scores == "sigmoid", "SigmoidScores");
    option(!layer.normalised_gates && layer.choices > 1 && layer.selection == "top_k", "ScoreGates");
    option(layer.noise, "NoisyTopK");
    option(layer.router_bias, "Bias");
    option(layer.balance_bias, "BalanceBias");
    text += '>';
  }
  text += ", " + expert_text(layer.activation, layer.hidden, layer.expert_bias);
  if (layer.shared_hidden > 0) {
    text += ", Shared<" + expert_text(layer.shared_activation, layer.shared_hidden, layer.shared_bias) + ">";
  }
  return text + ">";
}

/// `Transformer<…>` of a shape, without what acts in training alone. Throws MismatchError for a part of a user's own.
[[gnu::cold]] inline std::string type_text(const ModelShape& shape) {
  for (const LayerShape& layer : shape.layers) {
    if (layer.own.empty()) continue;
    fail<MismatchError>("the model has a part of its program's own, ", layer.own, "; the type stands in that program");
  }
  std::string text =
      sentence_of({"Transformer<Vocab<", shape.vocab, ">, Context<", shape.context, ">, Width<", shape.width, ">"});
  if (shape.tied) text += ", TiedHead";
  if (shape.head_bias) text += ", HeadBias";
  if (shape.final_norm != shape.layers.back().norm) text += ", FinalNorm<" + norm_text(shape.final_norm) + ">";
  for (std::size_t first = 0, next = 0; first < shape.layers.size(); first = next) {
    while (next < shape.layers.size() && shape.layers[next] == shape.layers[first]) ++next;
    text +=
        sentence_of({",\n            Layers<", next - first, ", ", block_text(shape.layers[first], shape.width), ">"});
  }
  return text + ">";
}

}  // namespace tinymoe::inline v0_1::detail
