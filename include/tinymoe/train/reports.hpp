#pragma once
/// @file
/// The reports of training: of a step, an evaluation, a checkpoint and the end of a run.

#include <cmath>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// For each mixture in order, the (token, choice) pairs that each of its experts got.
using ExpertLoads = std::vector<std::vector<Index>>;

/// One optimizer step. Losses and tokens are those of all ranks.
struct StepReport {
  Index step = 0;             // steps done, this one included
  Index tokens = 0;           // trained on since the run began
  double loss = 0;            // cross-entropy, nats per scored token
  double balance_loss = 0;    // of all tokens of the step, mean over the mixtures; for even loads 1, with CvBalance 0
  double z_loss = 0;          // mean over the step's tokens and the mixtures
  double load_variation = 0;  // coefficient of variation of the experts' loads in the step, mean over the mixtures
  double gradient_norm = 0;   // before clipping
  double learning_rate = 0;
  double seconds = 0;                // of training since the run began, without the time of observers
  double tokens_per_second = 0;      // of this step
  double fraction = 0;               // of the budget that is spent
  double loss_scale = 1;             // float16: what the loss was multiplied by
  bool skipped = false;              // float16: the gradients were not finite, and the step was not taken
  std::size_t state_bytes = 0;       // of gradients, optimizer state and average, on this rank
  std::size_t activation_bytes = 0;  // of the block of the activations
};

/// A pass over a whole data set, without gradients.
struct EvaluationReport {
  double loss = 0;           // nats per scored token
  double bits_per_byte = 0;  // of the data's text; 0 if its size in bytes is not known
  Index tokens = 0;          // scored
  ExpertLoads loads = {};

  /// The mean over the mixtures of the coefficient of variation (deviation / mean) of the loads.
  double load_variation() const { return load_variation_of(loads); }

  /// The same of any loads; 0 without mixtures.
  static double load_variation_of(const ExpertLoads& loads) {
    double total = 0;
    for (const auto& layer : loads) total += coefficient_of_variation(layer);
    return loads.empty() ? 0 : total / static_cast<double>(loads.size());
  }

  /// Standard deviation over mean; 0 without any load.
  static double coefficient_of_variation(const std::vector<Index>& loads) {
    double sum = 0, squares = 0;
    for (const Index load : loads) sum += static_cast<double>(load);
    if (loads.empty() || sum == 0) return 0;
    const double mean = sum / static_cast<double>(loads.size());
    for (const Index load : loads) squares += (static_cast<double>(load) - mean) * (static_cast<double>(load) - mean);
    return std::sqrt(squares / static_cast<double>(loads.size())) / mean;
  }
};

/// A checkpoint that has been written completely.
struct CheckpointReport {
  enum class Kind { latest, best, best_weights };
  Kind kind = Kind::latest;
  std::filesystem::path path = {};
  double seconds = 0;  // to write it
};

/// How a run ended.
struct EndReport {
  enum class How { budget, stopped, error };
  How how = How::budget;          // the steps or minutes are spent; `stop` returned true; an exception
  std::string message = {};       // of the error
  std::exception_ptr error = {};  // the exception that `fit` throws; null without an error
};

}  // namespace tinymoe::inline v0_1
