#pragma once
/// @file
/// From logits to the next token.
///
/// In order: repetition penalty (Keskar et al. 2019), temperature, top-k (Fan et al. 2018), top-p (Holtzman et al.
/// 2020), and a draw that is a function of (seed, story, position).

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe {

/// How the next token is chosen.
struct SampleOptions {
  float temperature = 0.8f;         // 0: always the most likely token
  Index top_k = 0;                  // of the most likely tokens; 0: all
  float top_p = 0.95f;              // the fewest tokens whose probabilities reach this; 1: all
  float repetition_penalty = 1.0f;  // above 1, tokens seen before become less likely; 1: none
  Index tokens = 256;               // to write at most
  Seed seed = {};
  std::uint32_t story = 0;  // number of the story: another one draws other numbers

  /// Throws OptionError, naming the option.
  void check() const {
    if (!(temperature >= 0) || !std::isfinite(temperature)) {
      fail<OptionError>("temperature must be 0 or more, found ", temperature);
    }
    if (top_k < 0) fail<OptionError>("top-k must be 0 (all) or more, found ", top_k);
    if (!(top_p > 0 && top_p <= 1)) fail<OptionError>("top-p must be above 0 and at most 1, found ", top_p);
    if (!(repetition_penalty > 0) || !std::isfinite(repetition_penalty)) {
      fail<OptionError>("the repetition penalty must be above 0, found ", repetition_penalty);
    }
    if (tokens < 0) fail<OptionError>("the number of tokens must be 0 or more, found ", tokens);
  }
};

/// Draws tokens for one story.
class Sampler {
 public:
  /// Throws OptionError.
  explicit Sampler(const SampleOptions& options) : options_(options) { options.check(); }

  /// Makes `token` one that the repetition penalty counts.
  void saw(Token token) {
    const auto at = static_cast<std::size_t>(token);
    if (at >= seen_.size()) seen_.resize(at + 1, false);
    seen_[at] = true;
  }

  /// The token for `position`. A logit that is not a number counts as impossible; throws TextError if all are.
  Token operator()(std::span<const float> logits, Index position) {
    scores_.assign(logits.begin(), logits.end());
    const float penalty = options_.repetition_penalty;
    for (std::size_t v = 0; v < scores_.size(); ++v) {
      float& score = scores_[v];
      if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
      if (v < seen_.size() && seen_[v]) score = score > 0 ? score / penalty : score * penalty;
    }
    const auto best = std::max_element(scores_.begin(), scores_.end());
    if (best == scores_.end() || *best == -std::numeric_limits<float>::infinity()) {
      fail<TextError>("the model gives no token a finite logit");
    }
    if (options_.temperature == 0) return static_cast<Token>(best - scores_.begin());
    return draw(position, *best);
  }

 private:
  Token draw(Index position, float greatest) {
    // Candidates from the most likely down; equal ones by number, so that the order is one on every machine.
    order_.resize(scores_.size());
    std::iota(order_.begin(), order_.end(), Token{0});
    const auto likelier = [this](Token a, Token b) {
      const float x = scores_[static_cast<std::size_t>(a)], y = scores_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    };
    std::size_t count = scores_.size();
    if (options_.top_k > 0) count = std::min(count, static_cast<std::size_t>(options_.top_k));
    std::partial_sort(order_.begin(), order_.begin() + static_cast<Index>(count), order_.end(), likelier);
    weights_.resize(count);
    double total = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const double score = scores_[static_cast<std::size_t>(order_[i])];
      total += weights_[i] = std::exp((score - greatest) / options_.temperature);
    }
    double reached = 0;
    std::size_t kept = 0;  // the first always stays, whatever top-p is
    while (kept < count && (kept == 0 || reached < options_.top_p * total)) reached += weights_[kept++];
    const RandomStream stream(options_.seed, options_.story, RandomSite::sampling);
    const auto words = random_words(stream, static_cast<std::uint64_t>(position));
    double point = (words[0] + words[1] * 0x1p-32) * 0x1p-32 * reached;
    for (std::size_t i = 0; i + 1 < kept; ++i) {
      if (point < weights_[i]) return order_[i];
      point -= weights_[i];
    }
    return order_[kept - 1];
  }

  SampleOptions options_;
  std::vector<bool> seen_;
  std::vector<float> scores_;
  std::vector<double> weights_;
  std::vector<Token> order_;
};

}  // namespace tinymoe
