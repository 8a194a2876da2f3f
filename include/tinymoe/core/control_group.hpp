#pragma once
/// @file
/// What the system tells of itself in small files, and the control groups that bound a process: a container's, or a
/// job's of a scheduler (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1 of Linux).

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

namespace tinymoe::inline v0_1::detail {

/// A small file of the system; empty if it cannot be read.
[[gnu::cold]] inline std::string system_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  char text[4096];
  const auto size = ::read(file, text, sizeof text);
  ::close(file);
  return {text, size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// The number after `label` in a small file of the system, or after nothing; the largest number if there is none.
[[gnu::cold]] inline std::size_t number_in(const std::string& path, const char* label) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  const std::string text = system_file(path);
  const auto found = text.find(label);
  if (found == std::string::npos) return none;
  const char* begin = text.c_str() + found + std::strlen(label);
  char* end = nullptr;
  const auto number = std::strtoull(begin, &end, 10);
  return end == begin ? none : static_cast<std::size_t>(number);  // "max": no limit
}

/// The control group of this process for a controller of version 1, or with "" that of version 2. A line of
/// /proc/self/cgroup is "number:controllers:group": "4:cpuset,memory:/jobs", "0::/jobs".
[[gnu::cold]] inline std::string control_group(const std::string& file, std::string_view controller) {
  const std::string text = system_file(file);
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view line = std::string_view(text).substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const auto listed = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    if (listed.find("," + std::string(controller) + ",") == listed.npos) continue;
    return std::string(line.substr(second + 1));
  }
  return "/";
}

/// f(folder, whether of version 2) for the control group of this process and for each around it, of both versions;
/// `controller` is version 1's name. `system` stands before all paths, for tests.
template <class F>
void for_each_control_group(const std::string& system, const char* controller, F f) {
  for (const bool version_2 : {true, false}) {
    const std::string root = system + "/sys/fs/cgroup" + (version_2 ? "" : std::string("/") + controller);
    std::string group = control_group(system + "/proc/self/cgroup", version_2 ? "" : controller);
    while (true) {
      f(root + (group == "/" ? "" : group), version_2);
      if (group.size() <= 1) break;
      group.resize(std::max<std::size_t>(1, group.rfind('/')));
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail
