"""Conan 2 recipe: conan create . --build=missing"""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy

required_conan_version = ">=2.0"


class TinymoeConan(ConanFile):
    name = "tinymoe"
    description = "A Mixture-of-Experts language model that is a C++20 type"
    topics = ("machine-learning", "language-model", "mixture-of-experts", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    exports = "include/tinymoe/core/version.hpp"
    exports_sources = "CMakeLists.txt", "cmake/*", "include/*", "LICENSE*"
    no_copy_source = True
    test_package_folder = "packaging/conan"

    def set_version(self):
        text = (Path(self.recipe_folder) / "include/tinymoe/core/version.hpp").read_text()
        self.version = self.version or ".".join(re.findall(r"#define TINYMOE_VERSION_\w+ (\d+)", text))

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("xtensor/0.25.0", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for option in ("BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_BENCH", "NATIVE"):
            toolchain.cache_variables[f"TINYMOE_{option}"] = False
        toolchain.cache_variables["TINYMOE_INSTALL"] = True
        toolchain.generate()

    def package(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.install()
        copy(self, "LICENSE*", self.source_folder, str(Path(self.package_folder) / "licenses"))

    def package_info(self):
        # The package that CMake installs, and no other.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["share/cmake/tinymoe"]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
