#pragma once
/// @file
/// Models as GGUF files, the format of llama.cpp, both ways. gguf_shape.hpp says which architectures, gguf_places.hpp
/// where the weights lie, gguf_tokenizer.hpp what becomes of a tokenizer.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/config.hpp"
#include "tinymoe/checkpoint/gguf_config.hpp"
#include "tinymoe/checkpoint/gguf_places.hpp"
#include "tinymoe/checkpoint/gguf_shape.hpp"
#include "tinymoe/checkpoint/gguf_tensors.hpp"
#include "tinymoe/checkpoint/gguf_tokenizer.hpp"
#include "tinymoe/checkpoint/model_tensors.hpp"
#include "tinymoe/checkpoint/stored_weights.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_types.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/position.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The type of a file for weights of type W, where they are blocks.
template <class W>
inline constexpr std::optional<GgufType> gguf_blocks = {};
template <>
inline constexpr std::optional<GgufType> gguf_blocks<Int8> = GgufType::q8_0;
template <>
inline constexpr std::optional<GgufType> gguf_blocks<Int4> = GgufType::q4_0;

/// The name of a format of weights, as a checkpoint has it, and the type of its blocks.
struct GgufFormat {
  std::string_view name;
  GgufType type;
};
inline constexpr GgufFormat gguf_formats[] = {{WeightFormat<Int8>::name, *gguf_blocks<Int8>},
                                              {WeightFormat<Int4>::name, *gguf_blocks<Int4>}};

/// The type of the blocks that a model has; float32 where its weights are numbers. Throws OptionError for another
/// format, which GGUF does not have.
[[gnu::cold]] inline GgufType gguf_type_of(const ModelTensors& model) {
  if (model.format.empty()) return GgufType::float32;
  for (const GgufFormat& format : gguf_formats) {
    if (format.name == model.format) return format.type;
  }
  fail<OptionError>("the model's weights are ", model.format, ", which GGUF does not have; save one of numbers");
}

/// Writes a model.
[[gnu::cold]] inline void write_gguf(FileWriter& file, const ModelTensors& model, const Tokenizer& tokenizer,
                                     GgufType type) {
  const GgufType own = gguf_type_of(model);
  if (own != GgufType::float32 && own != type) {
    fail<OptionError>("the model's weights are ", model.format, ", which a GGUF file holds as ", gguf_type_name(own),
                      "; for ", gguf_type_name(type), " take the model that they were made of");
  }
  // What llama.cpp calls a file whose matrices are of a type.
  const std::map<GgufType, std::uint32_t> file_types = {
      {GgufType::float32, 0}, {GgufType::q4_0, 2}, {GgufType::q8_0, 7}, {GgufType::bfloat16, 32}};
  const auto file_type = file_types.find(type);
  if (file_type == file_types.end()) fail<OptionError>("a GGUF file is written as float32, bfloat16, Q8_0 or Q4_0");
  const GgufShape shape = gguf_shape(model.description);
  GgufMetadata metadata;
  metadata.add("general.architecture", shape.architecture);
  metadata.add("general.file_type", file_type->second);
  metadata.add("general.alignment", gguf_alignment);
  if (gguf_facts(type).elements > 1) metadata.add("general.quantization_version", std::uint32_t{2});
  const Json fields = gguf_fields(shape);
  for (const auto& [key, value] : fields.members()) {
    if (value.is_boolean()) {
      metadata.add(key, value.boolean());
    } else if (value.is_whole()) {
      metadata.add(key, value.whole<std::uint32_t>().value_or(0));
    } else {
      metadata.add(key, static_cast<float>(value.number()));
    }
  }
  const auto setting = [&](const char* key, double value) {
    metadata.add(std::string(shape.architecture) + "." + key, static_cast<float>(value));
  };
  if (!shape.gpt2()) setting("rope.freq_base", model.settings[setting::rope_theta]);
  setting(gguf_epsilon_key(shape.architecture), model.settings[setting::norm_epsilon]);
  metadata.add(gguf_description_key, model.description.dump());
  write_gguf_tokenizer(metadata, tokenizer, model.tokens.with(tokenizer.begin_of_text(), tokenizer.end_of_story()),
                       shape.vocab);

  const std::vector<GgufPlace> places = gguf_places(shape);
  std::vector<GgufTensor> tensors;
  for (const GgufPlace& place : places) tensors.push_back({place.name, gguf_type_of(place, type), place.shape});
  GgufWriter writer(file, metadata, std::move(tensors));
  for (const GgufPlace& place : places)
    write_gguf_tensor(writer, place, gguf_type_of(place, type), [&](const std::string& name) {
      auto found = model(name);
      return GgufSource{found.stored ? own : GgufType::float32, std::move(found.bytes)};
    });
  writer.finish();
}

