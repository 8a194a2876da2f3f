// The sampler: each filter by hand, the draws by their frequencies, and NaN logits.

#include "tinymoe/sample/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"

namespace tinymoe_test::sampler {

using namespace tinymoe;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// How often each token is drawn at positions 0 … count - 1.
std::vector<double> frequencies(const SampleOptions& options, const std::vector<float>& logits, int count = 20000,
                                const std::vector<Token>& seen = {}) {
  Sampler sampler(options);
  for (const Token token : seen) sampler.saw(token);
  std::vector<double> result(logits.size());
  for (Index i = 0; i < count; ++i) ++result.at(static_cast<std::size_t>(sampler(logits, i)));
  for (double& share : result) share /= count;
  return result;
}

/// exp(logit / temperature), normalised.
std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> result;
  double total = 0;
  for (const float logit : logits) result.push_back(std::exp(logit / temperature)), total += result.back();
  for (double& p : result) p /= total;
  return result;
}

/// Pearson's chi-square, and no token of probability zero.
void check_frequencies(const std::vector<double>& found, const std::vector<double>& expected, int count = 20000) {
  REQUIRE(found.size() == expected.size());
  double chi_square = 0;
  for (std::size_t v = 0; v < found.size(); ++v) {
    INFO("token " << v << ": " << found[v] << " of expected " << expected[v]);
    if (expected[v] == 0) CHECK(found[v] == 0);
    if (expected[v] == 0) continue;
    chi_square += count * (found[v] - expected[v]) * (found[v] - expected[v]) / expected[v];
  }
  CHECK(chi_square < 25);  // of at most 7 degrees of freedom: one seed in 1300 is above
}

const std::vector<float> some = {1.0f, -0.5f, 2.0f, 0.0f, 1.5f, -3.0f, 0.25f, 2.0f};

Token one(const SampleOptions& options, const std::vector<float>& logits, Index position = 0) {
  return Sampler(options)(logits, position);
}

}  // namespace

TEST_CASE("Temperature 0 takes the most likely token, the first among equals", "[sampler]") {
  const SampleOptions greedy{.temperature = 0};
  CHECK(one(greedy, {1, 5, 3}) == 1);
  CHECK(one(greedy, {7, 7, 7}) == 0);
  CHECK(one(greedy, {-1, 2, 2, 1}, 99) == 1);
  CHECK(one(greedy, {-infinity, -1e30f}) == 1);
  CHECK(one(greedy, {3}) == 0);
  CHECK(one(greedy, {0, infinity, 1}) == 1);
}

TEST_CASE("Draws follow the softmax at each temperature", "[sampler]") {
  for (const float temperature : {0.5f, 1.0f, 3.0f}) {
    check_frequencies(frequencies({.temperature = temperature, .top_p = 1}, some), softmax(some, temperature));
  }
  // Large logits are no overflow.
  check_frequencies(frequencies({.temperature = 1, .top_p = 1}, {3e4f, 3e4f}), {0.5, 0.5});
  // A temperature near zero is all but greedy.
  CHECK(frequencies({.temperature = 1e-30f, .top_p = 1}, {1, 2, 1.5f})[1] == 1);
}

TEST_CASE("top-k keeps the k most likely tokens", "[sampler]") {
  for (Index i = 0; i < 50; ++i) CHECK(one({.temperature = 5, .top_k = 1, .top_p = 1}, {0, 1, 2, 1}, i) == 2);
  // Ties at the border go to the smaller number.
  for (Index i = 0; i < 50; ++i) CHECK(one({.temperature = 5, .top_k = 1, .top_p = 1}, some, i) == 2);
  auto kept = softmax(some, 1);
  for (const std::size_t v : {1, 3, 5, 6}) kept[v] = 0;
  double total = 0;
  for (const double p : kept) total += p;
  for (double& p : kept) p /= total;
  check_frequencies(frequencies({.temperature = 1, .top_k = 4, .top_p = 1}, some), kept);
  // More than there are: all.
  const auto all = frequencies({.temperature = 1, .top_p = 1}, some);
  CHECK(frequencies({.temperature = 1, .top_k = 8, .top_p = 1}, some) == all);
  CHECK(frequencies({.temperature = 1, .top_k = 1000000, .top_p = 1}, some) == all);
}

