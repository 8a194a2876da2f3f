#pragma once
/// @file
/// Memory of the host. Linux promises more than it has and kills the process that uses it; a run learns here, before
/// its first step, that it cannot fit.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"

namespace tinymoe::inline v0_1::detail {

/// A small file of the system; empty if it cannot be read.
[[gnu::cold]] inline std::string system_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  char text[4096];
  const auto size = ::read(file, text, sizeof text);
  ::close(file);
  return {text, size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// The number after `label` in a small file of the system, or after nothing; the largest number if there is none.
[[gnu::cold]] inline std::size_t number_in(const std::string& path, const char* label) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  const std::string text = system_file(path);
  const auto found = text.find(label);
  if (found == std::string::npos) return none;
  const char* begin = text.c_str() + found + std::strlen(label);
  char* end = nullptr;
  const auto number = std::strtoull(begin, &end, 10);
  return end == begin ? none : static_cast<std::size_t>(number);  // "max": no limit
}

[[gnu::cold]] inline std::size_t sum_or_none(std::size_t one, std::size_t other) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  return one > none - other ? none : one + other;
}

/// The control group of this process for a controller of version 1, or with "" that of version 2. A line of
/// /proc/self/cgroup is "number:controllers:group": "4:cpuset,memory:/jobs", "0::/jobs".
[[gnu::cold]] inline std::string control_group(const std::string& file, std::string_view controller) {
  const std::string text = system_file(file);
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view line = std::string_view(text).substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const auto listed = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    if (listed.find("," + std::string(controller) + ",") == listed.npos) continue;
    return std::string(line.substr(second + 1));
  }
  return "/";
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
  const std::string groups = system + "/proc/self/cgroup";
  for (const bool version_2 : {true, false}) {
    const std::string root = version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string group = control_group(groups, version_2 ? "" : "memory");
    while (true) {
      const std::string folder = root + (group == "/" ? "" : group);
      bytes = std::min(bytes, version_2 ? sum_or_none(number(folder + "/memory.max", ""),
                                                      std::min(swap, number(folder + "/memory.swap.max", "")))
                                        : std::min(sum_or_none(number(folder + "/memory.limit_in_bytes", ""), swap),
                                                   number(folder + "/memory.memsw.limit_in_bytes", "")));
      if (group.size() <= 1) break;
      group.resize(std::max<std::size_t>(1, group.rfind('/')));
    }
  }
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

/// Zeroed memory of the host, in huge pages if the system has them. Throws DeviceError if there is not enough: what is
/// asked for and what was, together, are more than the machine or the container has, or than this process may have.
[[gnu::cold]] inline Memory allocate_host_memory(std::size_t bytes) {
  static std::atomic<std::size_t> in_use = 0;
  const auto refuse = [&](const std::string& why) {
    fail<DeviceError>("out of memory: ", bytes, " bytes were asked for (", bytes >> 20, " MiB), ", in_use >> 20,
                      " MiB are in use and ", why, "; a smaller batch, shorter sequences, fewer threads or recomputation need less");
  };
  constexpr std::size_t worth_asking = std::size_t{64} << 20;
  if (bytes >= worth_asking) {
    const std::size_t available = host_memory(), used = in_use;
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
