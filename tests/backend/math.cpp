#include "tinymoe/backend/math.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>

#include "support/catch.hpp"

namespace tinymoe_test::math {

using namespace tinymoe;
using Complex = std::complex<double>;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// The maximum of error(x) over evenly spaced floats; NaN counts as infinite.
template <class Error>
double worst(float low, float high, int steps, Error&& error) {
  double maximum = 0;
  for (int i = 0; i <= steps; ++i) {
    const float x = low + (high - low) * (static_cast<float>(i) / static_cast<float>(steps));
    const double e = error(x);
    maximum = e <= maximum ? maximum : (e == e ? e : std::numeric_limits<double>::infinity());
  }
  return maximum;
}

}  // namespace

TEST_CASE("exponential in float is within 2e-7 over its range", "[math]") {
  const auto error = [](float x) {
    const double exact = std::exp(double(x));
    return std::abs(exponential(x) - exact) / exact;
  };
  CHECK(worst(-87.3f, 88.3f, 2'000'000, error) < 2e-7);
  CHECK(worst(-1.0f, 1.0f, 1'000'000, error) < 2e-7);
  CHECK(worst(-1e-6f, 1e-6f, 1000, error) < 2e-7);
  CHECK(exponential(0.0f) == 1.0f);
  CHECK(exponential(-0.0f) == 1.0f);
}

TEST_CASE("exponential in float has tame extremes", "[math]") {
  for (const float low : {-87.31f, -88.0f, -104.0f, -1e9f, -std::numeric_limits<float>::max(), -infinity}) {
    CHECK(exponential(low) == 0.0f);
  }
  for (const float high : {88.3f, 88.8f, 1e9f, std::numeric_limits<float>::max(), infinity}) {
    CHECK(std::isfinite(exponential(high)));
    CHECK(exponential(high) == Approx(std::exp(88.3)).epsilon(1e-5));
  }
  CHECK(std::isnan(exponential(not_a_number)));
  CHECK(std::isnan(exponential(-not_a_number)));
}

TEST_CASE("exponential in float does not fall between the pieces of its range", "[math]") {
  float previous = 0;
  bool rises = true;
  for (int i = 0; i <= 100000; ++i) {  // steps of 1.8e-3: e^x rises by far more than its error
    const float y = exponential(-88.0f + 176.3f * static_cast<float>(i) / 100000.0f);
    rises = rises && y >= previous;
    previous = y;
  }
  CHECK(rises);
}

TEST_CASE("square_root in float is within 2e-7, and right at the ends of its range", "[math]") {
  const auto error = [](float x) {
    const double exact = std::sqrt(double(x));
    return std::abs(square_root(x) - exact) / exact;
  };
  CHECK(worst(1.0f, 4.0f, 2'000'000, error) < 2e-7);
  double largest = 0, of_subnormal = 0;
  for (float x = std::numeric_limits<float>::min(); x < std::numeric_limits<float>::max() / 1.0011f; x *= 1.001f) {
    largest = std::max(largest, error(x));
  }
  CHECK(largest < 2e-7);
  CHECK(error(std::numeric_limits<float>::max()) < 2e-7);
  for (float x = std::numeric_limits<float>::denorm_min(); x < std::numeric_limits<float>::min(); x *= 2) {
    of_subnormal = std::max(of_subnormal, std::abs(square_root(x) - std::sqrt(double(x))));
  }
  CHECK(of_subnormal < 1e-19);
  CHECK(square_root(0.0f) == 0.0f);
  CHECK(square_root(infinity) == infinity);
  CHECK(std::isnan(square_root(not_a_number)));
  CHECK(square_root(2.0) == std::sqrt(2.0));
}

TEST_CASE("sigmoid in float is within 3e-7 and ends in 0 and 1", "[math]") {
  const auto error = [](float x) {
    const double exact = 1 / (1 + std::exp(-double(x)));
    return std::abs(sigmoid(x) - exact) / exact;
  };
  CHECK(worst(-85.0f, 85.0f, 1'000'000, error) < 3e-7);
  CHECK(sigmoid(0.0f) == 0.5f);
  CHECK(sigmoid(1e9f) == 1.0f);
  CHECK(sigmoid(infinity) == 1.0f);
  CHECK(sigmoid(-1e9f) >= 0.0f);
  CHECK(sigmoid(-1e9f) < 1e-37f);
  CHECK(std::isnan(sigmoid(not_a_number)));
}

TEST_CASE("error_function in float is within 6e-7 absolutely, odd and bounded", "[math]") {
  CHECK(worst(-6.0f, 6.0f, 1'000'000, [](float x) { return std::abs(error_function(x) - std::erf(double(x))); }) <
        6e-7);
  CHECK(worst(0.0f, 6.0f, 1000, [](float x) { return std::abs(error_function(x) + error_function(-x)); }) == 0);
  for (const float far : {10.0f, 1e9f, infinity}) {
    CHECK(error_function(far) == 1.0f);
    CHECK(error_function(-far) == -1.0f);
  }
  CHECK(std::isnan(error_function(not_a_number)));
}

TEST_CASE("double and complex functions are those of the standard", "[math]") {
  CHECK(exponential(1.5) == Approx(std::exp(1.5)).epsilon(1e-15));
  CHECK(error_function(0.3) == Approx(std::erf(0.3)).epsilon(1e-15));
  CHECK(sigmoid(0.7) == Approx(1 / (1 + std::exp(-0.7))).epsilon(1e-15));
  CHECK(std::abs(exponential(Complex(0.2, 0.7)) - std::exp(0.2) * Complex(std::cos(0.7), std::sin(0.7))) < 1e-15);
}

TEST_CASE("an imaginary step through a function is its derivative", "[math]") {
  constexpr double h = 1e-30;
  for (const double x : {-3.0, -0.4, 0.0, 0.4, 3.0}) {
    const double s = 1 / (1 + std::exp(-x)), bell = std::exp(-x * x) * 2 / std::sqrt(std::acos(-1.0));
    CHECK(exponential(Complex(x, h)).imag() / h == Approx(std::exp(x)).epsilon(1e-15));
    CHECK(sigmoid(Complex(x, h)).imag() / h == Approx(s * (1 - s)).epsilon(1e-14));
    CHECK(error_function(Complex(x, h)).imag() / h == Approx(bell).epsilon(1e-14));
    CHECK(error_function(Complex(x, h)).real() == Approx(std::erf(x)).epsilon(1e-15));
  }
}

TEST_CASE("comparisons look at the real part", "[math]") {
  CHECK(real_part(Complex(2, -5)) == 2);
  CHECK(real_part(2.5f) == 2.5f);
  STATIC_REQUIRE(detail::is_complex<Complex>);
  STATIC_REQUIRE_FALSE(detail::is_complex<double>);
  STATIC_REQUIRE(std::is_same_v<Compute<bfloat16>, float>);
  STATIC_REQUIRE(std::is_same_v<Compute<const Complex>, Complex>);
}

}  // namespace tinymoe_test::math
