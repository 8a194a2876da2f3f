#pragma once
/// @file
/// Where a model's tensors lie in a file of weights: under their own names, or under those that other programs give
/// them. Tensors that follow from others are left out where they agree with them.

#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_shards.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1::detail {

/// Rows of one of the model's tensors, (rows, cols); offset −1: zeros.
struct BufferRows {
  Index offset, rows, cols;

  Index size() const { return rows * cols; }
};

/// A tensor on disk: some rows of one of the model's tensors, or `rows` of several one under the other, where a file of
/// another program has them so. A tensor on disk that is larger than these has zeros in the rest.
struct DiskTensor {
  std::string name;
  std::vector<Index> shape;
  Index offset, size;  // in the model's buffer, if `rows` is empty
  std::vector<BufferRows> rows = {};
  bool transposed = false;  // on disk

  /// The elements on disk.
  Index elements() const {
    Index count = 1;
    for (const Index extent : shape) count *= extent;
    return count;
  }
  /// Calls f(part of `rows`, place) for each, where place(i) is that of the part's element i on disk.
  template <class F>
  void for_each_part(F&& f) const {
    const Index last = shape.size() == 1 ? 1 : shape.back();  // a vector's elements are rows
    Index first = 0;
    for (const BufferRows& part : rows) {
      f(part, [&, this](std::size_t i) {
        const Index row = first + static_cast<Index>(i) / part.cols, col = static_cast<Index>(i) % part.cols;
        return static_cast<std::size_t>(transposed ? col * last + row : row * last + col);
      });
      first += part.rows;
    }
  }
};

/// The named rows of a tensor on disk, where a row has `width` elements.
[[gnu::cold]] inline DiskTensor disk_tensor(const ParameterInfo& info, const NamedRows& named, Index width,
                                            Index offset) {
  const Index size = named.rows * width;
  auto shape = info.is_vector ? std::vector<Index>{size} : std::vector<Index>{named.rows, width};
  return {info.name_of(named), std::move(shape), offset, size, {}, false};
}

inline constexpr std::string_view head_name = "lm_head.weight";

/// The embedding, by its name here or in GPT-2.
inline bool is_embedding(std::string_view name) {
  return name == "model.embed_tokens.weight" || name == "transformer.wte.weight";
}

/// Buffers of older files, which follow from rope_theta.
inline bool is_rotary_frequency(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_emb.original_inv_freq");
}

