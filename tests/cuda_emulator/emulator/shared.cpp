// A block's shared memory, asynchronous copies into it, and what is printed when a kernel goes wrong.

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "emulator/machine.hpp"
#include "emulator/memory.hpp"

namespace cuda_emulator {

void prepare_shared() {
  constexpr std::size_t page_bytes = 4096;
  Machine& m = machine();
  if (m.shared_end == nullptr) {
    const std::size_t bytes = round_up_to(shared_memory_most, page_bytes);
    auto* memory = static_cast<std::byte*>(
        mmap(nullptr, bytes + page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED || mprotect(memory + bytes, page_bytes, PROT_NONE) != 0) stop("no shared memory");
    m.shared_end = memory + bytes;
  }
  m.static_memories.clear();
  std::memset(dynamic_shared_memory(), 0xff, static_cast<std::size_t>(m.shared_end - dynamic_shared_memory()));
}

void check_zones() {
  for (const StaticMemory* memory : machine().static_memories) {
    for (std::size_t i = 0; i < StaticMemory::zone; ++i) {
      if (memory->memory[memory->bytes + i] != std::byte{0xff}) stop("a write past the end of static shared memory");
    }
  }
}

std::byte* dynamic_shared_memory() { return machine().shared_end - round_up_to(machine().shared_bytes, 16); }

std::byte* claim(StaticMemory& memory) {
  Machine& m = machine();
  if (memory.block != m.blocks) {
    memory.block = m.blocks;
    std::memset(memory.memory, 0xff, memory.bytes + StaticMemory::zone);
    m.static_memories.push_back(&memory);
    std::size_t total = 0;
    for (const StaticMemory* each : m.static_memories) total += round_up_to(each->bytes, 16);
    if (total > shared_memory_plain) stop("more than 48 KiB of static shared memory");
    if (total + m.shared_bytes > shared_memory_most) stop("static and dynamic shared memory together are too much");
  }
  return memory.memory;
}

void check_shared(const void* address, std::size_t bytes) {
  const Machine& m = machine();
  const auto inside = [=](const std::byte* begin, std::size_t size) {
    const auto first = reinterpret_cast<std::uintptr_t>(begin), at = reinterpret_cast<std::uintptr_t>(address);
    return at >= first && at + bytes <= first + size;
  };
  if (inside(dynamic_shared_memory(), m.shared_bytes)) return;
  for (const StaticMemory* memory : m.static_memories) {
    if (inside(memory->memory, memory->bytes)) return;
  }
  stop("an address outside the block's shared memory");
}

void start_copy(void* to, const void* from) {
  Thread& thread = machine().threads[current_thread];
  check_shared(to, 16);
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
    stop("an asynchronous copy between addresses that are not aligned to 16");
  }
  if (!is_device(from, 16)) stop("an asynchronous copy from outside device memory");
  // The copy may happen at any time from now on, so the bytes that are there are lost for other readers.
  std::memset(to, 0xff, 16);
  thread.copies.push_back({to, from, thread.closed_groups});
}

void close_copies() { ++machine().threads[current_thread].closed_groups; }

void finish_copies(int pending_groups) {
  Thread& thread = machine().threads[current_thread];
  std::size_t done = 0;
  for (; done < thread.copies.size(); ++done) {
    const Copy& copy = thread.copies[done];
    if (copy.group + static_cast<std::uint32_t>(pending_groups) >= thread.closed_groups) break;
    std::memcpy(copy.to, copy.from, 16);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

void stop(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  if (the_machine != nullptr && the_machine->running) {
    const Machine& m = *the_machine;
    std::fprintf(stderr, "  block (%u, %u, %u), thread (%u, %u, %u)\n", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
                 threadIdx.y, threadIdx.z);
    const auto at = [](Meeting meeting, const Place& place) {
      return std::string(meeting_names[static_cast<int>(meeting)]) + " at " + place.file_name() + ":" +
             std::to_string(place.line());
    };
    std::string last;
    for (unsigned i = 0; i < m.count; ++i) {
      const Warp& warp = m.warps[i / 32];
      const auto in = [=](std::uint32_t lanes) { return (lanes >> i % 32 & 1u) != 0; };
      std::string state = "is not waiting";
      if (i == current_thread && m.comes_to != Meeting::none) {
        state = "comes to " + at(m.comes_to, m.comes_at);
      } else if (in(warp.exited)) {
        state = "has exited";
      } else if (in(warp.fresh)) {
        state = "has not begun";
      } else if (in(warp.arrived)) {
        state = "waits in " + at(warp.meeting, warp.place);
      } else if (in(warp.at_barrier)) {
        state = "waits in " + at(Meeting::sync_block, m.barrier);
      }
      // Neighbours in the same state are one line.
      if (state != last) std::fprintf(stderr, "  from thread %u of %u: %s\n", i, m.count, state.c_str());
      last = state;
    }
  }
  std::fflush(stderr);
  std::abort();
}

}  // namespace cuda_emulator
