#pragma once
/// @file
/// trainer.json: a TrainingState in a checkpoint's folder.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/loss_scale.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/data_order.hpp"
#include "tinymoe/text/sequence_growth.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

[[gnu::cold]] inline Json growth_to_json(const SequenceGrowth& growth) {
  Json stages = Json::array();
  for (std::size_t i = 0; i < growth.size(); ++i) {
    stages.push_back(Json{{"time", growth.stages[i].time}, {"until", growth.stages[i].until}});
  }
  return stages;
}

/// Throws FileError for what is no list of stages that grow up to `time`.
[[gnu::cold]] inline SequenceGrowth growth_from_json(const Json& stages, Index time, const std::string& name) {
  SequenceGrowth growth;
  if (stages.is_null()) return growth;  // files from before sequences grew lack it
  if (!stages.is_array() || stages.size() > growth.stages.size()) {
    fail<FileError>(name, ": \"growth\": expected a list of at most ", growth.stages.size(), " stages");
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Json& stage = stages.items()[i];
    growth.stages[i] = {json_field<Index>(stage, "time", name, range::whole(1, 1 << 24)),
                        json_field<double>(stage, "until", name, range::from_0_to_1)};
  }
  try {
    growth.check(time);
  } catch (const OptionError& error) {
    fail<FileError>(name, ": \"growth\": ", error.what());
  }
  return growth;
}

[[gnu::cold]] inline Json to_json(const TrainingState& state) {
  Json file = {{"version", 2},
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
               {"growth", growth_to_json(state.data.growth)},
               {"data_tokens", state.data.tokens},
               {"data_fingerprint", state.data.fingerprint},
               {"average", state.average},
               {"averages", state.averages},
               {"loss_scale", state.loss_scale.value},
               {"loss_scale_steps", state.loss_scale.good_steps},
               {"best_loss", state.best_step >= 0 ? Json(state.best_loss) : Json()},
               {"best_step", state.best_step},
               {"evaluated_step", state.evaluated_step},
               {"evaluated_seconds", state.evaluated_seconds},
               {"recipe", state.recipe}};
  file.sort_keys();
  return file;
}

/// Reads the state in a checkpoint's folder. Throws FileError if it is missing or has impossible values.
[[gnu::cold]] inline TrainingState read_state(const std::filesystem::path& folder) {
  const auto path = folder / "trainer.json";
  const std::string name = path.string();
  if (!is_there(path) && is_there(folder / "model.safetensors")) {
    fail<FileError>(folder, ": holds weights only and no training state (trainer.json is missing), so that ",
                    "no run can be resumed from it; load_model starts a new one with its weights");
  }
  const Json file = read_json(path, std::size_t{1} << 20);
  if (json_field<Index>(file, "version", name) != 2) fail<MismatchError>(name, ": is of another version of tinymoe");
  TrainingState state;
  state.optimizer = json_field<std::string>(file, "optimizer", name);
  constexpr NumberRange count = range::whole(0);
  state.moments = json_field<Index>(file, "moments", name, count);
  state.step = json_field<Index>(file, "step", name, range::whole(0, 0x1p40));
  state.tokens = json_field<Index>(file, "tokens", name, count);
  state.seconds = json_field<double>(file, "seconds", name, range::from_0);
  state.data.seed = json_field<std::uint64_t>(file, "seed", name);
  state.data.batch = json_field<Index>(file, "batch", name, count);
  state.data.time = json_field<Index>(file, "time", name, count);
  state.data.accumulation = json_field<Index>(file, "accumulation", name, count);
  const auto batching = json_field<std::string>(file, "batching", name);
  state.data.batching = batching == "padded" ? Batching::padded : Batching::packed;
  state.data.growth = growth_from_json(file["growth"], state.data.time, name);
  state.data.tokens = json_field<Index>(file, "data_tokens", name, count);
  state.data.fingerprint = json_field<std::uint64_t>(file, "data_fingerprint", name);
  state.average = json_field<double>(file, "average", name, range::from_0_below_1);
  state.averages = json_field<Index>(file, "averages", name, count);
  if (file.contains("loss_scale")) {  // files from before float16 lack it
    state.loss_scale.value = json_field<double>(file, "loss_scale", name);
    state.loss_scale.good_steps = json_field<Index>(file, "loss_scale_steps", name);
  }
  state.best_step = json_field<Index>(file, "best_step", name, range::whole(-1));
  // Files from before it was stored had evaluated what was due.
  state.evaluated_step = json_field_or<Index>(file, "evaluated_step", name, state.step);
  state.evaluated_seconds = json_field_or<double>(file, "evaluated_seconds", name, state.seconds);
  state.recipe = file["recipe"];
  if (state.best_step >= 0) state.best_loss = json_field<double>(file, "best_loss", name, range::any);
  if (!state.loss_scale.valid()) {
    fail<FileError>(name, ": \"loss_scale\": expected a power of two from 1 to ", LossScale::max_value,
                    " and fewer than ", LossScale::patience, " steps, found ", state.loss_scale.value, " after ",
                    state.loss_scale.good_steps);
  }
  if (batching != DataOrder::name(state.data.batching)) {
    fail<FileError>(name, ": \"batching\": expected packed or padded, found ", batching);
  }
  return state;
}

}  // namespace detail

/// The FitOptions::recipe of the program that trained a checkpoint; null if it gave none. Throws FileError, and
/// MismatchError for a checkpoint of another version.
[[gnu::cold]] inline Json training_recipe(const std::filesystem::path& checkpoint) {
  return detail::open_together(checkpoint, "trainer.json",
                               [](const std::filesystem::path& folder) { return detail::read_state(folder).recipe; });
}

}  // namespace tinymoe::inline v0_1
