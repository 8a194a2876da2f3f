#pragma once
/// @file
/// Pruning: a model with fewer experts, which computes what the larger one does with those experts left out
/// (layers/expert_limits.hpp). Experts are renumbered in order; the router's rows and biases go along, and all else is
/// copied. A smaller K takes nothing away but the model's time.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/config.hpp"
#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/checkpoint/model_tensors.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/checkpoint/type_text.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/expert_limits.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// A model with fewer experts, whose type this program need not have.
struct PrunedModel {
  Json description;
  Settings settings;
  SettingList stored_settings;
  ModelTokens tokens;
  std::vector<DiskTensor> tensors;  // in `values`
  std::vector<float> values;

  ModelShape shape() const { return shape_of(description); }
};

/// For each layer, the experts that stay; none of a dense block.
[[gnu::cold]] inline std::vector<std::vector<Index>> experts_kept(const ModelShape& shape, const ExpertLimits& limits) {
  std::vector<LimitedLayer> layers;
  for (const LayerShape& layer : shape.layers) layers.push_back({layer.experts, true});
  check_limits(limits, layers);
  std::vector<std::vector<Index>> kept(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (Index e = 0; e < layers[i].experts; ++e) {
      const LayerExpert expert{static_cast<Index>(i), e};
      const bool gone = std::find(limits.left_out.begin(), limits.left_out.end(), expert) != limits.left_out.end();
      if (!gone) kept[i].push_back(e);
    }
  }
  return kept;
}

/// The description of a model with these experts. Options that act in training alone are the defaults, so that it is
/// the description of the type that `type_text` gives.
[[gnu::cold]] inline Json pruned_description(const Json& description, const std::vector<std::vector<Index>>& kept,
                                             Index most_choices) {
  Json layers = Json::array();
  std::size_t layer = 0;
  for (const Json& group : description["layers"].items()) {
    Json pruned = group;
    const auto count = static_cast<std::size_t>(whole_in(group, "count"));
    if (!group["router"].is_null()) {
      if (!group["router"].contains("scores")) {
        fail<MismatchError>("layer ", layer, " has a router of its program's own, ", group["router"]["type"].dump(),
                            ", whose rows are not known; prune it in that program");
      }
      const auto left = kept[layer].size();
      for (std::size_t i = layer; i < layer + count; ++i) {
        if (kept[i].size() == left) continue;
        fail<OptionError>("layers ", layer, " and ", i, " are of one group and would keep ", left, " and ",
                          kept[i].size(), " experts; keep the same number");
      }
      Json& router = pruned["router"];
      const Index had = whole_in(router, "choices"), choices = most_choices > 0 ? std::min(had, most_choices) : had;
      if (std::cmp_less(left, choices)) {
        fail<OptionError>("layer ", layer, " would keep ", left, left == 1 ? " expert" : " experts",
                          ", of which a token takes ", choices, "; keep as many, or lower the experts of a token");
      }
      if (choices == 1 && flag_in(router, "normalised_gates")) {
        fail<OptionError>("layer ", layer,
                          " has normalised gates, which are 1 for one expert of a token, and no type "
                          "has that; keep two experts of a token");
      }
      const bool balanced = flag_in(router, "balance_bias") || word_in(router, "type") == "expert_choice";
      router["experts"] = left, router["choices"] = choices;
      router["jitter"] = false, router["capacity"] = nullptr;
      router["balance"] = balanced ? "none" : "switch";
    }
    layers.push_back(std::move(pruned));
    layer += count;
  }
  Json pruned = description;
  pruned["layers"] = std::move(layers);
  pruned.sort_keys();
  return pruned;
}

/// The number behind `before` in a tensor's name, and where its digits begin.
struct NameNumber {
  Index number = 0;
  std::size_t at = 0, digits = 0;
};
[[gnu::cold]] inline std::optional<NameNumber> number_behind(std::string_view name, std::string_view before) {
  const std::size_t found = name.find(before);
  if (found == std::string_view::npos) return std::nullopt;
  NameNumber made{0, found + before.size(), 0};
  const char* first = name.data() + made.at;
  const auto parsed = std::from_chars(first, name.data() + name.size(), made.number);
  if (parsed.ec != std::errc()) return std::nullopt;
  made.digits = static_cast<std::size_t>(parsed.ptr - first);
  return made;
}

