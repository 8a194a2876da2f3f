#pragma once
/// @file
/// Device memory, closed to the host, and pinned memory.

#include <cstddef>

namespace cuda_emulator {

inline constexpr std::size_t device_memory_bytes = std::size_t{8} << 30;
inline constexpr std::size_t shared_memory_plain = 48 * 1024, shared_memory_most = 227 * 1024;

constexpr std::size_t round_up_to(std::size_t size, std::size_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

/// Whether all of [address, address + bytes) is memory from one cudaMalloc that is not yet freed.
bool is_device(const void* address, std::size_t bytes);
/// Whether the address is anywhere in what is set aside for device memory.
bool is_device_address(const void* address);
/// The same for cudaMallocHost.
bool is_pinned(const void* address, std::size_t bytes);

/// While one of these lives, device memory can be read and written.
class OpenMemory {
 public:
  OpenMemory();
  ~OpenMemory();
  OpenMemory(const OpenMemory&) = delete;
};

/// nullptr where there is not enough.
void* allocate_device(std::size_t bytes);
/// False where the address is not one that allocate_device gave; stops where the bytes around it have changed.
bool free_device(void* address);
std::size_t device_bytes_used();

void* allocate_pinned(std::size_t bytes);
bool free_pinned(void* address);

}  // namespace cuda_emulator
