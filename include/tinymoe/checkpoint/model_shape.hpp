#pragma once
/// @file
/// What an architecture computes, layer by layer, as run-time values: where the architectures of other programs and
/// the types of this one meet. Options that act in training alone (capacity, jitter, a balance loss) are left out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1::detail {

/// One block. The words are those of `describe`; an option without a meaning here is 0, false or empty.
struct LayerShape {
  std::string own;  // the name of a part that is not the library's
  std::string norm = "rms_norm", position = "rope";
  Index heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  Index rotated = 0;  // numbers of a head, with partial rotary positions; 0: all
  bool qkv_bias = false, output_bias = false, qk_norm = false, norm_across_heads = false;
  std::string activation = "swiglu";
  Index hidden = 0;
  bool expert_bias = false;
  Index experts = 0, choices = 0;  // 0: a dense block
  std::string selection, scores;
  double gate_scale = 1;
  bool normalised_gates = false, router_bias = false, noise = false, balance_bias = false;
  std::string shared_activation;
  Index shared_hidden = 0;  // 0: no shared expert
  bool shared_bias = false, shared_gate = false;

  bool is_mixture() const { return experts > 0; }
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

/// The limits of what a file may describe, so that counts of parameters and bytes are whole numbers. A part is a
/// matrix, or the matrices of all experts.
inline constexpr Index most_layers = 1 << 16, largest_size = 1 << 24, largest_part = Index{1} << 40;

struct ModelShape {
  Index vocab = 0, context = 0, width = 0;
  std::vector<LayerShape> layers;
  std::string final_norm = "rms_norm";
  bool tied = false, head_bias = false;
  Index bigrams = 0;  // rows of their table
  bool per_layer_embeddings = false;

  friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

/// A member of a block: its name in messages, and where `describe` has it. Tables instead of code, which every program
/// would compile.
template <class T>
struct LayerMember {
  const char *name, *part, *key;
  T LayerShape::*member;
};
inline constexpr LayerMember<std::string> layer_words[] = {
    {"norm", "norm", "type", &LayerShape::norm},
    {"position", "attention", "position", &LayerShape::position},
    {"activation", "expert", "activation", &LayerShape::activation},
    {"selection", "router", "type", &LayerShape::selection},
    {"scores", "router", "scores", &LayerShape::scores},
    {"shared_activation", "shared_expert", "activation", &LayerShape::shared_activation}};
inline constexpr LayerMember<Index> layer_numbers[] = {
    {"heads", "attention", "heads", &LayerShape::heads},
    {"kv_heads", "attention", "kv_heads", &LayerShape::kv_heads},
    {"head_dim", "attention", "head_dim", &LayerShape::head_dim},
    {"window", "attention", "window", &LayerShape::window},
    {"rotated", "attention", "rotated", &LayerShape::rotated},
    {"hidden", "expert", "hidden", &LayerShape::hidden},
    {"experts", "router", "experts", &LayerShape::experts},
    {"choices", "router", "choices", &LayerShape::choices},
    {"shared_hidden", "shared_expert", "hidden", &LayerShape::shared_hidden}};
inline constexpr LayerMember<bool> layer_flags[] = {
    {"qkv_bias", "attention", "qkv_bias", &LayerShape::qkv_bias},
    {"output_bias", "attention", "output_bias", &LayerShape::output_bias},
    {"qk_norm", "attention", "qk_norm", &LayerShape::qk_norm},
    {"norm_across_heads", "attention", "norm_across_heads", &LayerShape::norm_across_heads},
    {"expert_bias", "expert", "bias", &LayerShape::expert_bias},
    {"normalised_gates", "router", "normalised_gates", &LayerShape::normalised_gates},
    {"router_bias", "router", "bias", &LayerShape::router_bias},
    {"noise", "router", "noise", &LayerShape::noise},
    {"balance_bias", "router", "balance_bias", &LayerShape::balance_bias},
    {"shared_bias", "shared_expert", "bias", &LayerShape::shared_bias},
    {"shared_gate", "shared_expert", "gate", &LayerShape::shared_gate}};

[[gnu::cold]] inline Index whole_in(const Json& at, const char* key) { return at[key].whole<Index>().value_or(0); }
[[gnu::cold]] inline bool flag_in(const Json& at, const char* key) { return at[key].is_boolean() && at[key].boolean(); }
[[gnu::cold]] inline std::string word_in(const Json& at, const char* key) {
  return at[key].is_string() ? at[key].string() : std::string();
}

/// The numbers of a head that are rotated where a part of them is, in a description: the part is a ratio of whole
/// numbers, rounded.
[[gnu::cold]] inline Index rotated_numbers(double part, Index head_dim) {
  return part > 0 && part <= 1 ? static_cast<Index>(part * static_cast<double>(head_dim) + 1e-9) : 0;
}

/// The shape of a description that `describe` made.
[[gnu::cold]] inline ModelShape shape_of(const Json& description) {
  ModelShape shape;
  shape.vocab = whole_in(description, "vocab");
  shape.context = whole_in(description, "context");
  shape.width = whole_in(description, "width");
  shape.final_norm = word_in(description["final_norm"], "type");
  shape.tied = flag_in(description, "tied_head");
  shape.head_bias = flag_in(description, "head_bias");
  shape.bigrams = whole_in(description, "bigrams");
  shape.per_layer_embeddings = flag_in(description, "per_layer_embeddings");
  for (const Json& block : description["layers"].items()) {
    LayerShape layer;
    for (const auto& word : layer_words) layer.*word.member = word_in(block[word.part], word.key);
    for (const auto& number : layer_numbers) layer.*number.member = whole_in(block[number.part], number.key);
    for (const auto& flag : layer_flags) layer.*flag.member = flag_in(block[flag.part], flag.key);
    if (layer.head_dim == 0 && layer.heads > 0) layer.head_dim = shape.width / layer.heads;
    if (const Json& part = block["attention"]["rotated_part"]; part.is_number() && part.number() < 1) {
      layer.rotated = rotated_numbers(part.number(), layer.head_dim);
    }
    if (const Json& scale = block["router"]["gate_scale"]; scale.is_number()) layer.gate_scale = scale.number();
    for (const char* name : {"attention", "expert", "router", "shared_expert"}) {
      const Json& part = block[name];
      const bool ours = part.is_null() || part.contains("heads") || part.contains("hidden") || part.contains("scores");
      if (!ours && layer.own.empty()) layer.own = word_in(part, "type");
    }
    for (Index i = whole_in(block, "count"); i > 0; --i) shape.layers.push_back(layer);
  }
  return shape;
}

/// Throws FileError unless tinymoe has parts of the sizes of a shape that came from a file.
[[gnu::cold]] inline void check_sizes(const ModelShape& shape, const std::string& name) {
  const auto at_most = [&](const std::string& what, Index size, Index least) {
    if (size >= least && size <= largest_size) return;
    fail<FileError>(name, ": ", what, " is ", size, "; expected a whole number from ", least, " to ", largest_size);
  };
  at_most("the vocabulary", shape.vocab, 1), at_most("the context", shape.context, 1);
  at_most("the width", shape.width, 1), at_most("the table of bigrams", shape.bigrams, 0);
  if (shape.per_layer_embeddings) {
    const auto layers = static_cast<Index>(shape.layers.size());
    if (layers < 2) fail<FileError>(name, ": per_layer_embeddings need two layers or more, found ", layers);
    if ((layers - 1) * shape.vocab > largest_part / shape.width) {
      fail<FileError>(name, ": the tables of per_layer_embeddings have more than ", largest_part, " parameters");
    }
  }
  const LayerShape* last = nullptr;
  for (std::size_t i = 0; i < shape.layers.size(); ++i) {
    const LayerShape& layer = shape.layers[i];
    if (last != nullptr && *last == layer) continue;
    last = &layer;
    const std::string where = "layer " + std::to_string(i) + "'s ";
    for (const auto& number : layer_numbers) {
      // A user's own part has numbers of its own.
      const bool needed =
          layer.own.empty() && (number.member == &LayerShape::heads || number.member == &LayerShape::head_dim ||
                                number.member == &LayerShape::hidden);
      at_most(where + number.name, layer.*number.member, needed ? 1 : 0);
    }
    const auto part = [&](const char* what, Index count, Index size) {
      if (count * size <= largest_part / shape.width) return;
      fail<FileError>(name, ": ", where, what, " have more than ", largest_part, " parameters a matrix");
    };
    part("heads", layer.heads, layer.head_dim), part("key-value heads", layer.kv_heads, layer.head_dim);
    part("experts", layer.is_mixture() ? layer.experts : 1, layer.hidden),
        part("shared experts", 1, layer.shared_hidden);
    if (!layer.own.empty()) continue;
    if (layer.kv_heads < 1 || layer.heads % layer.kv_heads != 0) {
      fail<FileError>(name, ": ", where, "heads are ", layer.heads, " and its key-value heads ", layer.kv_heads,
                      "; expected a divisor of the heads");
    }
    if (layer.position == "rope" && layer.rotated % 2 != 0) {
      fail<FileError>(name, ": ", where, "rotated part is ", layer.rotated, " numbers; rotary positions rotate pairs");
    }
    if (layer.position == "rope" && layer.rotated == 0 && layer.head_dim % 2 != 0) {
      fail<FileError>(name, ": ", where, "head_dim is ", layer.head_dim, "; rotary positions rotate pairs of numbers");
    }
    if (!(layer.gate_scale > 0) || !is_finite(layer.gate_scale)) {
      fail<FileError>(name, ": ", where, "gate_scale, which is routed_scaling_factor in files of the hub, is ",
                      Json(layer.gate_scale).dump(), "; expected a number above 0");
    }
    if (layer.is_mixture() && (layer.choices < 1 || layer.choices > layer.experts)) {
      fail<FileError>(name, ": ", where, "experts are ", layer.experts, ", of which a token chooses ", layer.choices,
                      "; expected 1 to all of them");
    }
  }
}

/// The shape of a description that a file has. Throws FileError for one that `describe` cannot have made.
[[gnu::cold]] inline ModelShape checked_shape(const Json& description, const std::string& where) {
  const auto object = [&](const Json& part, const char* key, bool optional) {
    const Json& found = optional ? part[key] : json_member(part, key, where);
    if (!found.is_object() && !(optional && found.is_null())) fail<FileError>(where, ": \"", key, "\" is no object");
  };
  const Json& groups = json_member(description, "layers", where);
  if (!groups.is_array() || groups.size() == 0) fail<FileError>(where, ": \"layers\" are not a list of layers");
  Index layers = 0;
  for (const Json& group : groups.items()) {
    const auto count = json_field<std::int32_t>(group, "count", where);
    if (count < 1) fail<FileError>(where, ": a group has ", count, " layers");
    layers += count;
    if (layers > most_layers) fail<FileError>(where, ": there are more than ", most_layers, " layers");
    for (const char* key : {"norm", "attention", "expert"}) object(group, key, false);
    for (const char* key : {"router", "shared_expert"}) object(group, key, true);
    for (const auto& number : layer_numbers) {
      const Json& value = group[number.part][number.key];
      if (!value.is_null()) json_value<std::int32_t>(value, number.key, where);
    }
  }
  for (const char* key : {"vocab", "context", "width"}) json_field<std::int32_t>(description, key, where);
  if (description.contains("bigrams")) json_field<std::int32_t>(description, "bigrams", where);
  json_field_or<bool>(description, "per_layer_embeddings", where, false);
  object(description, "final_norm", false);
  ModelShape shape = shape_of(description);
  check_sizes(shape, where);
  return shape;
}

/// Throws MismatchError that names the file and the first thing in which what it means differs from this program's
/// model. The file's context may be longer, but for learned positions: they are a matrix of that many rows.
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
  compare("the table of bigrams", found.bigrams, wanted.bigrams);
  compare("per_layer_embeddings", found.per_layer_embeddings, wanted.per_layer_embeddings);
  if (found.context < wanted.context) {
    fail<MismatchError>(name, ": the context is ", found.context, "; this program's model has a context of ",
                        wanted.context, ", whose last positions were not trained: make it shorter");
  }
  const auto learned = [](const LayerShape& layer) { return layer.position == "learned"; };
  if (std::any_of(found.layers.begin(), found.layers.end(), learned)) {
    compare("the context, which has learned positions,", found.context, wanted.context);
  }
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    const LayerShape &one = found.layers[i], &other = wanted.layers[i];
    if (one == other) continue;
    const std::string layer = "layer " + std::to_string(i) + "'s ";
    compare(layer + "own part", one.own, other.own);
    for (const auto& word : layer_words) compare(layer + word.name, one.*word.member, other.*word.member);
    for (const auto& number : layer_numbers) compare(layer + number.name, one.*number.member, other.*number.member);
    for (const auto& flag : layer_flags) compare(layer + flag.name, one.*flag.member, other.*flag.member);
    compare(layer + "gate_scale", one.gate_scale, other.gate_scale);
  }
}

}  // namespace tinymoe::inline v0_1::detail
