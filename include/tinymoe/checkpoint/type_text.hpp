#pragma once
/// @file
/// The C++ type of a shape, as a user writes it, and its counts: how a model of another program becomes one of this.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>

#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"

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
    if (layer.qk_norm) add(layer.norm_across_heads ? queries + keys : 2 * layer.head_dim);
    const Index expert = network(layer.activation, layer.hidden, layer.expert_bias);
    if (!layer.is_mixture()) {
      add(expert);
      continue;
    }
    count.total += layer.experts * expert, count.active += layer.choices * expert;
    const Index routes = layer.noise ? 2 * layer.experts : layer.experts;
    add(routes * width + (layer.router_bias ? routes : 0) + (layer.balance_bias ? layer.experts : 0));
    if (layer.selection == "expert_choice") add(layer.experts);  // thresholds
    if (layer.shared_hidden > 0) {
      add(network(layer.shared_activation, layer.shared_hidden, layer.shared_bias) + (layer.shared_gate ? width : 0));
    }
  }
  norm(shape.final_norm);
  add(shape.vocab * width + (learned ? shape.context * width : 0));
  count.total += shape.bigrams * width, count.active += shape.bigrams > 0 ? width : 0;
  if (shape.per_layer_embeddings) {
    const auto tables = static_cast<Index>(shape.layers.size()) - 1;
    count.total += tables * shape.vocab * width, count.active += tables * width;
  }
  add((shape.tied ? 0 : shape.vocab * width) + (shape.head_bias ? shape.vocab : 0));
  return count;
}

/// The C++ name of a word of a shape. Throws MismatchError for one that is not the library's.
struct TypeWord {
  std::string_view kind, word, type;
};
inline constexpr TypeWord type_words[] = {{"norm", "layer_norm", "LayerNorm"},
                                          {"norm", "rms_norm", "RmsNorm"},
                                          {"position", "rope", "Rope"},
                                          {"position", "learned", "Learned"},
                                          {"position", "none", "NoPosition"},
                                          {"activation", "swiglu", "SwiGlu"},
                                          {"activation", "gelu", "Gelu"},
                                          {"activation", "gelu_tanh", "GeluTanh"},
                                          {"activation", "relu", "Relu"},
                                          {"selection", "top_k", ""},
                                          {"selection", "dynamic_top_k", "DynamicTopK"},
                                          {"selection", "expert_choice", "ExpertChoice"},
                                          {"scores", "softmax", ""},
                                          {"scores", "sigmoid", "SigmoidScores"}};

[[noreturn, gnu::cold]] inline void refuse_own(const std::string& part) {
  fail<MismatchError>("the model has a part of its program's own, ", Json(part).dump(),
                      "; the type stands in that program");
}

[[gnu::cold]] inline std::string type_word(std::string_view kind, const std::string& word) {
  for (const TypeWord& known : type_words) {
    if (known.kind == kind && known.word == word) return std::string(known.type);
  }
  refuse_own(word);
}

[[gnu::cold]] inline std::string expert_text(const std::string& activation, Index hidden, bool bias) {
  return sentence_of(
      {"Expert<", type_word("activation", activation), ", Hidden<", hidden, ">", bias ? ", Bias>" : ">"});
}

/// ", name<a, b>" of a ratio in lowest terms.
[[gnu::cold]] inline std::string ratio_text(const char* name, Index a, Index b) {
  const Index common = std::gcd(a, b);
  return sentence_of({", ", name, "<", a / common, ", ", b / common, ">"});
}

/// The option GateScale of a factor: of the first denominator that makes it a ratio of whole numbers. Throws
/// MismatchError where there is none.
[[gnu::cold]] inline std::string gate_scale_text(double factor) {
  constexpr Index largest = 1000000;
  for (Index unit = 1; unit <= largest; ++unit) {
    const double whole = std::round(factor * double(unit));
    if (whole > 0 && whole < 1e12 && whole / double(unit) == factor) {
      return ratio_text("GateScale", static_cast<Index>(whole), unit);
    }
  }
  fail<MismatchError>("routed_scaling_factor (gate_scale in files of tinymoe's) is ", Json(factor).dump(),
                      "; tinymoe's GateScale is a ratio of whole numbers, of which the second is at most ", largest,
                      ": round it to six decimals");
}

