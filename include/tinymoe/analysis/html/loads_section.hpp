#pragma once
/// @file
/// The part of a report about the loads of experts over a run.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "tinymoe/analysis/html/heat_map.hpp"
#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/analysis/run_history.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1::detail {

/// How even loads are: −Σ p ln p of their shares p, as a share of its max; 1 is even.
[[gnu::cold]] inline double load_entropy(const std::vector<Index>& loads) {
  double sum = 0, entropy = 0;
  for (const Index load : loads) sum += static_cast<double>(load);
  for (const Index load : loads) {
    const double share = sum > 0 ? static_cast<double>(load) / sum : 0;
    if (share > 0) entropy -= share * std::log(share);
  }
  return loads.size() < 2 ? 1 : entropy / std::log(static_cast<double>(loads.size()));
}

/// Loads as shares of an even load.
[[gnu::cold]] inline std::vector<double> shares_of_even(const std::vector<Index>& loads) {
  double sum = 0;
  for (const Index load : loads) sum += static_cast<double>(load);
  std::vector<double> shares;
  for (const Index load : loads) {
    shares.push_back(sum > 0 ? static_cast<double>(load) / sum * static_cast<double>(loads.size()) : 0);
  }
  return shares;
}

/// "layer 2" of the third, as everywhere, of which each mixture is one. Without an architecture, "mixture 1" of the
/// second.
[[gnu::cold]] inline std::vector<std::string> mixture_names(const Json& architecture, std::size_t mixtures) {
  std::vector<std::string> names;
  if (architecture.is_object()) {
    const ModelShape shape = shape_of(architecture);
    for (std::size_t i = 0; i < shape.layers.size(); ++i) {
      if (shape.layers[i].is_mixture()) names.push_back("layer " + std::to_string(i));
    }
  }
  if (names.size() == mixtures) return names;
  names.clear();
  for (std::size_t m = 0; m < mixtures; ++m) names.push_back("mixture " + std::to_string(m));
  return names;
}

/// The mixtures that are shown: all, or as many as keep the page small, at equal distances.
[[gnu::cold]] inline std::vector<std::size_t> shown_mixtures(std::size_t mixtures, std::size_t experts) {
  const std::size_t most = std::clamp<std::size_t>(1024 / std::max<std::size_t>(experts, 1), 1, 16);
  std::vector<std::size_t> shown;
  const std::size_t count = std::min(most, mixtures);
  for (std::size_t i = 0; i < count; ++i) {
    shown.push_back(count < 2 ? 0 : i * (mixtures - 1) / (count - 1));
  }
  return shown;
}

[[gnu::cold]] inline Markup loads_section(const RunHistory& run, const Json& architecture) {
  const auto& parts = run.loads.parts();
  // A validation of other mixtures than the steps' is another model's, and left out.
  const bool validated =
      !run.validation_loads.empty() && (parts.empty() || parts[0].loads.size() == run.validation_loads.size());
  if (!validated && parts.empty()) return {};
  const ExpertLoads& last = validated ? run.validation_loads : parts.back().loads;
  Markup page{"<h2 id=\"loads\">How the experts share the work</h2>"};
  const auto shown = shown_mixtures(last.size(), last[0].size());
  const std::vector<std::string> names = mixture_names(architecture, last.size());
  if (shown.size() < last.size()) {
    page.add({"<p class=\"soft\">", std::to_string(shown.size()), " of ", std::to_string(last.size()),
              " mixtures are shown.</p>"});
  }
  page.add({share_scale(), "<div class=\"grid-of\">"});
  for (const std::size_t m : shown) {
    if (parts.empty()) break;
    HeatMap map{.title = "Load of each expert, " + names[m],
                .x = "step",
                .y = "expert",
                .low = static_cast<double>(parts.front().first_step),
                .high = static_cast<double>(std::max(parts.back().last_step, parts.front().first_step + 1))};
    map.rows.resize(parts[0].loads[m].size());
    for (const auto& part : parts) {
      const auto shares = shares_of_even(part.loads[m]);
      for (std::size_t e = 0; e < shares.size(); ++e) map.rows[e].push_back(shares[e]);
    }
    page.add({draw(map)});
  }
  if (!parts.empty()) {
    LinePlot entropy{.title = "Entropy of the loads: 1 is even", .x = "step", .y = "of its max"};
    LinePlot dead{.title = "Dead experts: without a token", .x = "step", .y = "experts", .from_zero = true};
    dead.curves.emplace_back();
    for (std::size_t i = 0; i < std::min<std::size_t>(shown.size(), 8); ++i) {
      auto& curve = entropy.curves.emplace_back(Curve{names[shown[i]], {}, static_cast<Index>(i)});
      for (const auto& part : parts) {
        curve.points.push_back({static_cast<double>(part.last_step), load_entropy(part.loads[shown[i]])});
      }
    }
    for (const auto& part : parts) {
      std::ptrdiff_t count = 0;
      for (const auto& mixture : part.loads) count += std::count(mixture.begin(), mixture.end(), 0);
      dead.curves[0].points.push_back({static_cast<double>(part.last_step), static_cast<double>(count)});
    }
    page.add({draw(entropy), draw(dead)});
  }
  HeatMap map{.title = "Load of each expert in the last validation", .y = "expert"};
  for (std::size_t e = 0; e < last[0].size() && validated; ++e) map.rows.emplace_back();
  for (const std::size_t m : shown) {
    if (map.rows.empty() || last[m].size() != last[0].size()) continue;
    const auto shares = shares_of_even(last[m]);
    for (std::size_t e = 0; e < shares.size(); ++e) map.rows[e].push_back(shares[e]);
    map.names.push_back(names[m]);
  }
  if (!map.rows.empty()) page.add({draw(map)});
  return page.add({"</div>"});
}

}  // namespace tinymoe::inline v0_1::detail
