#pragma once
/// @file
/// The parts of a report that are about what the experts do.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/analysis/expert_findings.hpp"
#include "tinymoe/analysis/html/heat_map.hpp"
#include "tinymoe/analysis/html/loads_section.hpp"
#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/html/plot.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1::detail {

/// Pieces that a reader can see: a character that is cut between tokens stands in the token that ends it, and an end of
/// line has a sign.
class VisiblePieces {
 public:
  [[gnu::cold]] std::string next(const std::string& piece) {
    const std::string all = std::exchange(open_, {}) + piece;
    const std::size_t whole = complete_characters(all);
    open_ = all.substr(whole);
    std::string text;
    for (const char c : std::string_view(all).substr(0, whole)) {
      if (c == '\n') text += "\u23ce";
      text += c;
    }
    return text.empty() ? "\u25cc" : text;
  }

 private:
  std::string open_;
};

/// " c3" and " d1" for the second eight experts: a colour, and a way to underline.
inline std::string expert_class(Index expert) {
  return "c" + std::to_string(expert % 8) + " d" + std::to_string(expert / 8 % 4);
}

/// A story whose tokens have the colours of their experts. Without the script it shows the first mixture.
[[gnu::cold]] inline Markup traced_story(const TracedStory& story, const std::vector<MixtureFindings>& mixtures) {
  Markup page{
      "<div class=\"traced\"><div class=\"controls\"><label class=\"js\">layer&nbsp;<input type=\"range\" "
      "min=\"0\" max=\""};
  page.add(
      {std::to_string(story.experts.size() - 1), "\" value=\"0\" aria-label=\"layer\"></label><output data-layers=\""});
  const auto name = [&](std::size_t m) {
    return "layer " + std::to_string(m < mixtures.size() ? mixtures[m].layer : static_cast<Index>(m));
  };
  for (std::size_t m = 0; m < story.experts.size(); ++m) {
    if (m > 0) page.add({"|"});
    page.add({name(m)});
  }
  page.add({"\">", name(0), "</output><span class=\"experts\">"});
  Index experts = 0;
  for (const auto& mixture : mixtures) experts = std::max(experts, mixture.experts);
  for (Index e = 0; e < experts; ++e) {
    page.add({"<button type=\"button\" aria-pressed=\"false\" class=\"", expert_class(e), "\" data-expert=\"",
              std::to_string(e), "\">", std::to_string(e), "</button>"});
  }
  page.add({"</span></div><div class=\"story\" dir=\"auto\">"});
  VisiblePieces visible;
  for (std::size_t t = 0; t < story.pieces.size(); ++t) {
    std::string data, title, kind = "none";
    for (std::size_t m = 0; m < story.experts.size(); ++m) {
      std::vector<std::pair<float, Index>> chosen;
      const ExpertChoices& choices = story.experts[m];
      const auto first = t * static_cast<std::size_t>(choices.choices);
      for (std::size_t k = first; k < first + static_cast<std::size_t>(choices.choices); ++k) {
        if (k >= choices.selected.size() || !choices.selected[k].taken()) continue;
        chosen.emplace_back(choices.gate[k], choices.selected[k].expert());
      }
      std::sort(chosen.rbegin(), chosen.rend());
      if (m > 0) data += ';';
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        const auto& [gate, e] = chosen[i];
        data += (i > 0 ? "," : "") + std::to_string(e) + ":" + fixed_text(gate, 2);
        if (m == 0) title += (i > 0 ? ", expert " : "expert ") + std::to_string(e) + ": " + fixed_text(gate, 2);
      }
      if (m == 0 && !chosen.empty()) kind = expert_class(chosen[0].second);
    }
    page.add({"<span class=\"token ", kind, "\" title=\"", title, "\" data-x=\"", data, "\">",
              visible.next(story.pieces[t]), "</span>"});
  }
  return page.add({"</div></div>"});
}

[[gnu::cold]] inline Markup coloured_stories(const ExpertProfile& profile) {
  Markup page;
  for (const TracedStory& story : profile.stories_traced) {
    if (story.experts.empty() || story.pieces.empty()) continue;
    if (page.empty()) {
      page.add(
          {"<h2 id=\"coloured\">A story by its experts</h2><p>The colour of a token is the expert that it takes with "
           "the largest gate. The slider chooses the layer, the numbered buttons show one expert alone, and a token "
           "under the pointer, or reached by the arrow keys, tells its gates.</p>"});
    }
    page.add({traced_story(story, profile.mixtures)});
  }
  return page;
}

