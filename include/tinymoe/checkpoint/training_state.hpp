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
  Json recipe = nullptr;                                       // FitOptions::recipe
};

}  // namespace tinymoe::inline v0_1
