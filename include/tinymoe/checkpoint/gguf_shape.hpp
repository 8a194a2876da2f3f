#pragma once
/// @file
/// Which of llama.cpp's architectures computes a model, by its description (config.hpp), and the keys of a GGUF file's
/// metadata for it:
///
///     llama      RmsNorm, Rope, SwiGlu; all layers dense, or all of them mixtures as Mixtral's
///     qwen3      the same with QkNorm, dense
///     qwen3moe   the same with QkNorm, mixtures
///     qwen2moe   mixtures with softmax scores as gates and a gated Shared, of any width
///     olmoe      mixtures with softmax scores as gates, QkNormAcrossHeads
///     glm4moe    dense layers, then mixtures with softmax or sigmoid scores, gates normalised or not, GateScale,
///                BalanceBias, Shared, PartialRope
///     gpt2       LayerNorm, Learned, GeluTanh; all layers dense, heads of width / heads
///
/// What acts in training alone (capacity, jitter, noise, balance losses) is in no file.

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "tinymoe/checkpoint/config_fields.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

/// A model as llama.cpp's architectures see it.
struct GgufShape {
  std::string_view architecture;
  Index vocab = 0, context = 0, width = 0;
  Index dense_layers = 0, mixture_layers = 0;  // the dense ones come first
  Index heads = 0, kv_heads = 0, head_dim = 0, rotated = 0;
  Index dense_hidden = 0, expert_hidden = 0, shared_hidden = 0;  // 0: there is none
  Index experts = 0, choices = 0;
  bool tied = false, qkv_bias = false, output_bias = false, qk_norm = false, dense_bias = false;
  bool balance_bias = false, sigmoid = false, normalised = false, shared_gate = false, norm_across_heads = false;
  double gate_scale = 1;

  Index layers() const { return dense_layers + mixture_layers; }
  /// Whether pairs of RoPE are neighbours (x_2i, x_2i+1), and not halves (x_i, x_i+d/2) as tinymoe has them.
  bool interleaved() const { return architecture == "llama"; }
  /// Whether norms have biases, networks no gate, and q, k and v are one tensor. Biases that the model has not are
  /// zeros.
  bool gpt2() const { return architecture == "gpt2"; }
  /// glm4moe has at least one shared expert, whose width is a multiple of the others'; the rest of it is zeros. That of
  /// qwen2moe has a width of its own, and a gate.
  bool has_shared() const { return architecture == "glm4moe" || shared_gate; }
  Index shared_width() const { return shared_gate ? shared_hidden : shared_experts() * expert_hidden; }
  Index shared_experts() const { return std::max<Index>(1, (shared_hidden + expert_hidden - 1) / expert_hidden); }
};

/// The key of a GGUF file that has tinymoe's own description of the model, as JSON.
inline constexpr std::string_view gguf_description_key = "tinymoe.description";

/// The key of the number that norms add to a variance or a mean square, behind the architecture's name.
constexpr const char* gguf_epsilon_key(std::string_view architecture) {
  return architecture == "gpt2" ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
}

/// The layers of a description, without what acts in training alone; neighbours that are equal are one.
[[gnu::cold]] inline Json gguf_layers(const Json& description) {
  Json layers = Json::array();
  Json last;
  Index count = 0;
  const auto finish = [&] {
    if (count == 0) return;
    last["count"] = count;
    layers.push_back(last);
  };
  for (const Json& group : description["layers"].items()) {
    Json block = group;
    block.erase("count");
    Json& attention = block["attention"];
    if (attention["head_dim"] == 0) {
      attention["head_dim"] = description["width"].whole<Index>().value_or(0) /
                              std::max<Index>(1, attention["heads"].whole<Index>().value_or(1));
    }
    const Index head_dim = attention["head_dim"].whole<Index>().value_or(0);
    if (const Json part(attention["rotated_part"]); part.is_number())
      attention["rotated"] = rotated_numbers(part.number(), head_dim);
    attention.erase("rotated_part");
    if (attention["rotated"] == head_dim) attention.erase("rotated");
    const Json& window = attention["window"];
    if (window.is_number() && window.number() >= description["context"].number()) attention["window"] = 0;
    if (block.contains("router")) {
      for (const char* key : {"capacity", "jitter", "noise", "balance"}) block["router"].erase(key);
    }
    if (block != last) {
      finish();
      last = std::move(block);
      count = 0;
    }
    count += group["count"].whole<Index>().value_or(0);
    last.erase("count");
  }
  finish();
  return layers;
}

/// A description of what a model computes in inference.
[[gnu::cold]] inline Json gguf_inference(const Json& description) {
  Json made(description);
  made["layers"] = gguf_layers(description);
  made.sort_keys();
  return made;
}

/// Throws MismatchError for what no architecture of llama.cpp computes.
template <class... Parts>
[[noreturn, gnu::cold]] void refuse_gguf(const Parts&... parts) {
  fail<MismatchError>("the model has ", parts...,
                      ", which no architecture of llama.cpp computes; docs/interop.md says what each of them does");
}

