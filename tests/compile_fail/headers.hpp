#pragma once
// What the wrong programs include, compiled once for all of them.

#include <tinymoe/checkpoint/checkpoint.hpp>
#include <tinymoe/checkpoint/llama2c.hpp>
#include <tinymoe/checkpoint/upcycle.hpp>
#include <tinymoe/train/optimizer_step.hpp>

#include "small.hpp"
