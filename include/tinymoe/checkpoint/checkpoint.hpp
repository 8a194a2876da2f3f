#pragma once
/// @file
/// Checkpoints: a folder with model.safetensors, config.json, generation_config.json, tokenizer.json,
/// tokenizer_config.json and special_tokens_map.json, as the hub lays out a model, and with optimizer.safetensors and
/// trainer.json where training goes on from it. Its files are replaced together or not at all.
///
/// Over 300 lines: what is written and what is read stand together.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/config.hpp"
#include "tinymoe/checkpoint/hub_architectures.hpp"
#include "tinymoe/checkpoint/hub_tensors.hpp"
#include "tinymoe/checkpoint/hub_tokenizer.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/checkpoint/special_tokens_json.hpp"
#include "tinymoe/checkpoint/stored_weights.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/safetensors_shards.hpp"
#include "tinymoe/files/safetensors_writer.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/position.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// All tensors of `Parameters` as on disk, in the buffer's order.
template <class Parameters>
std::vector<DiskTensor> disk_tensors() {
  std::vector<DiskTensor> tensors;
  for_each_placed<Parameters>([&](const ParameterInfo& info, Index offset) {
    for (const NamedRows& named : info.names) {
      if (named.rows == 0) continue;
      tensors.push_back(disk_tensor(info, named, info.cols, offset));
      offset += named.rows * info.cols;
    }
  });
  return tensors;
}

/// The tensors of an architecture as they lie in a file of the hub's `hub`; without one, as its own names say.
[[gnu::cold]] inline std::vector<DiskTensor> model_tensors(const HubArchitecture* hub, const Json& description,
                                                           std::vector<DiskTensor> tensors) {
  if (hub == nullptr || hub->model_type == "mixtral") return tensors;
  return hub_tensors(*hub, shape_of(description), tensors);
}
template <class Arch, class Parameters>
std::vector<DiskTensor> model_tensors(const HubArchitecture* hub) {
  return model_tensors(hub, describe<Arch>(), disk_tensors<Parameters>());
}

/// Elements that are copied between host and backend at a time.
inline constexpr Index transfer_block = Index{1} << 18;

/// f(buffer, tensor, numbers of it as they lie on disk) for all tensors in as many buffers, in order.
/// read(buffer, place, numbers) reads those that lie from `place` on in a buffer.
template <class M, class Read, class F>
void for_each_block(const std::vector<DiskTensor>& tensors, std::size_t buffers, Read&& read, F&& f) {
  std::vector<M> block, part;
  for (std::size_t b = 0; b < buffers; ++b) {
    for (const auto& tensor : tensors) {
      for (Index first = 0; first < tensor.size && tensor.rows.empty(); first += transfer_block) {
        block.resize(static_cast<std::size_t>(std::min(transfer_block, tensor.size - first)));
        read(b, tensor.offset + first, std::span<M>(block));
        f(b, tensor, std::span<const M>(block));
      }
      if (tensor.rows.empty()) continue;
      block.assign(static_cast<std::size_t>(tensor.elements()), M(0));
      tensor.for_each_part([&](const BufferRows& rows, auto place) {
        if (rows.offset < 0) return;
        part.resize(static_cast<std::size_t>(rows.size()));
        read(b, rows.offset, std::span<M>(part));
        for (std::size_t i = 0; i < part.size(); ++i) block[place(i)] = part[i];
      });
      f(b, tensor, std::span<const M>(block));
    }
  }
}

/// Writes buffers that all have the layout of `tensors`; `prefixes`, one for each buffer, tells their tensors apart.
/// `read`: see `for_each_block`.
template <class M, class Read>
void write_tensors(FileWriter& file, const std::vector<DiskTensor>& tensors, const std::vector<std::string>& prefixes,
                   const Metadata& metadata, Read&& read) {
  std::vector<StoredTensor> stored;
  for (const auto& prefix : prefixes) {
    for (const auto& tensor : tensors) stored.push_back({prefix + tensor.name, StoredType::float32, tensor.shape});
  }
  SafetensorsWriter writer(file, std::move(stored), metadata);
  for_each_block<M>(tensors, prefixes.size(), read, [&](std::size_t b, const DiskTensor& tensor, auto numbers) {
    writer.append(prefixes[b] + tensor.name, numbers);
  });
  writer.finish();
}

