#pragma once
/// @file
/// Curves as SVG: axes with units, a legend, and no more points than can be seen.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/html/axis.hpp"
#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

struct PlotPoint {
  double x = 0, y = 0;
};

/// One curve. `colour` is a number of the page's palette, from 0 to 7; others begin again, dashed or as rings.
struct Curve {
  enum class Style { line, faint, marked, points };
  std::string name = {};
  std::vector<PlotPoint> points = {};
  Index colour = 0;
  Style style = Style::line;
};

struct LinePlot {
  std::string title = {}, x = {}, y = {};  // y and x with their units
  std::vector<Curve> curves = {};
  bool from_zero = false;  // the y axis has 0
  bool clock = false;      // x is seconds
  bool powers = false;     // x is the logarithm to base 10 of what the axis tells
  double share = 0;        // of the points with the largest y that may lie outside; 0: none does
  std::vector<std::pair<std::string, PlotPoint>> labels = {};  // beside points
};

/// Whether a point has a place in a plot. Logs have infinities and NaN where training diverged.
[[gnu::cold]] inline bool is_shown(const PlotPoint& point) { return std::isfinite(point.x) && std::isfinite(point.y); }

/// At most about four points for each of `buckets` equal parts of the x axis: the first, the last, the lowest and the
/// highest, so that no peak is lost. Points that are not finite are left out.
[[gnu::cold]] inline std::vector<PlotPoint> thinned(const std::vector<PlotPoint>& points, Index buckets) {
  std::vector<PlotPoint> kept;
  if (points.empty()) return kept;
  double low = std::numeric_limits<double>::max(), high = -low;
  for (const PlotPoint& point : points) {
    if (is_shown(point)) low = std::min(low, point.x), high = std::max(high, point.x);
  }
  const double range = high / 2 - low / 2;  // halves, since all of it may be more than a double
  Index open = -1;
  std::size_t places[4] = {};  // first, lowest, highest, last
  const auto close = [&] {
    if (open < 0) return;
    std::sort(places, places + 4);
    for (std::size_t i = 0; i < 4; ++i) {
      if (i == 0 || places[i] != places[i - 1]) kept.push_back(points[places[i]]);
    }
  };
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!is_shown(points[i])) continue;
    const double share = range > 0 ? (points[i].x / 2 - low / 2) / range : 0;
    const auto bucket = static_cast<Index>(share * static_cast<double>(buckets));
    if (bucket != open) {
      close();
      open = bucket;
      places[0] = places[1] = places[2] = i;
    }
    if (points[i].y < points[places[1]].y) places[1] = i;
    if (points[i].y > points[places[2]].y) places[2] = i;
    places[3] = i;
  }
  close();
  return kept;
}

/// The exponential moving average over about 1/50 of the points, at most 100, and over fewer where the curve begins.
[[gnu::cold]] inline std::vector<PlotPoint> smoothed(const std::vector<PlotPoint>& points) {
  const double window = std::clamp(static_cast<double>(points.size()) / 50, 1.0, 100.0);
  std::vector<PlotPoint> result;
  double average = 0, weight = 0;
  for (const PlotPoint& point : points) {
    if (!is_shown(point)) continue;
    average += (point.y - average) / std::min(window, 1 + weight++ / 5);
    result.push_back({point.x, average});
  }
  return result;
}

/// The size of all plots, in the units of their texts: a phone shows them as they are.
struct PlotFrame {
  static constexpr double width = 440, height = 270, left = 52, right = 428, top = 12, bottom = 226;
};

