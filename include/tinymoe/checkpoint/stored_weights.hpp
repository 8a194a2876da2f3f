#pragma once
/// @file
/// Checkpoints of weights that are stored in a format of their own, such as Int4: model.safetensors has each matrix of
/// that format as unsigned bytes, [rows, bytes of a row], and the other tensors in float32. config.json says which:
///
///     "quantization_config": {"quant_method": "tinymoe", "weights": "int4"}
///
/// Such a format has, besides the members that core/weights.hpp lists,
///
///     static constexpr std::string_view name;                      // for config.json
///     static constexpr std::size_t row_bytes(Index cols);          // rows follow one another
///     static bool sound(std::span<const std::byte> rows);          // whether bytes of a file can be its weights

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_shards.hpp"
#include "tinymoe/files/safetensors_writer.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1::detail {

/// A format that a checkpoint can have.
template <class W>
concept StoredFormat =
    !WeightFormat<W>::plain && std::is_same_v<VectorOf<W>, float> && requires(std::span<const std::byte> rows) {
  { WeightFormat<W>::name } -> std::convertible_to<std::string_view>;
  { WeightFormat<W>::row_bytes(Index{1}) } -> std::same_as<std::size_t>;
  { WeightFormat<W>::sound(rows) } -> std::same_as<bool>;
};

/// What config.json calls the weights of type W.
template <class W>
constexpr std::string_view weights_name() {
  if constexpr (StoredFormat<W>) {
    return WeightFormat<W>::name;
  } else {
    return "floating-point numbers";
  }
}

/// For weights in a format that a model does not have.
[[noreturn, gnu::cold]] inline void refuse_stored_weights(const std::string& file, const std::string& found,
                                                          std::string_view wanted) {
  fail<MismatchError>(file, ": its weights are ", found, ", which are for inference alone; this model's are ", wanted,
                      ": take the checkpoint that they were made of");
}

/// A tensor of a file, and its place in the backend's memory.
struct StoredPlace {
  std::byte* data;
  std::size_t bytes;
  bool (*sound)(std::span<const std::byte>);  // null: float32
};

/// All tensors of a model as on disk, and their places.
template <class Weights>
std::pair<std::vector<DiskTensor>, std::vector<StoredPlace>> stored_places(const Weights& weights) {
  std::pair<std::vector<DiskTensor>, std::vector<StoredPlace>> result;
  Weights::for_each(
      Path{},
      [&]<class Tensor>(const ParameterInfo& info, const Tensor& tensor) {
        using Format = typename Tensor::Format;
        auto* data = reinterpret_cast<std::byte*>(tensor.data);
        for (const NamedRows& named : info.names) {
          if (named.rows == 0) continue;
          std::size_t row_bytes = static_cast<std::size_t>(info.cols) * sizeof(float);
          bool (*sound)(std::span<const std::byte>) = nullptr;
          if constexpr (!Format::plain) row_bytes = Format::row_bytes(info.cols), sound = &Format::sound;
          const std::size_t bytes = static_cast<std::size_t>(named.rows) * row_bytes;
          const Index width = sound == nullptr ? info.cols : static_cast<Index>(row_bytes);
          result.first.push_back(disk_tensor(info, named, width, 0));
          result.second.push_back({data, bytes, sound});
          data += bytes;
        }
      },
      weights);
  return result;
}

/// Writes the weights as they lie in the backend's memory.
template <class Weights, Backend B>
void write_stored(const B& backend, FileWriter& file, const Weights& weights, const Metadata& metadata) {
  const auto [tensors, places] = stored_places(weights);
  std::vector<StoredTensor> stored;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto type = places[i].sound == nullptr ? StoredType::float32 : StoredType::uint8;
    stored.push_back({tensors[i].name, type, tensors[i].shape});
  }
  SafetensorsWriter writer(file, std::move(stored), metadata);
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    bytes.resize(places[i].bytes);
    backend.copy_to_host(bytes.data(), places[i].data, bytes.size());
    writer.append_bytes(tensors[i].name, bytes);
  }
  writer.finish();
}

/// Reads what `write_stored` wrote. Nothing is changed unless all of the file is right. Throws MismatchError and
/// FileError that name the tensor.
template <class Weights, Backend B>
void read_stored(const B& backend, const SafetensorsShards& file, const Weights& weights) {
  const auto [tensors, places] = stored_places(weights);
  const auto names = names_in_file(file, tensors, {""});
  std::vector<std::vector<std::byte>> values;
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto& bytes = values.emplace_back(places[i].bytes);
    if (places[i].sound == nullptr) {
      file.read(names[i], tensors[i].shape,
                std::span(reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)));
      continue;
    }
    const auto found = file.bytes(names[i], tensors[i].shape);
    if (!places[i].sound(found)) {
      fail<FileError>(file.path().string(), ": tensor ", names[i], " has a scale that is not finite; the file is ",
                      "corrupt, so make it again from the checkpoint that it was made of");
    }
    bytes.assign(found.begin(), found.end());
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    backend.copy_to_device(places[i].data, values[i].data(), values[i].size());
  }
}

}  // namespace tinymoe::inline v0_1::detail