[[gnu::cold]] inline void save_gguf(const std::filesystem::path& path, const ModelTensors& model,
                                    const Tokenizer& tokenizer, GgufType type) {
  write_file_atomically(path, [&](FileWriter& file) { write_gguf(file, model, tokenizer, type); });
}

/// A GGUF file that has a model of `description`'s kind.
struct GgufModelFile {
  Gguf file;
  GgufConfig config;
  GgufTensors tensors;

  /// Throws FileError and MismatchError.
  [[gnu::cold]] GgufModelFile(const std::filesystem::path& path, const Json& description)
      : file(path), config(file), tensors(file, shape_of(description)) {}

  [[gnu::cold]] GgufShape shape_of(const Json& description) const {
    config.check(description);
    GgufShape shape = gguf_shape(description);
    if (shape.architecture == config.architecture()) return shape;
    fail<MismatchError>(file.name(), ": is of the architecture ", config.architecture(),
                        ", and tinymoe writes this model as ", shape.architecture);
  }
};

}  // namespace detail

/// Saves a model and its tokenizer as a GGUF file, for llama.cpp: matrices in `type`, which is float32, bfloat16, Q8_0
/// or Q4_0, routers, norms and biases in float32, and so matrices whose rows are no multiple of 32 where `type` has
/// blocks. A model of Int8 or Int4 is saved as it is, so `type` is Q8_0 or Q4_0 then. Throws MismatchError for an
/// architecture that llama.cpp does not have, TextError for such a tokenizer, OptionError for weights that `type`
/// cannot hold, FileError; an old file is intact then.
template <class Arch, Backend B, class W>
void save_gguf(const std::filesystem::path& path, const Model<Arch, B, W>& model, const Tokenizer& tokenizer,
               GgufType type) {
  detail::save_gguf(path, detail::model_tensors(model), tokenizer, type);
}

/// Replaces a model's weights, settings and special tokens by those of a GGUF file of the same architecture, with
/// weights of any `GgufType`. A model of Int8 or Int4 takes the blocks of Q8_0 or Q4_0 as
/// they are, and rounds floating-point numbers. Throws FileError for a file that is missing, cut, corrupt or not
/// finite, MismatchError for another architecture and for blocks that would be rounded a second time, OptionError for
/// weights that the model's format cannot hold; the model is unchanged then.
template <class Arch, Backend B, class W>
void load_gguf(const std::filesystem::path& path, Model<Arch, B, W>& model) {
  const detail::GgufModelFile found(path, describe<Arch>());
  ModelTokens special = detail::read_gguf_model_tokens(found.file);
  if constexpr (!Model<Arch, B, W>::has_masters && detail::gguf_blocks<W>.has_value()) {
    const auto [tensors, places] = detail::stored_places(model.weights());
    std::vector<std::vector<std::byte>> values;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      auto& bytes = values.emplace_back(places[i].bytes);
      if (places[i].sound != nullptr) {
        found.tensors.read_blocks<W>(tensors[i].name, *detail::gguf_blocks<W>, bytes);
      } else {
        found.tensors.read(tensors[i].name,
                           std::span(reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)));
      }
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      model.backend().copy_to_device(places[i].data, values[i].data(), values[i].size());
    }
  } else {
    detail::replace_tensors(
        model, [&](const std::string& name, std::span<float> values) { found.tensors.read(name, values); });
  }
  model.settings() = found.config.settings();
  model.special_tokens() = std::move(special);
}

/// The tokenizer of a GGUF file. Throws FileError for one that is missing, makes no sense, or is of a kind that tinymoe
/// does not have.
[[gnu::cold]] inline Tokenizer load_gguf_tokenizer(const std::filesystem::path& path) {
  return detail::read_gguf_tokenizer(Gguf(path));
}

/// What a GGUF file's model computes, as `describe` gives it. Throws as `load_gguf`.
[[gnu::cold]] inline Json describe_gguf(const std::filesystem::path& path) {
  return detail::GgufConfig(Gguf(path)).description();
}

}  // namespace tinymoe::inline v0_1
