#pragma once
/// @file
/// MPI itself, for `Mpi`: its errors, its start and its end, and the processes of a machine.

#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

// The C++ interface of MPI 2 is not used, and many builds of MPI no longer have it.
/// @cond
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
/// @endcond
#include <mpi.h>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/threads.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Throws DeviceError unless an MPI function has succeeded.
[[gnu::cold]] inline void throw_mpi_error(int code, const char* what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail<DeviceError>("MPI cannot ", what, ": ", std::string_view(text, static_cast<std::size_t>(std::max(0, length))));
}
inline void check_mpi(int code, const char* what) {
  if (code != MPI_SUCCESS) throw_mpi_error(code, what);
}

/// At the end of a program that has not finalized MPI, as after an exception: the other processes must not wait for it.
[[gnu::cold]] inline void abort_mpi_at_exit() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, 1);
}

/// What MPI allows, and whether it was tinymoe that started it.
struct StartedMpi {
  bool finalizes = false;        // it must be ended, too
  bool threads_allowed = false;  // another thread than the main one may use MPI while that does not
};

/// Starts MPI unless that was done. `of` is the program's communicator, or MPI_COMM_NULL. Throws DeviceError where it
/// cannot be used.
[[gnu::cold]] inline StartedMpi start_mpi(MPI_Comm of) {
  int initialized = 0, finalized = 0, level = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (finalized != 0) fail<DeviceError>("MPI has ended in this process, and cannot be started again");
  StartedMpi started;
  if (initialized == 0) {
    if (of != MPI_COMM_NULL) fail<DeviceError>("MPI is not initialized, so there is no communicator of it");
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level), "start");
    started.finalizes = true;
    std::atexit(abort_mpi_at_exit);
  } else {
    MPI_Query_thread(&level);
  }
  if (level < MPI_THREAD_FUNNELED) {
    fail<DeviceError>("MPI was started for programs of one thread; start it by MPI_Init_thread with ",
                      "MPI_THREAD_FUNNELED, or leave it to tinymoe::Mpi");
  }
  started.threads_allowed = level >= MPI_THREAD_SERIALIZED;
  return started;
}

/// The ranks of this machine, and the threads for each.
struct MpiNeighbours {
  Index local_rank = 0, local_size = 1;
  int threads = 1;
};

/// All ranks of the communicator call it. A launcher may have bound each rank to cores of its own; else they share the
/// machine's.
[[gnu::cold]] inline MpiNeighbours find_neighbours(MPI_Comm communicator, Index rank) {
  MPI_Comm machine = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, static_cast<int>(rank), MPI_INFO_NULL, &machine),
            "find the processes of a machine");
  MpiNeighbours found;
  int number = 0;
  MPI_Comm_rank(machine, &number), found.local_rank = number;
  MPI_Comm_size(machine, &number), found.local_size = number;
  std::uint64_t cores = 0;  // a hash
#ifdef __linux__
  cpu_set_t mask;
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) {
    for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &mask)) cores = (cores ^ static_cast<std::uint64_t>(core + 1)) * 0x100000001b3u;
    }
  }
#endif
  std::vector<std::uint64_t> of_all(static_cast<std::size_t>(found.local_size));
  check_mpi(MPI_Allgather(&cores, 1, MPI_UINT64_T, of_all.data(), 1, MPI_UINT64_T, machine), "gather");
  const auto sharing = std::max<std::ptrdiff_t>(1, std::count(of_all.begin(), of_all.end(), cores));
  const bool told = std::getenv("OMP_NUM_THREADS") != nullptr;  // for each process
  found.threads = told ? default_threads() : std::max(1, available_cores() / static_cast<int>(sharing));
  MPI_Comm_free(&machine);
  return found;
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
