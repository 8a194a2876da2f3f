#include "tinymoe/core/bfloat16.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "support/catch.hpp"

namespace tinymoe_test::bfloat16_tests {

using namespace tinymoe;

TEST_CASE("bfloat16 keeps every one of its values", "[bfloat16]") {
  bool kept = true;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = bfloat16::from_bits(static_cast<std::uint16_t>(bits));
    const bfloat16 again(value);
    kept = kept && (std::isnan(value) ? std::isnan(float(again)) : again.bits == bits);
  }
  CHECK(kept);
}

TEST_CASE("bfloat16 rounds to nearest, ties to even", "[bfloat16]") {
  const auto rounded = [](std::uint32_t word) { return bfloat16(std::bit_cast<float>(word)).bits; };
  CHECK(rounded(0x3f800000) == 0x3f80);  // 1
  CHECK(rounded(0x3f807fff) == 0x3f80);  // below the tie
  CHECK(rounded(0x3f808000) == 0x3f80);  // a tie: down to even
  CHECK(rounded(0x3f808001) == 0x3f81);  // above the tie
  CHECK(rounded(0x3f818000) == 0x3f82);  // a tie: up to even
  CHECK(rounded(0x3fffffff) == 0x4000);  // carries into the exponent
  CHECK(rounded(0xbf818000) == 0xbf82);
  CHECK(rounded(0x7f7fffff) == 0x7f80);  // the largest float overflows to infinity
  CHECK(rounded(0x7f7f7fff) == 0x7f7f);
  CHECK(rounded(0x00008000) == 0x0000);  // subnormal ties
  CHECK(rounded(0x00018000) == 0x0002);
  CHECK(rounded(0x80000000) == 0x8000);
}

TEST_CASE("bfloat16 rounds as arithmetic in double says", "[bfloat16]") {
  bool nearest = true;
  for (std::uint32_t word = 0x00800000; word < 0x7f000000; word += 9973) {  // normal numbers
    const float value = std::bit_cast<float>(word);
    const int exponent = std::ilogb(value);
    const double expected = std::ldexp(std::nearbyint(std::ldexp(double(value), 7 - exponent)), exponent - 7);
    nearest =
        nearest && double(float(bfloat16(value))) == expected && float(bfloat16(-value)) == -float(bfloat16(value));
  }
  CHECK(nearest);
}

TEST_CASE("bfloat16 keeps infinities and NaN", "[bfloat16]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(float(bfloat16(infinity)) == infinity);
  CHECK(float(bfloat16(-infinity)) == -infinity);
  for (const std::uint32_t word : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    const bfloat16 value(std::bit_cast<float>(word));
    CHECK(std::isnan(float(value)));
    CHECK((value.bits >> 15) == (word >> 31));
  }
  CHECK_FALSE(bfloat16::from_bits(0x7fc0) == bfloat16::from_bits(0x7fc0));
  CHECK(bfloat16(0.0f) == bfloat16(-0.0f));
  static_assert(bfloat16(1.0f).bits == 0x3f80 && float(bfloat16(3.0f)) == 3.0f);
}

TEST_CASE("Every half-precision number converts as its definition says", "[bfloat16]") {
  bool same = true;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const int exponent = static_cast<int>(bits >> 10) & 31, mantissa = static_cast<int>(bits) & 1023;
    const float value = detail::float_from_half(static_cast<std::uint16_t>(bits));
    const double sign = bits < 32768 ? 1.0 : -1.0;
    if (exponent == 31 && mantissa != 0) {
      same = same && std::isnan(value);
    } else if (exponent == 31) {
      same = same && double(value) == sign * HUGE_VAL;
    } else {
      const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      same = same && double(value) == sign * magnitude && std::signbit(value) == (bits >= 32768);
    }
  }
  CHECK(same);
  static_assert(detail::float_from_half(0x3c00) == 1.0f && detail::float_from_half(0xc000) == -2.0f);
}

}  // namespace tinymoe_test::bfloat16_tests
