#pragma once
/// @file
/// Several models side by side: runs, or the variants of a sweep.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/analysis/sweep_results.hpp"
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
  Index runs = 1;                                                       // of which these are the means
  double error = 0;  // the standard error of bits per byte, or of the loss where those are unknown
};

namespace detail {

/// The variants of a sweep, each with the best of its learning rates.
[[gnu::cold]] inline std::vector<ComparedModel> compared(const std::vector<SweepResult>& results) {
  std::vector<ComparedModel> models;
  for (const SweepResult& result : best_of_variants(results)) {
    const SweepRun& mean = result.mean;
    models.push_back({.name = mean.variant,
                      .parameters = mean.parameters,
                      .active = mean.active,
                      .flops_forward = mean.flops_forward,
                      .steps = mean.steps,
                      .tokens = mean.tokens,
                      .seconds = mean.seconds,
                      .loss = mean.loss,
                      .bits_per_byte = mean.bits_per_byte,
                      .load_variation = mean.load_variation,
                      .runs = result.runs,
                      .error = result.error});
  }
  return models;
}

/// A colour for each name. If all names come in pairs, as mix_4m and dense_4m, each pair has one, and the second of it
/// is dashed or a ring.
[[gnu::cold]] inline std::vector<Index> colours_of(const std::vector<std::string>& names) {
  std::vector<std::string> families;
  std::vector<Index> colours, members;
  for (const std::string& name : names) {
    const std::size_t line = name.find('_');
    const std::string family = line == std::string::npos ? name : name.substr(line);
    const auto at = static_cast<std::size_t>(std::find(families.begin(), families.end(), family) - families.begin());
    if (at == families.size()) families.push_back(family), members.push_back(0);
    colours.push_back(static_cast<Index>(at) + 8 * members[at]++);
  }
  const bool pairs =
      families.size() <= 8 && std::all_of(members.begin(), members.end(), [](Index count) { return count == 2; });
  for (std::size_t i = 0; i < colours.size() && !pairs; ++i) colours[i] = static_cast<Index>(i);
  return colours;
}

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
  std::vector<std::string> names;
  for (const ComparedModel& model : models) names.push_back(model.name);
  const std::vector<Index> colours = colours_of(names);
  for (std::size_t i = 0; i < models.size(); ++i) {
    const ComparedModel& model = models[i];
    const double x = over_time ? model.seconds : static_cast<double>(model.flops_forward);
    const double y = bits ? model.bits_per_byte : model.loss;
    if (!(x > 0) || !(y > 0)) continue;
    all.push_back({x, y});
    points.push_back({model.name, {{x, y}}, colours[i], Curve::Style::points});
  }
  if (all.empty()) return {};
  const std::vector<PlotPoint> best = frontier(all);
  // The names of those on the frontier stand beside them, of few models all.
  for (const Curve& one : points) {
    const PlotPoint& point = one.points[0];
    const bool on =
        std::any_of(best.begin(), best.end(), [&](const auto& b) { return b.x == point.x && b.y == point.y; });
    if (on || points.size() <= 6) plot.labels.emplace_back(one.name, point);
  }
  plot.curves.push_back({"frontier", best, 6});
  for (Curve& one : points) plot.curves.push_back(std::move(one));
  return draw(plot);
}

[[gnu::cold]] inline Markup comparison_section(const std::vector<ComparedModel>& models) {
  if (models.empty()) return {};
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
    const auto real = [&](double number, bool has_error) {
      if (!(number > 0)) return std::string("–");
      return fixed_text(number, 4) + (has_error && model->runs > 1 ? " ± " + fixed_text(model->error, 4) : "");
    };
    page.add({"<tr><td>",    model->name,
              "</td><td>",   real(model->bits_per_byte, true),
              "</td><td>",   real(model->loss, !(model->bits_per_byte > 0)),
              "</td><td>",   count(static_cast<double>(model->parameters)),
              "</td><td>",   count(static_cast<double>(model->active)),
              "</td><td>",   count(static_cast<double>(model->flops_forward)),
              "</td><td>",   count(static_cast<double>(model->tokens)),
              "</td><td>",   clock_text(model->seconds),
              "</td><td>",   count(model->seconds > 0 ? static_cast<double>(model->tokens) / model->seconds : 0),
              "</td><td>",   fixed_text(100 * model->load_variation, 0),
              " %</td></tr>"});
  }
  page.add({"</table></div><p class=\"soft\">The frontier joins the models that no other beats in both."});
  const bool repeated = std::any_of(models.begin(), models.end(), [](const auto& one) { return one.runs > 1; });
  if (repeated)
    page.add({" Of models that were trained several times these are the means, with their standard errors."});
  page.add({"</p><div class=\"grid-of\">", frontier_plot(models, false, bits), frontier_plot(models, true, bits)});
  return page.add({"</div>"});
}

