#pragma once
/// @file
/// A model's architecture as a drawing.

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/html/markup.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/checkpoint/model_shape.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// Draws boxes from the top down, joined by arrows.
class ArchitectureDrawing {
 public:
  [[gnu::cold]] Markup draw(const ModelShape& shape) {
    const std::string width = grouped(shape.width);
    box("tokens", "vocabulary " + grouped(shape.vocab) + ", context " + grouped(shape.context), "plain");
    box("embedding", grouped(shape.vocab) + " × " + width, "c0");
    std::size_t kinds = 0;
    for (std::size_t first = 0; first < shape.layers.size();) {
      std::size_t last = first;
      while (last < shape.layers.size() && shape.layers[last] == shape.layers[first]) ++last;
      if (++kinds > most_kinds) {
        box("…", std::to_string(shape.layers.size() - first) + " more blocks", "plain");
        break;
      }
      block(shape.layers[first], static_cast<Index>(last - first), width);
      first = last;
    }
    box(words(shape.final_norm), width, "plain");
    box("head", width + " × " + grouped(shape.vocab) + (shape.tied ? ", the embedding's matrix" : ""), "c0");
    box("logits", "one for each of " + grouped(shape.vocab) + " tokens", "plain", true);
    return Markup{
        "<figure class=\"drawing\"><figcaption>From a token to the next one</figcaption><svg viewBox=\"0 0 440 ",
        place(y_ + 4), "\" role=\"img\" aria-label=\"The layers of the model, from the top down\">", svg_,
        "</svg></figure>"};
  }

 private:
  static constexpr std::size_t most_kinds = 6;
  static constexpr Index most_squares = 16;

  /// "rms_norm" as "rms norm".
  static std::string words(std::string name) {
    std::replace(name.begin(), name.end(), '_', ' ');
    return name;
  }

  [[gnu::cold]] void box(const std::string& name, const std::string& about, const std::string& colour,
                         bool last = false) {
    svg_.add({"<g class=\"box ",
              colour,
              "\"><rect x=\"",
              place(left_),
              "\" y=\"",
              place(y_),
              "\" width=\"",
              place(440 - 2 * left_),
              "\" height=\"28\" rx=\"6\"/><text class=\"name\" x=\"",
              place(left_ + 10),
              "\" y=\"",
              place(y_ + 18.5),
              "\">",
              name,
              "</text><text class=\"end\" x=\"",
              place(430 - left_),
              "\" y=\"",
              place(y_ + 18.5),
              "\">",
              about,
              "</text></g>"});
    y_ += 28;
    if (!last) arrow();
  }
  [[gnu::cold]] void arrow() {
    svg_.add({"<path class=\"arrow\" d=\"M220 ", place(y_), "v10m-3 -4l3 4l3 -4\"/>"});
    y_ += 11;
  }

  [[gnu::cold]] void block(const LayerShape& layer, Index count, const std::string& width) {
    const double top = y_;
    y_ += 26, left_ = 36;
    box(words(layer.norm), width, "plain");
    std::string attention = std::to_string(layer.heads) + " heads × " + std::to_string(layer.head_dim);
    if (layer.kv_heads != layer.heads) attention += ", " + std::to_string(layer.kv_heads) + " for keys and values";
    if (layer.window > 0) attention += ", window " + std::to_string(layer.window);
    box("attention", layer.own.empty() ? attention : "part of the program's own: " + layer.own, "c1");
    box(words(layer.norm), width, "plain");
    const std::string network = words(layer.activation) + ", " + width + " → " + grouped(layer.hidden) + " → " + width;
    if (layer.is_mixture()) {
      box("router",
          std::to_string(layer.choices) + " of " + std::to_string(layer.experts) + " experts, " + words(layer.scores) +
              (layer.selection == "top_k" ? "" : ", " + words(layer.selection)),
          "c2");
      squares(layer);
      box("experts", network, "c3");
      if (layer.shared_hidden > 0) {
        box("shared expert", words(layer.shared_activation) + ", hidden " + grouped(layer.shared_hidden), "c3");
      }
    } else {
      box("feed-forward", network, "c3");
    }
    left_ = 16;
    svg_.add({"<rect class=\"frame\" x=\"16\" y=\"", place(top), "\" width=\"408\" height=\"", place(y_ - top - 2),
              "\" rx=\"10\"/><text class=\"name\" x=\"28\" y=\"", place(top + 17), "\">",
              layer.is_mixture() ? std::string_view("mixture of experts") : std::string_view("dense block"),
              "</text><text class=\"end name\" x=\"412\" y=\"", place(top + 17), "\">× ", std::to_string(count),
              "</text>"});
    arrow();
  }

  /// The experts as squares, of which those that a token takes are filled.
  [[gnu::cold]] void squares(const LayerShape& layer) {
    const Index shown = std::min(layer.experts, most_squares);
    double x = 220 - static_cast<double>(shown) * 9.5;
    for (Index e = 0; e < shown; ++e, x += 19) {
      svg_.add({"<rect class=\"square"});
      if (e < layer.choices) svg_.add({" taken"});
      svg_.add({"\" x=\"", place(x + 2), "\" y=\"", place(y_ + 1), "\" width=\"15\" height=\"15\" rx=\"3\"/>"});
    }
    if (layer.experts > shown) {
      svg_.add({"<text x=\"", place(x + 3), "\" y=\"", place(y_ + 13), "\">+", std::to_string(layer.experts - shown),
                "</text>"});
    }
    y_ += 19;
  }

  Markup svg_;
  double y_ = 2, left_ = 16;
};

}  // namespace tinymoe::inline v0_1::detail
