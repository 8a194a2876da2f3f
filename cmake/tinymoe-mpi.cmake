# Defines tinymoe::mpi, for programs that include tinymoe/mpi/mpi.hpp: the headers and MPI. Used by this project and,
# installed, by find_package(tinymoe COMPONENTS mpi). Without MPI there is no target, and tinymoe_mpi_missing says why.
set(tinymoe_mpi_missing "")
set(MPI_CXX_SKIP_MPICXX TRUE)  # only the interface of C is used
find_package(MPI QUIET COMPONENTS CXX)
if(NOT TARGET MPI::MPI_CXX)
  string(CONCAT tinymoe_mpi_missing "there is no MPI here; install Open MPI (Debian: libopenmpi-dev) or MPICH, or name its "
                "compiler in MPI_CXX_COMPILER")
  return()
endif()
if(MPI_CXX_VERSION AND MPI_CXX_VERSION VERSION_LESS 3.0)
  set(tinymoe_mpi_missing "MPI here is of version ${MPI_CXX_VERSION}, and 3.0 is needed")
  return()
endif()
add_library(tinymoe_mpi INTERFACE)
add_library(tinymoe::mpi ALIAS tinymoe_mpi)
target_link_libraries(tinymoe_mpi INTERFACE tinymoe::tinymoe MPI::MPI_CXX)
