#pragma once
/// @file
/// Files: written so that a crash cannot spoil them, read so that a hostile one does no harm.
///
/// | header | what it has |
/// |---|---|
/// | mapped_file.hpp | a file as read-only memory |
/// | json.hpp | JSON with limits, and its fields with errors that name them |
/// | atomic.hpp | a file that appears whole or not at all |
/// | atomic_folder.hpp | a folder, such as a checkpoint, whose files are replaced together or not at all |
/// | paths.hpp | links, mount points and missing folders of a path that is written to |
/// | write_lock.hpp | locks on what a process writes |
/// | stored_type.hpp | the element types of weight files |
/// | safetensors_writer.hpp, safetensors.hpp | weights, as the Hugging Face hub has them |
/// | gguf_types.hpp, gguf_values.hpp, gguf_writer.hpp, gguf.hpp | weights and metadata, as llama.cpp has them; not included here |
///
/// Not included here, because they bring xtensor:
///
/// | header | what it has |
/// |---|---|
/// | npy.hpp | xtensor arrays as NumPy's .npy |
/// | xtensor.hpp | xtensor's arrays, wherever its version keeps them |

#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/atomic_folder.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_writer.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/files/write_lock.hpp"
