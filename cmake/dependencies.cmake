# Each dependency: the installed package if there is one, else FetchContent, which needs a network.
include(FetchContent)

# What is fetched is `commit`, that of the tag `version`: git compares what it gets with this hash, and a tag that is moved
# changes nothing. The arguments behind it are the folder of a header-only library's headers and the targets it needs. Only
# the headers of such a library are used: its own CMake code would add options, tests and install rules to the build of
# the project that includes tinymoe.
function(tinymoe_dependency package target repository version commit)
  cmake_parse_arguments(library "" "HEADERS" "NEEDS" ${ARGN})
  string(LENGTH "${commit}" digits)
  if(NOT digits EQUAL 40 OR NOT commit MATCHES "^[0-9a-f]+$")
    message(FATAL_ERROR "tinymoe: ${package} needs the full hash of the commit to fetch, and has \"${commit}\"")
  endif()
  find_package(${package} QUIET)
  if(TARGET ${target})
    return()
  endif()
  message(STATUS "tinymoe: ${package} is not installed; fetching ${repository} ${version}")
  set(subfolder)
  if(library_HEADERS)
    set(subfolder SOURCE_SUBDIR tinymoe-takes-only-the-headers)
  endif()
  FetchContent_Declare(${package} GIT_REPOSITORY ${repository} GIT_TAG ${commit} GIT_SHALLOW TRUE ${subfolder})
  FetchContent_MakeAvailable(${package})
  string(TOLOWER ${package} name)
  if(library_HEADERS)
    cmake_path(SET headers NORMALIZE "${${name}_SOURCE_DIR}/${library_HEADERS}")
    add_library(${target} INTERFACE IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${headers}"
                                               INTERFACE_LINK_LIBRARIES "${library_NEEDS}")
  endif()
  if(NOT TARGET ${target})
    message(FATAL_ERROR "tinymoe needs ${package}: install it (scripts/install_dependencies.sh) or let CMake fetch it")
  endif()
  set_property(GLOBAL APPEND PROPERTY tinymoe_fetched ${package})
  string(TOUPPER ${package} name_of_option)
  set_property(GLOBAL APPEND PROPERTY tinymoe_fetched_options
               -DFETCHCONTENT_SOURCE_DIR_${name_of_option}=${${name}_SOURCE_DIR})
endfunction()

find_package(Threads REQUIRED)
tinymoe_dependency(xtl xtl https://github.com/xtensor-stack/xtl.git 0.7.7 a7c1c5444dfc57f76620391af4c94785ff82c8d6
                   HEADERS include)
tinymoe_dependency(xtensor xtensor https://github.com/xtensor-stack/xtensor.git
                   0.25.0 3634f2ded19e0cf38208c8b86cea9e1d7c8e397d HEADERS include NEEDS xtl)
set(tinymoe_cli11 CLI11 CLI11::CLI11 https://github.com/CLIUtils/CLI11.git
                  v2.4.2 6c7b07a878ad834957b98d0f9ce1dbe0cb204fc9 HEADERS include)
if(TINYMOE_BUILD_EXAMPLES)
  tinymoe_dependency(${tinymoe_cli11})
endif()
if(TINYMOE_BUILD_TESTS)
  tinymoe_dependency(nlohmann_json nlohmann_json::nlohmann_json https://github.com/nlohmann/json.git
                     v3.11.3 9cca280a4d0ccf0c08f47a99aa71d1b0e52f8d03 HEADERS include)
  tinymoe_dependency(Catch2 Catch2::Catch2 https://github.com/catchorg/Catch2.git
                     v3.7.1 fa43b77429ba76c462b1898d6cd2f2d7a9416b14)
endif()
if(TINYMOE_BUILD_BENCH)
  set(BENCHMARK_ENABLE_TESTING OFF CACHE BOOL "Google Benchmark's own tests")
  set(BENCHMARK_ENABLE_INSTALL OFF CACHE BOOL "Install Google Benchmark with this project")
  tinymoe_dependency(benchmark benchmark::benchmark https://github.com/google/benchmark.git
                     v1.8.5 a6ad7fbbdc2e14fab82bb8a6d27760d700198cbf)
endif()
