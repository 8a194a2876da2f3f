#pragma once
/// @file
/// What the metadata of a GGUF file says of its model, be the file tinymoe's or another program's.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/checkpoint/config_fields.hpp"
#include "tinymoe/checkpoint/gguf_shape.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/position.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1::detail {

/// A float of a file as the number that was meant: 1e-5, not 9.99999975e-6.
inline double meant_number(float found) {
  char digits[32];
  const auto end = std::to_chars(digits, std::end(digits), found);
  double number = found;
  std::from_chars(digits, end.ptr, number);
  return number;
}

/// The metadata of a GGUF file of a model that tinymoe can compute.
class GgufConfig {
 public:
  /// Throws MismatchError for another architecture or for what tinymoe does not compute, FileError for values that make
  /// no sense.
  [[gnu::cold]] explicit GgufConfig(const Gguf& file) : file_(&file), name_(file.name()) {
    const Json architecture = file.value("general.architecture");
    if (!architecture.is_string()) fail<FileError>(name_, ": key general.architecture is missing; is it a model?");
    constexpr std::string_view known[] = {"llama", "qwen3", "qwen3moe", "qwen2moe", "olmoe", "glm4moe", "gpt2"};
    const auto* found = std::find(std::begin(known), std::end(known), architecture.string());
    if (found == std::end(known)) {
      fail<MismatchError>(
          name_, ": is of the architecture ", shown_text(architecture.string()),
          ", which tinymoe does not read; it reads llama, qwen3, qwen3moe, qwen2moe, olmoe, glm4moe and gpt2");
    }
    architecture_ = *found;
    settings_.set(setting::norm_epsilon = positive(gguf_epsilon_key(architecture_)));
    settings_.set(setting::rope_theta = positive("rope.freq_base", 10000));
    if (file.contains(gguf_description_key)) {
      read_own();
    } else {
      read_foreign();
    }
  }

  std::string_view architecture() const { return architecture_; }
  const Settings& settings() const { return settings_; }
  /// What the model is, in full where tinymoe wrote the file.
  const Json& description() const { return description_; }

  /// Whether the file's model computes what `expected` describes. Its context may be longer.
  [[gnu::cold]] bool is(const Json& expected) const { return difference(expected).empty(); }
  /// Throws MismatchError that names the first difference unless `is(expected)`.
  [[gnu::cold]] void check(const Json& expected) const {
    if (const std::string found = difference(expected); !found.empty()) fail<MismatchError>(name_, ": ", found);
  }

 private:
  [[gnu::cold]] std::string difference(const Json& expected) const {
    Json found = gguf_inference(description_);
    const Json wanted = gguf_inference(expected);
    if (found["context"].number() < wanted["context"].number()) {
      return sentence_of({"was trained with a context of ", shown(found["context"]),
                          "; this program's model has one of ", shown(wanted["context"]), ": make it shorter"});
    }
    if (architecture_ == "gpt2" && found["context"] != wanted["context"]) {
      return sentence_of({"has learned positions for a context of ", shown(found["context"]),
                          "; this program's model has one of ", shown(wanted["context"]), ": make them the same"});
    }
    found["context"] = wanted["context"];
    for (const auto& [key, value] : wanted.members()) {
      if (found[key] == value) continue;
      return sentence_of({"the architecture's \"", key, "\" is ", shown(found[key]), "; this program's model has ",
                          shown(value), ": use a program whose model has the file's"});
    }
    return {};
  }

  static std::string shown_text(const std::string& text) {
    const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
    return plain && text.size() <= 60 ? "\"" + text + "\"" : "of " + std::to_string(text.size()) + " bytes";
  }

  std::string key_of(std::string_view key) const { return std::string(architecture_).append(".").append(key); }

  Json field(std::string_view key) const { return file_->value(key_of(key)); }

  [[noreturn]] void refuse(std::string_view key, const char* expected) const {
    fail<FileError>(name_, ": key ", key_of(key), ": expected ", expected, ", found ",
                    file_->contains(key_of(key)) ? shown(field(key)) : std::string("none"));
  }

