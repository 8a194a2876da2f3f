#pragma once
/// @file
/// From logits to the next token.
///
/// In order: repetition penalty (Keskar et al. 2019), temperature, top-k (Fan et al. 2018), min-p (Nguyen et al. 2024),
/// typical-p (Meister et al. 2022), top-p (Holtzman et al. 2020), and a draw that is a function of (seed, story,
/// position). Each filter works on the tokens that remain, with probabilities renormalised, and keeps at least one
/// token.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
inline constexpr RandomSite sampling{2};
}  // namespace random_site

/// How the next token is chosen.
struct SampleOptions {
  float temperature = 0.8f;         // 0: greedy, always the most likely token
  Index top_k = 0;                  // keep this many of the most likely tokens; 0: all
  float min_p = 0;                  // keep tokens with at least this share of the max probability; 0: all
  float typical_p = 1;              // keep the most typical tokens whose probabilities sum to this; 1: all
  float top_p = 0.95f;              // keep the fewest tokens whose probabilities sum to this; 1: all
  float repetition_penalty = 1.0f;  // above 1, tokens seen before become less likely; 1: none
  Index tokens = 256;               // max number of generated tokens
  Seed seed = {};
  std::uint32_t story = 0;  // number of the story; each draws other random numbers

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("SampleOptions", {{"temperature", temperature, from_0},
                                            {"top_k", top_k, whole(0)},
                                            {"min_p", min_p, from_0_to_1},
                                            {"typical_p", typical_p, above_0_to_1},
                                            {"top_p", top_p, above_0_to_1},
                                            {"repetition_penalty", repetition_penalty, above_0},
                                            {"tokens", tokens, whole(0)}});
  }
};

/// Draws tokens for one story.
class Sampler {
 public:
  /// Throws OptionError.
  explicit Sampler(const SampleOptions& options) : options_(options) { options.check(); }

  /// Marks `token` as seen, for the repetition penalty.
  void saw(Token token) {
    const auto at = static_cast<std::size_t>(token);
    if (at >= seen_.size()) seen_.resize(at + 1, 0);
    seen_[at] = 1;
  }

  /// The token for `position`. A NaN logit gets probability 0. Throws TextError without a finite logit.
  Token operator()(std::span<const float> logits, Index position) {
    scores_.assign(logits.begin(), logits.end());
    const float penalty = options_.repetition_penalty;
    for (std::size_t v = 0; v < scores_.size(); ++v) {
      float& score = scores_[v];
      if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
      if (v < seen_.size() && seen_[v] != 0) score = score > 0 ? score / penalty : score * penalty;
    }
    const auto best = std::max_element(scores_.begin(), scores_.end());
    if (best == scores_.end() || *best == -std::numeric_limits<float>::infinity()) {
      fail<TextError>("the model gives no token a finite logit");
    }
    return options_.temperature == 0 ? static_cast<Token>(best - scores_.begin()) : draw(position, *best);
  }

 private:
  struct Candidate {
    Token token;
    double weight;  // its probability relative to the max probability
  };

  Token draw(Index position, float max_score) {
    if (std::isinf(max_score)) return most_likely();
    collect(max_score);
    double total = mass();
    if (options_.top_k == 0 && options_.typical_p == 1) drop_hopeless(total);
    keep_most_likely();
    if (options_.top_k > 0) total = mass();
    if (options_.typical_p < 1) total = keep_typical(total);
    const double reached = keep_mass(options_.top_p * total);
    const RandomStream stream(options_.seed, options_.story, random_site::sampling);
    const auto words = detail::random_words(stream, static_cast<std::uint64_t>(position));
    double point = (words[0] + words[1] * 0x1p-32) * 0x1p-32 * reached;
    for (const auto& candidate : candidates_) {
      if (point < candidate.weight) return candidate.token;
      point -= candidate.weight;
    }
    return candidates_.back().token;  // a rounding past the end
  }

  Token most_likely() const {
    return static_cast<Token>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
  }

  /// The tokens that min-p keeps, unsorted; the most likely token is always one of them.
  void collect(float max_score) {
    candidates_.clear();
    for (std::size_t v = 0; v < scores_.size(); ++v) {
      const double weight = std::exp((double(scores_[v]) - max_score) / options_.temperature);
      if (weight > 0 && weight >= options_.min_p) candidates_.push_back({static_cast<Token>(v), weight});
    }
  }

  /// Avoids most of the sorting: tokens below (1 − top-p) / V sum to less than 1 − top-p, so the others reach top-p
  /// without them. The factor 0.999 leaves room for rounding.
  void drop_hopeless(double total) {
    const double least = 0.999 * (1.0 - options_.top_p) * total / static_cast<double>(candidates_.size());
    std::erase_if(candidates_, [=](const Candidate& candidate) { return candidate.weight < least; });
  }

  /// Sorts by descending score, equal scores by token number, so that the order is the same on every machine; keeps
  /// top-k. (min-p and top-k each keep a prefix of this order, so it does not matter which comes first.)
  void keep_most_likely() {
    std::size_t count = candidates_.size();
    if (options_.top_k > 0) count = std::min(count, static_cast<std::size_t>(options_.top_k));
    const auto end = candidates_.begin() + static_cast<Index>(count);
    std::partial_sort(candidates_.begin(), end, candidates_.end(), [this](const Candidate& a, const Candidate& b) {
      const float x = scores_[static_cast<std::size_t>(a.token)], y = scores_[static_cast<std::size_t>(b.token)];
      return x != y ? x > y : a.token < b.token;
    });
    candidates_.erase(end, candidates_.end());
  }

  /// Keeps the fewest tokens whose information −log p is nearest to the entropy H = −Σ p log p and whose probabilities
  /// sum to typical-p; ties go to the more likely token. Returns the sum of their weights.
  double keep_typical(double total) {
    double entropy = 0;
    for (const auto& candidate : candidates_) {
      entropy -= candidate.weight / total * std::log(candidate.weight / total);
    }
    distances_.clear();  // distance from the entropy, index in `candidates_`
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      distances_.push_back({std::abs(std::log(candidates_[i].weight / total) + entropy), i});
    }
    std::sort(distances_.begin(), distances_.end());
    double reached = 0;
    std::size_t kept = 0;
    for (; kept < distances_.size() && (kept == 0 || reached < options_.typical_p * total); ++kept) {
      reached += candidates_[distances_[kept].second].weight;
    }
    for (std::size_t i = kept; i < distances_.size(); ++i) candidates_[distances_[i].second].weight = 0;
    std::erase_if(candidates_, [](const Candidate& candidate) { return candidate.weight == 0; });
    return reached;
  }

  /// Keeps the first tokens whose weights sum to `least`, at least one; returns the sum.
  double keep_mass(double least) {
    double reached = 0;
    std::size_t kept = 0;
    while (kept < candidates_.size() && (kept == 0 || reached < least)) reached += candidates_[kept++].weight;
    candidates_.resize(kept);
    return reached;
  }

  double mass() const {
    double total = 0;
    for (const auto& candidate : candidates_) total += candidate.weight;
    return total;
  }

  SampleOptions options_;
  std::vector<char> seen_;  // of each token so far; not bits, which cost each program more to compile
  std::vector<float> scores_;
  std::vector<Candidate> candidates_;
  std::vector<std::pair<double, std::size_t>> distances_;
};

}  // namespace tinymoe::inline v0_1
