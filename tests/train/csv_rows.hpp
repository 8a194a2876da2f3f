#pragma once
// The rows of a run's CSV.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace tinymoe_test {

/// The rows without what depends on a clock: seconds and tokens a second.
inline std::vector<std::string> rows_without_times(const std::filesystem::path& csv) {
  std::ifstream file(csv);
  std::vector<std::string> rows;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string row, field;
    for (int i = 1; std::getline(fields, field, ','); ++i) {
      if (i != 3 && i != 7) row += field + ",";
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace tinymoe_test
