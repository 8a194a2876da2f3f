#pragma once
/// @file
/// A block's threads as fibers: which one runs when, and where they meet.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace cuda_emulator {

/// Where a kernel calls. The standard library of g++ 12 has no std::source_location for clang 14.
#ifdef __cpp_lib_source_location
using Place = std::source_location;
#else
class Place {
 public:
  static constexpr Place current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE(),
                                 unsigned column = __builtin_COLUMN()) {
    Place place;
    place.file_ = file, place.line_ = line, place.column_ = column;
    return place;
  }
  constexpr const char* file_name() const { return file_; }
  constexpr unsigned line() const { return line_; }
  constexpr unsigned column() const { return column_; }

 private:
  const char* file_ = "";
  unsigned line_ = 0, column_ = 0;
};
#endif

/// In which order threads get their turns. Alternating goes by the numbers of the launch and the block.
struct Order {
  enum class Kind { alternate, forward, backward, random } kind = Kind::alternate;
  std::uint64_t seed = 0;
};
void set_thread_order(Order order);

/// Prints what went wrong in the running kernel and where its threads are, then aborts.
[[noreturn]] void stop(const char* what);

enum class Meeting : std::uint8_t {
  none,
  shuffle_xor,
  shuffle,
  ballot,
  sync_warp,
  load_matrices,
  load_matrices_transposed,
  multiply_add,
  sync_block,
};
inline constexpr const char* meeting_names[] = {
    "nothing",      "shuffle_xor", "shuffle", "ballot", "sync_warp", "load_matrices", "load_matrices_transposed",
    "multiply_add", "sync_block"};

/// The inputs and outputs of a collective, for each lane of the warp.
struct Exchange {
  struct alignas(8) Input {
    std::byte bytes[40];
  };
  struct alignas(8) Output {
    std::byte bytes[16];
  };
  Input input[32];
  Output output[32];
};

/// A kernel with its arguments: one thread of it is call(context).
struct Body {
  void (*call)(const void* context);
  const void* context;
};
/// Runs a grid to its end, block after block.
void run_grid(dim3 blocks, dim3 threads, std::size_t shared_bytes, Body body);

/// The rest is for the running thread.
inline constinit unsigned current_thread = 0;
inline unsigned lane() { return current_thread % 32; }
/// Meets the other lanes of the warp with `bytes` of input; the last one to come calls `finish`, which may write the
/// outputs of all. The exchange stays as it is until this lane meets the others again.
const Exchange& meet_warp(Meeting meeting, const void* input, std::size_t bytes, void (*finish)(Exchange&),
                          const Place& place);
void meet_block(const Place& place);

/// The block's dynamic shared memory; it ends where a guard page begins.
std::byte* dynamic_shared_memory();

/// Static shared memory, filled with garbage when a block first asks for it; the zone behind it is checked at the end.
struct StaticMemory {
  static constexpr std::size_t zone = 64;
  std::byte* memory;
  std::size_t bytes;
  std::uint64_t block = 0;  // the serial number of the block that has it
};
std::byte* claim(StaticMemory& memory);
/// Stops unless [address, address + bytes) is shared memory of the block.
void check_shared(const void* address, std::size_t bytes);

/// 16 bytes from global to shared memory, when this thread waits for them.
void start_copy(void* to, const void* from);
void close_copies();
void finish_copies(int pending_groups);

}  // namespace cuda_emulator