/// The causal mask in older files of GPT-2.
inline bool is_causal_mask(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

/// The name of a tensor of the model in a file; empty if the file does not have it. A file of a MixtralModel, which has
/// no head, has names without "model.", GPT-2's without "transformer."; safetensors may keep a tied embedding under the
/// head's name alone.
[[gnu::cold]] inline std::string name_in_file(const SafetensorsShards& file, const std::string& tensor, bool tied) {
  const std::string_view base = tensor.starts_with("transformer.") ? "transformer." : "model.";
  if (file.contains(tensor)) return tensor;
  const bool headless = std::none_of(file.names().begin(), file.names().end(),
                                     [&](const std::string& name) { return name.starts_with(base); });
  if (headless && tensor.starts_with(base) && file.contains(std::string_view(tensor).substr(base.size()))) {
    return tensor.substr(base.size());
  }
  if (tied && is_embedding(tensor) && file.contains(head_name)) return std::string(head_name);
  return {};
}

/// What may have become of a tensor that is missing, by the names that are left over.
[[gnu::cold]] inline std::string advice_for_missing(const std::string& missing, const std::vector<std::string>& left) {
  for (const std::string& name : left) {
    if (name.ends_with("experts.gate_up_proj")) {
      return "; " + name + " has its experts in one tensor: save it in transformers 5 with save_original_format=True";
    }
    if (name.ends_with(".qweight") || name.ends_with(".weight_scale") || name.ends_with(".weight_scale_inv") ||
        name.ends_with(".absmax") || name.ends_with(".SCB")) {
      return "; " + name + " is of quantized weights: save them in float32, float16 or bfloat16";
    }
    if (name.ends_with(missing) || missing.ends_with("." + name)) return "; the file has " + name + ": rename it";
  }
  if (missing == head_name) {
    return "; save the model with its head, or set \"tie_word_embeddings\" to true in config.json if the head is the "
           "embedding";
  }
  if (!left.empty()) return "; the file has " + left[0] + " instead: is it of another model?";
  return "; save the model again with all of its tensors";
}

/// Throws MismatchError unless the head that a file stores beside a tied embedding is the embedding.
[[gnu::cold]] inline void check_tied_head(const SafetensorsShards& file, const std::string& embedding,
                                          const DiskTensor& tensor) {
  const auto size = static_cast<std::size_t>(tensor.elements());
  std::vector<double> one(size), other(size);
  file.read(embedding, tensor.shape, std::span(one));
  file.read(head_name, tensor.shape, std::span(other));
  if (one == other) return;
  fail<MismatchError>(file.path().string(), ": tensor ", head_name, " differs from ", embedding,
                      ", and this model ties the two: use a program whose model has an UntiedHead, or remove ",
                      head_name, " from the file");
}

/// The names in a file of `tensors` with each of `prefixes`. Throws MismatchError if one is missing, or the file has
/// others that do not follow from these.
[[gnu::cold]] inline std::vector<std::string> names_in_file(const SafetensorsShards& file,
                                                            const std::vector<DiskTensor>& tensors,
                                                            const std::vector<std::string>& prefixes) {
  const DiskTensor* embedding = nullptr;
  bool tied = true;
  for (const auto& tensor : tensors) {
    if (is_embedding(tensor.name)) embedding = &tensor;
    if (tensor.name == head_name) tied = false;
  }
  std::vector<std::string> names, missing, left;
  for (const auto& prefix : prefixes) {
    for (const auto& tensor : tensors) {
      names.push_back(name_in_file(file, prefix + tensor.name, tied));
      if (names.back().empty()) missing.push_back(prefix + tensor.name);
    }
  }
  // A loop, not a sort of the library's, which every program would compile. Files list the names in some order of ours
  // mostly, so each search begins behind the last find.
  std::size_t next = 0;
  for (const auto& name : file.names()) {
    std::size_t tried = 0;
    while (tried < names.size() && names[(next + tried) % names.size()] != name) ++tried;
    if (tried < names.size()) {
      next = (next + tried + 1) % names.size();
    } else if (!is_rotary_frequency(name) && !is_causal_mask(name)) {
      left.push_back(name);
    }
  }
  const auto more = [](std::size_t count) {
    return count > 1 ? " (and " + std::to_string(count - 1) + " more)" : std::string();
  };
  if (!missing.empty()) {
    fail<MismatchError>(file.path().string(), ": tensor ", missing[0], " is missing", more(missing.size()),
                        advice_for_missing(missing[0], left));
  }
  if (tied && embedding != nullptr && std::erase(left, head_name) > 0) {
    check_tied_head(file, name_in_file(file, embedding->name, tied), *embedding);
  }
  if (!left.empty()) {
    fail<MismatchError>(file.path().string(), ": tensor ", left[0], " does not belong to this model", more(left.size()),
                        "; use a program whose model has it, or remove it from the file");
  }
  return names;
}

/// Throws MismatchError if a file has frequencies of rotary positions that are not those of `theta`.
[[gnu::cold]] inline void check_rotary_frequencies(const SafetensorsShards& file, double theta) {
  for (const auto& name : file.names()) {
    if (!is_rotary_frequency(name)) continue;
    const StoredTensorView& tensor = file.info(name);
    std::vector<double> values(tensor.bytes.size() / stored_type_bytes(tensor.type));
    file.read(name, tensor.shape, std::span(values));
    const bool half = stored_type_bytes(tensor.type) == 2;
    const double relative = half ? 0x1p-7 : 1e-4, absolute = half ? 0x1p-23 : 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double wanted = std::pow(theta, -static_cast<double>(i) / static_cast<double>(values.size()));
      if (std::abs(values[i] - wanted) <= relative * wanted + absolute) continue;
      fail<MismatchError>(file.path().string(), ": tensor ", name, " has ", values[i], " at ", i,
                          ", which is not of the rope_theta ", theta,
                          " of config.json; correct rope_theta, or remove the tensor");
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail
