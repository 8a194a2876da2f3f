#pragma once
/// @file
/// What a checkpoint remembers of a run besides the model's weights and the optimizer's arrays.

#include <limits>
#include <string>

#include "tinymoe/core/loss_scale.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/data_order.hpp"

namespace tinymoe::inline v0_1 {

/// How far a run has come, and what it needs to go on.
struct TrainingState {
  std::string optimizer = {};  // its name
  Index moments = 0;           // arrays that the optimizer keeps
  Index step = 0, tokens = 0;  // done
  double seconds = 0;          // of training
  DataOrder data = {};
  double average = 0;                                          // decay of the weights' moving average; 0: there is none
  Index averages = 0;                                          // steps that the average has taken
  LossScale loss_scale = {};                                   // for float16; unchanged in other types
  double best_loss = std::numeric_limits<double>::infinity();  // of the validations so far
  Index best_step = -1;                                        // of the best loss; -1: none yet
  Index evaluated_step = -1;                                   // of the last validation; -1: none yet
  double evaluated_seconds = 0;                                // of training, at the last validation
  Json recipe = nullptr;                                       // FitOptions::recipe
};

}  // namespace tinymoe::inline v0_1
