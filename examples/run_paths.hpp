#pragma once
// Where the files of a run lie, given its folder.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/paths.hpp"

namespace examples {

/// The names that `train --out OUT` writes to. OUT is the latest checkpoint. The others lie beside it, as OUT-best; but
/// in it, as OUT/best, where beside it would be another mount than OUT's (OUT is a container's volume) or a folder that
/// cannot be written.
struct RunPaths {
  std::filesystem::path out, best, best_weights, metrics, tokens, json_lines, report;

  /// Throws FileError for a "." that is not there.
  explicit RunPaths(const std::filesystem::path& folder) : out(folder.has_filename() ? folder : folder.parent_path()) {
    if (out.filename() == "." || out.filename() == "..") {
      std::error_code reason;  // the current folder may have been removed
      out = std::filesystem::weakly_canonical(out, reason);
      if (reason) {
        tinymoe::fail<tinymoe::FileError>(folder.string(), ": cannot be found: ", reason.message(),
                                          "; give another path");
      }
    }
    const auto target = tinymoe::detail::write_target(out);
    for (const auto& name : {out, target}) {
      if (!is_beside(name, target)) continue;
      const auto with = [&](const char* suffix) { return std::filesystem::path(name.string() + suffix); };
      best = with("-best"), best_weights = with("-best-weights"), metrics = with(".csv"), tokens = with("-data");
      json_lines = with(".jsonl"), report = with(".html");
      return;
    }
    best = out / "best", best_weights = out / "best-weights", metrics = out / "metrics.csv", tokens = out / "data";
    json_lines = out / "log.jsonl", report = out / "report.html";
  }

 private:
  /// Whether the folder around `name` is a place for the files of a run in `target`.
  static bool is_beside(const std::filesystem::path& name, const std::filesystem::path& target) {
    struct stat itself {};
    if (::stat(target.c_str(), &itself) != 0) return name == target;  // it will be made there
    const auto folder = tinymoe::detail::folder_of(name);
    return !tinymoe::detail::is_mount_point(target) && same_mount(folder, target) &&
           ::access(folder.c_str(), W_OK) == 0;
  }

  static bool same_mount(const std::filesystem::path& one, const std::filesystem::path& other) {
#if defined(STATX_MNT_ID)  // two bind mounts may be of one device
    struct statx first {};
    struct statx second {};
    if (::statx(AT_FDCWD, one.c_str(), 0, STATX_MNT_ID, &first) == 0 &&
        ::statx(AT_FDCWD, other.c_str(), 0, STATX_MNT_ID, &second) == 0 &&
        (first.stx_mask & second.stx_mask & STATX_MNT_ID) != 0) {
      return first.stx_mnt_id == second.stx_mnt_id;
    }
#endif
    struct stat first_device {};
    struct stat second_device {};
    return ::stat(one.c_str(), &first_device) == 0 && ::stat(other.c_str(), &second_device) == 0 &&
           first_device.st_dev == second_device.st_dev;
  }
};

/// run-loads.csv beside run.csv, and v1.2-loads.csv beside v1.2.
inline std::filesystem::path loads_file(std::filesystem::path metrics) {
  if (metrics.extension() == ".csv") metrics.replace_extension();
  return metrics += "-loads.csv";
}

}  // namespace examples
