"""Conan 2 recipe. In a checkout: conan create . --build=missing. Beside a conandata.yml with the address of a release, as
scripts/release.sh writes it and Conan Center wants it, the sources come from there."""

import re
import shutil
from pathlib import Path

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.errors import ConanInvalidConfiguration
from conan.tools.files import copy, get

required_conan_version = ">=2.0"


class TinymoeConan(ConanFile):
    name = "tinymoe"
    description = "A Mixture-of-Experts language model that is a C++20 type"
    license = "MIT"
    topics = ("machine-learning", "language-model", "mixture-of-experts", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    # The component cuda is compiled by the program that uses it; the option checks that it can be, and tries it.
    options = {"cuda": [True, False]}
    default_options = {"cuda": False}
    no_copy_source = True
    test_package_folder = "packaging/conan"

    def set_version(self):
        header = Path(self.recipe_folder) / "include/tinymoe/core/version.hpp"
        if header.exists():
            numbers = re.findall(r"#define TINYMOE_VERSION_\w+ (\d+)", header.read_text())
            self.version = self.version or ".".join(numbers)

    def export_sources(self):
        for pattern in () if self.conan_data else ("CMakeLists.txt", "cmake/*", "include/*", "LICENSE*"):
            copy(self, pattern, self.recipe_folder, self.export_sources_folder)

    def source(self):
        if self.conan_data:
            get(self, **self.conan_data["sources"][self.version], strip_root=True)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("xtensor/0.25.0", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)
        if self.options.cuda and shutil.which("nvcc") is None:
            raise ConanInvalidConfiguration("tinymoe's option cuda needs nvcc on the path, of a CUDA Toolkit 12 or newer")

    def package_id(self):
        self.info.clear()

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for option in ("BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_BENCH", "NATIVE"):
            toolchain.cache_variables[f"TINYMOE_{option}"] = False
        toolchain.cache_variables["TINYMOE_CUDA"] = "OFF"
        toolchain.cache_variables["TINYMOE_MPI"] = "OFF"
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