[[gnu::cold]] inline std::string block_text(const LayerShape& layer, Index width) {
  std::string text = layer.is_mixture() ? "MoEBlock<" : "DenseBlock<";
  text += type_word("norm", layer.norm) + sentence_of({", Attention<Heads<", layer.heads, ">"});
  const auto option = [&](bool given, std::string_view name) {
    if (given) text.append(", ").append(name);
  };
  const auto number = [&](bool given, const char* name, Index value) {
    if (given) text += sentence_of({", ", name, "<", value, ">"});
  };
  number(layer.kv_heads != layer.heads, "KvHeads", layer.kv_heads);
  number(layer.head_dim * layer.heads != width, "HeadDim", layer.head_dim);
  if (layer.rotated > 0) {
    text += ratio_text("PartialRope", layer.rotated, layer.head_dim);
  } else {
    option(true, type_word("position", layer.position));
  }
  number(layer.window > 0, "SlidingWindow", layer.window);
  option(layer.qkv_bias && layer.output_bias, "Bias");
  option(layer.qkv_bias && !layer.output_bias, "QkvBias");
  option(!layer.qkv_bias && layer.output_bias, "OutputBias");
  option(layer.qk_norm, layer.norm_across_heads ? "QkNormAcrossHeads" : "QkNorm");
  text += '>';
  if (layer.is_mixture()) {
    text += sentence_of({", Router<", layer.experts, ", ", layer.choices});
    option(layer.selection != "top_k", type_word("selection", layer.selection));
    option(layer.scores != "softmax", type_word("scores", layer.scores));
    option(!layer.normalised_gates && layer.choices > 1 && layer.selection == "top_k", "ScoreGates");
    if (layer.gate_scale != 1) text += gate_scale_text(layer.gate_scale);
    option(layer.noise, "NoisyTopK");
    option(layer.router_bias, "Bias");
    option(layer.balance_bias, "BalanceBias");
    text += '>';
  }
  text += ", " + expert_text(layer.activation, layer.hidden, layer.expert_bias);
  if (layer.shared_hidden > 0) {
    text += ", Shared<" + expert_text(layer.shared_activation, layer.shared_hidden, layer.shared_bias);
    text += layer.shared_gate ? ", Gated>" : ">";
  }
  return text + ">";
}

/// `Transformer<…>` of a shape, without what acts in training alone. Throws MismatchError for a part of a user's own.
[[gnu::cold]] inline std::string type_text(const ModelShape& shape) {
  for (const LayerShape& layer : shape.layers) {
    if (!layer.own.empty()) refuse_own(layer.own);
  }
  std::string text =
      sentence_of({"Transformer<Vocab<", shape.vocab, ">, Context<", shape.context, ">, Width<", shape.width, ">"});
  if (shape.tied) text += ", TiedHead";
  if (shape.head_bias) text += ", HeadBias";
  if (shape.bigrams > 0) text += sentence_of({", Bigrams<", shape.bigrams, ">"});
  if (shape.per_layer_embeddings) text += ", PerLayerEmbeddings";
  if (shape.final_norm != shape.layers.back().norm) text += ", FinalNorm<" + type_word("norm", shape.final_norm) + ">";
  for (std::size_t first = 0, next = 0; first < shape.layers.size(); first = next) {
    while (next < shape.layers.size() && shape.layers[next] == shape.layers[first]) ++next;
    text +=
        sentence_of({",\n            Layers<", next - first, ", ", block_text(shape.layers[first], shape.width), ">"});
  }
  return text + ">";
}

/// A header with the type of a shape, called `name`; `source` says in a comment where the shape is from. Throws
/// OptionError for a name that is none of C++'s, MismatchError as `type_text` that names the source.
[[gnu::cold]] inline std::string type_header(const ModelShape& shape, std::string source, const std::string& name) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_part = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
  };
  if (name.empty() || is_digit(name[0]) || !std::all_of(name.begin(), name.end(), is_part)) {
    fail<OptionError>("the name ", Json(name).dump(), " is none of C++'s; take letters, digits and _, no digit first");
  }
  std::string type;
  try {
    type = type_text(shape);
  } catch (const MismatchError& error) {
    fail<MismatchError>(source, ": ", error.what());
  }
  // A line break, or a backslash before one, would end the comment elsewhere.
  std::replace_if(
      source.begin(), source.end(), [](char c) { return (c >= 0 && c < ' ') || c == 127; }, '?');
  if (source.ends_with('\\')) source += ' ';
  const ShapeCount count = count_of(shape);
  return sentence_of({"// ", source, "\n// ", count.total, " parameters, of which a token uses ", count.active,
                      "\n#include <tinymoe/model.hpp>\n\nnamespace ", name,
                      "_parts {\nusing namespace tinymoe;\nusing Type =\n    ", type, ";\n}\nstruct ", name, " : ",
                      name, "_parts::Type {};\n"});
}

}  // namespace tinymoe::inline v0_1::detail
