#pragma once
/// @file
/// How many threads a program may use.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

#include "tinymoe/core/control_group.hpp"

namespace tinymoe::inline v0_1::detail {

/// The processor time that the control groups of this process let it have, in cores, rounded up: `docker --cpus 1.5`
/// gives 2. The largest number if nothing bounds it.
[[gnu::cold]] inline std::size_t granted_cores(const std::string& system = "") {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::size_t cores = none;
  for_each_control_group(system, "cpu", [&](const std::string& folder, bool version_2) {
    // Microseconds of all cores together in each period: "200000 100000" or "max 100000", in version 1 two files.
    std::size_t quota = none, period = none;
    if (version_2) {
      const std::string text = system_file(folder + "/cpu.max");
      char* end = nullptr;
      quota = std::strtoull(text.c_str(), &end, 10);
      if (end == text.c_str()) return;  // "max", or no such file
      period = std::strtoull(end, nullptr, 10);
    } else {
      quota = number_in(folder + "/cpu.cfs_quota_us", "");  // −1: no limit
      period = number_in(folder + "/cpu.cfs_period_us", "");
    }
    if (quota == none || period == 0 || period == none) return;
    cores = std::min(cores, std::max<std::size_t>(1, quota / period + (quota % period != 0)));
  });
  return cores;
}

/// The cores that this process may use: its affinity mask, where the system has one, and no more than its control group
/// grants; at least 1.
[[gnu::cold]] inline int available_cores(const std::string& system = "") {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t mask;
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) cores = CPU_COUNT(&mask);
#endif
  cores = std::max(1, cores);
  return static_cast<int>(std::min(static_cast<std::size_t>(cores), granted_cores(system)));
}

/// The threads of a CPU backend that is given no number: OMP_NUM_THREADS, where users are used to say it, or the cores.
/// A number that is none, or below 1, is ignored; one far above what the system can start is cut to 256, or the cores.
inline int default_threads() {
  const int cores = available_cores();
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  const long number = wanted ? std::strtol(wanted, nullptr, 10) : 0;
  return number > 0 ? static_cast<int>(std::min<long>(number, std::max(256, cores))) : cores;
}

}  // namespace tinymoe::inline v0_1::detail