/// What kinds of token an expert takes: 1 is as many as of all tokens together.
[[gnu::cold]] inline Markup kinds_map(const MixtureFindings& mixture, const std::string& title) {
  HeatMap map{.title = title, .y = "expert"};
  map.rows.resize(mixture.expert.size());
  for (std::size_t kind = 0; kind < token_kinds; ++kind) {
    if (mixture.kinds[kind] == 0) continue;
    map.names.emplace_back(token_kind_names[kind]);
    for (std::size_t e = 0; e < mixture.expert.size(); ++e) {
      const ExpertFindings& expert = mixture.expert[e];
      const double of_kind = static_cast<double>(expert.kinds[kind]) / static_cast<double>(mixture.kinds[kind]);
      map.rows[e].push_back(expert.share > 0 ? of_kind / expert.share : 0);
    }
  }
  return map.names.empty() ? Markup() : draw(map);
}

[[gnu::cold]] inline Markup typical_tokens(const MixtureFindings& mixture) {
  Markup page{"<div class=\"grid-of\">"};
  for (std::size_t e = 0; e < mixture.expert.size(); ++e) {
    const ExpertFindings& expert = mixture.expert[e];
    if (e == 32) {
      page.add(
          {"<p class=\"soft\">The first 32 of ", std::to_string(mixture.expert.size()), " experts are shown.</p>"});
      break;
    }
    const std::string colour = expert_class(static_cast<Index>(e));
    page.add({"<figure><figcaption>expert ", std::to_string(e), ": ",
              fixed_text(100 * std::min(1.0, expert.share * static_cast<double>(mixture.choices)), 1),
              " % of the tokens, mean gate ", fixed_text(expert.mean_gate, 2), "</figcaption><ul class=\"typical\">"});
    for (const TypicalToken& token : expert.typical) {
      std::string piece = VisiblePieces().next(token.piece);
      std::erase(piece, '\n');  // its sign is enough
      page.add({"<li><span class=\"piece ", colour, "\">", piece, "</span> ",
                fixed_text(100 * std::min(1.0, token.share * static_cast<double>(mixture.choices)), 0), " % of them"});
      if (!token.contexts.empty()) {
        const TokenContext& context = token.contexts[0];
        std::string_view before = context.before, after = context.after;  // whole characters of them
        while (!before.empty() && continues_character(before.front())) before.remove_prefix(1);
        after = after.substr(0, complete_characters(after));
        page.add({"<br><span class=\"context\" dir=\"auto\">…", before, "<span class=\"piece ", colour, "\">",
                  context.piece, "</span>", after, "…</span>"});
      }
      page.add({"</li>"});
    }
    if (expert.typical.empty()) page.add({"<li class=\"soft\">none</li>"});
    page.add({"</ul></figure>"});
  }
  return page.add({"</div>"});
}

[[gnu::cold]] inline std::string layer_name(const MixtureFindings& mixture) {
  return "layer " + std::to_string(mixture.layer);
}

[[gnu::cold]] inline Markup confidence_part(const std::vector<MixtureFindings>& mixtures) {
  Markup page{
      "<h3>How sure the routers are</h3><div class=\"grid-of\"><figure class=\"span\"><figcaption>Over the "
      "validation's tokens"
      "</figcaption><div class=\"wide\"><table><tr><th>layer</th><th>experts</th><th>load ±</th><th>entropy of "
      "loads</th><th>dead</th><th>top probability</th><th>router entropy</th></tr>"};
  for (const MixtureFindings& mixture : mixtures) {
    page.add({"<tr><td>", std::to_string(mixture.layer), "</td><td>", std::to_string(mixture.choices), " of ",
              std::to_string(mixture.experts), "</td><td>", fixed_text(100 * mixture.load_variation, 0), " %</td><td>",
              fixed_text(mixture.load_entropy, 3), "</td><td>", std::to_string(mixture.dead), "</td><td>",
              fixed_text(mixture.confidence.mean_top, 3), "</td><td>", fixed_text(mixture.confidence.mean_entropy, 3),
              "</td></tr>"});
  }
  page.add(
      {"</table></div><p class=\"soft\">Entropies are shares of their max: 1 is even loads, or an undecided "
       "router.</p></figure>"});
  LinePlot plot{
      .title = "Each token's highest probability", .x = "probability", .y = "share of the tokens", .from_zero = true};
  for (const std::size_t m : shown_mixtures(mixtures.size(), 128)) {
    const RouterConfidence& confidence = mixtures[m].confidence;
    double sum = 0;
    for (const Index tokens : confidence.top) sum += static_cast<double>(tokens);
    if (sum == 0) continue;
    Curve curve{.name = layer_name(mixtures[m]), .colour = static_cast<Index>(plot.curves.size())};
    for (std::size_t bin = 0; bin < confidence.bins; ++bin) {
      curve.points.push_back({(static_cast<double>(bin) + 0.5) / static_cast<double>(confidence.bins),
                              static_cast<double>(confidence.top[bin]) / sum});
    }
    plot.curves.push_back(std::move(curve));
  }
  if (!plot.curves.empty()) page.add({draw(plot)});
  return page.add({"</div>"});
}

