#pragma once
/// @file
/// The one source of the version: CMake reads these three lines.

/// Changes with what a program must change.
#define TINYMOE_VERSION_MAJOR 0
/// Changes with what is new; before 1.0 also with what a program must change.
#define TINYMOE_VERSION_MINOR 1
/// Changes with what is mended.
#define TINYMOE_VERSION_PATCH 0