/// The validations of a run of each variant with its best learning rate, over its seconds and over its operations.
/// Empty if no run was validated on its way.
[[gnu::cold]] inline Markup curve_section(const std::vector<SweepRun>& runs) {
  const std::vector<SweepResult> best = best_of_variants(sweep_results(runs));
  std::vector<const SweepRun*> shown;
  std::vector<std::string> names;
  bool bits = true;
  for (const SweepResult& result : best) {
    const auto run = std::find_if(runs.begin(), runs.end(), [&](const SweepRun& one) {
      return one.variant == result.mean.variant && one.learning_rate == result.mean.learning_rate &&
             one.curve.size() > 1;
    });
    if (run == runs.end()) continue;
    shown.push_back(&*run), names.push_back(run->variant);
    for (const SweepPoint& point : run->curve) bits = bits && point.bits_per_byte > 0;
  }
  if (shown.empty()) return {};
  const std::vector<Index> colours = colours_of(names);
  const auto plot_over = [&](bool time) {
    LinePlot plot{.title = time ? "Over the time of training" : "Over the operations of training",
                  .x = time ? "seconds" : "operations, forward and backward",
                  .y = bits ? "bits per byte, validation" : "nats a token, validation",
                  .powers = true};
    for (std::size_t i = 0; i < shown.size(); ++i) {
      Curve curve{shown[i]->variant, {}, colours[i], Curve::Style::marked};
      for (const SweepPoint& point : shown[i]->curve) {
        const double operations = 3 * static_cast<double>(shown[i]->flops_forward) * static_cast<double>(point.tokens);
        const double x = time ? point.seconds : operations;
        if (x > 0) curve.points.push_back({std::log10(x), bits ? point.bits_per_byte : point.loss});
      }
      plot.curves.push_back(std::move(curve));
    }
    return draw(plot);
  };
  return Markup{
      "<h2 id=\"curves\">Learning curves</h2><p class=\"soft\">The first run of each model with its best learning "
      "rate. The rate falls over a run's own budget, so a point on the way is not what a shorter run would "
      "have. Operations are those of tokens in full sequences.</p><div class=\"grid-of\">"}
      .add({plot_over(true), plot_over(false), "</div>"});
}

/// The loss of each variant over the learning rates that it was tried with. Empty if each had one.
[[gnu::cold]] inline Markup learning_rate_section(const std::vector<SweepResult>& results) {
  const bool bits =
      std::all_of(results.begin(), results.end(), [](const auto& one) { return one.mean.bits_per_byte > 0; });
  LinePlot plot{.title = "What the learning rate does",
                .x = "max learning rate",
                .y = bits ? "bits per byte, validation" : "nats a token, validation",
                .powers = true};
  std::vector<std::string> names;
  for (const SweepResult& result : results) {
    if (result.learning_rates < 2 || !(result.mean.learning_rate > 0)) continue;
    std::size_t at =
        static_cast<std::size_t>(std::find(names.begin(), names.end(), result.mean.variant) - names.begin());
    if (at == names.size()) {
      names.push_back(result.mean.variant);
      plot.curves.push_back({result.mean.variant, {}, 0, Curve::Style::marked});
    }
    plot.curves[at].points.push_back(
        {std::log10(result.mean.learning_rate), bits ? result.mean.bits_per_byte : result.mean.loss});
  }
  if (names.empty()) return {};
  const std::vector<Index> colours = colours_of(names);
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    Curve& curve = plot.curves[i];
    curve.colour = colours[i];
    std::sort(curve.points.begin(), curve.points.end(),
              [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
  }
  return Markup{
      "<h2 id=\"learning-rates\">Learning rates</h2><p class=\"soft\">Above stands each model with its best "
      "one.</p><div class=\"grid-of\">"}
      .add({draw(plot), "</div>"});
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