/// The numbers that lie within both axes.
[[gnu::cold]] inline std::pair<Axis, Axis> axes_of(const LinePlot& plot) {
  constexpr double huge = std::numeric_limits<double>::max();
  double x_low = huge, x_high = -huge;
  std::vector<double> values;
  for (const Curve& curve : plot.curves) {
    for (const PlotPoint& point : curve.points) {
      if (!is_shown(point)) continue;
      x_low = std::min(x_low, point.x), x_high = std::max(x_high, point.x);
      values.push_back(point.y);
    }
  }
  if (values.empty()) return {axis_of(0, 1, 5), axis_of(0, 1, 5)};
  if (x_low > 0 && x_low < 0.1 * x_high) x_low = 0;
  std::sort(values.begin(), values.end());
  const auto last = static_cast<std::size_t>(static_cast<double>(values.size() - 1) * (1 - plot.share));
  double low = values.front(), high = values[last];
  if (plot.from_zero) low = std::min(low, 0.0), high = high > 0 ? high : 1;
  const double margin = (high - low) * (plot.labels.empty() ? 0.04 : 0.1);
  if (!plot.from_zero || low < 0) low -= margin;
  return {axis_of(x_low, x_high, 5, plot.clock), axis_of(low, high + margin, 5)};
}

/// The beginning of a figure, up to where its svg's attributes may go on. `kind` is its class.
[[gnu::cold]] inline Markup figure_of(MarkupPiece kind, const std::string& title, double height) {
  return {"<figure class=\"",
          kind,
          "\"><figcaption>",
          title,
          "</figcaption><svg viewBox=\"0 0 440 ",
          place(height),
          "\" role=\"img\" aria-label=\"",
          title,
          "\""};
}
/// A range as the script reads it.
[[gnu::cold]] inline std::string range_text(double low, double high) {
  return general_text(low, 9) + " " + general_text(high, 9);
}

/// The plot as a figure. The script reads the curves' points and the axes back from it, to show values.
[[gnu::cold]] inline Markup draw(const LinePlot& plot) {
  using F = PlotFrame;
  const auto axes = axes_of(plot);
  const Axis &x_axis = axes.first, &y_axis = axes.second;
  const auto x_of = [&](double x) { return F::left + (F::right - F::left) * std::clamp(x_axis.share(x), 0.0, 1.0); };
  const auto y_of = [&](double y) { return F::bottom - (F::bottom - F::top) * std::clamp(y_axis.share(y), 0.0, 1.0); };
  Markup svg = figure_of("plot", plot.title, PlotFrame::height);
  svg.add({" tabindex=\"0\" data-x=\"", range_text(x_axis.low, x_axis.high), "\" data-y=\"",
           range_text(y_axis.low, y_axis.high), "\" data-unit=\"", plot.x, "\""});
  svg.add({plot.clock    ? std::string_view(" data-clock")
           : plot.powers ? std::string_view(" data-powers")
                         : std::string_view(),
           "><g class=\"grid\">"});
  for (const double tick : y_axis.ticks) {
    const std::string y = place(y_of(tick));
    svg.add({"<path d=\"M52 ", y, "H428\"/><text class=\"end\" x=\"47\" y=\"", y, "\" dy=\".35em\">",
             tick_text(tick, y_axis, false), "</text>"});
  }
  std::vector<std::pair<double, std::string>> marks;
  if (plot.powers) marks = power_ticks(x_axis);
  if (marks.empty()) {
    for (const double tick : x_axis.ticks) {
      marks.emplace_back(tick,
                         plot.powers ? general_text(std::pow(10.0, tick), 2) : tick_text(tick, x_axis, plot.clock));
    }
  }
  for (const auto& [tick, text] : marks) {
    const double x = x_of(tick);
    const bool last = x > 412;  // a wide text would not fit behind the middle
    svg.add({"<path d=\"M", place(x), " 226v4\"/><text class=\"",
             last ? std::string_view("end") : std::string_view("middle"), "\" x=\"", place(last ? 438 : x),
             "\" y=\"243\">", text, "</text>"});
  }
  svg.add({"<path class=\"axis\" d=\"M52 12V226H428\"/><text class=\"middle\" x=\"240\" y=\"262\">", plot.x,
           "</text><text class=\"middle\" transform=\"translate(6 119) rotate(-90)\">", plot.y, "</text></g>"});
  for (const Curve& curve : plot.curves) {
    using Style = Curve::Style;
    const bool points_alone = curve.style == Style::points;
    svg.add({"<g class=\"curve c", std::to_string(curve.colour % 8)});
    if (curve.colour >= 8) svg.add({" dashed"});
    if (curve.style == Style::faint) svg.add({" faint"});
    svg.add({"\" data-name=\"", curve.name, "\"><polyline"});
    if (points_alone) svg.add({" class=\"none\""});
    svg.add({" points=\""});
    std::vector<PlotPoint> seen = points_alone ? curve.points : thinned(curve.points, 376);
    std::erase_if(seen, [](const PlotPoint& point) { return !is_shown(point); });
    for (const PlotPoint& point : seen) svg.add({place(x_of(point.x)), ",", place(y_of(point.y)), " "});
    svg.add({"\"/>"});
    if (curve.style == Style::marked || points_alone) {
      for (const PlotPoint& point : seen.size() <= 120 || points_alone ? seen : std::vector<PlotPoint>()) {
        svg.add({"<circle cx=\"", place(x_of(point.x)), "\" cy=\"", place(y_of(point.y)), "\" r=\"",
                 points_alone ? std::string_view("4.5") : std::string_view("2.6")});
        if (points_alone && curve.colour >= 8) svg.add({"\" class=\"ring"});
        svg.add({"\"/>"});
      }
    }
    svg.add({"</g>"});
  }
  for (const auto& [text, point] : plot.labels) {
    if (!is_shown(point)) continue;
    const double x = x_of(point.x);
    const bool left = x > 330;
    svg.add({"<text class=\"label"});
    if (left) svg.add({" end"});
    svg.add({"\" x=\"", place(left ? x - 6 : x + 6), "\" y=\"", place(y_of(point.y)), "\" dy=\"",
             left ? std::string_view("1.2em") : std::string_view("-.4em"), "\">", text, "</text>"});
  }
  svg.add({"</svg>"});
  Index named = 0;
  for (const Curve& curve : plot.curves) named += !curve.name.empty();
  if (named > 1) {
    svg.add({"<div class=\"legend\">"});
    for (const Curve& curve : plot.curves) {
      if (curve.name.empty()) continue;
      svg.add({"<span class=\"c", std::to_string(curve.colour % 8)});
      if (curve.colour >= 8) svg.add({" dashed"});
      if (curve.style == Curve::Style::faint) svg.add({" faint"});
      svg.add({"\"><i></i>", curve.name, "</span>"});
    }
    svg.add({"</div>"});
  }
  return svg.add({"</figure>"});
}

