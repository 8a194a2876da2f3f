#pragma once
/// @file
/// Full checkpoints: optimizer.safetensors, trainer.json and, where there is one, average.safetensors beside a model's
/// own files. A run that is resumed from them ends in the same bits as one that was never interrupted.

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/config.hpp"
#include "tinymoe/checkpoint/hub_config.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/checkpoint/special_tokens_json.hpp"
#include "tinymoe/checkpoint/tensor_names.hpp"
#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/checkpoint/training_state_json.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/safetensors_shards.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The prefixes of the moments' tensors on disk, one for each moment.
[[gnu::cold]] inline std::vector<std::string> moment_names(Index moments) {
  std::vector<std::string> names;
  for (Index i = 1; i <= moments; ++i) names.push_back("moment" + std::to_string(i) + ".");
  return names;
}

/// Writes a full checkpoint: model, tokenizer, the optimizer's moments, the weights' average (empty: there is none) and
/// the state. read_moment(moment, place, numbers) reads numbers of a moment, in the order of `read_moments`. The old
/// files count until all new ones are on the disk; see AtomicFolder. model.safetensors has the masters. Throws
/// FileError.
template <class Arch, Backend B, class W, class Read>
void save_training(const std::filesystem::path& path, const Model<Arch, B, W>& model, const Tokenizer& tokenizer,
                   const TrainingState& state, View<typename B::Master> average, Read&& read_moment) {
  using Master = typename B::Master;
  using Masters = typename Arch::template Parameters<Master>;
  AtomicFolder folder(path, detail::checkpoint_files);
  detail::write_model(folder, model, tokenizer);
  folder.write("optimizer.safetensors", [&](FileWriter& file) {
    detail::write_tensors<Master>(file, detail::disk_tensors<Masters>(), detail::moment_names(state.moments), {},
                                  read_moment);
  });
  if (!average.empty()) {
    folder.write("average.safetensors", [&](FileWriter& file) {
      const auto tensors = model_tensors<Arch, Masters>(hub_for(shape_of(describe<Arch>())).hub);
      detail::write_tensors(model.backend(), file, tensors, average, {{"format", "pt"}});
    });
  }
  folder.write("trainer.json", [&](FileWriter& file) { file.write(detail::to_json(state).dump(2) + "\n"); });
  folder.commit();
}

/// The calls of `read_moment` that `save_training` makes, and nothing else: of the ranks that do not write.
template <class Arch, class Master, class Read>
[[gnu::cold]] void read_moments(Index moments, Read&& read_moment) {
  for_each_block<Master>(disk_tensors<typename Arch::template Parameters<Master>>(), static_cast<std::size_t>(moments),
                         read_moment, [](auto&&...) {});
}

/// An open full checkpoint. All of it is checked before anything is changed.
template <class Arch, Backend B>
class TrainingCheckpoint {
 public:
  using Master = typename B::Master;
  using Masters = typename Arch::template Parameters<Master>;

  /// Throws FileError for a folder that is no full checkpoint, and MismatchError if it is of another optimizer or
  /// number of moments, or its buffers do not fit the architecture.
  [[gnu::cold]] TrainingCheckpoint(const std::filesystem::path& path, const std::string& optimizer, Index moments)
      : files_(open_together(path, detail::checkpoint_files[0],
                             [&](const std::filesystem::path& folder) { return Files(folder, optimizer, moments); })) {
    detail::check_tensors<Master>(files_.moments, detail::disk_tensors<Masters>(), detail::moment_names(moments));
    if (files_.average) detail::check_tensors<Master>(*files_.average, weights(), {""});
  }

  const TrainingState& state() const { return files_.state; }

  /// Replaces the model's weights and settings. Throws as load_model; nothing is changed then.
  template <class W>
  void load(Model<Arch, B, W>& model) const {
    files_.model.load(model);
  }
  /// Fills `average` where the checkpoint has one, and a share of the moments: for_each_run(f) calls f(first, last,
  /// place) for each run of elements of it and its place in `moments`.
  template <class Runs>
  [[gnu::cold]] void load(B& backend, View<Master> average, const std::vector<View<Master>>& moments,
                          Runs&& for_each_run) const {
    const auto tensors = detail::disk_tensors<Masters>();
    const auto names =
        detail::check_tensors<Master>(files_.moments, tensors, detail::moment_names(std::ssize(moments)));
    for (std::size_t i = 0; i < moments.size(); ++i) {
      const auto of_moment = std::span(names).subspan(i * tensors.size(), tensors.size());
      for_each_run([&](Index first, Index last, Index place) {
        detail::copy_tensors(backend, files_.moments, tensors, of_moment, moments[i].middle_cols(place, last - first),
                             first);
      });
    }
    if (files_.average) detail::read_tensors(backend, *files_.average, weights(), average);
  }

 private:
  /// The weights as the file of the average has them: as config.json says, like model.safetensors.
  std::vector<DiskTensor> weights() const { return model_tensors<Arch, Masters>(files_.model.config.hub); }

  /// All of one save.
  struct Files {
    TrainingState state;
    SafetensorsShards moments;
    std::optional<SafetensorsShards> average;
    detail::ModelFiles<Arch> model;

    Files(const std::filesystem::path& folder, const std::string& optimizer, Index moment_count)
        : state(state_of(folder, optimizer, moment_count)),
          moments(folder / "optimizer.safetensors"),
          model(folder, "model.safetensors") {
      if (state.average > 0) average.emplace(folder / "average.safetensors");
    }
  };

  [[gnu::cold]] static TrainingState state_of(const std::filesystem::path& folder, const std::string& optimizer,
                                              Index moments) {
    TrainingState state = detail::read_state(folder);
    if (state.optimizer != optimizer || state.moments != moments) {
      fail<MismatchError>((folder / "trainer.json").string(), ": is of the optimizer ", state.optimizer, " with ",
                          state.moments, " moments; expected ", optimizer, " with ", moments);
    }
    return state;
  }

  Files files_;
};

}  // namespace detail

/// Replaces a model's weights by the moving average in a full checkpoint, and its settings and special tokens by the
/// checkpoint's. Throws as `load_model`, and FileError for a checkpoint without an average.
template <class Arch, Backend B, class W>
void load_average(const std::filesystem::path& path, Model<Arch, B, W>& model) {
  detail::ModelFiles<Arch>::open(path, "average.safetensors").load(model);
}

}  // namespace tinymoe::inline v0_1
