#pragma once
// Where the files of a run lie, given its folder.

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
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

  /// Throws FileError for a "." that is not there, and for what the system cannot look at.
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
  /// Whether the folder around `name` is a place for the files of a run in `target`. Throws FileError where the system
  /// cannot tell: a resumed run would not find them.
  static bool is_beside(const std::filesystem::path& name, const std::filesystem::path& target) {
    if (!tinymoe::detail::is_there(target)) return name == target;  // it will be made there
    const auto folder = tinymoe::detail::folder_of(name);
    return !tinymoe::detail::is_mount_point(target) && same_mount(folder, target) && is_writable(folder);
  }

  static bool is_writable(const std::filesystem::path& folder) {
    const int status = ::access(folder.c_str(), W_OK);
    const bool refused = status != 0 && (errno == EACCES || errno == EROFS || errno == EPERM);
    return !refused && tinymoe::detail::has_found(status, folder);
  }

  static bool same_mount(const std::filesystem::path& one, const std::filesystem::path& other) {
#if defined(STATX_MNT_ID)  // two bind mounts may be of one device
    const auto first = tinymoe::detail::statx_of(one, STATX_MNT_ID);
    const auto second = tinymoe::detail::statx_of(other, STATX_MNT_ID);
    if (first && second && (first->stx_mask & second->stx_mask & STATX_MNT_ID) != 0) {
      return first->stx_mnt_id == second->stx_mnt_id;
    }
#endif
    const auto first_device = tinymoe::detail::stat_of(one), second_device = tinymoe::detail::stat_of(other);
    return first_device && second_device && first_device->st_dev == second_device->st_dev;
  }
};

/// run-loads.csv beside run.csv, and v1.2-loads.csv beside v1.2.
inline std::filesystem::path loads_file(std::filesystem::path metrics) {
  if (metrics.extension() == ".csv") metrics.replace_extension();
  return metrics += "-loads.csv";
}

}  // namespace examples