/// Throws unless a part of a description has no other members than those that are known here.
[[gnu::cold]] inline void expect_gguf_members(const Json& part, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : part.members()) {
    if (value.is_null() || value == false || std::find(known.begin(), known.end(), key) != known.end()) continue;
    refuse_gguf("the option ", key, " ", shown(value));
  }
}

/// The feed-forward network of a description: its hidden width, and whether it has biases.
[[gnu::cold]] inline std::pair<Index, bool> gguf_network(const Json& expert, std::string_view activation = "swiglu") {
  if (expert["type"] != "feed_forward") refuse_gguf("experts of the type ", shown(expert["type"]));
  expect_gguf_members(expert, {"type", "activation", "hidden", "bias", "gate"});
  if (expert["activation"] != activation) {
    refuse_gguf(activation == "swiglu" ? "RmsNorm" : "LayerNorm", " and the activation ", shown(expert["activation"]));
  }
  return {expert["hidden"].whole<Index>().value_or(0), expert["bias"] == true};
}

[[gnu::cold]] inline void read_gguf_attention(const Json& attention, bool gpt2, GgufShape& shape) {
  if (attention["type"] != "attention") refuse_gguf("attention of the type ", shown(attention["type"]));
  expect_gguf_members(attention, {"type", "heads", "kv_heads", "head_dim", "position", "window", "qkv_bias",
                                  "output_bias", "qk_norm", "rotated", "norm_across_heads"});
  if (attention["position"] != (gpt2 ? "learned" : "rope")) {
    refuse_gguf(gpt2 ? "LayerNorm" : "RmsNorm", " and positions of the type ", shown(attention["position"]));
  }
  const auto number = [&](std::string_view key) { return attention[key].whole<Index>().value_or(0); };
  shape.heads = number("heads");
  shape.kv_heads = number("kv_heads");
  shape.head_dim = number("head_dim");
  shape.qkv_bias = attention["qkv_bias"] == true;
  shape.output_bias = attention["output_bias"] == true;
  shape.qk_norm = attention["qk_norm"] == true;
  shape.norm_across_heads = attention["norm_across_heads"] == true;
  shape.rotated = attention["rotated"].is_null() ? shape.head_dim : number("rotated");
  // These architectures have no window. As long as a text is no longer than it, nothing is out of sight.
  const Index window = number("window");
  if (window == 0) return;
  if (gpt2) refuse_gguf("LayerNorm and a window");  // the table of positions is longer
  shape.context = std::min(shape.context, window);
}

[[gnu::cold]] inline void read_gguf_mixture(const Json& block, GgufShape& shape) {
  const Json& router = block["router"];
  if (router["type"] != "top_k") refuse_gguf("a router of the type ", shown(router["type"]));
  if (router["bias"] == true) refuse_gguf("a bias on the router's logits");
  expect_gguf_members(
      router, {"type", "scores", "normalised_gates", "bias", "balance_bias", "experts", "choices", "gate_scale"});
  if (router["gate_scale"].is_number()) shape.gate_scale = router["gate_scale"].number();
  shape.sigmoid = router["scores"] == "sigmoid";
  if (!shape.sigmoid && router["scores"] != "softmax")
    refuse_gguf("a router with the scores ", shown(router["scores"]));
  shape.normalised = router["normalised_gates"] == true;
  shape.balance_bias = router["balance_bias"] == true;
  shape.experts = router["experts"].whole<Index>().value_or(0);
  shape.choices = router["choices"].whole<Index>().value_or(0);
  const auto [hidden, bias] = gguf_network(block["expert"]);
  if (bias) refuse_gguf("biases in its experts");
  shape.expert_hidden = hidden;
  if (block["shared_expert"].is_null()) return;
  const auto [shared, shared_bias] = gguf_network(block["shared_expert"]);
  if (shared_bias) refuse_gguf("biases in its shared expert");
  shape.shared_hidden = shared;
  shape.shared_gate = block["shared_expert"]["gate"] == true;
}

/// The architecture for a shape that has everything else.
[[gnu::cold]] inline std::string_view gguf_architecture(const GgufShape& shape, bool gpt2) {
  const bool dense = shape.mixture_layers == 0, partly = shape.rotated < shape.head_dim;
  if (gpt2) {
    if (shape.qk_norm || shape.norm_across_heads) refuse_gguf("LayerNorm and norms of q and k");
    if (shape.heads * shape.head_dim != shape.width) refuse_gguf("LayerNorm and heads that are not width / heads wide");
    return "gpt2";
  }
  if (partly && dense) refuse_gguf("partial rotary positions without mixtures");
  if (shape.norm_across_heads || shape.shared_gate) {
    const char* what = shape.shared_gate ? "a gate on its shared expert" : "norms of q and k over all heads";
    const auto expect = [&](bool holds, const char* other) {
      if (!holds) refuse_gguf(what, " beside ", other);
    };
    expect(!dense && shape.dense_layers == 0, "dense layers");
    expect(!shape.sigmoid && !shape.balance_bias && shape.gate_scale == 1, "another router than softmax scores");
    expect(!shape.normalised, "normalised gates");
    expect(!shape.tied, "a tied head");
    expect(!partly && shape.heads * shape.head_dim == shape.width,
           "heads that are not width / heads wide and rotated whole");
    expect(!shape.output_bias, "a bias on the attention's output");
    if (shape.shared_gate) {
      expect(!shape.qk_norm, "norms of q and k");
      return "qwen2moe";
    }
    expect(!shape.qkv_bias, "biases on q, k and v");
    expect(shape.kv_heads == shape.heads, "fewer key-value heads than heads");
    expect(shape.shared_hidden == 0, "a shared expert");
    return "olmoe";
  }
  if (dense && !shape.qk_norm) return "llama";
  if (shape.dense_bias) refuse_gguf("biases in dense layers beside mixtures or QkNorm");
  const bool mixtral = shape.dense_layers == 0 && !shape.sigmoid && shape.normalised && !shape.balance_bias &&
                       shape.shared_hidden == 0 && shape.gate_scale == 1 && !partly;
  if (mixtral && !shape.qk_norm) return "llama";
  if (shape.output_bias) refuse_gguf("a bias on the attention's output beside QkNorm or such a router");
  if (dense) return "qwen3";
  return mixtral ? "qwen3moe" : "glm4moe";
}

