#pragma once
/// @file
/// How many threads a program may use.

#include <algorithm>
#include <cstdlib>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace tinymoe::inline v0_1::detail {

/// The cores that this process may run on (its affinity mask, where the system has one); at least 1.
inline int available_cores() {
#ifdef __linux__
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
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
