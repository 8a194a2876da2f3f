// Int8 and Int4: the bytes of GGUF's blocks, what products read of them, and what they refuse.

#include "tinymoe/core/block_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"

namespace tinymoe_test::block_weights_tests {

using namespace tinymoe;

namespace {

template <class W>
using Format = WeightFormat<W>;

template <class W>
std::vector<std::byte> encoded(const std::vector<float>& values, Index rows, Index cols) {
  std::vector<std::byte> stored(Format<W>::bytes(rows, cols));
  Format<W>::encode(View<const float>(values.data(), rows, cols), stored.data());
  return stored;
}

std::string hexadecimal(const std::vector<std::byte>& bytes, std::size_t first, std::size_t count) {
  std::string text;
  for (std::size_t i = first; i < first + count; ++i) {
    for (const unsigned digit : {std::to_integer<unsigned>(bytes[i]) >> 4, std::to_integer<unsigned>(bytes[i]) & 15u}) {
      text += "0123456789abcdef"[digit];
    }
  }
  return text;
}

/// Two rows of 40 weights, all exact in float.
std::vector<float> some_weights() {
  std::vector<float> values;
  for (int r = 0; r < 2; ++r) {
    for (int i = 0; i < 40; ++i) {
      values.push_back(static_cast<float>((i * 37 + r * 11) % 64 - 31) / 32 * static_cast<float>(1 + r) +
                       static_cast<float>(i % 3) / 1024);
    }
  }
  return values;
}

}  // namespace

// The bytes are those of `gguf` 0.19 of PyPI for these rows, filled up to 64 weights with zeros.
TEST_CASE("integer weights have the bytes of GGUF's blocks", "[block_weights]") {
  const auto eight = encoded<Int8>(some_weights(), 2, 40), four = encoded<Int4>(some_weights(), 2, 40);
  REQUIRE(Format<Int8>::row_bytes(40) == 68);
  REQUIRE(Format<Int4>::row_bytes(40) == 36);
  CHECK(hexadecimal(eight, 0, 136) ==
        "09208518ad3fd567fc9124b94be173089d30c557ec7f14a93cd163f88d20b548dc6fd41f04962dbf56e87f10000000000000"
        "000000000000000000000000000000000000ce23ae46d76f009129ba52e37b0c9e35c75ef08119aa42d36bfc8d25b64edf77"
        "089a082430c457ec7f14a93c000000000000000000000000000000000000000000000000");
  CHECK(hexadecimal(four, 0, 72) ==
        "01b0cf269d047bd148bf268cf36ad137ae15c4af888f858c838a80878888888888888888be33730ca53fc851fb841da63fd9"
        "62fb942e00b4858c828980878d848888888888888888");
}

TEMPLATE_TEST_CASE("a group of zeros stays zero, also when its weights are too small for a scale", "[block_weights]",
                   Int8, Int4) {
  for (const float small : {0.0f, 1e-40f, -1e-12f}) {
    std::vector<float> values(64, small);
    values[40] = 3.0f;  // of the other group
    const auto stored = encoded<TestType>(values, 1, 64);
    const auto view = Format<TestType>::read(const_cast<std::byte*>(stored.data()), 1, 64);
    for (Index i = 0; i < 32; ++i) CHECK(view(0, i) == 0.0f);
    CHECK(view(0, 40) == Approx(3).epsilon(0.001));
  }
}

TEMPLATE_TEST_CASE("a weight that a group cannot hold is refused", "[block_weights]", Int8, Int4) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::string name = std::is_same_v<TestType, Int8> ? "Q8_0" : "Q4_0";
  const float largest = std::is_same_v<TestType, Int8> ? 65504.0f * 127 : 65504.0f * 8;
  for (const float bad : {std::nanf(""), infinity, -infinity, std::nextafter(largest, infinity)}) {
    std::vector<float> values(80, 1.0f);
    values[75] = bad;
    try {
      encoded<TestType>(values, 2, 40);
      FAIL("took " << bad);
    } catch (const OptionError& error) {
      const std::string text = error.what();
      CHECK(text.starts_with("the weight in row 1, column 35 is "));
      CHECK(text.find(name + " cannot hold; expected a finite one of at most ") != std::string::npos);
    }
  }
  const auto stored = encoded<TestType>(std::vector<float>(32, -largest), 1, 32);
  CHECK(Format<TestType>::read(const_cast<std::byte*>(stored.data()), 1, 32)(0, 31) == -largest);
}

TEMPLATE_TEST_CASE("products of the oracle take integer weights", "[block_weights]", Int8, Int4) {
  const Reference<double> oracle;
  constexpr Index n = 3, experts = 2, rows = 5;
  // Half a step and the rounding of the scale. Of 4 bits the far end, 7, is a whole step off.
  constexpr float limit = std::is_same_v<TestType, Int8> ? 0.54f / 127 : 1.002f / 8;
  for (const Index cols : {1, 31, 32, 33, 100}) {
    std::vector<float> weights;
    std::vector<double> x, decoded;
    for (Index i = 0; i < experts * rows * cols; ++i) weights.push_back(std::sin(static_cast<float>(i)));
    for (Index i = 0; i < n * cols; ++i) x.push_back(std::cos(static_cast<double>(i)));
    const auto one = Format<TestType>::bytes(rows, cols);
    std::vector<std::byte> stored(2 * one);
    for (Index e = 0; e < experts; ++e) {
      Format<TestType>::encode(View<const float>(weights.data() + e * rows * cols, rows, cols),
                               stored.data() + static_cast<std::size_t>(e) * one);
    }
    const auto bank = Format<TestType>::bank(stored.data(), stored.data() + one, experts, rows, cols);
    float worst = 0;
    for (Index e = 0; e < experts; ++e) {
      for (Index o = 0; o < rows; ++o) {
        for (Index i = 0; i < cols; ++i) {
          const float weight = weights[static_cast<std::size_t>((e * rows + o) * cols + i)];
          decoded.push_back(double{bank[e](o, i)});
          worst = std::max(worst, std::abs(bank[e](o, i) - weight));
        }
      }
    }
    CHECK(worst <= limit);
    std::vector<double> y(n * rows), wanted(n * rows);
    const View<const double> from(x.data(), n, cols);
    oracle.matmul(from, bank[1], {}, View<double>(y.data(), n, rows));
    oracle.matmul(from, View<const double>(decoded.data() + rows * cols, rows, cols), {},
                  View<double>(wanted.data(), n, rows));
    CHECK(y == wanted);
    std::vector<std::int32_t> offsets = {0, 1, n};
    const Dispatch dispatch(View<std::int32_t>(offsets.data(), 1, experts + 1), n);
    oracle.grouped_matmul(from, bank, {}, dispatch, View<double>(y.data(), n, rows));
    oracle.grouped_matmul(from, Bank<const double>{decoded.data(), experts, rows, cols, rows * cols}, {}, dispatch,
                          View<double>(wanted.data(), n, rows));
    CHECK(y == wanted);
  }
}

}  // namespace tinymoe_test::block_weights_tests
