# An overlay port of the checkout that it lies in: vcpkg install tinymoe --overlay-ports=packaging/vcpkg/ports
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release)  # headers only

# Nothing of the feature cuda is compiled here: the program that asks for the component compiles its units.
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}"
                      OPTIONS -DTINYMOE_BUILD_TESTS=OFF -DTINYMOE_BUILD_EXAMPLES=OFF -DTINYMOE_BUILD_BENCH=OFF
                              -DTINYMOE_NATIVE=OFF -DTINYMOE_CUDA=OFF -DTINYMOE_MPI=OFF -DTINYMOE_INSTALL=ON)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/tinymoe)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/doc")
file(GLOB licenses "${SOURCE_PATH}/LICENSE*")
vcpkg_install_copyright(FILE_LIST ${licenses})
