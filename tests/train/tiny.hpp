#pragma once
// Tiny architectures, a tokenizer and a corpus for the tests of training, sampling and analysis.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/same_bits.hpp"
#include "text/samples.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_test {

using namespace tinymoe;

/// A Mixtral of two layers.
template <Index V = 260, Index F = 24, class Norm = RmsNorm, Index C = 16, class... Options>
using TinyOf = Transformer<Vocab<V>, Context<C>, Width<16>,
                           Layers<2, MoEBlock<Norm, Attention<Heads<4>, KvHeads<2>, Rope, Options...>, Router<4, 2>,
                                              Expert<SwiGlu, Hidden<F>>>>>;
using Tiny = TinyOf<>;

/// The 256 bytes, "th", "the", " the" and the end of a story: 260 tokens.
inline const Tokenizer& tiny_tokenizer() {
  static const Tokenizer tokenizer = tokenizer_of({{"t", "h"}, {"th", "e"}, {" ", "the"}});
  return tokenizer;
}

/// Sentences of one form, about 1500 tokens: much to learn, and quickly.
inline const TokenData& tiny_data() {
  static const TokenData data = [] {
    std::vector<Token> tokens;
    Index bytes = 0;
    for (int i = 0; i < 72; ++i) {
      const char* const animals[] = {"cat", "dog", "owl"};
      const char* const places[] = {"mat", "log", "bed", "rug"};
      const std::string text = std::string("the ") + animals[i % 3] + " sat on the " + places[i * 7 % 4] + ".";
      const auto story = tiny_tokenizer().encode(text);
      tokens.insert(tokens.end(), story.begin(), story.end());
      tokens.push_back(tiny_tokenizer().end_of_story());
      bytes += std::ssize(text);
    }
    return TokenData::from_tokens(tokens, tiny_tokenizer().vocabulary_size(), bytes, 72);
  }();
  return data;
}

/// Tokens that look random, the same for the same `stream`.
inline std::vector<Token> random_tokens(Index count, Index vocabulary, std::uint64_t stream = 1) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<Token>(random_below(RandomStream(Seed{stream}, 0, RandomSite{3}), static_cast<std::uint64_t>(i),
                                        static_cast<std::uint64_t>(vocabulary))));
  }
  return tokens;
}

/// All masters of a model, in their own type: `==` is equality of bits, but for zeros and NaN.
template <class M>
auto weights_of(const M& model) {
  std::vector<typename M::Master> weights(static_cast<std::size_t>(M::size));
  model.backend().copy_to_host(weights.data(), model.masters().data, weights.size() * sizeof(weights[0]));
  return weights;
}

template <class M>
void set_weights(M& model, const std::vector<typename M::Master>& weights) {
  model.backend().copy_to_device(model.masters().data, weights.data(), weights.size() * sizeof(weights[0]));
  model.refresh();
}

/// max |a − b|; infinite if an element is not finite.
template <class T>
double greatest_difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = std::isfinite(difference) ? std::max(worst, difference) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

}  // namespace tinymoe_test
