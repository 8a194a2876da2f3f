#include <tinymoe/mpi/nccl.hpp>

/// Compiled and linked; it runs where there are GPUs.
tinymoe::Nccl join(tinymoe::Mpi& ranks, const tinymoe::Cuda& device) { return {ranks, device}; }
