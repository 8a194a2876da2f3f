#include "tinymoe/core/random.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "support/catch.hpp"

namespace tinymoe_test::random {

using namespace tinymoe;

using Words = std::array<std::uint32_t, 4>;

TEST_CASE("Philox gives the known answers", "[random]") {
  // Random123's kat_vectors, philox4x32 10; the seed has the first key word in its low half.
  CHECK(detail::philox({0, 0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(detail::philox({ones, ones, ones, ones}, 0xffffffffffffffff) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(detail::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  static_assert(detail::philox({0, 0, 0, 0}, 0)[0] == 0x6627e8d5);
}

TEST_CASE("A stream depends on seed, step, site and index alone", "[random]") {
  const RandomStream stream(Seed{7}, 3, RandomSite::in_layers(3), 2);
  CHECK(detail::random_words(stream, (std::uint64_t{5} << 32) + 4) == detail::philox({4, 5, 3, (3u << 20) + 2}, 7));
  std::set<Words> seen;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    for (std::uint32_t step = 0; step < 4; ++step) {
      for (std::uint32_t part = 0; part < 4; ++part) {
        for (std::uint64_t index = 0; index < 4; ++index) {
          seen.insert(
              detail::random_words(RandomStream(Seed{seed << 31}, step, RandomSite::in_layers(3), part), index << 30));
        }
      }
    }
  }
  CHECK(seen.size() == 256);
}

TEST_CASE("Uniform numbers lie in [0, 1) and have the uniform moments", "[random]") {
  const RandomStream stream(Seed{1337}, 0, RandomSite{2});
  constexpr int count = 200'000;
  double sum = 0, squares = 0, products = 0, previous = 0;
  float minimum = 1, maximum = 0;
  std::array<int, 16> bins{};
  for (int i = 0; i < count; ++i) {
    const float value = random_uniform(stream, static_cast<std::uint64_t>(i));
    minimum = std::min(minimum, value);
    maximum = std::max(maximum, value);
    sum += value;
    squares += (value - 0.5) * (value - 0.5);
    products += (value - 0.5) * (previous - 0.5);
    previous = value;
    ++bins[static_cast<std::size_t>(value * 16)];
  }
  CHECK(minimum >= 0.0f);
  CHECK(maximum < 1.0f);
  CHECK(sum / count == Approx(0.5).margin(4 * std::sqrt(1.0 / 12 / count)));
  CHECK(squares / count == Approx(1.0 / 12).margin(4 * std::sqrt(1.0 / 180 / count)));
  CHECK(products / count == Approx(0.0).margin(4.0 / 12 / std::sqrt(count)));
  double chi_squared = 0;
  for (const int bin : bins) chi_squared += std::pow(bin - count / 16.0, 2) / (count / 16.0);
  CHECK(chi_squared < 44.3);  // 15 degrees of freedom, p = 1e-4
}

TEST_CASE("Normal numbers are finite and have the normal moments", "[random]") {
  const RandomStream stream(Seed{1337}, 0, RandomSite{});
  constexpr int count = 200'000;
  std::array<double, 5> moments{};
  int beyond = 0;
  for (int i = 0; i < count; ++i) {
    const double value = random_normal(stream, static_cast<std::uint64_t>(i));
    REQUIRE(std::isfinite(value));
    for (std::size_t power = 1; power <= 4; ++power) moments[power] += std::pow(value, power) / count;
    if (std::abs(value) > 1.959964) ++beyond;
  }
  CHECK(moments[1] == Approx(0).margin(4 * std::sqrt(1.0 / count)));
  CHECK(moments[2] == Approx(1).margin(4 * std::sqrt(2.0 / count)));
  CHECK(moments[3] == Approx(0).margin(4 * std::sqrt(15.0 / count)));
  CHECK(moments[4] == Approx(3).margin(4 * std::sqrt(96.0 / count)));
  CHECK(beyond == Approx(0.05 * count).margin(4 * std::sqrt(0.05 * 0.95 * count)));
}

TEST_CASE("Whole numbers stay below their bound and reach every value", "[random]") {
  const RandomStream stream(Seed{42}, 1, RandomSite{1});
  for (const std::uint64_t bound : {1, 2, 3, 7, 10}) {
    std::vector<int> counts(bound);
    constexpr int draws = 20'000;
    for (int i = 0; i < draws; ++i) {
      const auto value = random_below(stream, static_cast<std::uint64_t>(i), bound);
      REQUIRE(value < bound);
      ++counts[value];
    }
    const double expected = double(draws) / double(bound);
    for (const int each : counts) CHECK(each == Approx(expected).margin(4.5 * std::sqrt(expected)));
  }
  for (const std::uint64_t bound :
       {std::uint64_t{1} << 32, (std::uint64_t{1} << 32) + 1, std::uint64_t{1} << 63, UINT64_MAX - 1, UINT64_MAX}) {
    for (std::uint64_t index = 0; index < 1000; ++index) {
      const auto words = detail::random_words(stream, index);
      const std::uint64_t value = random_below(stream, index, bound);
      REQUIRE(value < bound);
#if defined(__SIZEOF_INT128__)
      const auto random = (std::uint64_t{words[0]} << 32) | words[1];
      __extension__ using Wide = unsigned __int128;
      REQUIRE(value == static_cast<std::uint64_t>((Wide{random} * bound) >> 64));
#else
      static_cast<void>(words);
#endif
    }
  }
}

}  // namespace tinymoe_test::random
