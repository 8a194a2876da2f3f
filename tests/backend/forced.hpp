#pragma once

#include "amx_emulator/emulator.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test {

/// A CPU backend of a set that the processor need not have: AMX, whose instructions the emulator executes.
template <class B>
struct Forced : B {
  Forced(int threads, tinymoe::CpuInstructions set) : B(threads, set) {}
};

}  // namespace tinymoe_test
