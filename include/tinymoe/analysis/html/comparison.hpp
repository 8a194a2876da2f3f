#pragma once
/// @file
/// Several models side by side: runs, or the variants of a sweep.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ios>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// A model that is compared with others. What is not known is 0.
struct ComparedModel {
  std::string name = {};
  Index parameters = 0, active = 0;
  Index flops_forward = 0;  // a token, forward
  Index steps = 0, tokens = 0;
  double seconds = 0, loss = 0, bits_per_byte = 0, load_variation = 0;  // of the last validation
};

/// The rows of a sweep's CSV. A row that was cut is left out. Throws FileError for a file that `sweep` did not write.
[[gnu::cold]] inline std::vector<ComparedModel> read_sweep(const std::filesystem::path& csv) {
  std::ifstream file(csv, std::ios::binary);
  if (!file) fail<FileError>(csv, ": cannot be opened; a sweep's results are the CSV that sweep writes");
  std::string line;
  std::getline(file, line);
  if (line.ends_with('\r')) line.pop_back();
  if (line !=
      "variant,parameters,active,flops_per_token,tokens_per_second,steps,tokens,validation_loss,"
      "validation_bits_per_byte,load_variation") {
    fail<FileError>(csv, ": expected results that begin with \"variant,parameters,active\", as sweep writes them");
  }
  std::vector<ComparedModel> models;
  while (std::getline(file, line)) {
    std::vector<double> numbers;
    const std::size_t name = std::min(line.find(','), line.size());
    for (std::size_t at = name + 1; at <= line.size();) {
      const std::size_t comma = std::min(line.find(',', at), line.size());
      double number = 0;
      const auto [end, reason] = std::from_chars(line.data() + at, line.data() + comma, number);
      if (reason != std::errc() || !(number >= 0 && number < 0x1p62)) break;
      numbers.push_back(number);
      at = comma + 1;
    }
    if (numbers.size() != 9 || file.eof()) continue;
    const auto whole = [&](std::size_t i) { return static_cast<Index>(numbers[i]); };
    models.push_back({.name = line.substr(0, name),
                      .parameters = whole(0),
                      .active = whole(1),
                      .flops_forward = whole(2),
                      .steps = whole(4),
                      .tokens = whole(5),
                      .seconds = numbers[3] > 0 ? numbers[5] / numbers[3] : 0,
                      .loss = numbers[6],
                      .bits_per_byte = numbers[7],
                      .load_variation = numbers[8]});
  }
  if (models.empty()) fail<FileError>(csv, ": has no results yet");
  return models;
}

namespace detail {

/// The points of which no other is lower and to the left, from left to right.
[[gnu::cold]] inline std::vector<PlotPoint> frontier(std::vector<PlotPoint> points) {
  std::sort(points.begin(), points.end(),
            [](const PlotPoint& a, const PlotPoint& b) { return a.x != b.x ? a.x < b.x : a.y < b.y; });
  std::vector<PlotPoint> best;
  for (const PlotPoint& point : points) {
    if (best.empty() || point.y < best.back().y) best.push_back(point);
  }
  return best;
}

[[gnu::cold]] inline Markup frontier_plot(const std::vector<ComparedModel>& models, bool over_time, bool bits) {
  LinePlot plot{.title = over_time ? "What the seconds buy" : "What the operations of a token buy",
                .x = over_time ? "of training" : "operations a token, forward",
                .y = bits ? "bits per byte, validation" : "nats a token, validation",
                .clock = over_time};
  std::vector<PlotPoint> all;
  std::vector<Curve> points;
  for (std::size_t i = 0; i < models.size(); ++i) {
    const ComparedModel& model = models[i];
    const double x = over_time ? model.seconds : static_cast<double>(model.flops_forward);
    const double y = bits ? model.bits_per_byte : model.loss;
    if (!(x > 0) || !(y > 0)) continue;
    all.push_back({x, y});
    points.push_back({model.name, {{x, y}}, static_cast<Index>(i), Curve::Style::points});
  }
  if (all.empty()) return {};
  plot.curves.push_back({"frontier", frontier(all), 6, Curve::Style::faint});
  for (Curve& one : points) plot.curves.push_back(std::move(one));
  return draw(plot);
}

[[gnu::cold]] inline Markup comparison_section(const std::vector<ComparedModel>& models) {
  if (models.size() < 2) return {};
  const bool bits = std::all_of(models.begin(), models.end(), [](const auto& one) { return one.bits_per_byte > 0; });
  Markup page{
      "<h2 id=\"comparison\">Side by side</h2><div class=\"wide\"><table><tr><th>model</th><th>bits per byte</th>"
      "<th>loss</th><th>parameters</th><th>active</th><th>operations a token</th><th>tokens</th><th>time</th>"
      "<th>tokens/s</th><th>load ±</th></tr>"};
  const auto count = [](double number) { return number > 0 ? short_number(number) : std::string("–"); };
  std::vector<const ComparedModel*> order;
  for (const ComparedModel& model : models) order.push_back(&model);
  const auto rank = [&](const ComparedModel* model) {
    const double value = bits ? model->bits_per_byte : model->loss;
    return value > 0 ? value : 1e300;
  };
  std::stable_sort(order.begin(), order.end(), [&](const auto* a, const auto* b) { return rank(a) < rank(b); });
  for (const ComparedModel* model : order) {
    const auto real = [](double number) { return number > 0 ? fixed_text(number, 4) : std::string("–"); };
    page.add({"<tr><td>",    model->name,
              "</td><td>",   real(model->bits_per_byte),
              "</td><td>",   real(model->loss),
              "</td><td>",   count(static_cast<double>(model->parameters)),
              "</td><td>",   count(static_cast<double>(model->active)),
              "</td><td>",   count(static_cast<double>(model->flops_forward)),
              "</td><td>",   count(static_cast<double>(model->tokens)),
              "</td><td>",   clock_text(model->seconds),
              "</td><td>",   count(model->seconds > 0 ? static_cast<double>(model->tokens) / model->seconds : 0),
              "</td><td>",   fixed_text(100 * model->load_variation, 0),
              " %</td></tr>"});
  }
  page.add(
      {"</table></div><p class=\"soft\">The frontier joins the models that no other beats in both.</p>"
       "<div class=\"grid-of\">",
       frontier_plot(models, false, bits), frontier_plot(models, true, bits)});
  return page.add({"</div>"});
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