/// Writes one buffer with the layout of `tensors`.
template <Backend B>
void write_tensors(B& backend, FileWriter& file, const std::vector<DiskTensor>& tensors,
                   View<typename B::Master> buffer, const Metadata& metadata) {
  using M = typename B::Master;
  write_tensors<M>(file, tensors, {""}, metadata, [&](std::size_t, Index place, std::span<M> numbers) {
    backend.copy_to_host(numbers.data(), buffer.data + place, numbers.size_bytes());
  });
}

/// Throws unless a file holds `tensors` for each prefix, whole and finite, and no others, and zeros where it has more
/// than the model. Returns their names in the file.
template <class M>
std::vector<std::string> check_tensors(const SafetensorsShards& file, const std::vector<DiskTensor>& tensors,
                                       const std::vector<std::string>& prefixes) {
  std::vector<M> values;
  auto names = names_in_file(file, tensors, prefixes);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& tensor = tensors[i % tensors.size()];
    values.resize(static_cast<std::size_t>(tensor.elements()));
    file.read(names[i], tensor.shape, std::span<M>(values));
    if (tensor.rows.empty()) continue;
    tensor.for_each_part([&](const BufferRows& rows, auto place) {
      if (rows.offset < 0) return;
      for (std::size_t at = 0; at < static_cast<std::size_t>(rows.size()); ++at) values[place(at)] = M(0);
    });
    if (std::any_of(values.begin(), values.end(), [](M value) { return value != M(0); })) {
      fail<MismatchError>(file.path().string(), ": tensor ", names[i], " has numbers where this program's model has ",
                          "none, as if they were zeros: use a program whose model has them");
    }
  }
  return names;
}

/// Copies the tensors, or the parts of them, that lie in `buffer`, whose first element has the place `first` in the
/// layout of `tensors`. It has each of the rows of a DiskTensor that has `rows` whole, or not at all. `names` are those
/// in the file.
template <Backend B>
void copy_tensors(B& backend, const SafetensorsShards& file, const std::vector<DiskTensor>& tensors,
                  std::span<const std::string> names, View<typename B::Master> buffer, Index first) {
  using M = typename B::Master;
  const Index last = first + buffer.size();
  const auto inside = [&](Index offset) { return offset >= first && offset < last; };
  std::vector<M> values, part;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const DiskTensor& tensor = tensors[t];
    const bool whole = tensor.rows.empty();
    const Index from = std::max(tensor.offset, first), to = std::min(tensor.offset + tensor.size, last);
    if (!(whole ? from < to : std::any_of(tensor.rows.begin(), tensor.rows.end(), [&](const BufferRows& rows) {
          return inside(rows.offset);
        }))) {
      continue;
    }
    values.resize(static_cast<std::size_t>(tensor.elements()));
    file.read(names[t], tensor.shape, std::span<M>(values));
    if (whole) {
      backend.copy_to_device(buffer.data + (from - first), values.data() + (from - tensor.offset),
                             static_cast<std::size_t>(to - from) * sizeof(M));
      continue;
    }
    tensor.for_each_part([&](const BufferRows& rows, auto place) {
      if (!inside(rows.offset)) return;
      part.resize(static_cast<std::size_t>(rows.size()));
      for (std::size_t i = 0; i < part.size(); ++i) part[i] = values[place(i)];
      backend.copy_to_device(buffer.data + (rows.offset - first), part.data(), part.size() * sizeof(M));
    });
  }
}

/// Reads a buffer as `write_tensors` wrote it. Nothing is changed unless all of the file is right.
template <Backend B>
void read_tensors(B& backend, const SafetensorsShards& file, const std::vector<DiskTensor>& tensors,
                  View<typename B::Master> buffer) {
  copy_tensors(backend, file, tensors, check_tensors<typename B::Master>(file, tensors, {""}), buffer, 0);
}

