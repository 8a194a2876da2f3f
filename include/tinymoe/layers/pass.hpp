#pragma once
/// @file
/// What a layer is told about the pass it takes part in: shapes, positions and the model's real-valued settings.

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe {

/// Real-valued settings of a model: run-time values with the defaults of the field. They are stored in config.json.
struct Settings {
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;     // Su et al. 2021
  double balance_weight = 0.01;  // of the balance loss of each MoE layer (Fedus et al. 2021)
  double z_weight = 0.001;       // of the router's z-loss of each MoE layer (Zoph et al. 2022)

  friend bool operator==(const Settings&, const Settings&) = default;
};

/// One pass over `batch` sequences of `time` tokens each; row n = b·T + t of every activation is token t of sequence b.
struct Pass {
  Index batch = 1;           // B
  Index time = 0;            // T
  Index first_position = 0;  // of each sequence's first token; not zero when decoding
  Settings settings = {};
  double loss_scale = 1;  // of the routers' losses: 1 / (micro-batches in a step)

  constexpr Index rows() const { return batch * time; }  // N
};

}  // namespace tinymoe