[[gnu::cold]] inline Markup profile_section(const ExpertProfile& profile) {
  if (profile.mixtures.empty()) return {};
  Markup page{"<h2 id=\"experts\">What each expert takes</h2><p class=\"soft\">", grouped(profile.tokens),
              " tokens of ", grouped(profile.stories), " stories that the model did not learn from.</p>"};
  page.add(
      {confidence_part(profile.mixtures),
       "<h3>Kinds of token</h3><p class=\"soft\">The middle of the scale: an expert takes this kind as often as it "
       "takes any token.</p>",
       share_scale(), "<div class=\"grid-of\">"});
  const auto shown = shown_mixtures(profile.mixtures.size(), profile.mixtures[0].expert.size());
  for (const std::size_t m : shown) {
    page.add({kinds_map(profile.mixtures[m], "Kinds of token by expert, " + layer_name(profile.mixtures[m]))});
  }
  page.add(
      {"</div><h3>Typical tokens</h3><p class=\"soft\">Those that an expert takes more often than the other experts "
       "do, with a place where they stand.</p>"});
  for (const std::size_t m : shown) {
    page.add({"<details"});
    if (m == shown.back()) page.add({" open"});
    page.add({"><summary>", layer_name(profile.mixtures[m]), "</summary>", typical_tokens(profile.mixtures[m]),
              "</details>"});
  }
  return page;
}

[[gnu::cold]] inline LinePlot fewer_plot(const std::vector<FewerExperts>& models, bool by_choices, bool bits) {
  LinePlot plot{
      .title = by_choices ? "A smaller K: fewer experts a token" : "Fewer experts: the least worthy leave first",
      .x = by_choices ? "active parameters" : "parameters",
      .y = bits ? "bits per byte, validation" : "nats a token, validation"};
  Curve curve{.style = Curve::Style::marked};
  for (const FewerExperts& model : models) {
    const PlotPoint point{static_cast<double>(by_choices ? model.active : model.total),
                          bits ? model.bits_per_byte : model.loss};
    curve.points.push_back(point);
    plot.labels.emplace_back(
        by_choices ? "K " + std::to_string(model.choices) : std::to_string(model.experts) + " experts", point);
  }
  if (plot.labels.size() > 8) {  // the ends alone, and some between them
    std::vector<std::pair<std::string, PlotPoint>> some;
    for (std::size_t i = 0; i < 5; ++i) some.push_back(plot.labels[i * (plot.labels.size() - 1) / 4]);
    plot.labels = std::move(some);
  }
  plot.curves.push_back(std::move(curve));
  return plot;
}

[[gnu::cold]] inline Markup worth_section(const ExpertWorths& worths) {
  if (worths.experts.empty() && worths.by_experts.empty() && worths.by_choices.empty()) return {};
  Markup page{
      "<h2 id=\"worth\">What each expert is worth</h2><p>The validation loss with one expert left out, less that of "
      "the whole model, ",
      fixed_text(worths.loss, 4), " nats a token. Its tokens go to their next best. The validation had ",
      grouped(worths.tokens), " tokens.</p><div class=\"grid-of\">"};
  double low = 0, high = 0;
  for (const ExpertWorth& one : worths.experts) {
    if (std::isfinite(one.worth)) low = std::min(low, one.worth), high = std::max(high, one.worth);
  }
  for (std::size_t first = 0; first < worths.experts.size();) {
    std::vector<std::pair<std::string, double>> values;
    const Index layer = worths.experts[first].layer;
    for (; first < worths.experts.size() && worths.experts[first].layer == layer; ++first) {
      const ExpertWorth& one = worths.experts[first];  // infinite for the only expert of its layer
      values.emplace_back(std::to_string(one.expert), std::isfinite(one.worth) ? one.worth : high);
    }
    page.add({bars("Worth of each expert, layer " + std::to_string(layer), "nats a token", values, low, high)});
  }
  const bool bits = worths.bits_per_byte > 0;
  if (worths.by_experts.size() > 1) page.add({draw(fewer_plot(worths.by_experts, false, bits))});
  if (worths.by_choices.size() > 1) page.add({draw(fewer_plot(worths.by_choices, true, bits))});
  page.add({"</div>"});
  if (worths.by_experts.size() < 2) return page;
  page.add(
      {"<p>The next step: <code>prune RUN --experts N --out SMALLER</code> makes a point of the first curve a "
       "checkpoint"});
  // Normalised gates have no K of 1 as a type.
  Index whole = 0;
  for (const FewerExperts& one : worths.by_choices) whole = std::max(whole, one.choices);
  const auto smaller = [&](const FewerExperts& one) { return one.choices > 1 && one.choices < whole; };
  if (std::any_of(worths.by_choices.begin(), worths.by_choices.end(), smaller)) {
    page.add({", <code>--choices K</code> one of a smaller K"});
  }
  return page.add({". <code>train --from SMALLER</code> trains it on.</p>"});
}

}  // namespace tinymoe::inline v0_1::detail