TEST_CASE("top-p keeps the fewest tokens that reach it, and always one", "[sampler]") {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const std::vector<float> logits = {std::log(0.25f), std::log(0.125f), std::log(0.5f), std::log(0.125f)};
  check_frequencies(frequencies({.temperature = 1, .top_p = 0.45f}, logits), {0, 0, 1, 0});
  check_frequencies(frequencies({.temperature = 1, .top_p = 0.6f}, logits), {1.0 / 3, 0, 2.0 / 3, 0});
  check_frequencies(frequencies({.temperature = 1, .top_p = 0.8f}, logits), {2.0 / 7, 1.0 / 7, 4.0 / 7, 0});
  check_frequencies(frequencies({.temperature = 1, .top_p = 1}, logits), {0.25, 0.125, 0.5, 0.125});
  for (const float top_p : {1e-30f, 1e-6f, 0.001f}) {
    // The first token stays, for flat and for peaked distributions.
    CHECK(frequencies({.temperature = 1, .top_p = top_p}, std::vector<float>(8, 0.0f), 100)[0] == 1);
    CHECK(frequencies({.temperature = 1, .top_p = top_p}, {0, 0, 100, 0}, 100)[2] == 1);
    CHECK(one({.temperature = 1, .top_p = top_p}, {4}) == 0);
  }
  // Both filters: top-p counts within what top-k left.
  check_frequencies(frequencies({.temperature = 1, .top_k = 2, .top_p = 0.7f}, logits), {1.0 / 3, 0, 2.0 / 3, 0});
  check_frequencies(frequencies({.temperature = 1, .top_k = 2, .top_p = 0.6f}, logits), {0, 0, 1, 0});
}

TEST_CASE("top-p finds its tokens among many unlikely ones", "[sampler]") {
  // One of 0.5, four of 0.1, and 1000 that have 0.1 together: the last of them reached in order of their number.
  std::vector<float> logits(1005, std::log(0.0001f));
  logits[700] = std::log(0.5f);
  for (const std::size_t v : {10, 500, 900, 1004}) logits[v] = std::log(0.1f);
  const auto kept = [&](float top_p) {
    std::set<Token> tokens;
    Sampler sampler({.temperature = 1, .top_p = top_p});
    for (Index i = 0; i < 20000; ++i) tokens.insert(sampler(logits, i));
    return tokens;
  };
  CHECK(kept(0.75f) == std::set<Token>{10, 500, 700, 900});
  CHECK(kept(0.85f) == std::set<Token>{10, 500, 700, 900, 1004});
  const auto some_of_the_rest = kept(0.9005f);
  CHECK(some_of_the_rest.size() <= 11);
  CHECK(some_of_the_rest.size() > 7);
  // The lower number comes first where two are as likely: 0 to 5 in addition to the five.
  for (const Token token : some_of_the_rest) CHECK((token <= 5 || logits[static_cast<std::size_t>(token)] > -3));
}

TEST_CASE("min-p keeps tokens by their share of the max probability", "[sampler]") {
  // Probabilities 0.5, 0.25, 0.125, 0.125: ratios 1, 0.5, 0.25, 0.25.
  const std::vector<float> logits = {std::log(0.25f), std::log(0.125f), std::log(0.5f), std::log(0.125f)};
  check_frequencies(frequencies({.temperature = 1, .min_p = 0.2f, .top_p = 1}, logits), {0.25, 0.125, 0.5, 0.125});
  check_frequencies(frequencies({.temperature = 1, .min_p = 0.3f, .top_p = 1}, logits), {1.0 / 3, 0, 2.0 / 3, 0});
  check_frequencies(frequencies({.temperature = 1, .min_p = 0.6f, .top_p = 1}, logits), {0, 0, 1, 0});
  // The ratios are those after the temperature: 1, 0.71, 0.5, 0.5.
  check_frequencies(frequencies({.temperature = 2, .min_p = 0.45f, .top_p = 1}, logits), softmax(logits, 2));
  check_frequencies(frequencies({.temperature = 2, .min_p = 0.55f, .top_p = 1}, logits),
                    {1 / (1 + std::sqrt(2.0)), 0, std::sqrt(2.0) / (1 + std::sqrt(2.0)), 0});
  // The most likely token always stays, with its equals: 1 keeps no others.
  check_frequencies(frequencies({.temperature = 1, .min_p = 1, .top_p = 1}, {0, 3, 1, 3}), {0, 0.5, 0, 0.5});
  // 0 keeps all, however unlikely.
  CHECK(frequencies({.temperature = 1, .min_p = 0, .top_p = 1}, some) ==
        frequencies({.temperature = 1, .top_p = 1}, some));
  // top-p counts within what min-p left: 2/3 of it reaches 0.66 alone, 1/2 of all would not.
  check_frequencies(frequencies({.temperature = 1, .min_p = 0.3f, .top_p = 0.66f}, logits), {0, 0, 1, 0});
}

