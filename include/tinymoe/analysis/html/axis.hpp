#pragma once
/// @file
/// Axes: a range, the places of its marks, and their texts.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// A range and the places of its marks.
struct Axis {
  double low = 0, high = 1;
  std::vector<double> ticks = {};
  int places = 0;  // behind the point that tell neighbours apart

  double share(double value) const { return (value - low) / (high - low); }
};

/// About `count` marks at multiples of 1, 2 or 5 times a power of ten; of 1, 2, 5, 10, 15 or 30 seconds or minutes.
[[gnu::cold]] inline Axis axis_of(double low, double high, int count, bool clock = false) {
  // Beyond these the distance of two numbers is no number, or none above 0.
  constexpr double most = 1e300, least = 1e-290;
  low = std::clamp(low, -most, most), high = std::clamp(high, -most, most);
  if (!(high - low > least)) {
    const double around = std::abs(low) < least ? 1 : std::abs(low) * 0.1;
    low -= around, high += around;
  }
  const double wanted = (high - low) / count;
  double step = std::pow(10, std::floor(std::log10(wanted)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (step * factor >= wanted * 0.75) {
      step *= factor;
      break;
    }
  }
  if (clock) {
    step = 86400;
    for (const double one : {1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200}) {
      if (one >= wanted) {
        step = one;
        break;
      }
    }
    while (step < wanted) step *= 2;
  }
  Axis axis{.low = low, .high = high};
  for (double tick = std::ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) {
    axis.ticks.push_back(std::abs(tick) < step * 1e-9 ? 0 : tick);
    if (axis.ticks.size() > 20) break;
  }
  axis.places = static_cast<int>(std::max(0.0, -std::floor(std::log10(step) + 1e-9)));
  return axis;
}

/// A mark's text, with a unit of thousands for large numbers and a power of ten for small ones.
[[gnu::cold]] inline std::string tick_text(double value, const Axis& axis, bool clock) {
  if (clock) return clock_text(value);
  const double most = std::max(std::abs(axis.low), std::abs(axis.high));
  if (most >= 10000) return value == 0 ? "0" : short_number(value, 4);
  if (most > 0 && (most < 0.001 || axis.places > 4)) {
    if (value == 0) return "0";
    const double power = std::floor(std::log10(most) + 1e-9);
    return general_text(value / std::pow(10.0, power), 4) + 'e' + general_text(power, 4);
  }
  return fixed_text(value, axis.places);
}

/// The marks of an axis of logarithms to base 10, with their texts: 1, 2, 3 and 5 times powers of ten, or these alone
/// where there are many. Empty if no two lie on the axis.
[[gnu::cold]] inline std::vector<std::pair<double, std::string>> power_ticks(const Axis& axis) {
  std::vector<std::pair<double, std::string>> ticks;
  const double decades = axis.high - axis.low;
  const double step = std::max(1.0, std::ceil(decades / 8));
  for (double power = std::floor(axis.low); power <= axis.high && decades < 700; power += step) {
    for (const double factor : {1.0, 2.0, 3.0, 5.0}) {
      const bool shown = factor == 1 || decades < 1.5 || (decades < 2.5 && factor != 3);
      const double at = power + std::log10(factor);
      if (!shown || at < axis.low - 1e-9 || at > axis.high + 1e-9) continue;
      const double value = factor * std::pow(10.0, power);
      ticks.emplace_back(at, value >= 10000 ? short_number(value, 4)
                             : value >= 1   ? fixed_text(value, 0)
                                            : general_text(value, 1));
    }
  }
  if (ticks.size() < 2) ticks.clear();
  return ticks;
}

}  // namespace tinymoe::inline v0_1::detail
