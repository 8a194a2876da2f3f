#pragma once
/// @file
/// Which files a path means: itself, those of a folder, or those that a pattern matches, always in the same order.

#include <glob.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1::detail {

/// How a file holds its stories, which its name says. Compression is seen by the file's first bytes.
enum class StoryFormat { text, json, parquet, tokens };

/// The format of a name that ends in one of `.txt`, `.json`, `.jsonl`, `.ndjson` (each also with `.gz`), `.parquet` and
/// `.bin`; none of another name.
[[gnu::cold]] inline std::optional<StoryFormat> known_story_format(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool gzipped = name.ends_with(".gz");
  if (gzipped) name.resize(name.size() - 3);
  if (name.ends_with(".txt")) return StoryFormat::text;
  for (const std::string_view ending : {".json", ".jsonl", ".ndjson"}) {
    if (name.ends_with(ending)) return StoryFormat::json;
  }
  if (!gzipped && name.ends_with(".parquet")) return StoryFormat::parquet;
  if (!gzipped && name.ends_with(".bin")) return StoryFormat::tokens;
  return std::nullopt;
}

/// A file that was named itself is a text unless its name says otherwise.
inline StoryFormat story_format(const std::filesystem::path& path) {
  return known_story_format(path).value_or(StoryFormat::text);
}

/// Adds the files below a folder whose names say that they have stories. Hidden files and folders are left out, and
/// links to folders are not followed.
[[gnu::cold]] inline void add_folder(const std::filesystem::path& folder, std::vector<std::filesystem::path>& files) {
  std::error_code reason;
  std::filesystem::recursive_directory_iterator entry(folder, reason), end;
  for (; !reason && entry != end; entry.increment(reason)) {
    if (entry->path().filename().string().starts_with('.')) {
      entry.disable_recursion_pending();
    } else if (known_story_format(entry->path())) {
      std::error_code unknown;
      if (entry->is_regular_file(unknown)) files.push_back(entry->path());
      if (unknown && unknown != std::errc::no_such_file_or_directory) {
        fail<FileError>(entry->path(), ": cannot be looked at: ", unknown.message());
      }
    }
  }
  if (reason) fail<FileError>(folder, ": cannot be listed: ", reason.message());
}

/// The files of a file's name, a folder's name, or a pattern with *, ? and [ ]. Those of a folder and of a pattern are
/// in the order of their names' bytes. Throws FileError if there is none.
[[gnu::cold]] inline std::vector<std::filesystem::path> story_paths(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files;
  const auto in_order = [&] {
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.native() < b.native(); });
    return files;
  };
  if (look_at(path) == Found::folder) {
    add_folder(path, files);
    if (files.empty()) {
      fail<FileError>(path,
                      ": has no file of stories: no .txt, .json, .jsonl or .ndjson, each also as .gz, no .parquet ",
                      "and no .bin");
    }
    return in_order();
  }
  const bool pattern = path.native().find_first_of("*?[") != std::string::npos;
  if (!pattern || is_there(path)) return {path};
  ::glob_t found{};
  thread_local std::string unreadable;  // glob gives its function no place for one
  unreadable.clear();
  const auto stop = [](const char* folder, int reason) -> int {
    // Folders that one may not list are left out, as a shell does it: a disk's lost+found, for one.
    for (const int harmless : {ENOENT, ENOTDIR, EACCES, EPERM}) {
      if (reason == harmless) return 0;
    }
    unreadable = std::string(folder) + ": cannot be listed: " + std::strerror(reason);
    return 1;
  };
  const int status = ::glob(path.c_str(), GLOB_NOSORT, stop, &found);
  try {
    for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) {
      const std::filesystem::path one = found.gl_pathv[i];
      if (look_at(one) == Found::folder) {
        add_folder(one, files);
      } else {
        files.push_back(one);
      }
    }
  } catch (...) {
    ::globfree(&found);
    throw;
  }
  ::globfree(&found);
  if (status == GLOB_NOSPACE) throw std::bad_alloc();
  if (!unreadable.empty()) fail<FileError>(unreadable);
  if (files.empty()) fail<FileError>(path, ": no file has a name like this");
  return in_order();
}

/// The files of several paths, in the order of the paths.
[[gnu::cold]] inline std::vector<std::filesystem::path> story_paths(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> all;
  for (const auto& path : paths) {
    for (auto& file : story_paths(path)) all.push_back(std::move(file));
  }
  if (all.empty()) fail<FileError>("expected a file of stories, found none");
  return all;
}

/// What errors call several files.
[[gnu::cold]] inline std::string name_of(const std::vector<std::filesystem::path>& files) {
  std::string name = files.front().string();
  if (files.size() > 1) name += " and " + std::to_string(files.size() - 1) + " more";
  return name;
}

/// Whether the files are token files. Throws FileError if only some are.
[[gnu::cold]] inline bool are_token_files(const std::vector<std::filesystem::path>& files) {
  const auto is_token_file = [](const auto& file) { return story_format(file) == StoryFormat::tokens; };
  const bool tokens = is_token_file(files.front());
  const auto other =
      std::find_if(files.begin(), files.end(), [&](const auto& file) { return is_token_file(file) != tokens; });
  if (other == files.end()) return tokens;
  fail<FileError>(files.front(), tokens ? ": has tokens, and " : ": has text, and ", *other,
                  tokens ? " has text" : " has tokens", "; name files of one kind");
}

}  // namespace tinymoe::inline v0_1::detail
