#pragma once
/// @file
/// Shares of experts as a map, as SVG.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// A map of shares: 1 is an even one. `rows` are experts, columns are equal parts of the x axis.
struct HeatMap {
  std::string title = {}, x = {}, y = {};
  double low = 0, high = 1;  // of the x axis
  std::vector<std::vector<double>> rows = {};
  std::vector<std::string> names = {};  // of the columns, instead of an x axis
};

/// Levels of a share: 0 is none, 5 is even, 10 is twice as many or more. They are finer near an even share.
[[gnu::cold]] inline int share_level(double share) {
  const double away = std::clamp(share - 1, -1.0, 1.0);
  return static_cast<int>(std::round(5 + std::copysign(5 * std::pow(std::abs(away), 0.6), away)));
}
/// The middle of a level.
[[gnu::cold]] inline double share_of_level(int level) {
  const double away = (level - 5) / 5.0;
  return 1 + std::copysign(std::pow(std::abs(away), 1 / 0.6), away);
}

/// The map as a figure: one path for each level, so that it follows the page's colours. The script shows the shares,
/// of which each is a character: '0' + 8 · share.
[[gnu::cold]] inline Markup draw(const HeatMap& map) {
  const std::size_t rows = map.rows.size(), columns = rows == 0 ? 0 : map.rows[0].size();
  const double row_height = std::clamp(150.0 / static_cast<double>(std::max<std::size_t>(rows, 1)), 3.0, 26.0);
  const double height = row_height * static_cast<double>(rows), bottom = 6 + height;
  const bool named = !map.names.empty();
  const double below = named ? 70 : 40, width = 376.0 / static_cast<double>(std::max<std::size_t>(columns, 1));
  Markup svg = figure_of("map", map.title, bottom + below);
  svg.add({" data-rows=\"", std::to_string(rows), "\" data-columns=\"", std::to_string(columns), "\" data-x=\"",
           range_text(map.low, map.high), "\" data-unit=\"", map.x, "\" data-bottom=\"", place(bottom),
           "\" data-names=\""});
  for (const std::string& name : map.names) svg.add({name, "|"});
  svg.add({"\" data-shares=\""});
  std::string shares(rows * columns, '0');
  std::vector<std::string> paths(11);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns;) {
      const int level = share_level(map.rows[row][column]);
      const std::size_t first = column;
      for (; column < columns && share_level(map.rows[row][column]) == level; ++column) {
        shares[row * columns + column] =
            static_cast<char>('0' + static_cast<int>(std::clamp(map.rows[row][column] * 8 + 0.5, 0.0, 70.0)));
      }
      std::string& path = paths[static_cast<std::size_t>(level)];
      const double wide = static_cast<double>(column - first) * width;
      path += "M" + place(52 + static_cast<double>(first) * width) + " " +
              place(6 + static_cast<double>(row) * row_height) + "h" + place(wide) + "v" + place(row_height) + "h-" +
              place(wide) + "z";
    }
  }
  svg.add({shares, "\">"});
  for (std::size_t level = 0; level < paths.size(); ++level) {
    if (!paths[level].empty()) svg.add({"<path class=\"l", std::to_string(level), "\" d=\"", paths[level], "\"/>"});
  }
  svg.add({"<g class=\"grid\">"});
  const std::size_t every = rows <= 12 ? 1 : rows / 8;
  for (std::size_t row = 0; row < rows; row += every) {
    svg.add({"<text class=\"end\" x=\"47\" y=\"", place(6 + (static_cast<double>(row) + 0.5) * row_height),
             "\" dy=\".35em\">", std::to_string(row), "</text>"});
  }
  for (std::size_t column = 0; named && column < columns; ++column) {
    const std::string x = place(52 + (static_cast<double>(column) + 0.5) * width);
    svg.add({"<text class=\"end\" transform=\"translate(", x, " ", place(bottom + 10), ") rotate(-35)\">",
             map.names[column], "</text>"});
  }
  if (!named) {
    const Axis axis = axis_of(map.low, map.high, 5);
    for (const double tick : axis.ticks) {
      svg.add({"<text class=\"middle\" x=\"", place(52 + 376 * axis.share(tick)), "\" y=\"", place(bottom + 16), "\">",
               tick_text(tick, axis, false), "</text>"});
    }
    svg.add({"<text class=\"middle\" x=\"240\" y=\"", place(bottom + 34), "\">", map.x, "</text>"});
  }
  return svg.add({"<text class=\"middle\" transform=\"translate(6 ", place(6 + height / 2), ") rotate(-90)\">", map.y,
                  "</text></g></svg></figure>"});
}

/// The colours of a map, with what they mean.
[[gnu::cold]] inline Markup share_scale() {
  Markup scale{"<div class=\"scale\"><svg viewBox=\"0 0 264 30\" role=\"img\" aria-label=\"colours of shares\">"};
  for (int level = 0; level <= 10; ++level) {
    const std::string x = std::to_string(level * 24);
    scale.add({"<rect class=\"l", std::to_string(level), "\" x=\"", x, "\" width=\"24\" height=\"14\"/>"});
    if (level % 5 == 0 || level == 2 || level == 8) {
      scale.add({"<text class=\"middle\" x=\"", std::to_string(level * 24 + 12), "\" y=\"27\">",
                 general_text(share_of_level(level), 2), "</text>"});
    }
  }
  return scale.add({"</svg> of an even share</div>"});
}

}  // namespace tinymoe::inline v0_1::detail
