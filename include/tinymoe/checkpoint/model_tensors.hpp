#pragma once
/// @file
/// A model's tensors by their names, whatever its type: for writers and readers of other formats, which are then
/// compiled once and not for each model.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/config.hpp"
#include "tinymoe/checkpoint/stored_weights.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/special_tokens.hpp"

namespace tinymoe::inline v0_1::detail {

/// What a file needs of a model, which must outlive it.
struct ModelTensors {
  /// The bytes of a tensor: float32, or `stored` as its format has them.
  struct Bytes {
    bool stored = false;
    std::vector<std::byte> bytes;
  };

  Json description;
  Settings settings;
  ModelTokens tokens;
  std::string_view format;  // of the weights, by its name; empty: numbers
  std::map<std::string, std::size_t> numbers;
  std::vector<DiskTensor> tensors = {};  // of numbers, in the order of `read`'s argument; of other formats none
  SettingList stored_settings = {};      // that config.json keeps
  std::function<Bytes(std::size_t)> read;

  Bytes operator()(const std::string& name) const { return read(numbers.at(name)); }
};

/// The tensors of a model.
template <class Arch, Backend B, class W>
[[gnu::cold]] ModelTensors model_tensors(const Model<Arch, B, W>& model) {
  using ModelType = Model<Arch, B, W>;
  ModelTensors made{.description = describe<Arch>(),
                    .settings = model.settings(),
                    .tokens = model.special_tokens(),
                    .format = {},
                    .numbers = {},
                    .stored_settings = stored_settings<Arch>(),
                    .read = {}};
  const auto number = [&](const std::vector<DiskTensor>& tensors) {
    for (std::size_t i = 0; i < tensors.size(); ++i) made.numbers.emplace(tensors[i].name, i);
  };
  if constexpr (ModelType::has_masters) {
    using M = typename B::Master;
    auto tensors = disk_tensors<typename ModelType::Weights>();
    number(tensors);
    made.tensors = tensors;
    made.read = [&model, tensors = std::move(tensors)](std::size_t i) {
      std::vector<M> values(static_cast<std::size_t>(tensors[i].size));
      model.backend().copy_to_host(values.data(), model.masters().data + tensors[i].offset, values.size() * sizeof(M));
      ModelTensors::Bytes found{false, std::vector<std::byte>(values.size() * sizeof(float))};
      convert_elements<M>(reinterpret_cast<const std::byte*>(values.data()),
                          reinterpret_cast<float*>(found.bytes.data()), values.size());
      return found;
    };
  } else {
    static_assert(StoredFormat<W>, "tinymoe: weights of this format cannot be saved");
    made.format = weights_name<W>();
    auto [tensors, places] = stored_places(model.weights());
    number(tensors);
    made.read = [&model, places = std::move(places)](std::size_t i) {
      ModelTensors::Bytes found{places[i].sound != nullptr, std::vector<std::byte>(places[i].bytes)};
      model.backend().copy_to_host(found.bytes.data(), places[i].data, found.bytes.size());
      return found;
    };
  }
  return made;
}

/// Replaces all weights. `fetch(name, values)` fills one tensor; if it throws, the model is unchanged.
template <class Arch, Backend B, class W>
[[gnu::cold]] void replace_tensors(Model<Arch, B, W>& model,
                                   const std::function<void(const std::string&, std::span<float>)>& fetch) {
  using M = typename B::Master;
  std::vector<float> values;
  const auto tensors = disk_tensors<typename Model<Arch, B, W>::Weights>();
  const auto each = [&](Index first, Index last, auto&& f) {
    for (const DiskTensor& tensor : tensors) {
      if (tensor.offset < first || tensor.offset >= last) continue;
      values.resize(static_cast<std::size_t>(tensor.size));
      fetch(tensor.name, values);
      f(tensor);
    }
  };
  each(0, Model<Arch, B, W>::size, [](const DiskTensor&) {});  // all of it is right before anything is changed
  model.replace([&](View<M> to, Index first) {
    each(first, first + to.size(), [&](const DiskTensor& tensor) {
      const std::vector<M> converted(values.begin(), values.end());
      model.backend().copy_to_device(to.data + (tensor.offset - first), converted.data(), converted.size() * sizeof(M));
    });
  });
}

}  // namespace tinymoe::inline v0_1::detail
