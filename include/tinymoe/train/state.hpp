#pragma once
/// @file
/// What a run goes on from: trainer.json, optimizer.safetensors and average.safetensors beside a model's own files.

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/train/average.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/train/loss_scale.hpp"
#include "tinymoe/train/update.hpp"

namespace tinymoe::inline v0_1 {

/// What the batches of a run follow from; a run is resumed with the same only.
struct DataOrder {
  std::uint64_t seed = 0;
  Index batch = 0, time = 0, accumulation = 0;
  Batching batching = Batching::packed;
  Index tokens = 0;               // of the data
  std::uint64_t fingerprint = 0;  // of the data's tokens

  /// Throws MismatchError that names what differs, unless `found` is the same.
  void expect(const DataOrder& found) const {
    if (batch != found.batch || time != found.time || accumulation != found.accumulation || seed != found.seed) {
      fail<MismatchError>("the run to resume had batch ", batch, ", sequence ", time, ", accumulation ", accumulation,
                          " and seed ", seed, "; found ", found.batch, ", ", found.time, ", ", found.accumulation,
                          " and ", found.seed);
    }
    if (batching != found.batching) {
      fail<MismatchError>("the run to resume had ", name(batching), " batches; found ", name(found.batching));
    }
    if (tokens != found.tokens) {
      fail<MismatchError>("the run to resume trained on data of ", tokens, " tokens; found ", found.tokens);
    }
    if (fingerprint != found.fingerprint) {
      fail<MismatchError>("the run to resume trained on other data of ", tokens, " tokens: fingerprint ", fingerprint,
                          "; found ", found.fingerprint);
    }
  }

