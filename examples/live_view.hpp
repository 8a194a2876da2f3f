#pragma once
// What a training run shows on a terminal: a few lines that are drawn over themselves.

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <tinymoe/train/reports.hpp>
#include <utility>
#include <vector>

namespace examples {

/// Eight heights of a block, from the lowest; `share` from 0 to 1.
inline const char* block_of(double share) {
  constexpr const char* blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  return blocks[static_cast<int>(std::clamp(share * 8, 0.0, 7.0))];
}

/// A curve of any number of values, from the first to the last, in at most `width` blocks; the lowest value is the
/// lowest block.
class Sparkline {
 public:
  /// Adds a value. What is kept does not grow: neighbours become their mean.
  void add(double value) {
    if (!std::isfinite(value)) return;
    if (count_ == 0) means_.push_back(0);
    means_.back() += (value - means_.back()) / static_cast<double>(++count_);
    if (count_ < each_) return;
    count_ = 0;
    if (means_.size() < most) return;
    for (std::size_t i = 0; i < most / 2; ++i) means_[i] = (means_[2 * i] + means_[2 * i + 1]) / 2;
    means_.resize(most / 2);
    each_ *= 2;
  }

  std::string draw(std::size_t width) const {
    std::vector<double> values;
    const std::size_t columns = std::min(width, means_.size());
    for (std::size_t i = 0; i < columns; ++i) {
      const std::size_t first = i * means_.size() / columns, last = (i + 1) * means_.size() / columns;
      double sum = 0;
      for (std::size_t j = first; j < last; ++j) sum += means_[j];
      values.push_back(sum / static_cast<double>(last - first));
    }
    if (values.empty()) return {};
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    std::string line;
    for (const double value : values) line += block_of(*high > *low ? (value - *low) / (*high - *low) : 0);
    return line;
  }

 private:
  static constexpr std::size_t most = 256;
  std::vector<double> means_;
  tinymoe::Index count_ = 0, each_ = 1;  // values in the last mean, and in a full one
};

/// A bar for each expert, where half the height is an even load; "▄▅▃▄".
inline std::string load_bars(const std::vector<tinymoe::Index>& loads, std::size_t width) {
  double total = 0;
  for (const tinymoe::Index load : loads) total += static_cast<double>(load);
  std::string bars;
  for (std::size_t e = 0; e < std::min(width, loads.size()); ++e) {
    const double share = total > 0 ? static_cast<double>(loads[e]) / total * static_cast<double>(loads.size()) : 0;
    bars += loads[e] == 0 ? "·" : block_of(share / 2);
  }
  return bars;
}

/// A line without what a terminal of so many columns would break; each character takes one.
inline std::string clipped(const std::string& line, std::size_t columns) {
  std::size_t at = 0;
  for (std::size_t shown = 0; at < line.size(); ++at) {
    const bool starts = (static_cast<unsigned char>(line[at]) & 0xc0u) != 0x80u;
    if (starts && shown++ == columns) break;
  }
  return line.substr(0, at);
}

/// The first of these parts that a line of so many columns has room for; of the first, what fits.
inline std::string fitting(const std::vector<std::string>& parts, std::size_t columns) {
  std::string line;
  for (const std::string& part : parts) {
    if (!line.empty() && line.size() + part.size() > columns) break;
    line += part;
  }
  return clipped(line, columns);
}

/// Whether a descriptor is a terminal that can move its cursor.
inline bool is_terminal(int descriptor) {
  const char* kind = std::getenv("TERM");
  return isatty(descriptor) == 1 && kind != nullptr && *kind != '\0' && std::string_view(kind) != "dumb";
}

/// Whether the user's language is written in UTF-8.
inline bool shows_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    std::string text(value);
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text.find("utf-8") != std::string::npos || text.find("utf8") != std::string::npos;
  }
  return false;
}

/// Lines at the end of a terminal's output that are drawn over themselves.
class LiveLines {
 public:
  /// Columns and rows of the terminal; 80 and 24 where it does not tell.
  static std::pair<std::size_t, std::size_t> size(int descriptor = STDOUT_FILENO) {
    winsize window{};
    if (::ioctl(descriptor, TIOCGWINSZ, &window) != 0 || window.ws_col == 0) return {80, 24};
    return {window.ws_col, window.ws_row};
  }

  /// What to print so that these lines stand where the last ones did, on a terminal of so many columns.
  std::string draw(const std::vector<std::string>& lines, std::size_t columns) {
    std::string text = erase();
    for (const std::string& line : lines) text += clipped(line, columns) + "\n";
    open_ = lines.size();
    return text;
  }
  /// What to print so that the lines are gone and others can follow.
  std::string erase() {
    std::string text;
    if (open_ > 0) text = "\033[" + std::to_string(open_) + "A\r\033[J";
    open_ = 0;
    return text;
  }

 private:
  std::size_t open_ = 0;
};

}  // namespace examples
