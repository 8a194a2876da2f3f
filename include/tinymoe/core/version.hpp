#pragma once
/// @file
/// The one source of the version: CMake reads these three lines.

#define TINYMOE_VERSION_MAJOR 0
#define TINYMOE_VERSION_MINOR 1
#define TINYMOE_VERSION_PATCH 0
