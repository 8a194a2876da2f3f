// The sentences of exceptions: texts and numbers of every kind, as a stream would write them.

#include "tinymoe/core/error.hpp"

#include <limits>
#include <sstream>
#include <string>

#include "support/catch.hpp"

namespace tinymoe_test::error {

namespace {

template <class... Parts>
std::string failure(const Parts&... parts) {
  try {
    tinymoe::fail<tinymoe::OptionError>(parts...);
  } catch (const tinymoe::OptionError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

template <class Number>
void check_number(Number number) {
  std::ostringstream stream;
  stream << "found " << number << '.';
  CHECK(failure("found ", number, '.') == stream.str());
}

}  // namespace

TEST_CASE("an exception's sentence is its pieces, as a stream would write them", "[error]") {
  CHECK(failure(std::string("a"), " text", std::string_view(" and"), '!') == "a text and!");
  check_number(0);
  check_number(-7);
  check_number(std::size_t{18446744073709551615u});
  check_number(std::numeric_limits<std::int64_t>::min());
  check_number(true);
  check_number(static_cast<unsigned short>(65535));
  for (const double number : {0.0, 1.0, -0.5, 1e-7, 123456.0, 1234567.0, 0.1, 1e300}) {
    check_number(number);
    check_number(static_cast<float>(number) * 1.0f);
  }
  check_number(std::numeric_limits<double>::infinity());
  check_number(std::numeric_limits<double>::quiet_NaN());
}

TEST_CASE("an exception's sentence is one line without control characters, whatever it quotes", "[error]") {
  CHECK(failure("a\nb\x1b[2J", std::string(1, '\0'), "\x7f\xc2\x9b") == "a<0x0A>b<0x1B>[2J<0x00><0x7F><0x9B>");
  CHECK(failure("caf\xc3\xa9\xc2\xa0\xff") == "caf\xc3\xa9\xc2\xa0\xff");
}

}  // namespace tinymoe_test::error
