#pragma once
/// @file
/// The parts of a report that come from a run's logs and its architecture.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/html/architecture.hpp"
#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/analysis/run_history.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1::detail {

/// What the steps of a run are drawn over.
struct RunAxis {
  enum class Kind { tokens, seconds, steps };
  Kind kind;
  const char *name, *unit;

  bool clock() const { return kind == Kind::seconds; }
};
inline constexpr RunAxis run_axes[] = {{RunAxis::Kind::tokens, "tokens", "tokens"},
                                       {RunAxis::Kind::seconds, "time", "of training"},
                                       {RunAxis::Kind::steps, "steps", "steps"}};

template <class Row>  // RunHistory::Step, Evaluation or Memory
[[gnu::cold]] double along(const RunAxis& axis, const Row& row) {
  if (axis.kind == RunAxis::Kind::seconds) return row.seconds;
  return static_cast<double>(axis.kind == RunAxis::Kind::tokens ? row.tokens : row.step);
}

[[gnu::cold]] inline std::vector<PlotPoint> points_of(const RunHistory& run, const RunAxis& axis,
                                                      double RunHistory::Step::*value) {
  std::vector<PlotPoint> points;
  for (const auto& row : run.steps) points.push_back({along(axis, row), row.*value});
  return points;
}
[[gnu::cold]] inline std::vector<PlotPoint> points_of(const RunHistory& run, const RunAxis& axis,
                                                      double RunHistory::Evaluation::*value) {
  std::vector<PlotPoint> points;
  for (const auto& row : run.evaluations) {
    if (row.*value > 0) points.push_back({along(axis, row), row.*value});
  }
  return points;
}

/// Nats a token to bits a byte, by the text of the last evaluation; 0 if that is not known.
[[gnu::cold]] inline double bits_of_a_nat(const RunHistory& run) {
  if (run.evaluations.empty() || run.evaluations.back().loss <= 0) return 0;
  return run.evaluations.back().bits_per_byte / run.evaluations.back().loss;
}

/// A name and a history, of which several are drawn together.
struct NamedHistory {
  std::string name;
  const RunHistory* run;
};

[[gnu::cold]] inline LinePlot run_plot(const std::vector<NamedHistory>& runs, const RunAxis& axis, const char* title,
                                       const char* unit, double RunHistory::Step::*value, bool from_zero) {
  LinePlot plot{
      .title = title, .x = axis.unit, .y = unit, .from_zero = from_zero, .clock = axis.clock(), .share = 0.005};
  const bool alone = runs.size() == 1;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    auto points = points_of(*runs[i].run, axis, value);
    if (value != &RunHistory::Step::learning_rate) {
      auto smooth = smoothed(points);
      if (alone) plot.curves.push_back({"each step", std::move(points), 0, Curve::Style::faint});
      points = std::move(smooth);
    }
    plot.curves.push_back({alone ? "moving average" : runs[i].name, std::move(points), static_cast<Index>(i)});
  }
  if (alone && plot.curves.size() == 1) plot.curves[0].name.clear();
  return plot;
}

/// The plots of loss in nats or in bits per byte.
[[gnu::cold]] inline LinePlot loss_plot(const std::vector<NamedHistory>& runs, const RunAxis& axis, bool bits) {
  LinePlot plot{.title = bits ? "Bits per byte" : "Loss, nats a token",
                .x = axis.unit,
                .y = bits ? "bits per byte" : "nats a token",
                .clock = axis.clock(),
                .share = 0.005};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunHistory& run = *runs[i].run;
    const bool alone = runs.size() == 1;
    const auto colour = static_cast<Index>(i);
    auto training = points_of(run, axis, &RunHistory::Step::loss);
    const double factor = bits ? bits_of_a_nat(run) : 1;
    if (bits && factor == 0) continue;
    for (PlotPoint& point : training) point.y *= factor;
    if (alone) {
      plot.curves.push_back({"training, moving average", smoothed(training), 0});
      if (!bits) plot.curves.push_back({"training, each step", std::move(training), 0, Curve::Style::faint});
    } else if (!bits) {
      plot.curves.push_back({"", smoothed(training), colour, Curve::Style::faint});
    }
    plot.curves.push_back(
        {alone ? "validation" : runs[i].name,
         points_of(run, axis, bits ? &RunHistory::Evaluation::bits_per_byte : &RunHistory::Evaluation::loss),
         alone ? 1 : colour, Curve::Style::marked});
  }
  return plot;
}

