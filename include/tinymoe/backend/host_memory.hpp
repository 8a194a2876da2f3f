#pragma once
/// @file
/// Memory of the host. Linux promises more than it has and kills the process that uses it; a run learns here, before
/// its first step, that it cannot fit.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"

namespace tinymoe::inline v0_1::detail {

/// The number after `label` in a small file of the system, or after nothing; the largest number if there is none.
inline std::size_t number_in(const char* path, const char* label) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return none;
  char text[4096];
  const auto size = ::read(file, text, sizeof text - 1);
  ::close(file);
  if (size <= 0) return none;
  text[size] = '\0';
  const char* found = std::strstr(text, label);
  if (found == nullptr) return none;
  found += std::strlen(label);
  char* end = nullptr;
  const auto number = std::strtoull(found, &end, 10);
  return end == found ? none : static_cast<std::size_t>(number);  // "max": no limit
}

/// Bytes that all processes of this machine, or of this container, can have at most: memory and swap.
inline std::size_t host_memory() {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::size_t bytes = none;
  const std::size_t memory = number_in("/proc/meminfo", "MemTotal:"), swap = number_in("/proc/meminfo", "SwapTotal:");
  if (memory != none) bytes = (memory + (swap == none ? 0 : swap)) * 1024;
  bytes = std::min(bytes, number_in("/sys/fs/cgroup/memory.max", ""));
  return std::min(bytes, number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", ""));
}

/// Zeroed memory of the host, in huge pages if the system has them. Throws DeviceError if there is not enough: what is
/// asked for and what was, together, are more than the machine or the container has.
inline Memory allocate_host_memory(std::size_t bytes) {
  static std::atomic<std::size_t> in_use = 0;
  const auto refuse = [&](std::size_t available) {
    fail<DeviceError>("out of memory: ", bytes, " bytes were asked for (", bytes >> 20, " MiB), ", in_use >> 20,
                      " MiB are in use and there are ", available >> 20,
                      " MiB in all; a smaller batch, shorter sequences or recomputation need less");
  };
  constexpr std::size_t worth_asking = std::size_t{64} << 20;
  if (bytes >= worth_asking) {
    const std::size_t available = host_memory(), used = in_use;
    if (bytes > available || used > available - bytes) refuse(available);
  }
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) refuse(host_memory());
#ifdef MADV_HUGEPAGE
  ::madvise(address, bytes, MADV_HUGEPAGE);
#endif
  in_use += bytes;
  return {address, bytes, [](void* block, std::size_t size) {
            ::munmap(block, size);
            in_use -= size;
          }};
}

}  // namespace tinymoe::inline v0_1::detail