TEST_CASE("typical-p keeps the tokens whose information is nearest to the entropy", "[sampler]") {
  // p = 0.5, 0.25, 0.125, 0.125: information 1, 2, 3, 3 bits, entropy 1.75 bits; distances 0.75, 0.25, 1.25, 1.25. The
  // most typical token is not the likeliest one.
  const std::vector<float> logits = {std::log(0.25f), std::log(0.125f), std::log(0.5f), std::log(0.125f)};
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.2f, .top_p = 1}, logits), {1, 0, 0, 0});
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.3f, .top_p = 1}, logits), {1.0 / 3, 0, 2.0 / 3, 0});
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.7f, .top_p = 1}, logits), {1.0 / 3, 0, 2.0 / 3, 0});
  // Of two that are as near, the first.
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.8f, .top_p = 1}, logits),
                    {0.25 / 0.875, 0.125 / 0.875, 0.5 / 0.875, 0});
  check_frequencies(frequencies({.temperature = 1, .typical_p = 1, .top_p = 1}, logits), {0.25, 0.125, 0.5, 0.125});
  // One that is all but certain is typical; a flat distribution is all typical, in order.
  CHECK(frequencies({.temperature = 1, .typical_p = 0.2f, .top_p = 1}, {0, 0, 100, 0}, 100)[2] == 1);
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.5f, .top_p = 1}, {7, 7, 7}), {0.5, 0.5, 0});
  // Never empty.
  CHECK(one({.temperature = 1, .typical_p = 1e-30f}, {4}) == 0);
  CHECK(one({.temperature = 1, .typical_p = 1e-30f}, {-infinity, not_a_number, 4}) == 2);
  // The entropy is that of what top-k left, 2/3 and 1/3: 0.92 bits, from which 0.58 bits are nearer than 1.58.
  check_frequencies(frequencies({.temperature = 1, .top_k = 2, .typical_p = 0.3f, .top_p = 1}, logits), {0, 0, 1, 0});
  // So it is of what min-p left.
  check_frequencies(frequencies({.temperature = 1, .min_p = 0.3f, .typical_p = 0.3f, .top_p = 1}, logits),
                    {0, 0, 1, 0});
  // top-p counts within what is typical, from the likeliest down.
  check_frequencies(frequencies({.temperature = 1, .typical_p = 0.3f, .top_p = 0.6f}, logits), {0, 0, 1, 0});
}

TEST_CASE("The repetition penalty divides positive and multiplies negative logits", "[sampler]") {
  const std::vector<float> logits = {2, -1, 0, 1};
  check_frequencies(frequencies({.temperature = 1, .top_p = 1, .repetition_penalty = 2}, logits, 20000, {0, 1, 2}),
                    softmax({1, -2, 0, 1}, 1));
  // Only what was seen.
  check_frequencies(frequencies({.temperature = 1, .top_p = 1, .repetition_penalty = 2}, logits, 20000, {3, 3}),
                    softmax({2, -1, 0, 0.5f}, 1));
  Sampler greedy({.temperature = 0, .repetition_penalty = 3});
  CHECK(greedy(std::vector<float>{-2, -1}, 0) == 1);
  greedy.saw(1);
  CHECK(greedy(std::vector<float>{-2, -1}, 0) == 0);  // -3 < -2: a negative logit becomes no likelier
  CHECK(greedy(std::vector<float>{1, 2}, 0) == 0);    // 2/3 < 1
  CHECK(greedy(std::vector<float>{-infinity, 3}, 0) == 1);
}

TEST_CASE("Tokens with NaN logits are impossible", "[sampler]") {
  CHECK(one({.temperature = 0}, {not_a_number, 1, 2, not_a_number}) == 2);
  check_frequencies(frequencies({.temperature = 1, .top_p = 1}, {not_a_number, 0, -infinity, 0}), {0, 0.5, 0, 0.5});
  for (const float temperature : {0.0f, 1.0f}) {
    for (const auto& logits :
         {std::vector<float>{not_a_number, not_a_number}, {-infinity, not_a_number}, {-infinity}, {}}) {
      check_message<TextError>([&] { one({.temperature = temperature}, logits); }, "finite logit");
    }
    // Infinitely likely is certain.
    CHECK(one({.temperature = temperature}, {0, infinity, 0}) == 1);
  }
}