/// The files of a checkpoint, the first of which each has.
inline constexpr std::string_view checkpoint_files[] = {"model.safetensors",      "config.json",
                                                        "generation_config.json", "tokenizer.json",
                                                        "tokenizer_config.json",  "special_tokens_map.json",
                                                        "tokenizer.model",        "trainer.json",
                                                        "optimizer.safetensors",  "average.safetensors"};

/// Writes generation_config.json for a model without one. A folder's own stays over the save: it may be another
/// program's. Only the special tokens that it names become the model's, since loading prefers it.
[[gnu::cold]] inline void write_generation_config(AtomicFolder& folder, const SpecialTokens& tokens) {
  constexpr const char* name = "generation_config.json";
  const auto old = folder.target() / name;
  const auto write = [&](Json file) {
    write_special_tokens(file, tokens);
    folder.write(name, [&](FileWriter& to) { to.write(file.dump(2) + "\n"); });
  };
  if (!is_there(old)) return write(Json::object());
  const MappedFile opened(old);  // what cannot be read is an error, and what is no such JSON is not
  try {
    Json file = read_json(opened, old, std::size_t{1} << 20);
    const bool names = file.contains("bos_token_id") || file.contains("eos_token_id") || file.contains("pad_token_id");
    if (names && read_special_tokens(file, old.string(), {}) != tokens) return write(std::move(file));
  } catch (const Error&) {  // it is for another program, and stays as it is
  }
  std::error_code reason;
  std::filesystem::copy_file(old, folder / name, std::filesystem::copy_options::overwrite_existing, reason);
  if (reason) fail<FileError>(old.string(), ": cannot be copied: ", reason.message());
}

/// Writes a model's files besides its weights.
[[gnu::cold]] inline void write_model_texts(AtomicFolder& folder, Json config, const ModelTokens& tokens,
                                            const Tokenizer& tokenizer, Index context) {
  write_model_tokens(folder, tokens, config);
  const Token end = tokenizer.end_of_story();
  if (!tokens.generation)
    write_generation_config(folder, tokens.config.value_or(SpecialTokens{.begin = end, .end = {end}}));
  folder.write("config.json", [&](FileWriter& file) { file.write(config.dump(2) + "\n"); });
  write_tokenizer(folder, tokenizer, tokens.with(tokenizer.begin_of_text(), end), context);
}

/// Writes the model's part of a checkpoint into `folder`: all files but those of training.
template <class Arch, Backend B, class W>
void write_model(AtomicFolder& folder, const Model<Arch, B, W>& model, const Tokenizer& tokenizer) {
  static_assert(Model<Arch, B, W>::has_masters || StoredFormat<W>,
                "tinymoe::save_model: a model without masters has rounded weights only; save the model that it was "
                "read from");
  using Weights = typename Model<Arch, B, W>::Weights;
  Json config = config_json<Arch>(model.settings(), tokenizer.end_of_story());
  const HubArchitecture* hub = hub_architecture(std::as_const(config)["model_type"]);
  folder.write("model.safetensors", [&](FileWriter& file) {
    const Metadata metadata = {{"format", "pt"}};
    if constexpr (Model<Arch, B, W>::has_masters) {
      write_tensors(model.backend(), file, model_tensors<Arch, Weights>(hub), model.masters(), metadata);
    } else {
      write_stored(model.backend(), file, model.weights(), metadata);
    }
  });
  if constexpr (StoredFormat<W>)
    config[stored_weights_key] = stored_weights_json(weights_name<W>()), config.sort_keys();
  write_model_texts(folder, std::move(config), model.special_tokens(), tokenizer, Arch::context);
}

}  // namespace detail

/// Saves a model for use without its training state, weights as they are stored, with the special tokens of the files
/// that it was read from, or else the tokenizer's. A generation_config.json that the model has none of stays, with its
/// special tokens set to the model's. Throws FileError; the folder's old content is intact then.
template <class Arch, Backend B, class W>
void save_model(const std::filesystem::path& path, const Model<Arch, B, W>& model, const Tokenizer& tokenizer) {
  AtomicFolder folder(path, detail::checkpoint_files);
  detail::write_model(folder, model, tokenizer);
  folder.commit();
}