  static const char* name(Batching batching) { return batching == Batching::packed ? "packed" : "padded"; }
};

/// A hash of all of a set's tokens; it reads them all, about 100 million a second.
/// Throws FileError if the data is corrupt.
inline std::uint64_t fingerprint(const TokenData& data) {
  detail::Fnv1a hash;
  hash.number(static_cast<std::uint64_t>(data.size()));
  std::vector<Token> block(static_cast<std::size_t>(std::min<Index>(data.size(), Index{1} << 16)));
  for (Index first = 0; first < data.size(); first += std::ssize(block)) {
    const auto count = static_cast<std::size_t>(std::min<Index>(std::ssize(block), data.size() - first));
    data.copy(first, std::span(block).first(count));
    for (std::size_t i = 0; i < count; i += 2) {  // two to a number
      const auto low = static_cast<std::uint32_t>(block[i]);
      const auto high = i + 1 < count ? static_cast<std::uint32_t>(block[i + 1]) : 0u;
      hash.number(std::uint64_t{high} << 32 | low);
    }
  }
  return hash.value();
}

/// How far a run is, and what it must go on with.
struct TrainingState {
  std::string optimizer = {};  // its name
  Index moments = 0;           // arrays that it keeps
  Index step = 0, tokens = 0;  // done
  double seconds = 0;          // of training
  DataOrder data = {};
  double average = 0;                                          // decay of the weights' average; 0: there is none
  Index averages = 0;                                          // taken
  LossScale loss_scale = {};                                   // float16; other types keep it as it is
  double best_loss = std::numeric_limits<double>::infinity();  // of the validations so far
  Index best_step = -1;                                        // when; -1: none yet
  nlohmann::json recipe = nullptr;                             // FitOptions::recipe
};

namespace detail {

inline nlohmann::json to_json(const TrainingState& state) {
  return {{"version", 2},
          {"optimizer", state.optimizer},
          {"moments", state.moments},
          {"step", state.step},
          {"tokens", state.tokens},
          {"seconds", state.seconds},
          {"seed", state.data.seed},
          {"batch", state.data.batch},
          {"time", state.data.time},
          {"accumulation", state.data.accumulation},
          {"batching", DataOrder::name(state.data.batching)},
          {"data_tokens", state.data.tokens},
          {"data_fingerprint", state.data.fingerprint},
          {"average", state.average},
          {"averages", state.averages},
          {"loss_scale", state.loss_scale.value},
          {"loss_scale_steps", state.loss_scale.good_steps},
          {"best_loss", state.best_step >= 0 ? nlohmann::json(state.best_loss) : nlohmann::json(nullptr)},
          {"best_step", state.best_step},
          {"recipe", state.recipe}};
}

/// The state in a checkpoint's folder. Throws FileError for a folder without one, and for one that cannot be.
inline TrainingState read_state(const std::filesystem::path& folder) {
  const auto path = folder / "trainer.json";
  const std::string name = path.string();
  if (!std::filesystem::exists(path) && std::filesystem::exists(folder / "model.safetensors")) {
    fail<FileError>(folder.string(), ": holds weights only and no training state (trainer.json is missing), so that ",
                    "no run can be resumed from it; load_model starts a new one with its weights");
  }
  const auto file = read_json(path, std::size_t{1} << 20);
  if (json_field<Index>(file, "version", name) != 2) fail<MismatchError>(name, ": is of another version of tinymoe");
  TrainingState state;
  state.optimizer = json_field<std::string>(file, "optimizer", name);
  state.moments = json_field<Index>(file, "moments", name);
  state.step = json_field<Index>(file, "step", name);
  state.tokens = json_field<Index>(file, "tokens", name);
  state.seconds = json_field<double>(file, "seconds", name);
  state.data.seed = json_field<std::uint64_t>(file, "seed", name);
  state.data.batch = json_field<Index>(file, "batch", name);
  state.data.time = json_field<Index>(file, "time", name);
  state.data.accumulation = json_field<Index>(file, "accumulation", name);
  const auto batching = json_field<std::string>(file, "batching", name);
  state.data.batching = batching == "padded" ? Batching::padded : Batching::packed;
  state.data.tokens = json_field<Index>(file, "data_tokens", name);
  state.data.fingerprint = json_field<std::uint64_t>(file, "data_fingerprint", name);
  state.average = json_field<double>(file, "average", name);
  state.averages = json_field<Index>(file, "averages", name);
  if (file.contains("loss_scale")) {  // else it was written before there was float16
    state.loss_scale.value = json_field<double>(file, "loss_scale", name);
    state.loss_scale.good_steps = json_field<Index>(file, "loss_scale_steps", name);
  }
  state.best_step = json_field<Index>(file, "best_step", name);
  if (file.contains("recipe")) state.recipe = file["recipe"];
  if (state.best_step >= 0) state.best_loss = json_field<double>(file, "best_loss", name);
  if (state.step < 0 || state.step > (Index{1} << 40)) {
    fail<FileError>(name, ": \"step\": expected a number from 0 to 2^40, found ", state.step);
  }
  if (!(state.seconds >= 0) || state.tokens < 0) fail<FileError>(name, ": the tokens or seconds are negative");
  if (!(state.average >= 0 && state.average < 1) || state.averages < 0) {
    fail<FileError>(name, ": \"average\": expected a decay from 0 to 1, found ", state.average, " after ",
                    state.averages, " averages");
  }
  if (!state.loss_scale.valid()) {
    fail<FileError>(name, ": \"loss_scale\": expected a power of two from 1 to ", LossScale::greatest,
                    " and fewer than ", LossScale::patience, " steps, found ", state.loss_scale.value, " after ",
                    state.loss_scale.good_steps);
  }
  if (batching != DataOrder::name(state.data.batching)) {
    fail<FileError>(name, ": \"batching\": expected packed or padded, found ", batching);
  }
  return state;
}

}  // namespace detail

/// What the program that trained a checkpoint wants to find again: its FitOptions::recipe, null if it gave none. Throws
/// FileError, and MismatchError for another version's.
inline nlohmann::json training_recipe(const std::filesystem::path& checkpoint) {
  return detail::read_state(resolve_folder(checkpoint)).recipe;
}

/// Writes a full checkpoint: model, tokenizer, optimizer, average and state. The old folder stays until the new one is
/// whole. model.safetensors has the weights as they are trained, average.safetensors, where there is an average, that.
/// Throws FileError.
template <class ModelType, class O>
void save_training(const std::filesystem::path& path, const ModelType& model, const Tokenizer& tokenizer,
                   const TrainingState& state, const Update<ModelType, O>& update,
                   const WeightAverage<ModelType>& average) {
  using Masters = typename Update<ModelType, O>::Gradients;
  AtomicFolder folder(path);
  write_model(folder, model, tokenizer);
  folder.write("optimizer.safetensors", [&](FileWriter& file) {
    detail::write_tensors<Masters>(model.backend(), file, update.moment_names(), update.moments(), {});
  });
  if (average.on()) {
    folder.write("average.safetensors", [&](FileWriter& file) {
      detail::write_tensors<Masters>(model.backend(), file, {""}, {average.buffer()}, {{"format", "pt"}});
    });
  }
  folder.write("trainer.json", [&](FileWriter& file) { file.write(detail::to_json(state).dump(2) + "\n"); });
  folder.commit();
}

/// Reads what `save_training` wrote, the latest or the best. Throws FileError, and MismatchError for another
/// architecture or optimizer; nothing is changed then.
template <class ModelType, class O>
TrainingState resume_training(const std::filesystem::path& path, ModelType& model, Update<ModelType, O>& update,
                              WeightAverage<ModelType>& average) {
  using Masters = typename Update<ModelType, O>::Gradients;
  using Master = typename ModelType::Master;
  const auto folder = resolve_folder(path);
  const auto state = detail::read_state(folder);
  const std::string expected = optimizer_name(update.optimizer());
  if (state.optimizer != expected || state.moments != update.moment_count()) {
    fail<MismatchError>((folder / "trainer.json").string(), ": is of the optimizer ", state.optimizer, " with ",
                        state.moments, " moments; expected ", expected, " with ", update.moment_count());
  }
  const Safetensors moments(folder / "optimizer.safetensors");
  detail::check_tensors<Masters, Master>(moments, update.moment_names());
  std::optional<Safetensors> averages;
  if (state.average > 0) {
    averages.emplace(folder / "average.safetensors");
    detail::check_tensors<Masters, Master>(*averages, {""});
  }
  load_model(folder, model);
  detail::read_tensors<Masters>(model.backend(), moments, update.moment_names(), update.moments());
  if (averages) {
    average.resume(state.average, state.averages);
    detail::read_tensors<Masters>(model.backend(), *averages, {""}, {average.buffer()});
  } else {
    average.stop();
  }
  return state;
}

/// Replaces a model's weights by the average in a full checkpoint, and its settings. Throws as `load_model`, and
/// FileError for a checkpoint without an average.
template <class Arch, Backend B>
void load_average(const std::filesystem::path& path, Model<Arch, B>& model) {
  const auto folder = resolve_folder(path);
  const Settings settings = read_config<Arch>(folder / "config.json");
  const Safetensors file(folder / "average.safetensors");
  detail::read_tensors<typename Model<Arch, B>::Weights>(model.backend(), file, {""}, {model.masters()});
  model.settings() = settings;
  model.refresh();
}

}  // namespace tinymoe::inline v0_1
