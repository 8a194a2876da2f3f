# An installed copy: headers, and a package that find_package(tinymoe) finds. It holds no path of this machine.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_folder ${CMAKE_INSTALL_DATADIR}/cmake/tinymoe)

install(DIRECTORY include/tinymoe DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cu" PATTERN "*.cuh")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(TARGETS tinymoe EXPORT tinymoe INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT tinymoe NAMESPACE tinymoe:: FILE tinymoe-targets.cmake DESTINATION ${package_folder})

# While the major version is 0, a new minor version may break what used the last one.
set(compatible SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatible SameMinorVersion)
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/tinymoe-config.cmake.in
                              ${PROJECT_BINARY_DIR}/tinymoe-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tinymoe-config-version.cmake
                                 COMPATIBILITY ${compatible} ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/tinymoe-config.cmake ${PROJECT_BINARY_DIR}/tinymoe-config-version.cmake
              ${CMAKE_CURRENT_LIST_DIR}/tinymoe-cuda.cmake
              ${CMAKE_CURRENT_LIST_DIR}/tinymoe-mpi.cmake
              ${CMAKE_CURRENT_LIST_DIR}/tinymoe-nccl.cmake
              ${CMAKE_CURRENT_LIST_DIR}/tinymoe-compiler.cmake
        DESTINATION ${package_folder})

# Of a header-only package, whatever the machine: share/, not lib/.
set(pkgconfig_folder ${CMAKE_INSTALL_DATADIR}/pkgconfig)
file(RELATIVE_PATH to_prefix /${pkgconfig_folder} /)
string(REGEX REPLACE "/$" "" to_prefix "${to_prefix}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/tinymoe.pc.in ${PROJECT_BINARY_DIR}/tinymoe.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tinymoe.pc DESTINATION ${pkgconfig_folder})

# Libraries that were fetched for this build are not installed with it: they are packages of other projects.
get_property(fetched GLOBAL PROPERTY tinymoe_fetched)
list(REMOVE_ITEM fetched CLI11 Catch2 benchmark)
if(fetched)
  list(JOIN fetched ", " fetched)
  install(CODE "message(STATUS \"tinymoe: programs that use this copy need ${fetched} too, fetched for this build and \"
                              \"not installed by it\")")
endif()
