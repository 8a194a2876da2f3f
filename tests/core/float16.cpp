// float16 against conversions worked out by hand and against all of its numbers.

#include "tinymoe/core/float16.hpp"

#include <cmath>
#include <limits>

#include "support/catch.hpp"

namespace tinymoe_test::float16_tests {

using namespace tinymoe;

namespace {

static_assert(sizeof(float16) == 2);
static_assert(float16(1.0f).bits == 0x3c00);
static_assert(float16(-2.0f).bits == 0xc000);
static_assert(float16(65504.0f).bits == 0x7bff);
static_assert(float(float16::from_bits(0x3555)) == 0.333251953125f);
static_assert(float16(0.0f) == float16(-0.0f));

}  // namespace

TEST_CASE("Every float16 goes to float and back", "[float16]") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = float16::from_bits(static_cast<std::uint16_t>(bits));
    const float value = half;
    const bool back = std::isnan(value) ? std::isnan(float(float16(value))) : float16(value).bits == half.bits;
    if (!back) FAIL("bits " << bits << ", value " << value);
  }
}

TEST_CASE("float16 rounds to nearest, ties to even", "[float16]") {
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {  // each pair of neighbours, subnormals among them
    const auto low = float16::from_bits(static_cast<std::uint16_t>(bits));
    const auto high = float16::from_bits(static_cast<std::uint16_t>(bits + 1));
    const float middle = (float(low) + float(high)) / 2;  // exact in float
    const auto even = (bits & 1u) == 0 ? low : high;
    const bool good = float16(middle).bits == even.bits && float16(-middle).bits == (even.bits | 0x8000u) &&
                      float16(std::nextafter(middle, 0.0f)).bits == low.bits &&
                      float16(std::nextafter(middle, 1e30f)).bits == high.bits;
    if (!good) FAIL("between bits " << bits << " and the next");
  }
}

TEST_CASE("A value too large for float16 becomes infinite, and a NaN stays one", "[float16]") {
  CHECK(float16(65519.99f).bits == 0x7bff);
  CHECK(float16(65520.0f).bits == 0x7c00);
  CHECK(float16(-1e30f).bits == 0xfc00);
  CHECK(float16(std::numeric_limits<float>::infinity()).bits == 0x7c00);
  CHECK(std::isnan(float(float16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(std::isnan(float(float16(-std::numeric_limits<float>::quiet_NaN()))));
  CHECK(float16(0x1p-24f).bits == 1);  // the smallest above 0
  CHECK(float16(0x1p-25f).bits == 0);
  CHECK(float16(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
  CHECK(float16(1e-40f).bits == 0);
  CHECK(float16(-1e-40f).bits == 0x8000);
}

}  // namespace tinymoe_test::float16_tests