/// A bar for each of some values, from 0 to the right or to the left.
[[gnu::cold]] inline Markup bars(const std::string& title, const std::string& unit,
                                 const std::vector<std::pair<std::string, double>>& values, double low, double high) {
  const Axis axis = axis_of(std::min(low, 0.0), std::max(high, 0.0), 4);
  const double height = std::clamp(180.0 / static_cast<double>(values.size()), 7.0, 20.0);
  const double bottom = 8 + height * static_cast<double>(values.size());
  const auto x_of = [&](double value) { return 52 + 370 * axis.share(value); };
  Markup svg = figure_of("bars", title, bottom + 40);
  svg.add({"><g class=\"grid\">"});
  for (const double tick : axis.ticks) {
    svg.add({"<path d=\"M", place(x_of(tick)), " 8V", place(bottom), "\"/><text class=\"middle\" x=\"",
             place(x_of(tick)), "\" y=\"", place(bottom + 16), "\">", tick_text(tick, axis, false), "</text>"});
  }
  svg.add({"<text class=\"middle\" x=\"240\" y=\"", place(bottom + 34), "\">", unit, "</text>"});
  double y = 8;
  for (const auto& [name, value] : values) {
    const double from = std::min(x_of(0), x_of(value)), to = std::max(x_of(0), x_of(value));
    svg.add({"<text class=\"end\" x=\"47\" y=\"", place(y + height / 2), "\" dy=\".35em\">", name,
             "</text><rect class=\"bar\" x=\"", place(from), "\" y=\"", place(y + 1), "\" width=\"", place(to - from),
             "\" height=\"", place(height - 2), "\"><title>", name, ": ", fixed_text(value, 4), "</title></rect>"});
    y += height;
  }
  return svg.add({"<path class=\"axis\" d=\"M", place(x_of(0)), " 8V", place(bottom), "\"/></g></svg></figure>"});
}

}  // namespace tinymoe::inline v0_1::detail
