#pragma once
/// @file
/// How a model is trained by `Trainer::fit`.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/sequence_growth.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/observer.hpp"

namespace tinymoe::inline v0_1 {

/// How a model is trained. A run ends after `steps` or `minutes`, whichever is first; one of them must be given.
struct FitOptions {
  Index batch = 16;                      // B, sequences of a micro-batch
  Index time = 0;                        // T, tokens of a sequence; 0: the model's context
  SequenceGrowth growth = {};            // shorter sequences first, in packed batches; none: all have T tokens
  Batching batching = Batching::packed;  // padded: one story in each row; it needs the tokenizer
  Index accumulation = 1;                // micro-batches of a step; several ranks share them in turn
  bool recompute =
      false;  // activation checkpointing: backward computes the blocks again; less memory, one more forward
  Index steps = 0;
  double minutes = 0;
  double clip = 1;     // max norm of the gradients; 0: none
  double average = 0;  // decay of the weights' moving average, say 0.999, which evaluations use; 0: none
  Seed seed = {};      // of the order of the data, and of dropout and noise

  /// When to evaluate during the run (it is always done at the end).
  Index evaluate_every = 0;     // steps; 0: not by steps
  double evaluate_minutes = 0;  // of training, which leaves out evaluations and checkpoints; 0: not by time
  const TokenData* validation = nullptr;
  /// When to write the latest checkpoint during the run (it is always written at the end).
  Index checkpoint_every = 500;    // steps; 0: not by steps
  double checkpoint_minutes = 10;  // since the last one; 0: not by time
  /// Folders to write to. The run makes and locks them before the first step. Other files in them stay as they are.
  std::filesystem::path checkpoint = {};    // the latest, to resume from; empty: none
  std::filesystem::path best = {};          // a full checkpoint, at each new lowest validation loss
  std::filesystem::path best_weights = {};  // the same without training state; of the average where there is one
  const Tokenizer* tokenizer = nullptr;     // is saved in checkpoints, which need one
  std::filesystem::path metrics = {};       // a CSV file, written by a MetricsFile; empty: none
  Json recipe = nullptr;                    // is saved in checkpoints as it is, for the program that resumes the run

  std::vector<Observer*> observers = {};  // called in this order; not owned
  std::function<bool()> stop = {};        // true ends the run early, with a checkpoint; called after
                                          // each step and evaluation, which are not cut short
};

namespace detail {

/// Whether two paths are of one folder or file, however they are spelled; it need not exist.
[[gnu::cold]] inline bool same_place(const std::filesystem::path& one, const std::filesystem::path& other) {
  const auto plain = [](const std::filesystem::path& path) {
    std::error_code unreadable;
    const auto whole = std::filesystem::absolute(write_target(path));
    const auto canonical = std::filesystem::weakly_canonical(whole, unreadable);
    return unreadable ? whole.lexically_normal() : canonical;
  };
  return plain(one) == plain(other);
}

/// Throws TrainingError or OptionError for options that contradict each other or are out of range.
[[gnu::cold]] inline void check(const FitOptions& o) {
  using namespace range;
  check_options("FitOptions", {{"batch", o.batch, whole(1, 1 << 24)},
                               {"time", o.time, whole(0, 1 << 24)},
                               {"accumulation", o.accumulation, whole(1, 1 << 16)},
                               {"steps", o.steps, whole(0)},
                               {"minutes", o.minutes, from_0},
                               {"clip", o.clip, from_0},
                               {"average", o.average, from_0_below_1},
                               {"evaluate_every", o.evaluate_every, whole(0)},
                               {"evaluate_minutes", o.evaluate_minutes, from_0},
                               {"checkpoint_every", o.checkpoint_every, whole(0)},
                               {"checkpoint_minutes", o.checkpoint_minutes, from_0}});
  if (o.steps == 0 && o.minutes == 0) fail<TrainingError>("a run needs a number of steps or of minutes");
  for (const auto& path : {o.checkpoint, o.best, o.best_weights}) {
    if (!path.empty() && o.tokenizer == nullptr)
      fail<TrainingError>(path.string(), ": a checkpoint needs the tokenizer");
  }
  for (const auto& path : {o.best, o.best_weights}) {
    if (!path.empty() && o.validation == nullptr) {
      fail<TrainingError>(path.string(), ": the best checkpoint needs validation data");
    }
  }
  const std::filesystem::path* folders[] = {&o.checkpoint, &o.best, &o.best_weights};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = i + 1; j < 3; ++j) {
      if (folders[i]->empty() || folders[j]->empty() || !same_place(*folders[i], *folders[j])) continue;
      fail<TrainingError>(folders[j]->string(), ": the latest, the best and the best weights need a folder each");
    }
  }
  for (const auto* folder : folders) {
    for (const std::string_view name : checkpoint_files) {
      if (o.metrics.empty() || folder->empty() || !same_place(o.metrics, *folder / name)) continue;
      fail<TrainingError>(o.metrics.string(), ": the metrics have the name of a checkpoint's file; give another one");
    }
  }
  if (o.batching == Batching::padded && o.tokenizer == nullptr) {
    fail<TrainingError>("padded batches need the tokenizer, which knows the end of a story");
  }
  if (o.batching == Batching::padded && !o.growth.empty()) {
    fail<OptionError>("sequences grow in packed batches alone; padded ones have a story in each");
  }
  for (const Observer* observer : o.observers) {
    if (observer == nullptr) fail<OptionError>("an observer is a null pointer");
  }
}

/// Throws MismatchError unless one tokenizer, that of the checkpoints, encoded training and validation data.
[[gnu::cold]] inline void check_vocabularies(const TokenData& data, const FitOptions& o) {
  const auto expect = [&](const char* name, Index size, std::optional<std::uint64_t> fingerprint) {
    if (size != data.vocabulary_size()) {
      fail<MismatchError>(name, " has a vocabulary of ", size, " tokens, the training data one of ",
                          data.vocabulary_size(), "; encode all data with the run's tokenizer");
    }
    if (fingerprint && data.tokenizer_fingerprint() && *fingerprint != *data.tokenizer_fingerprint()) {
      fail<MismatchError>(name, " has another vocabulary than the training data, of as many tokens; encode all data ",
                          "with the run's tokenizer");
    }
  };
  if (o.validation != nullptr) {
    expect("the validation data", o.validation->vocabulary_size(), o.validation->tokenizer_fingerprint());
  }
  if (o.tokenizer != nullptr) expect("the tokenizer", o.tokenizer->vocabulary_size(), o.tokenizer->fingerprint());
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