/// The model without the experts that are left out, and with at most so many for a token. Throws OptionError for limits
/// that no type has, MismatchError for rounded weights and for parts of a program's own.
[[gnu::cold]] inline PrunedModel prune(const ModelTensors& model, const ExpertLimits& limits) {
  if (!model.format.empty()) {
    fail<MismatchError>("the model's weights are rounded to ", model.format,
                        "; prune the model that they were made of");
  }
  const auto kept = experts_kept(shape_of(model.description), limits);
  PrunedModel pruned{pruned_description(model.description, kept, limits.choices),
                     model.settings,
                     model.stored_settings,
                     model.tokens,
                     {},
                     {}};
  std::vector<Index> experts_found(kept.size());
  std::vector<float> values;
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    DiskTensor tensor = model.tensors[i];
    const auto layer = number_behind(tensor.name, "layers.");
    const auto& own = layer ? kept[static_cast<std::size_t>(layer->number)] : kept[0];
    const auto read = [&] {
      const ModelTensors::Bytes found = model.read(i);
      values.resize(static_cast<std::size_t>(tensor.size));
      std::memcpy(values.data(), found.bytes.data(), found.bytes.size());
    };
    if (layer && tensor.name.find(".block_sparse_moe.gate.") != std::string::npos) {
      const Index width = tensor.size / tensor.shape[0];
      read();
      std::vector<float> rows;
      for (const Index e : own) {
        rows.insert(rows.end(), values.begin() + e * width, values.begin() + (e + 1) * width);
      }
      values = std::move(rows);
      tensor.shape[0] = std::ssize(own);
    } else if (const auto expert = number_behind(tensor.name, ".block_sparse_moe.experts."); layer && expert) {
      const auto place = std::find(own.begin(), own.end(), expert->number);
      if (place == own.end()) continue;
      tensor.name.replace(expert->at, expert->digits, std::to_string(place - own.begin()));
      read();
      ++experts_found[static_cast<std::size_t>(layer->number)];
    } else {
      read();
    }
    tensor.offset = std::ssize(pruned.values), tensor.size = std::ssize(values);
    pruned.values.insert(pruned.values.end(), values.begin(), values.end());
    pruned.tensors.push_back(std::move(tensor));
  }
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (experts_found[i] >= std::ssize(kept[i])) continue;
    fail<MismatchError>("the experts of layer ", i,
                        " are of its program's own, with one tensor for all; prune it in "
                        "that program");
  }
  return pruned;
}

/// Writes a pruned model as a checkpoint, for a program that has its type. Throws FileError; the folder's old content
/// is intact then.
template <Backend B>
[[gnu::cold]] void save_pruned(B& backend, const std::filesystem::path& path, PrunedModel& model,
                               const Tokenizer& tokenizer) {
  static_assert(std::is_same_v<typename B::Master, float>);
  Json config = config_of(model.description, model.stored_settings, model.settings, tokenizer.end_of_story());
  const HubArchitecture* hub = hub_architecture(std::as_const(config)["model_type"]);
  AtomicFolder folder(path, checkpoint_files);
  folder.write("model.safetensors", [&](FileWriter& file) {
    write_tensors(backend, file, model_tensors(hub, model.description, model.tensors),
                  View<float>(model.values.data(), 1, std::ssize(model.values)), {{"format", "pt"}});
  });
  write_model_texts(folder, std::move(config), model.tokens, tokenizer, model.shape().context);
  folder.commit();
}

}  // namespace detail

/// Makes `to` the model `from` without the experts that `limits` leaves out, for a program that has both types. It
/// computes what `from` does under the same limits (`limit_experts`), but for rounding. Options that act in training
/// alone (Capacity, Jitter, the balance loss) may differ.
///
/// Throws MismatchError if `to` is another model than that, OptionError for limits that no type has; `to` is unchanged
/// then.
template <class Arch, Backend B, class W, class Smaller, Backend C>
void prune_experts(const Model<Arch, B, W>& from, Model<Smaller, C>& to, const ExpertLimits& limits) {
  const detail::PrunedModel pruned = detail::prune(detail::model_tensors(from), limits);
  if (pruned.shape() != detail::shape_of(describe<Smaller>())) {
    fail<MismatchError>("the smaller model is not the larger one with fewer experts; that is of the type ",
                        detail::type_text(pruned.shape()));
  }
  detail::replace_tensors(to, [&](const std::string& name, std::span<float> values) {
    const auto found = std::find_if(pruned.tensors.begin(), pruned.tensors.end(),
                                    [&](const detail::DiskTensor& tensor) { return tensor.name == name; });
    if (found == pruned.tensors.end() || found->size != std::ssize(values)) {
      fail<MismatchError>("the pruned model has no tensor ", name, " of ", values.size(), " numbers; give a model of ",
                          "the same parts");
    }
    std::copy_n(pruned.values.begin() + found->offset, found->size, values.begin());
  });
  to.settings() = from.settings();
  to.special_tokens() = from.special_tokens();
}

}  // namespace tinymoe::inline v0_1
