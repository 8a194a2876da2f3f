#pragma once
/// @file
/// The state of the emulated machine, for the files that make it up.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "emulator/fibers.hpp"

namespace cuda_emulator {

inline constexpr std::uint32_t all_lanes = 0xffffffffu;

struct Fiber {
  void* pointer = nullptr;  // of the stack, while it does not run
  void* bottom = nullptr;
  std::size_t bytes = 0;
};

struct Copy {
  void* to;
  const void* from;
  std::uint32_t group;
};

struct Thread {
  Fiber* fiber = nullptr;
  uint3 index{};
  std::uint32_t closed_groups = 0;
  std::vector<Copy> copies;
};

struct Warp {
  std::uint32_t present = 0, fresh = 0, ready = 0, exited = 0;  // lanes, as bits; fresh ones have not begun
  std::uint32_t at_barrier = 0;
  std::uint32_t arrived = 0;  // at the collective below
  Meeting meeting = Meeting::none;
  Place place{};
  unsigned parity = 0;
  // Two, so that a lane that is already in the next collective does not overwrite what the others still read.
  Exchange exchange[2];
};

/// All there is of the machine: one block runs at a time, on one host thread.
struct Machine {
  Fiber host;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::array<Thread, 1024> threads;
  std::array<Warp, 32> warps;
  Body body{};
  dim3 shape{0, 0, 0};  // of the block that the threads' indices are of
  bool running = false;
  unsigned count = 0, live = 0, waiting = 0;  // threads: of the block, not exited, at the barrier
  std::uint32_t runnable = 0;                 // warps with lanes that are fresh or ready
  bool from_first = true;                     // whether the next choice begins again at the first warp
  Place barrier{};
  // What the running thread has just come to, for the message when it may not.
  Meeting comes_to = Meeting::none;
  Place comes_at{};

  Order order{};
  bool order_known = false, backward = false, random = false;
  std::uint64_t random_state = 0, launches = 0, blocks = 0;

  std::byte* shared_end = nullptr;
  std::size_t shared_bytes = 0;
  std::vector<StaticMemory*> static_memories;
};
// Made when first needed and never freed: kernels may run while static objects are made and destroyed.
inline constinit Machine* the_machine = nullptr;
inline Machine& machine() { return *the_machine; }

/// Fills the block's shared memory with garbage; looks for writes past the end of static ones.
void prepare_shared();
void check_zones();

}  // namespace cuda_emulator
