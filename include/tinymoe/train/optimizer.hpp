#pragma once
/// @file
/// Optimizers: a pass over the one buffer of weights.

#include "tinymoe/train/adamw.hpp"
#include "tinymoe/train/any_optimizer.hpp"
#include "tinymoe/train/lion.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/optimizer_step.hpp"