/// What training takes: of one run in its parts, of several in all. Without a curve where no run tells.
[[gnu::cold]] inline LinePlot memory_plot(const std::vector<NamedHistory>& runs, const RunAxis& axis) {
  LinePlot plot{
      .title = "Memory beside the weights", .x = axis.unit, .y = "MiB", .from_zero = true, .clock = axis.clock()};
  using Memory = RunHistory::Memory;
  const auto add = [&](const std::string& name, std::size_t colour, const RunHistory& run, auto&& bytes_of) {
    if (run.memory.empty()) return;
    Curve& curve = plot.curves.emplace_back(Curve{name, {}, static_cast<Index>(colour)});
    for (const Memory& row : run.memory) {
      curve.points.push_back({along(axis, row), static_cast<double>(bytes_of(row)) / (1 << 20)});
    }
  };
  if (runs.size() == 1) {
    add("gradients and optimizer", 0, *runs[0].run, [](const Memory& row) { return row.state; });
    add("activations", 1, *runs[0].run, [](const Memory& row) { return row.activations; });
    return plot;
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    add(runs[i].name, i, *runs[i].run, [](const Memory& row) { return row.state + row.activations; });
  }
  return plot;
}

[[gnu::cold]] inline Markup training_plots(const std::vector<NamedHistory>& runs) {
  bool bits = false, balance = false, mixtures = false;
  for (const auto& [name, run] : runs) {
    bits = bits || bits_of_a_nat(*run) > 0;
    for (const auto& row : run->steps) {
      mixtures = mixtures || row.load_variation > 0, balance = balance || row.balance_loss > 0;
    }
  }
  Markup page{"<h2 id=\"training\">Training</h2><p class=\"soft\">"};
  if (runs.size() == 1) {
    page.add({"The training loss is measured before each step, with dropout if there is any. "});
  } else {
    page.add({"Marked curves are the validation, faint ones the training loss. "});
  }
  if (bits) {
    page.add({"Bits per byte count the text's bytes, so they compare models with different tokenizers. "});
    if (runs.size() == 1) page.add({"Those of training take validation's bytes a token."});
  }
  page.add({"</p><div class=\"over\">"});
  for (std::size_t a = 0; a < std::size(run_axes); ++a) {
    const std::string id = "over-" + std::to_string(a);
    page.add({"<input type=\"radio\" name=\"over\" id=\"", id, "\""});
    if (a == 0) page.add({" checked"});
    page.add({"><label for=\"", id, "\">over ", std::string(run_axes[a].name), "</label> "});
  }
  for (const RunAxis& axis : run_axes) {
    page.add({"<div class=\"grid-of\">", draw(loss_plot(runs, axis, false))});
    if (bits) page.add({draw(loss_plot(runs, axis, true))});
    using Step = RunHistory::Step;
    page.add({draw(run_plot(runs, axis, "Learning rate", "rate", &Step::learning_rate, true)),
              draw(run_plot(runs, axis, "Norm of the gradients, before clipping", "norm", &Step::gradient_norm, true)),
              draw(run_plot(runs, axis, "Speed", "tokens a second", &Step::tokens_per_second, true))});
    if (mixtures) {
      page.add({draw(run_plot(runs, axis, "Balance of the experts' loads: 0 is even", "deviation / mean",
                              &Step::load_variation, true))});
    }
    if (balance) {
      page.add({draw(run_plot(runs, axis, "Balance loss: 1 is even", "loss", &Step::balance_loss, false))});
    }
    if (const LinePlot memory = memory_plot(runs, axis); !memory.curves.empty()) page.add({draw(memory)});
    page.add({"</div>"});
  }
  return page.add({"</div>"});
}

/// A number with what it is.
[[gnu::cold]] inline void add_fact(Markup& page, const std::string& number, const std::string& what) {
  page.add({"<div><b>", number, "</b><span>", what, "</span></div>"});
}