TEST_CASE("Draws from many tokens are those of the sorted vocabulary", "[sampler]") {
  std::vector<float> logits(5000);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    // Ties, a long tail, and tokens of no probability.
    const auto words = detail::random_words(RandomStream(Seed{5}, 0, random_site::sampling), v);
    logits[v] = v % 50 == 0 ? -infinity : std::round(float(words[0] >> 8) * 0x1p-24f * 200.0f) * 0.05f;
  }
  for (const float temperature : {0.05f, 1.0f, 20.0f}) {
    for (const SampleOptions& filters : {SampleOptions{.top_p = 1},
                                         {.top_p = 0.7f},
                                         {.min_p = 0.3f, .top_p = 0.9f},
                                         {.top_k = 3, .top_p = 1},
                                         {.top_k = 2500, .top_p = 0.8f},
                                         {.top_k = 9000}}) {
      SampleOptions options = filters;
      options.temperature = temperature;
      std::vector<std::size_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
      std::vector<double> weights;
      for (const std::size_t v : order) {
        weights.push_back(std::exp((double(logits[v]) - logits[order[0]]) / temperature));
        const bool dropped = weights.back() < options.min_p || weights.back() < 1e-38 ||
                             (options.top_k > 0 && std::ssize(weights) > options.top_k);
        if (dropped) weights.back() = 0;
      }
      const double least = options.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
      double reached = 0;
      for (double& weight : weights) {
        if (reached > 0 && reached >= least) weight = 0;
        reached += weight;
      }
      Sampler sampler(options);
      int different = 0;
      for (Index position = 0; position < 500; ++position) {
        const auto words = detail::random_words(RandomStream(options.seed, 0, random_site::sampling),
                                                static_cast<std::uint64_t>(position));
        double point = (words[0] + words[1] * 0x1p-32) * 0x1p-32 * reached;
        std::size_t i = 0;
        while (point >= weights[i]) point -= weights[i++];
        different += sampler(logits, position) == static_cast<Token>(order[i]) ? 0 : 1;
      }
      CHECK(different <= 1);  // weights are float: a point may fall on the other side of a border
    }
  }
}

TEST_CASE("A draw is a function of seed, story and position", "[sampler]") {
  const std::vector<float> flat(1000, 0.0f);
  const auto draws = [&](SampleOptions options) {
    options.top_p = 1;
    Sampler sampler(options);
    std::vector<Token> tokens;
    for (Index i = 0; i < 20; ++i) tokens.push_back(sampler(flat, i));
    return tokens;
  };
  const auto first = draws({.seed = Seed{1}});
  CHECK(draws({.seed = Seed{1}}) == first);
  CHECK(draws({.seed = Seed{2}}) != first);
  CHECK(draws({.seed = Seed{1}, .story = 1}) != first);
  CHECK(one({.top_p = 1, .seed = Seed{1}}, flat, 7) == first[7]);  // whatever was drawn before
}

TEST_CASE("Options outside their range are named", "[sampler]") {
  const auto make = [](SampleOptions options) { return [options] { Sampler sampler(options); }; };
  check_message<OptionError>(make({.temperature = -0.1f}), "temperature", "-0.1");
  check_message<OptionError>(make({.temperature = not_a_number}), "temperature");
  check_message<OptionError>(make({.temperature = infinity}), "temperature");
  check_message<OptionError>(make({.top_k = -1}), "top_k", "-1");
  check_message<OptionError>(make({.top_p = 0}), "top_p", "0");
  check_message<OptionError>(make({.top_p = 1.1f}), "top_p", "1.1");
  check_message<OptionError>(make({.top_p = not_a_number}), "top_p");
  check_message<OptionError>(make({.min_p = -0.1f}), "min_p", "-0.1");
  check_message<OptionError>(make({.min_p = 1.5f}), "min_p", "1.5");
  check_message<OptionError>(make({.min_p = not_a_number}), "min_p");
  check_message<OptionError>(make({.typical_p = 0}), "typical_p", "0");
  check_message<OptionError>(make({.typical_p = 2}), "typical_p", "2");
  check_message<OptionError>(make({.typical_p = not_a_number}), "typical_p");
  check_message<OptionError>(make({.repetition_penalty = 0}), "repetition_penalty");
  check_message<OptionError>(make({.repetition_penalty = -2}), "repetition_penalty", "-2");
  check_message<OptionError>(make({.repetition_penalty = not_a_number}), "repetition_penalty");
  check_message<OptionError>(make({.tokens = -1}), "tokens", "-1");
  CHECK_NOTHROW(make({.temperature = 0, .top_k = 0, .top_p = 1, .tokens = 0})());
}

}  // namespace tinymoe_test::sampler
