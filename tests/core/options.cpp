#include "tinymoe/core/options.hpp"

#include "support/catch.hpp"

namespace tinymoe_test::options {

using namespace tinymoe;

namespace {

template <Index N>
struct Heads : NumberOption<place::Heads, N> {};
template <Index N>
struct Window : NumberOption<place::Window, N> {};

/// A user's option, in a place of the library.
struct FourHeads {
  using Place = place::Heads;
  static constexpr Index value = 4;
};

struct Unrelated {};
struct OwnPlace;
struct OwnOption {
  using Place = OwnPlace;
};

using Known = KnownPlaces<place::Heads, place::Window, place::Bias>;

}  // namespace

TEST_CASE("an option is found in any order, and is the default otherwise", "[options]") {
  STATIC_REQUIRE(option_t<place::Heads, Heads<1>>::value == 1);
  STATIC_REQUIRE(option_t<place::Heads, Heads<1>, Heads<8>>::value == 8);
  STATIC_REQUIRE(option_t<place::Heads, Heads<1>, Window<3>, Heads<8>, Bias>::value == 8);
  STATIC_REQUIRE(option_t<place::Heads, Heads<1>, Bias, Window<3>>::value == 1);
  STATIC_REQUIRE(option_t<place::Window, Window<0>, Heads<8>, Window<3>>::value == 3);
  STATIC_REQUIRE(option_t<place::Heads, Heads<1>, Unrelated, int, FourHeads>::value == 4);
  STATIC_REQUIRE(option_t<place::Bias, NoBias, Heads<8>, Bias>::value);
  STATIC_REQUIRE_FALSE(option_t<place::Bias, NoBias, Heads<8>>::value);
}

TEST_CASE("an option in no known place is unknown", "[options]") {
  STATIC_REQUIRE(Known::know_all<>);
  STATIC_REQUIRE(Known::know_all<Heads<8>, Bias, Window<3>, FourHeads>);
  STATIC_REQUIRE_FALSE(Known::know_all<Heads<8>, Unrelated>);
  STATIC_REQUIRE_FALSE(Known::know_all<int>);
  STATIC_REQUIRE_FALSE(Known::know_all<OwnOption>);
  STATIC_REQUIRE(KnownPlaces<OwnPlace>::know_all<OwnOption>);
}

TEST_CASE("two options in one place are noticed", "[options]") {
  STATIC_REQUIRE(Known::each_once<>);
  STATIC_REQUIRE(Known::each_once<Heads<8>, Window<3>>);
  STATIC_REQUIRE_FALSE(Known::each_once<Heads<8>, Heads<8>>);
  STATIC_REQUIRE_FALSE(Known::each_once<Heads<8>, Window<3>, FourHeads>);
  STATIC_REQUIRE_FALSE(Known::each_once<Bias, NoBias>);
}

}  // namespace tinymoe_test::options
