#pragma once
/// @file
/// The tensors of a GGUF file, and where those of a model (by their names on the hub) lie in them: experts stacked into
/// one tensor, the rows of q and k in the order of interleaved RoPE for `llama`, what tinymoe has not as zeros.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/gguf_shape.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// Rows of a tensor in the file: those of one of the model's tensors, or zeros.
struct GgufPart {
  std::string hub;  // the model's tensor; empty: zeros
  Index rows = 0;   // of the model's tensor, which has `cols`; the file's columns beyond them are zeros
  Index cols = 0;
  Index interleaved = 0;  // rows of a head whose order changes; 0: none does

  /// The model's row for row r of the part. In the file rows 2i and 2i + 1 of a head are a pair.
  Index source(Index r) const {
    if (interleaved == 0) return r;
    const Index i = r % interleaved;
    return r - i + (i % 2 == 0 ? i / 2 : interleaved / 2 + i / 2);
  }
};

/// A tensor of the file. A vector is rows of one column.
struct GgufPlace {
  std::string name;
  std::vector<Index> shape;  // in the file, the fastest first
  Index cols = 1;
  bool matrix = true;  // stored in the type of the file's weights; else in float32
  std::vector<GgufPart> parts;
};

/// The tensors of a `gpt2`.
[[gnu::cold]] inline std::vector<GgufPlace> gguf_gpt2_places(const GgufShape& s) {
  std::vector<GgufPlace> places;
  const auto matrix = [&](std::string name, std::string hub, Index rows, Index cols) {
    places.push_back({std::move(name), {cols, rows}, cols, true, {{std::move(hub), rows, cols}}});
  };
  const auto part = [](bool has, std::string hub, Index size) {
    return has ? GgufPart{std::move(hub), size, 1} : GgufPart{"", size, 0};
  };
  const auto vector = [&](std::string name, bool has, std::string hub, Index size) {
    places.push_back({std::move(name), {size}, 1, false, {part(has, std::move(hub), size)}});
  };
  const auto norm = [&](const std::string& name, const std::string& hub) {
    vector(name + ".weight", true, hub + ".weight", s.width);
    vector(name + ".bias", true, hub + ".bias", s.width);
  };
  const Index key = s.kv_heads * s.head_dim, both = s.width + 2 * key;
  matrix("token_embd.weight", "model.embed_tokens.weight", s.vocab, s.width);
  matrix("position_embd.weight", "model.embed_positions.weight", s.context, s.width);
  places.back().matrix = false;  // llama.cpp's quantizer leaves it as it is
  norm("output_norm", "model.norm");
  if (!s.tied) matrix("output.weight", "lm_head.weight", s.vocab, s.width);
  for (Index i = 0; i < s.layers(); ++i) {
    const std::string block = sentence_of({"blk.", i, "."}), hub = sentence_of({"model.layers.", i, "."});
    const std::string attention = hub + "self_attn.", network = hub + "mlp.";
    norm(block + "attn_norm", hub + "input_layernorm");
    norm(block + "ffn_norm", hub + "post_attention_layernorm");
    places.push_back({block + "attn_qkv.weight",
                      {s.width, both},
                      s.width,
                      true,
                      {{attention + "q_proj.weight", s.width, s.width},
                       {attention + "k_proj.weight", key, s.width},
                       {attention + "v_proj.weight", key, s.width}}});
    places.push_back(
        {block + "attn_qkv.bias",
         {both},
         1,
         false,
         {part(s.qkv_bias, attention + "q_proj.bias", s.width), part(s.qkv_bias, attention + "k_proj.bias", key),
          part(s.qkv_bias, attention + "v_proj.bias", key)}});
    matrix(block + "attn_output.weight", attention + "o_proj.weight", s.width, s.width);
    vector(block + "attn_output.bias", s.output_bias, attention + "o_proj.bias", s.width);
    matrix(block + "ffn_up.weight", network + "up_proj.weight", s.dense_hidden, s.width);
    vector(block + "ffn_up.bias", s.dense_bias, network + "up_proj.bias", s.dense_hidden);
    matrix(block + "ffn_down.weight", network + "down_proj.weight", s.width, s.dense_hidden);
    vector(block + "ffn_down.bias", s.dense_bias, network + "down_proj.bias", s.width);
  }
  return places;
}

