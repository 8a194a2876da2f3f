#pragma once
/// @file
/// Memory of the host. Linux promises more than it has and kills the process that uses it; a run learns here, before
/// its first step, that it cannot fit.

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "tinymoe/core/control_group.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"

namespace tinymoe::inline v0_1::detail {

[[gnu::cold]] inline std::size_t sum_or_none(std::size_t one, std::size_t other) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  return one > none - other ? none : one + other;
}

/// Bytes that the processes of this machine, or of this process's control group (a container, a job of a scheduler) and
/// of those around it, can have at most: memory and swap. `system` is for tests.
[[gnu::cold]] inline std::size_t host_memory(const std::string& system = "") {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max(), kibibyte = 1024;
  const auto number = [&](const std::string& path, const char* label) { return number_in(system + path, label); };
  const std::size_t memory = number("/proc/meminfo", "MemTotal:");
  std::size_t swap = number("/proc/meminfo", "SwapTotal:");
  swap = swap == none ? 0 : swap * kibibyte;
  std::size_t bytes = memory == none ? none : memory * kibibyte + swap;
  for_each_control_group(system, "memory", [&](const std::string& folder, bool version_2) {
    const auto limit = [&](const char* name) { return number_in(folder + name, ""); };
    bytes = std::min(bytes, version_2 ? sum_or_none(limit("/memory.max"), std::min(swap, limit("/memory.swap.max")))
                                      : std::min(sum_or_none(limit("/memory.limit_in_bytes"), swap),
                                                 limit("/memory.memsw.limit_in_bytes")));
  });
  return bytes;
}

/// Why the system refused memory with `reason`: the least limit of this process, or else the system's own words.
[[gnu::cold]] inline std::string refusal_of_memory(int reason) {
  struct Limit {
    int kind;
    const char* command;
  };
  rlim_t least = RLIM_INFINITY;
  const char* command = nullptr;
  for (const Limit limit : {Limit{RLIMIT_AS, "ulimit -v"}, Limit{RLIMIT_DATA, "ulimit -d"}}) {
    rlimit found{};
    if (::getrlimit(limit.kind, &found) != 0 || found.rlim_cur == RLIM_INFINITY || found.rlim_cur >= least) continue;
    least = found.rlim_cur, command = limit.command;
  }
  if (command == nullptr) return std::string("the system gives no more (") + std::strerror(reason) + ")";
  return "this process is limited to " + std::to_string(least >> 20) + " MiB (" + command + ")";
}

/// Bytes that this process has besides what `allocate_host_memory` gives out: what was in memory before its first call,
/// and what malloc has given out since, where the C library tells.
[[gnu::cold]] inline std::size_t other_memory_in_use() {
  const auto heap = [] {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    const auto found = mallinfo2();
    return found.uordblks + found.hblkhd;
#else
    return std::size_t{0};
#endif
  };
  static const std::size_t heap_before = heap(), resident_before = [] {
    const std::size_t kibibytes = number_in("/proc/self/status", "RssAnon:");
    return kibibytes == std::numeric_limits<std::size_t>::max() ? 0 : kibibytes * 1024;
  }();
  const std::size_t heap_now = heap();
  return resident_before + (heap_now > heap_before ? heap_now - heap_before : 0);
}

/// Zeroed memory of the host, in huge pages if the system has them. Throws DeviceError if there is not enough: what is
/// asked for and what is in use, together, are more than the machine or the container has, or than this process may
/// have.
[[gnu::cold]] inline Memory allocate_host_memory(std::size_t bytes) {
  static std::atomic<std::size_t> in_use = 0;
  const auto refuse = [&](const std::string& why) {
    fail<DeviceError>("out of memory: ", bytes, " bytes were asked for (", bytes >> 20, " MiB), ",
                      (in_use + other_memory_in_use()) >> 20, " MiB are in use and ", why,
                      "; a smaller batch, shorter sequences, fewer threads or recomputation need less");
  };
  constexpr std::size_t worth_asking = std::size_t{1} << 20;
  if (bytes >= worth_asking) {
    const std::size_t available = host_memory(), used = in_use + other_memory_in_use();
    if (bytes > available || used > available - bytes) {
      refuse("there are " + std::to_string(available >> 20) + " MiB in all");
    }
  }
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) refuse(refusal_of_memory(errno));
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
