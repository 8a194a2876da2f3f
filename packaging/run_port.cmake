# cmake -D port=… -D version=… -D folder=… -D generator=… -D compiler=… [-D options=…] -P run_port.cmake: runs an overlay
# port as vcpkg does and leaves what it installs in `folder`/installed. Its functions do here what vcpkg's documentation
# says of them (learn.microsoft.com/vcpkg/maintainers/functions), for a package of headers.

file(READ ${port}/vcpkg.json manifest)
foreach(key name version description)
  string(JSON ${key}_of_port GET "${manifest}" ${key})
endforeach()
if(NOT version_of_port STREQUAL version)
  message(FATAL_ERROR "vcpkg.json says version ${version_of_port}, include/tinymoe/core/version.hpp ${version}")
endif()

set(PORT ${name_of_port})
set(CURRENT_PORT_DIR ${port})
set(CURRENT_PACKAGES_DIR ${folder}/installed)
set(CURRENT_BUILDTREES_DIR ${folder}/build)
file(REMOVE_RECURSE ${folder})

include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "SOURCE_PATH" "OPTIONS")
  run(${CMAKE_COMMAND} -S ${given_SOURCE_PATH} -B ${CURRENT_BUILDTREES_DIR} -G ${generator} -D CMAKE_BUILD_TYPE=Release
      -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR} ${given_OPTIONS}
      ${options})
  # An option that the project does not know changes nothing, in silence.
  file(READ ${CURRENT_BUILDTREES_DIR}/CMakeCache.txt cache)
  foreach(option IN LISTS given_OPTIONS)
    string(REGEX REPLACE "^-D([^=:]+).*" "\\1" option "${option}")
    if(NOT cache MATCHES "\n${option}:(BOOL|STRING)=")
      message(FATAL_ERROR "the port sets ${option}, which is no option")
    endif()
  endforeach()
endfunction()

function(vcpkg_cmake_install)
  run(${CMAKE_COMMAND} --build ${CURRENT_BUILDTREES_DIR} --target install)
endfunction()

# The package's CMake files go to share/PORT, which is two folders below the prefix.
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "PACKAGE_NAME;CONFIG_PATH" "")
  file(GLOB files ${CURRENT_PACKAGES_DIR}/${given_CONFIG_PATH}/*.cmake)
  if(NOT files)
    message(FATAL_ERROR "the port installs no CMake files in ${given_CONFIG_PATH}")
  endif()
  set(up "get_filename_component(_IMPORT_PREFIX \"\${_IMPORT_PREFIX}\" PATH)")
  foreach(file IN LISTS files)
    file(READ ${file} text)
    string(REGEX REPLACE "(get_filename_component\\(_IMPORT_PREFIX \"[^\"]*\" PATH\\)\n)+"
                         "get_filename_component(_IMPORT_PREFIX \"\${CMAKE_CURRENT_LIST_FILE}\" PATH)\n${up}\n${up}\n" text
                         "${text}")
    string(REGEX REPLACE "(PACKAGE_PREFIX_DIR \"[^\"]*LIST_DIR}/)(\\.\\./)+" "\\1../../" text "${text}")
    cmake_path(GET file FILENAME name)
    file(WRITE ${CURRENT_PACKAGES_DIR}/share/${PORT}/${name} "${text}")
  endforeach()
  file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/${given_CONFIG_PATH})
  cmake_path(GET given_CONFIG_PATH PARENT_PATH parent)
  if(parent MATCHES "/cmake$")
    file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/${parent})
  endif()
endfunction()

function(vcpkg_fixup_pkgconfig)
  file(GLOB files ${CURRENT_PACKAGES_DIR}/share/pkgconfig/*.pc)
  if(NOT files)
    message(FATAL_ERROR "the port has nothing for pkg-config")
  endif()
endfunction()

function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "" "FILE_LIST")
  foreach(file IN LISTS given_FILE_LIST)
    file(READ ${file} text)
    file(APPEND ${CURRENT_PACKAGES_DIR}/share/${PORT}/copyright "${text}")
  endforeach()
endfunction()

include(${port}/portfile.cmake)

# What vcpkg complains of after a build.
foreach(expected include share/${PORT}/copyright share/${PORT}/${PORT}-config.cmake)
  if(NOT EXISTS ${CURRENT_PACKAGES_DIR}/${expected})
    message(FATAL_ERROR "the port leaves no ${expected}")
  endif()
endforeach()
foreach(unexpected lib/cmake share/cmake share/doc debug)
  if(EXISTS ${CURRENT_PACKAGES_DIR}/${unexpected})
    message(FATAL_ERROR "the port leaves ${unexpected}")
  endif()
endforeach()
