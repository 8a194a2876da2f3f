#pragma once
// Files that a program writes under a name that its user gives: one that is something else is not replaced.

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <ios>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic_folder.hpp"

namespace examples {

/// Throws FileError if `path` cannot be written, or if a file is there that is none of this kind: `is_one` of its first
/// 4096 bytes. An empty file may be replaced. Called before any work.
/// `what`: the kind in words, as "page of a report".
template <class F>
void expect_replaceable(const std::filesystem::path& path, const char* what, F is_one) {
  tinymoe::expect_writable(path);
  if (!tinymoe::detail::is_there(path)) return;
  std::ifstream file(path, std::ios::binary);
  std::string begins(4096, '\0');
  if (!file) {
    tinymoe::fail<tinymoe::FileError>(
        path.string(), ": cannot be read to see what would be replaced: ", std::strerror(errno), "; give another path");
  }
  file.read(begins.data(), static_cast<std::streamsize>(begins.size()));
  begins.resize(static_cast<std::size_t>(file.gcount()));
  if (file.bad()) {
    tinymoe::fail<tinymoe::FileError>(path.string(),
                                      ": cannot be read to see what would be replaced; give another path");
  }
  if (begins.empty() || is_one(std::string_view(begins))) return;
  tinymoe::fail<tinymoe::FileError>(path.string(), ": is there already and is no ", what,
                                    ", so it is not replaced; give another path");
}

inline void expect_page(const std::filesystem::path& path) {
  expect_replaceable(path, "page of a report", [](std::string_view begins) {
    return begins.find("<meta name=\"generator\" content=\"tinymoe\">") != std::string_view::npos;
  });
}

/// Arrays whose first is the story's, or lines of JSON that begin with the story.
inline void expect_trace(const std::filesystem::path& path) {
  expect_replaceable(path, "trace", [](std::string_view begins) {
    return begins.starts_with("{\"story\":") ||
           (begins.starts_with("PK") && begins.substr(0, 64).find("story.npy") != std::string_view::npos);
  });
}

inline void expect_sweep(const std::filesystem::path& csv, const std::filesystem::path& curves,
                         const std::filesystem::path& json) {
  expect_replaceable(csv, "CSV of a sweep",
                     [](std::string_view begins) { return begins.starts_with("variant,parameters,"); });
  expect_replaceable(curves, "CSV of a sweep's curves",
                     [](std::string_view begins) { return begins.starts_with("variant,learning_rate,"); });
  expect_replaceable(json, "JSON of a sweep",
                     [](std::string_view begins) { return begins.starts_with("{\n\"runs\": ["); });
}

inline void expect_gguf(const std::filesystem::path& path) {
  expect_replaceable(path, "GGUF file", [](std::string_view begins) { return begins.starts_with("GGUF"); });
}

/// A folder for a checkpoint that is no run's. Throws OptionError if it holds a run, or another checkpoint without
/// `overwrite`.
inline void expect_checkpoint_folder(const std::filesystem::path& folder, bool overwrite) {
  if (tinymoe::detail::folder_has(folder, "trainer.json")) {
    tinymoe::fail<tinymoe::OptionError>(folder.string(),
                                        ": holds a run that could not resume then; give another folder");
  }
  if (tinymoe::detail::folder_has(folder, "model.safetensors") && !overwrite) {
    tinymoe::fail<tinymoe::OptionError>(folder.string(), ": holds a checkpoint; give --overwrite to replace it");
  }
}

/// A tokenizer.json, or a sentencepiece model. A checkpoint keeps its own: its tokens have no meaning in another.
inline void expect_tokenizer(const std::filesystem::path& path) {
  const auto folder = path.parent_path();
  if (tinymoe::detail::folder_has(folder, path.filename().string()) &&
      tinymoe::detail::folder_has(folder, "model.safetensors")) {
    tinymoe::fail<tinymoe::FileError>(path.string(),
                                      ": is part of a checkpoint, so it is not replaced; give another path");
  }
  expect_replaceable(path, "tokenizer", [](std::string_view begins) {
    return begins.starts_with("\n") ||
           (begins.starts_with("{") && begins.find("\"added_tokens\"") != std::string_view::npos);
  });
}

}  // namespace examples