/// Removes a checkpoint's files from a folder, and the folder if nothing else is in it. A folder without a checkpoint
/// stays as it is. Throws FileError if another process writes to it.
[[gnu::cold]] inline void remove_checkpoint(const std::filesystem::path& folder) {
  // A killed process may have been here: then new files are there, and none of them is a model.
  if (!detail::has_new_files(folder) && !detail::folder_has(folder, detail::checkpoint_files[0])) return;
  AtomicFolder(folder, detail::checkpoint_files).commit();  // no new files in place of the old ones
  ::rmdir(folder.c_str());                                  // if it is empty, and no link
}

namespace detail {

/// The files of a model that loading reads, open.
template <class Arch>
struct ModelFiles {
  ConfigFile<Arch> config;
  ModelTokens special_tokens;
  SafetensorsShards weights;

  [[gnu::cold]] ModelFiles(const std::filesystem::path& folder, const char* weights_file)
      : config(folder / "config.json"),
        special_tokens(read_model_tokens(folder, Arch::vocab)),
        weights(folder / weights_file) {}

  /// The files of one save, though a run may be saving another.
  [[gnu::cold]] static ModelFiles open(const std::filesystem::path& path,
                                       const char* weights_file = "model.safetensors") {
    return open_together(path, checkpoint_files[0],
                         [&](const std::filesystem::path& folder) { return ModelFiles(folder, weights_file); });
  }

  template <Backend B, class W>
  [[gnu::cold]] void load(Model<Arch, B, W>& model) const {
    check_rotary_frequencies(weights, config.settings[setting::rope_theta]);
    if (config.weights.empty()) {
      using M = typename B::Master;
      const auto tensors = model_tensors<Arch, typename Model<Arch, B, W>::Weights>(config.hub);
      const auto names = check_tensors<M>(weights, tensors, {""});
      model.replace(
          [&](View<M> values, Index first) { copy_tensors(model.backend(), weights, tensors, names, values, first); });
    } else {
      if (config.weights != weights_name<W>()) refuse_stored_weights(config.name, config.weights, weights_name<W>());
      if constexpr (StoredFormat<W>) read_stored(model.backend(), weights, model.weights());
    }
    model.settings() = config.settings;
    model.special_tokens() = special_tokens;
  }
};

}  // namespace detail

/// Replaces a model's weights, settings and special tokens by those of a checkpoint, or of a folder of the hub's: of an
/// architecture that computes what the model does (docs/interop.md), in float32 or half precision, in one file or in
/// shards with an index. A model of weights such as Int4 rounds them, or reads a checkpoint of the same. Throws
/// FileError for files that are missing, cut, corrupt or not finite, MismatchError for another architecture or for
/// weights in a format that the model does not have, OptionError for weights that its format cannot hold; the model is
/// unchanged then.
template <class Arch, Backend B, class W>
void load_model(const std::filesystem::path& path, Model<Arch, B, W>& model) {
  detail::ModelFiles<Arch>::open(path).load(model);
}

/// The tokenizer of a checkpoint, which must not have more tokens than the architecture's vocabulary.
/// Throws FileError or TextError, and MismatchError where it has more.
template <class Arch>
Tokenizer load_tokenizer(const std::filesystem::path& path) {
  return detail::open_together(path, detail::checkpoint_files[0], [](const std::filesystem::path& folder) {
    auto tokenizer = Tokenizer::load(folder / "tokenizer.json");
    if (tokenizer.vocabulary_size() > Arch::vocab) {
      fail<MismatchError>((folder / "tokenizer.json").string(), ": has ", tokenizer.vocabulary_size(),
                          " tokens; this program's model has a vocabulary of ", Arch::vocab);
    }
    return tokenizer;
  });
}

}  // namespace tinymoe::inline v0_1