  /// A whole number from 1 to 2^31 − 1.
  [[gnu::cold]] Index whole(std::string_view key) const {
    const auto number = field(key).whole<std::int32_t>();
    if (!number || *number < 1) refuse(key, "a whole number above 0");
    return *number;
  }
  [[gnu::cold]] Index whole_or(std::string_view key, Index absent) const {
    if (!file_->contains(key_of(key))) return absent;
    const auto number = field(key).whole<std::int32_t>();
    if (!number || *number < 0) refuse(key, "a whole number");
    return *number;
  }
  [[gnu::cold]] double positive(std::string_view key, double absent = 0) const {
    if (absent > 0 && !file_->contains(key_of(key))) return absent;
    const Json found = field(key);
    const float number = found.is_number() ? static_cast<float>(found.number()) : 0.0f;  // a double may be infinite
    if (!(number > 0) || !is_finite(number)) refuse(key, "a number above 0");
    return meant_number(number);
  }

  /// A file of tinymoe's describes its model. The keys that llama.cpp reads must say the same.
  [[gnu::cold]] void read_own() {
    const Json text = file_->value(gguf_description_key);
    const std::string where = name_ + ": key " + std::string(gguf_description_key);
    if (!text.is_string()) fail<FileError>(where, ": expected a string");
    description_ = parse_json(text.string(), where);
    checked_shape(description_, where);
    const GgufShape shape = shape_of(where);
    if (shape.architecture != architecture_) {
      fail<FileError>(name_, ": is of the architecture ", architecture_, ", where ", gguf_description_key, " means ",
                      shape.architecture);
    }
    const Json fields = gguf_fields(shape);
    for (const auto& [key, value] : fields.members()) {
      if (file_->value(key) == value) continue;
      fail<FileError>(name_, ": key ", key, " is ", shown(file_->value(key)), ", where ", gguf_description_key,
                      " means ", shown(value));
    }
  }

  [[gnu::cold]] GgufShape shape_of(const std::string& where) const {
    try {
      return gguf_shape(description_);
    } catch (const MismatchError& error) {
      fail<MismatchError>(where, ": ", error.what());
    }
  }

