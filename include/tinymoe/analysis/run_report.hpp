#pragma once
/// @file
/// A run, or several side by side, as one HTML file that needs nothing else. Include it yourself: model.hpp does not.

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/expert_findings.hpp"
#include "tinymoe/analysis/html/comparison.hpp"
#include "tinymoe/analysis/html/expert_section.hpp"
#include "tinymoe/analysis/html/loads_section.hpp"
#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/run_section.hpp"
#include "tinymoe/analysis/html/style.hpp"
#include "tinymoe/analysis/run_history.hpp"
#include "tinymoe/analysis/sweep_results.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1 {

/// What a report shows of a run. All but the name may be left empty, and its part of the page is left out.
struct RunReport {
  std::string name;
  RunHistory history = {};
  Json architecture = {};  // describe<Arch>()
  std::optional<Count> counted = {};
  Json recipe = {};
  ExpertProfile profile = {};
  ExpertWorths worths = {};
};

namespace detail {

[[gnu::cold]] inline Markup page_of(const std::string& title, const Markup& body) {
  Markup page{
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><meta name=\"generator\" content=\"tinymoe\"><title>",
      title, "</title><link rel=\"icon\" href=\"data:,\"><style>"};
  return page.add({report_style, "</style></head><body><main>", body, "</main><script>", report_script,
                   "</script></body></html>\n"});
}

/// Links to the sections that a page has.
[[gnu::cold]] inline Markup page_links(const Markup& body) {
  static constexpr std::pair<const char*, const char*> sections[] = {{"comparison", "side by side"},
                                                                     {"curves", "learning curves"},
                                                                     {"learning-rates", "learning rates"},
                                                                     {"training", "training"},
                                                                     {"architecture", "architecture"},
                                                                     {"loads", "loads"},
                                                                     {"experts", "experts"},
                                                                     {"coloured", "a story by its experts"},
                                                                     {"worth", "worth"},
                                                                     {"stories", "stories"},
                                                                     {"recipe", "recipe"}};
  Markup links{"<nav>"};
  for (const auto& [id, name] : sections) {
    if (body.html().find("<h2 id=\"" + std::string(id) + "\"") == std::string::npos) continue;
    links.add({"<a href=\"#", std::string(id), "\">", std::string(name), "</a>"});
  }
  return links.add({"</nav>"});
}

[[gnu::cold]] inline void add_notes(Markup& page, const RunReport& run) {
  for (const std::string& note : run.history.notes) page.add({"<p class=\"note\">", note, "</p>"});
}

[[gnu::cold]] inline Markup run_page(const RunReport& run) {
  Markup body{headline(run.history, run.counted)};
  add_notes(body, run);
  if (run.history.steps.empty()) {
    body.add({"<p class=\"note\">The run has no steps yet.</p>"});
  } else {
    body.add({training_plots({{run.name, &run.history}})});
  }
  const bool dense = run.counted && run.counted->part(Part::expert) == 0;
  body.add({architecture_section(run.architecture, run.counted), loads_section(run.history, run.architecture),
            profile_section(run.profile), coloured_stories(run.profile), worth_section(run.worths)});
  if (dense) body.add({"<p class=\"note\">The model has no experts, so there are no parts about them.</p>"});
  body.add({stories_section(run.history), recipe_section(run.recipe)});
  return Markup{"<h1 dir=\"auto\">", run.name, "</h1>", page_links(body), body};
}

[[gnu::cold]] inline ComparedModel compared(const RunReport& run) {
  ComparedModel model{.name = run.name};
  if (run.counted) {
    model.parameters = run.counted->total, model.active = run.counted->active;
    model.flops_forward = run.counted->flops_forward;
  }
  if (!run.history.steps.empty()) {
    const auto& last = run.history.steps.back();
    model.steps = last.step, model.tokens = last.tokens, model.seconds = last.seconds;
  }
  if (!run.history.evaluations.empty()) {
    const auto& last = run.history.evaluations.back();
    model.loss = last.loss, model.bits_per_byte = last.bits_per_byte, model.load_variation = last.load_variation;
  }
  return model;
}

}  // namespace detail

/// The page of a run.
[[gnu::cold]] inline std::string report_html(const RunReport& run) {
  return detail::page_of(run.name, detail::run_page(run)).html();
}

/// The page of several runs, and of a sweep's.
[[gnu::cold]] inline std::string report_html(const std::string& title, const std::vector<RunReport>& runs,
                                             const std::vector<SweepRun>& sweep = {}) {
  const std::vector<SweepResult> results = sweep_results(sweep);
  const std::vector<ComparedModel> others = detail::compared(results);
  std::vector<ComparedModel> models;
  std::vector<detail::NamedHistory> histories;
  detail::Markup body;
  for (const RunReport& run : runs) {
    models.push_back(detail::compared(run));
    detail::add_notes(body, run);
    if (!run.history.steps.empty()) histories.push_back({run.name, &run.history});
  }
  models.insert(models.end(), others.begin(), others.end());
  body.add({detail::comparison_section(models), detail::curve_section(sweep), detail::learning_rate_section(results)});
  if (!histories.empty()) body.add({detail::training_plots(histories)});
  return detail::page_of(title, {"<h1 dir=\"auto\">", title, "</h1>", detail::page_links(body), body}).html();
}

/// Writes a page atomically. Throws FileError.
[[gnu::cold]] inline void write_report(const std::filesystem::path& path, const std::string& html) {
  write_file_atomically(path, [&](FileWriter& file) { file.write(html); });
}

}  // namespace tinymoe::inline v0_1