/// The shape of a described model. Throws MismatchError that says what no architecture computes.
[[gnu::cold]] inline GgufShape gguf_shape(const Json& description) {
  GgufShape shape;
  const auto number = [&](std::string_view key) { return description[key].whole<Index>().value_or(0); };
  shape.vocab = number("vocab");
  shape.context = number("context");
  shape.width = number("width");
  shape.tied = description["tied_head"] == true;
  if (description["head_bias"] == true) refuse_gguf("a bias on its head");
  if (description.contains("bigrams")) refuse_gguf("a table of bigrams");
  if (description["per_layer_embeddings"] == true) refuse_gguf("tables of tokens in its blocks");
  expect_gguf_members(description, {"vocab", "context", "width", "tied_head", "layers", "final_norm"});
  const Json layers = gguf_layers(description);
  const Json &norm = description["final_norm"], &attention = layers.items()[0]["attention"];
  for (const Json& block : layers.items()) {
    expect_gguf_members(block, {"norm", "attention", "expert", "router", "shared_expert", "count"});
    if (block["norm"] != norm || block["attention"] != attention) refuse_gguf("layers of different norms or attention");
  }
  const bool gpt2 = norm["type"] == "layer_norm";
  if (norm["type"] != "rms_norm" && !gpt2) refuse_gguf("norms of the type ", shown(norm["type"]));
  expect_gguf_members(norm, {"type"});
  read_gguf_attention(attention, gpt2, shape);
  for (const Json& block : layers.items()) {
    const Index count = block["count"].whole<Index>().value_or(0);
    if (block.contains("router")) {
      if (gpt2) refuse_gguf("LayerNorm and mixtures");
      if (shape.mixture_layers > 0) refuse_gguf("mixtures that differ from layer to layer");
      shape.mixture_layers = count;
      read_gguf_mixture(block, shape);
    } else {
      if (shape.mixture_layers > 0) refuse_gguf("a dense layer behind a mixture");
      if (shape.dense_layers > 0) refuse_gguf("dense layers that differ from one another");
      shape.dense_layers = count;
      std::tie(shape.dense_hidden, shape.dense_bias) = gguf_network(block["expert"], gpt2 ? "gelu_tanh" : "swiglu");
    }
  }
  shape.architecture = gguf_architecture(shape, gpt2);
  return shape;
}

/// The keys of a shape: whole numbers, numbers and booleans.
[[gnu::cold]] inline Json gguf_fields(const GgufShape& s) {
  Json fields = Json::object();
  const auto add = [&](const char* key, Json value) {
    fields.append(std::string(s.architecture) + "." + key, std::move(value));
  };
  add("vocab_size", s.vocab);
  add("context_length", s.context);
  add("embedding_length", s.width);
  add("block_count", s.layers());
  add("feed_forward_length", s.dense_layers > 0 ? s.dense_hidden : s.expert_hidden);
  add("attention.head_count", s.heads);
  add("attention.head_count_kv", s.kv_heads);
  add("attention.key_length", s.head_dim);
  add("attention.value_length", s.head_dim);
  if (s.gpt2()) return fields;
  add("rope.dimension_count", s.rotated);
  if (s.mixture_layers == 0) return fields;
  add("expert_count", s.experts);
  add("expert_used_count", s.choices);
  if (s.architecture == "llama" || s.architecture == "olmoe") return fields;
  add("expert_feed_forward_length", s.expert_hidden);
  if (s.architecture == "qwen3moe") return fields;
  if (s.architecture == "qwen2moe") {
    add("expert_shared_feed_forward_length", s.shared_hidden);
    return fields;
  }
  add("expert_shared_count", s.shared_experts());
  add("leading_dense_block_count", s.dense_layers);
  add("expert_weights_scale", s.gate_scale);
  add("expert_weights_norm", s.normalised);
  add("expert_gating_func", s.sigmoid ? 2 : 1);
  return fields;
}

}  // namespace tinymoe::inline v0_1::detail
