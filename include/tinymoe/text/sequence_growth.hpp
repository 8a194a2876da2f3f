#pragma once
/// @file
/// Training on short sequences first and on longer ones later.

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// The lengths of a run's sequences before the full one: `SequenceGrowth{{{{64, 0.1}, {128, 0.4}}}}` has
/// sequences of 64 tokens for the first tenth of the budget, of 128 up to four tenths, and then full ones. A step has
/// as many sequences as fit into the tokens of a full step. A small model learns faster from short sequences, which
/// cost less attention too, until it knows what a sentence is (Li, Zhang and He 2022, "The Stability-Efficiency
/// Dilemma").
///
/// Each stage cuts the data anew and has an order of its own. In the epoch in which a stage ends, some tokens are
/// therefore met twice and some not at all. A run that is resumed with a larger budget has spent a smaller share of it,
/// so its sequences may become shorter again, as its learning rate rises again. Validations are in full sequences. A
/// model that has met short ones alone for long does badly in them until it meets longer ones.
struct SequenceGrowth {
  /// Sequences of one length, up to a share of the run.
  struct Stage {
    Index time = 0;    // T; 0: no stage
    double until = 0;  // the share of the budget at which it ends, above 0 and below 1

    friend bool operator==(const Stage&, const Stage&) = default;
  };
  std::array<Stage, 8> stages = {};  // the unused ones are last

  friend bool operator==(const SequenceGrowth&, const SequenceGrowth&) = default;

  std::size_t size() const {
    std::size_t count = 0;
    while (count < stages.size() && stages[count].time > 0) ++count;
    return count;
  }
  bool empty() const { return size() == 0; }

  /// The number of the stage where `fraction` of the budget is spent; `size()`: the sequences are full.
  std::size_t stage_at(double fraction) const {
    std::size_t stage = 0;
    while (stage < size() && !(fraction < stages[stage].until)) ++stage;
    return stage;
  }

  /// The stages that are shorter than `time`.
  SequenceGrowth below(Index time) const {
    SequenceGrowth kept;
    for (std::size_t i = 0; i < size() && stages[i].time < time; ++i) kept.stages[i] = stages[i];
    return kept;
  }

  /// "64=0.1,128=0.4"; empty without stages.
  std::string text() const {
    std::string all;
    for (std::size_t i = 0; i < size(); ++i) {
      if (i > 0) all += ',';
      all += std::to_string(stages[i].time) + '=' + detail::shortest_text(stages[i].until);
    }
    return all;
  }

  /// Throws OptionError, which begins with `name`, unless lengths and shares grow from stage to stage, lengths below
  /// `time` and shares below 1.
  void check(Index time, std::string_view name = "SequenceGrowth") const {
    Index last = 0;
    double from = 0;
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const Stage& stage = stages[i];
      if (i >= size()) {
        if (stage == Stage{}) continue;
        fail<OptionError>(name, ": a length must be at least 1, found ", stage.time);
      }
      if (stage.time <= last || stage.time >= time) {
        fail<OptionError>(name, ": the lengths must grow and be below the full ", time, " tokens, found ", text());
      }
      if (!(stage.until > from && stage.until < 1)) {
        fail<OptionError>(name, ": the shares of the budget must grow, above 0 and below 1, found ", text());
      }
      last = stage.time, from = stage.until;
    }
  }
};

}  // namespace tinymoe::inline v0_1
