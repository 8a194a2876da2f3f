#pragma once
/// @file
/// Dropout of merges (BPE dropout; Provilkov, Emelianenko and Voita 2020) for whole texts: words are cut in more ways
/// than one, so that a model learns their parts.

#include <cstdint>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/text/fingerprint.hpp"

namespace tinymoe::inline v0_1 {

namespace random_site {
/// The merges that are left out.
inline constexpr RandomSite merge_dropout{5};
}  // namespace random_site

/// Which merges are left out where training data is encoded. The seed and a text decide the text's tokens, whatever the
/// order of texts and the number of threads.
struct MergeDropout {
  double rate = 0;  // the probability that a merge is left out when its turn comes: 0 is the plain encoding
  Seed seed = {};
};

namespace detail {

/// Throws OptionError unless the rate is a probability.
[[gnu::cold]] inline void check_rate(const MergeDropout& dropout) {
  if (dropout.rate >= 0 && dropout.rate <= 1) return;
  fail<OptionError>("expected a dropout of merges from 0 to 1, found ", dropout.rate);
}

/// Draws which merges of a text are left out.
class MergeDraws {
 public:
  explicit MergeDraws(const MergeDropout& dropout) : dropout_(dropout) {}

  /// Begins the stream of a text.
  void begin(std::string_view text) {
    Fnv1a hash;
    hash.number(dropout_.seed.value);
    hash.text(text);
    stream_ = RandomStream(Seed{hash.value()}, 0, random_site::merge_dropout);
    drawn_ = 0;
  }
  bool operator()() { return random_uniform(stream_, drawn_++) < dropout_.rate; }

 private:
  MergeDropout dropout_;
  RandomStream stream_;
  std::uint64_t drawn_ = 0;
};

}  // namespace detail
}  // namespace tinymoe::inline v0_1