[[gnu::cold]] inline Markup headline(const RunHistory& run, const std::optional<Count>& counted) {
  Markup page{"<div class=\"facts\">"};
  if (!run.evaluations.empty()) {
    const auto& last = run.evaluations.back();
    auto best = last;
    for (const auto& one : run.evaluations) {
      if (one.loss < best.loss) best = one;
    }
    if (last.bits_per_byte > 0) {
      add_fact(page, fixed_text(best.bits_per_byte, 4), "bits per byte, validation, step " + grouped(best.step));
    }
    add_fact(page, fixed_text(best.loss, 4),
             "nats a token, validation; perplexity " + short_number(std::exp(best.loss), 4));
  }
  if (!run.steps.empty()) {
    const auto& last = run.steps.back();
    add_fact(page, short_number(static_cast<double>(last.tokens)), "tokens in " + grouped(last.step) + " steps");
    add_fact(page, clock_text(last.seconds), "of training");
    const double speed = last.seconds > 0 ? static_cast<double>(last.tokens) / last.seconds : 0;
    add_fact(page, short_number(speed), "tokens a second");
  }
  if (counted) {
    add_fact(page, short_number(static_cast<double>(counted->total)), "parameters");
    add_fact(page, short_number(static_cast<double>(counted->active)), "of which a token meets");
    add_fact(page, mebibytes(counted->weight_bytes), "of weights in float32");
  }
  if (!run.memory.empty()) {
    std::size_t state = 0, activations = 0;  // the most of all steps
    for (const auto& row : run.memory) {
      state = std::max(state, row.state), activations = std::max(activations, row.activations);
    }
    add_fact(page, mebibytes(static_cast<Index>(state)), "of gradients and optimizer state");
    add_fact(page, mebibytes(static_cast<Index>(activations)), "of activations");
  }
  if (!run.evaluations.empty() && run.evaluations.back().load_variation > 0) {
    add_fact(page, "±" + fixed_text(100 * run.evaluations.back().load_variation, 0) + " %",
             "deviation of the experts' loads, validation");
  }
  return page.add({"</div>"});
}

[[gnu::cold]] inline Markup architecture_section(const Json& description, const std::optional<Count>& counted) {
  Markup page;
  if (description.is_null() && !counted) return page;
  page.add({"<h2 id=\"architecture\">Architecture</h2><div class=\"grid-of\">"});
  if (description.is_object()) page.add({ArchitectureDrawing().draw(shape_of(description))});
  if (counted) {
    page.add({"<figure><figcaption>Parameters, and those that a token meets</figcaption><div class=\"wide\"><table>",
              "<tr><th>part</th><th>in all</th><th>active</th></tr>"});
    for (std::size_t part = 0; part < part_names.size(); ++part) {
      if (counted->parts[part] == 0) continue;
      page.add({"<tr><td>", part_names[part], "</td><td>", grouped(counted->parts[part]), "</td><td>",
                grouped(counted->active_parts[part]), "</td></tr>"});
    }
    page.add({"<tr class=\"total\"><td>all</td><td>", grouped(counted->total), "</td><td>", grouped(counted->active),
              "</td></tr></table></div><h3>Cost</h3><div class=\"wide\"><table>"});
    for (const auto& [name, value] :
         {std::pair{"operations a token, forward", short_number(static_cast<double>(counted->flops_forward), 4)},
          std::pair{"operations a token, trained", short_number(static_cast<double>(counted->flops_trained), 4)},
          std::pair{"weights, float32", mebibytes(counted->weight_bytes)},
          std::pair{"weights, gradients and AdamW's moments", mebibytes(counted->training_bytes)},
          std::pair{"KV cache of a full context", mebibytes(counted->kv_cache_bytes)}}) {
      page.add({"<tr><td>", std::string(name), "</td><td>", value, "</td></tr>"});
    }
    page.add({"</table></div></figure>"});
  }
  return page.add({"</div>"});
}

/// What the model wrote through training: the first, the last, and up to ten between them.
[[gnu::cold]] inline Markup stories_section(const RunHistory& run) {
  if (run.stories.empty()) return {};
  Markup page{"<h2 id=\"stories\">What the model wrote as it learnt</h2>"};
  const std::size_t all = run.stories.size(), count = std::min<std::size_t>(all, 12);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& story = run.stories[count < 2 ? 0 : i * (all - 1) / (count - 1)];
    const std::string_view text = std::string_view(story.text).substr(0, 4000);
    page.add({"<h3>after step ", grouped(story.step), "</h3><div class=\"story sample\" dir=\"auto\">",
              text.substr(0, complete_characters(text)),
              std::string_view(text.size() < story.text.size() ? " […]" : ""), "</div>"});
  }
  return page;
}

/// The recipe as a table.
[[gnu::cold]] inline Markup recipe_section(const Json& recipe) {
  if (!recipe.is_object() || recipe.size() == 0) return {};
  Markup page{"<h2 id=\"recipe\">Recipe</h2><details><summary>How the run was trained</summary><div class=\"wide\">",
              "<table class=\"texts\">"};
  for (const auto& [key, value] : recipe.members()) {
    page.add({"<tr><td>", key, "</td><td>", value.is_string() ? value.string() : value.dump(), "</td></tr>"});
  }
  return page.add({"</table></div></details>"});
}

}  // namespace tinymoe::inline v0_1::detail