/// All tensors of a model's file.
[[gnu::cold]] inline std::vector<GgufPlace> gguf_places(const GgufShape& s) {
  if (s.gpt2()) return gguf_gpt2_places(s);
  std::vector<GgufPlace> places;
  const auto matrix = [&](std::string name, std::string hub, Index rows, Index cols, Index interleaved = 0) {
    places.push_back({std::move(name), {cols, rows}, cols, true, {{std::move(hub), rows, cols, interleaved}}});
  };
  const auto vector = [&](std::string name, std::string hub, Index size, Index interleaved = 0) {
    places.push_back({std::move(name), {size}, 1, false, {{std::move(hub), size, 1, interleaved}}});
  };
  const Index query = s.heads * s.head_dim, key = s.kv_heads * s.head_dim, turn = s.interleaved() ? s.head_dim : 0;
  matrix("token_embd.weight", "model.embed_tokens.weight", s.vocab, s.width);
  vector("output_norm.weight", "model.norm.weight", s.width);
  if (!s.tied) matrix("output.weight", "lm_head.weight", s.vocab, s.width);
  for (Index i = 0; i < s.layers(); ++i) {
    const std::string block = sentence_of({"blk.", i, "."}), hub = sentence_of({"model.layers.", i, "."});
    const std::string attention = hub + "self_attn.", mixture = hub + "block_sparse_moe.";
    vector(block + "attn_norm.weight", hub + "input_layernorm.weight", s.width);
    vector(block + (s.architecture == "glm4moe" ? "post_attention_norm" : "ffn_norm") + ".weight",
           hub + "post_attention_layernorm.weight", s.width);
    matrix(block + "attn_q.weight", attention + "q_proj.weight", query, s.width, turn);
    matrix(block + "attn_k.weight", attention + "k_proj.weight", key, s.width, turn);
    matrix(block + "attn_v.weight", attention + "v_proj.weight", key, s.width);
    matrix(block + "attn_output.weight", attention + "o_proj.weight", s.width, query);
    if (s.qkv_bias) {
      vector(block + "attn_q.bias", attention + "q_proj.bias", query, turn);
      vector(block + "attn_k.bias", attention + "k_proj.bias", key, turn);
      vector(block + "attn_v.bias", attention + "v_proj.bias", key);
    }
    if (s.output_bias) vector(block + "attn_output.bias", attention + "o_proj.bias", s.width);
    if (s.qk_norm) {
      vector(block + "attn_q_norm.weight", attention + "q_norm.weight", s.norm_across_heads ? query : s.head_dim);
      vector(block + "attn_k_norm.weight", attention + "k_norm.weight", s.norm_across_heads ? key : s.head_dim);
    }
    const std::pair<const char*, const char*> names[] = {{"gate", "w1"}, {"up", "w3"}, {"down", "w2"}};
    for (const auto& [name, expert] : names) {
      const bool down = name == std::string_view("down");
      const std::string file = block + "ffn_" + name;
      if (i < s.dense_layers) {
        const Index rows = down ? s.width : s.dense_hidden, cols = down ? s.dense_hidden : s.width;
        matrix(file + ".weight", hub + "mlp." + name + "_proj.weight", rows, cols);
        if (s.dense_bias) vector(file + ".bias", hub + "mlp." + name + "_proj.bias", rows);
        continue;
      }
      const Index rows = down ? s.width : s.expert_hidden, cols = down ? s.expert_hidden : s.width;
      GgufPlace stacked{file + "_exps.weight", {cols, rows, s.experts}, cols, true, {}};
      for (Index e = 0; e < s.experts; ++e) {
        stacked.parts.push_back({sentence_of({mixture, "experts.", e, ".", expert, ".weight"}), rows, cols});
      }
      places.push_back(std::move(stacked));
      if (!s.has_shared()) continue;
      const Index width = s.shared_width();
      const Index all_rows = down ? s.width : width, all_cols = down ? width : s.width;
      const Index own_rows = down ? s.width : s.shared_hidden, own_cols = down ? s.shared_hidden : s.width;
      GgufPlace shared{file + "_shexp.weight", {all_cols, all_rows}, all_cols, true, {}};
      if (s.shared_hidden > 0) {
        shared.parts.push_back({mixture + "shared_experts." + name + "_proj.weight", own_rows, own_cols});
      }
      const Index left = s.shared_hidden > 0 ? all_rows - own_rows : all_rows;
      if (left > 0) shared.parts.push_back({"", left, 0});
      places.push_back(std::move(shared));
    }
    if (i < s.dense_layers) continue;
    matrix(block + "ffn_gate_inp.weight", mixture + "gate.weight", s.experts, s.width);
    places.back().matrix = false;  // llama.cpp keeps routers in float32, as tinymoe does
    if (s.shared_gate) vector(block + "ffn_gate_inp_shexp.weight", mixture + "shared_expert_gate.weight", s.width);
    if (s.architecture == "glm4moe") {
      vector(block + "exp_probs_b.bias", s.balance_bias ? mixture + "gate.e_score_correction_bias" : "", s.experts);
      if (!s.balance_bias) places.back().parts[0].cols = 0;
    }
  }
  return places;
}

}  // namespace tinymoe::inline v0_1::detail
