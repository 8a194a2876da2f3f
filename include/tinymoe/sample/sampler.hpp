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

#include "tinymoe/backend/math.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The tokens that are drawn.
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
    constexpr float none = -std::numeric_limits<float>::infinity();
    scores_.resize(logits.size());
    for (std::size_t v = 0; v < logits.size(); ++v) scores_[v] = logits[v] >= none ? logits[v] : none;
    const float penalty = options_.repetition_penalty;
    for (std::size_t v = 0; v < std::min(seen_.size(), scores_.size()); ++v) {
      float& score = scores_[v];
      if (seen_[v] != 0) score = score > 0 ? score / penalty : score * penalty;
    }
    const auto best = std::max_element(scores_.begin(), scores_.end());
    if (best == scores_.end() || *best == none) fail<TextError>("the model gives no token a finite logit");
    const auto greedy = static_cast<Token>(best - scores_.begin());
    return options_.temperature == 0 || std::isinf(*best) ? greedy : draw(position, *best);
  }

 private:
  struct Candidate {
    Token token;
    double weight;  // its probability relative to the max probability
  };

  /// Tokens are put into buckets by their score, so that a draw sorts one or two of them and not the vocabulary:
  /// bucket b has those whose weight is between e^(−(b + 1) / buckets_of_e) and e^(−b / buckets_of_e), the last one all
  /// others. Weights beyond are below float's least normal number.
  static constexpr std::size_t buckets_of_e = 64, buckets = 88 * buckets_of_e;

  Token draw(Index position, float max_score) {
    weigh(max_score);
    const RandomStream stream(options_.seed, options_.story, random_site::sampling);
    const auto words = detail::random_words(stream, static_cast<std::uint64_t>(position));
    const double share = (words[0] + words[1] * 0x1p-32) * 0x1p-32;
    if (options_.top_k == 0 && options_.typical_p == 1) return draw_from_buckets(share);
    collect(0, options_.top_k > 0 ? bucket_of_top_k() : buckets - 1);
    if (options_.top_k > 0 && std::ssize(candidates_) > options_.top_k) {
      candidates_.resize(static_cast<std::size_t>(options_.top_k));
    }
    double total = mass();
    if (options_.typical_p < 1) total = keep_typical(total);
    return token_at(share * keep_mass(0, options_.top_p * total));
  }

  /// Top-p alone: finds the bucket in which it ends, and the one of the token.
  Token draw_from_buckets(double share) {
    double total = 0;
    for (const double mass : masses_) total += mass;
    const auto [last, before_last] = bucket_at(options_.top_p * total, buckets - 1);
    collect(last, last);
    const double kept = keep_mass(before_last, options_.top_p * total);
    const auto [bucket, before] = bucket_at(share * kept, last);
    if (bucket != last) collect(bucket, bucket);
    return token_at(share * kept - before);
  }

  /// The weights, without the tokens that min-p drops, and the mass of each bucket. The most likely token stays always.
  void weigh(float max_score) {
    const float temperature = options_.temperature;
    weights_.resize(scores_.size());
    buckets_.resize(scores_.size());
    for (std::size_t v = 0; v < scores_.size(); ++v) {
      weights_[v] = exponential((scores_[v] - max_score) / temperature);
    }
    masses_.assign(buckets, 0.0);
    for (std::size_t v = 0; v < scores_.size(); ++v) {
      const float place = (max_score - scores_[v]) / temperature * float{buckets_of_e};
      const std::size_t bucket = place < float{buckets - 1} ? static_cast<std::size_t>(place) : buckets - 1;
      if (weights_[v] < options_.min_p) weights_[v] = 0;
      buckets_[v] = static_cast<std::uint16_t>(bucket);
      masses_[bucket] += double{weights_[v]};
    }
  }

  /// The first bucket with which the sum of weights reaches `point`, at most `last`, and the sum before it.
  std::pair<std::size_t, double> bucket_at(double point, std::size_t last) const {
    std::size_t found = 0;
    double before = 0, sum = 0;
    for (std::size_t bucket = 0; bucket <= last && sum < point; ++bucket) {
      if (masses_[bucket] == 0) continue;
      found = bucket, before = sum;
      sum += masses_[bucket];
    }
    return {found, before};
  }

  /// The bucket that has the k-th most likely token.
  std::size_t bucket_of_top_k() const {
    std::vector<Index> counts(buckets, 0);
    for (std::size_t v = 0; v < weights_.size(); ++v) counts[buckets_[v]] += weights_[v] > 0 ? 1 : 0;
    std::size_t bucket = 0;
    for (Index count = counts[0]; count < options_.top_k && bucket + 1 < buckets;) count += counts[++bucket];
    return bucket;
  }

  /// The tokens of some buckets by descending score, equal scores by token number, so that the order is the same on
  /// every machine.
  void collect(std::size_t first, std::size_t last) {
    candidates_.clear();
    for (std::size_t v = 0; v < weights_.size(); ++v) {
      if (buckets_[v] < first || buckets_[v] > last || weights_[v] == 0) continue;
      candidates_.push_back({static_cast<Token>(v), double{weights_[v]}});
    }
    std::sort(candidates_.begin(), candidates_.end(), [this](const Candidate& a, const Candidate& b) {
      const float x = scores_[static_cast<std::size_t>(a.token)], y = scores_[static_cast<std::size_t>(b.token)];
      return x != y ? x > y : a.token < b.token;
    });
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

  /// Keeps the first candidates until the weights, with `before` of likelier tokens, sum to `least`, one at least where
  /// there are no likelier ones. Returns the sum.
  double keep_mass(double before, double least) {
    double reached = before;
    std::size_t kept = 0;
    while (kept < candidates_.size() && (reached == 0 || reached < least)) reached += candidates_[kept++].weight;
    candidates_.resize(kept);
    return reached;
  }

  /// The candidate at which the sum of weights passes `point`.
  Token token_at(double point) const {
    for (const auto& candidate : candidates_) {
      if (point < candidate.weight) return candidate.token;
      point -= candidate.weight;
    }
    return candidates_.back().token;  // a rounding past the end
  }

  double mass() const {
    double total = 0;
    for (const auto& candidate : candidates_) total += candidate.weight;
    return total;
  }

  SampleOptions options_;
  std::vector<char> seen_;  // of each token so far; not bits, which cost each program more to compile
  std::vector<float> scores_, weights_;
  std::vector<std::uint16_t> buckets_;  // of each token
  std::vector<double> masses_;          // of each bucket
  std::vector<Candidate> candidates_;
  std::vector<std::pair<double, std::size_t>> distances_;
};

}  // namespace tinymoe::inline v0_1