  /// Another program's file: its keys mean what llama.cpp takes them for. One that could change what is computed and is
  /// not known here is an error.
  [[gnu::cold]] void read_foreign() {
    constexpr std::string_view known[] = {"vocab_size",
                                          "context_length",
                                          "embedding_length",
                                          "block_count",
                                          "feed_forward_length",
                                          "attention.head_count",
                                          "attention.head_count_kv",
                                          "attention.key_length",
                                          "attention.value_length",
                                          "rope.dimension_count",
                                          "rope.freq_base",
                                          "attention.layer_norm_rms_epsilon",
                                          "attention.layer_norm_epsilon",
                                          "expert_count",
                                          "expert_used_count",
                                          "expert_feed_forward_length",
                                          "expert_shared_count",
                                          "expert_shared_feed_forward_length",
                                          "leading_dense_block_count",
                                          "expert_weights_scale",
                                          "expert_weights_norm",
                                          "expert_gating_func"};
    const std::string prefix = key_of("");
    for (const std::string_view key : file_->keys()) {
      if (!key.starts_with(prefix)) continue;
      const std::string_view rest = key.substr(prefix.size());
      if (std::find(std::begin(known), std::end(known), rest) != std::end(known) || is_harmless(rest)) continue;
      fail<MismatchError>(name_, ": key ", key, " is ", shown(file_->value(key)),
                          ", which tinymoe does not compute; it reads models without it");
    }
    const Index heads = whole("attention.head_count"), width = whole("embedding_length");
    const Index head_dim = whole_or("attention.key_length", width / heads);
    const bool glm = architecture_ == "glm4moe", qwen2 = architecture_ == "qwen2moe", olmoe = architecture_ == "olmoe";
    const bool gpt2 = architecture_ == "gpt2";
    const Index rotated = whole_or("rope.dimension_count", head_dim);
    if (whole_or("attention.value_length", head_dim) != head_dim)
      refuse("attention.value_length", "the width of a head");
    if (rotated != head_dim && !(glm && rotated > 0 && rotated < head_dim && rotated % 2 == 0)) {
      refuse("rope.dimension_count", glm ? "an even number of those of a head" : "the width of a head");
    }
    const Index layers = whole("block_count"), mixture = gpt2 ? 0 : whole_or("expert_count", 0);
    const Index dense = glm ? whole_or("leading_dense_block_count", 0) : (mixture > 0 ? 0 : layers);
    if (dense > layers) refuse("leading_dense_block_count", "at most block_count");
    const auto has = [&](const char* tensor) { return file_->tensor(tensor) != nullptr; };
    const Json norm = {{"type", gpt2 ? "layer_norm" : "rms_norm"}};
    Json attention = {{"type", "attention"},
                      {"heads", heads},
                      {"kv_heads", whole_or("attention.head_count_kv", heads)},
                      {"head_dim", head_dim},
                      {"position", gpt2 ? "learned" : "rope"},
                      {"window", 0},
                      {"qkv_bias", gpt2 || has("blk.0.attn_q.bias")},
                      {"output_bias", has("blk.0.attn_output.bias")},
                      {"qk_norm", architecture_.starts_with("qwen3") || has("blk.0.attn_q_norm.weight")}};
    if (rotated != head_dim) attention["rotated_part"] = double(rotated) / double(head_dim);
    if (olmoe) attention["norm_across_heads"] = true;
    const auto network = [&](Index hidden, bool bias) {
      const char* activation = gpt2 ? "gelu_tanh" : "swiglu";
      return Json{{"type", "feed_forward"}, {"activation", activation}, {"hidden", hidden}, {"bias", bias}};
    };
    Json groups = Json::array();
    const auto add = [&](Index count, Json expert, Json router, Json shared) {
      if (count == 0) return;
      Json block = {{"norm", norm}, {"attention", attention}, {"expert", expert}, {"count", count}};
      if (!router.is_null()) block["router"] = std::move(router), block["shared_expert"] = std::move(shared);
      groups.push_back(std::move(block));
    };
    if (dense > 0) add(dense, network(whole("feed_forward_length"), has("blk.0.ffn_up.bias")), {}, {});
    if (dense < layers) {
      const bool plain = architecture_ == "llama" || olmoe;
      const Index hidden = whole(plain ? "feed_forward_length" : "expert_feed_forward_length");
      const Json scale = field("expert_weights_scale");  // llama.cpp multiplies by no 0
      if (!glm && !scale.is_null() && scale != 0 && scale != 1) refuse("expert_weights_scale", "1");
      const Index scores = glm ? whole_or("expert_gating_func", 2) : 1;
      if (scores != 1 && scores != 2) refuse("expert_gating_func", "1 or 2");
      Json router = {{"type", "top_k"},
                     {"scores", scores == 2 ? "sigmoid" : "softmax"},
                     {"normalised_gates", glm ? field("expert_weights_norm") == true : !qwen2 && !olmoe},
                     {"bias", false},
                     {"balance_bias", glm},
                     {"experts", whole("expert_count")},
                     {"choices", whole("expert_used_count")}};
      if (glm && !scale.is_null() && scale != 0 && scale != 1) router["gate_scale"] = positive("expert_weights_scale");
      const Index count = glm ? whole("expert_shared_count") : 0;
      if (count > 1000) refuse("expert_shared_count", "at most 1000");
      Json shared;
      if (glm) shared = network(hidden * count, false);
      if (qwen2) {
        shared = network(whole("expert_shared_feed_forward_length"), false);
        shared["gate"] = true;
      }
      add(layers - dense, network(hidden, false), router, std::move(shared));
    }
    const GgufTensorView* embedding = file_->tensor("token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2)
      fail<FileError>(name_, ": tensor token_embd.weight is missing");
    description_ = {
        {"vocab", embedding->shape[1]}, {"context", whole("context_length")}, {"width", width},    {"layers", groups},
        {"final_norm", norm},           {"tied_head", !has("output.weight")}, {"head_bias", false}};
    description_.sort_keys();
    checked_shape(description_, name_);
  }

  /// Whether a key that is not known has a value that changes nothing.
  [[gnu::cold]] bool is_harmless(std::string_view key) const {
    const Json found = field(key);
    if (key == "rope.scaling.type") return found == "none";
    if (key == "rope.scaling.factor") return found == 1;
    if (key == "attention.causal") return found == true;
    if (key == "attention.sliding_window") return architecture_ == "llama" || found == 0;  // llama.cpp's llama has none
    if (key == "expert_group_count" || key == "expert_group_used_count") return found == 0 || found == 1;
    if (key == "nextn_predict_layers") return found == 0;
    return key == "tensor_data_layout";
  }

  const Gguf* file_;
  std::string name_;
  std::string_view architecture_;
  Settings settings_;
  Json description_;
};

}  // namespace tinymoe::inline v0_1::detail
