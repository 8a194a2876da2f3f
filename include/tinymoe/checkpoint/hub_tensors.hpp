#pragma once
/// @file
/// Where the tensors of a model lie in the file of an architecture of the hub: under its names, in its layout, and with
/// the zeros of what its blocks have and the model's do not.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/checkpoint/hub_config.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// Replaces `old` in a name by `fresh`, if it is there.
[[gnu::cold]] inline bool replace_part(std::string& name, std::string_view old, std::string_view fresh) {
  const std::size_t at = name.find(old);
  if (at == std::string::npos) return false;
  name.replace(at, old.size(), fresh);
  return true;
}

/// The tensors of a block that the architecture has and the model has not, by the model's names.
[[gnu::cold]] inline std::vector<DiskTensor> zeros_of_block(const LayerShape& own, const LayerShape& hub, Index width,
                                                            std::size_t number) {
  const std::string layer = "model.layers." + std::to_string(number) + '.';
  std::vector<DiskTensor> zeros;
  const auto add = [&](std::string_view name, Index rows, Index cols) {
    auto shape = cols == 0 ? std::vector<Index>{rows} : std::vector<Index>{rows, cols};
    zeros.push_back({layer + std::string(name), std::move(shape), 0, 0, {{-1, rows, std::max<Index>(1, cols)}}});
  };
  if (hub.qkv_bias && !own.qkv_bias) {
    add("self_attn.q_proj.bias", hub.heads * hub.head_dim, 0);
    add("self_attn.k_proj.bias", hub.kv_heads * hub.head_dim, 0);
    add("self_attn.v_proj.bias", hub.kv_heads * hub.head_dim, 0);
  }
  if (hub.output_bias && !own.output_bias) add("self_attn.o_proj.bias", width, 0);
  if (hub.expert_bias && !own.expert_bias && !hub.is_mixture()) {
    if (hub.activation == "swiglu") add("mlp.gate_proj.bias", hub.hidden, 0);
    add("mlp.up_proj.bias", hub.hidden, 0);
    add("mlp.down_proj.bias", width, 0);
  }
  if (hub.balance_bias && !own.balance_bias) add("block_sparse_moe.gate.e_score_correction_bias", hub.experts, 0);
  if (hub.shared_hidden > 0 && own.shared_hidden == 0) {
    add("block_sparse_moe.shared_experts.gate_proj.weight", hub.shared_hidden, width);
    add("block_sparse_moe.shared_experts.up_proj.weight", hub.shared_hidden, width);
    add("block_sparse_moe.shared_experts.down_proj.weight", width, hub.shared_hidden);
    if (hub.shared_gate) add("block_sparse_moe.shared_expert_gate.weight", 1, width);
  }
  return zeros;
}

/// The architecture's name of a tensor. GPT-2's q, k and v get one.
[[gnu::cold]] inline std::string hub_name(const HubArchitecture& hub, std::string name) {
  if (hub.gpt2) {
    constexpr std::pair<std::string_view, std::string_view> parts[] = {{"model.embed_tokens.", "transformer.wte."},
                                                                       {"model.embed_positions.", "transformer.wpe."},
                                                                       {"model.norm.", "transformer.ln_f."},
                                                                       {"model.layers.", "transformer.h."},
                                                                       {"post_attention_layernorm.", "ln_2."},
                                                                       {"input_layernorm.", "ln_1."},
                                                                       {"self_attn.q_proj.", "attn.c_attn."},
                                                                       {"self_attn.k_proj.", "attn.c_attn."},
                                                                       {"self_attn.v_proj.", "attn.c_attn."},
                                                                       {"self_attn.o_proj.", "attn.c_proj."},
                                                                       {"mlp.up_proj.", "mlp.c_fc."},
                                                                       {"mlp.down_proj.", "mlp.c_proj."}};
    for (const auto& [old, fresh] : parts) replace_part(name, old, fresh);
    return name;
  }
  if (hub.model_type == "mixtral" || !replace_part(name, ".block_sparse_moe.", ".mlp.")) return name;
  if (name.find(".experts.") != std::string::npos) {
    replace_part(name, ".w1.", ".gate_proj.") || replace_part(name, ".w3.", ".up_proj.") ||
        replace_part(name, ".w2.", ".down_proj.");
  }
  if (hub.shared_gate) replace_part(name, ".shared_experts.", ".shared_expert.");
  return name;
}

/// The tensors of the file that an architecture of the hub has for a model, whose own are `tensors`.
[[gnu::cold]] inline std::vector<DiskTensor> hub_tensors(const HubArchitecture& hub, const ModelShape& own,
                                                         const std::vector<DiskTensor>& tensors) {
  const ModelShape shape = fit(hub, own).shape.value();
  std::vector<DiskTensor> all = tensors;
  for (std::size_t i = 0; i < shape.layers.size(); ++i) {
    for (auto& zeros : zeros_of_block(own.layers[i], shape.layers[i], shape.width, i)) all.push_back(std::move(zeros));
  }
  const Index shared = shape.layers.back().shared_hidden, own_shared = own.layers.back().shared_hidden;
  std::vector<DiskTensor> result;
  for (auto& tensor : all) {
    const bool vector = tensor.shape.size() == 1;
    if (tensor.rows.empty() && own_shared > 0 && shared > own_shared &&
        tensor.name.find(".shared_experts.") != std::string::npos) {  // wider by zeros
      tensor.rows = {{tensor.offset, tensor.shape[0], tensor.shape[1]}};
      const bool down = tensor.name.ends_with("down_proj.weight");
      tensor.shape = down ? std::vector<Index>{shape.width, shared} : std::vector<Index>{shared, shape.width};
    }
    const bool matrix = hub.gpt2 && !vector && tensor.name.find(".layers.") != std::string::npos;
    tensor.name = hub_name(hub, std::move(tensor.name));
    if (hub.gpt2 && tensor.rows.empty() && (matrix || tensor.name.find(".c_attn.") != std::string::npos)) {
      tensor.rows = {{tensor.offset, tensor.shape[0], vector ? 1 : tensor.shape[1]}};
    }
    if (!result.empty() && result.back().name == tensor.name) {  // GPT-2's q, k and v are one
      result.back().shape[matrix ? 1 : 0] += tensor.shape[0];
      result.back().rows.push_back(tensor.rows[0]);
      continue;
    }
    if (matrix) std::swap(tensor.shape[0], tensor.shape[1]), tensor.transposed = true;
    result.push_back(std::move(tensor));
  }
  return result;
}

}  // namespace tinymoe::inline v0_1::detail
