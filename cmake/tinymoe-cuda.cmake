# Defines tinymoe::cuda, the CUDA backend. Its units are compiled in the project that links it, with that project's CUDA
# compiler and flags. Used by this project and, installed, by find_package(tinymoe COMPONENTS cuda).
# tinymoe_cuda_sources is the folder of the units. Without a CUDA compiler or its libraries there is no target, and
# tinymoe_cuda_missing says why.
set(tinymoe_cuda_missing "")
if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  # The folder of NVIDIA's packages, which is often not on the PATH.
  find_program(tinymoe_nvcc nvcc PATHS /usr/local/cuda/bin /opt/cuda/bin)
  mark_as_advanced(tinymoe_nvcc)
  if(tinymoe_nvcc)
    set(ENV{CUDACXX} ${tinymoe_nvcc})
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  set(tinymoe_cuda_missing "there is no CUDA compiler (nvcc) on the PATH, in /usr/local/cuda or named by CUDACXX")
  return()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # Code for the GPUs of 2020 (A100) and 2022 (H100) and their kin, and for later ones PTX that their driver compiles.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
endif()
enable_language(CUDA)
# Where the language was enabled before, there is CMake's default, an architecture that is too old.
foreach(architecture IN LISTS CMAKE_CUDA_ARCHITECTURES)
  if(architecture MATCHES "^([0-9]+)" AND CMAKE_MATCH_1 LESS 80)
    message(STATUS "tinymoe: compiling for CUDA architectures 80-real;90-real;90-virtual instead of "
                   "${CMAKE_CUDA_ARCHITECTURES}: the backend needs 8.0")
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
    break()
  endif()
endforeach()
find_package(CUDAToolkit 12.0 QUIET)
if(NOT TARGET CUDA::cublasLt)
  set(tinymoe_cuda_missing "there is a CUDA compiler, but no CUDA Toolkit 12.0 or newer with cuBLAS")
  return()
endif()

# How a .cu file that includes tinymoe is compiled: part of tinymoe::cuda.
add_library(tinymoe_cuda_flags INTERFACE)
if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
  target_compile_features(tinymoe_cuda_flags INTERFACE cuda_std_20)
else()  # CMake before 3.26 does not know that nvcc can
  target_compile_options(tinymoe_cuda_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
endif()
# The kernels call constexpr functions of the standard library; their loops' "omp simd" is for the CPU.
target_compile_options(tinymoe_cuda_flags INTERFACE
                       "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:--expt-relaxed-constexpr -Xcompiler=-Wno-unknown-pragmas>")
target_link_libraries(tinymoe_cuda_flags INTERFACE tinymoe::tinymoe CUDA::cudart CUDA::cublas CUDA::cublasLt)

add_library(tinymoe_cuda INTERFACE)
add_library(tinymoe::cuda ALIAS tinymoe_cuda)
foreach(unit context products matmul sort attention rows_float rows_bfloat16 rows_float16)
  target_sources(tinymoe_cuda INTERFACE ${tinymoe_cuda_sources}/${unit}.cu)
endforeach()
target_link_libraries(tinymoe_cuda INTERFACE tinymoe_cuda_flags)
