#pragma once
/// @file
/// Whether a launcher of parallel programs has started this process: mpirun, mpiexec or srun. Needs no MPI.

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// How many processes a launcher has started with this one, by the variables that it sets: those of Open MPI, of the
/// process managers of MPICH and its relatives (PMI), and of Slurm's srun. 0: none has started it. In a job of Slurm a
/// program that the job's script starts itself is no process of a launcher.
[[gnu::cold]] inline Index launched_processes() {
  for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* const text = std::getenv(name);
    if (text == nullptr) continue;
    Index processes = 0;
    const char* const end = text + std::strlen(text);
    if (std::from_chars(text, end, processes).ptr == end && processes > 0) return processes;
  }
  return 0;
}

}  // namespace tinymoe::inline v0_1
