// The compiler's flags of this project must not break this.

#include <cstring>

#include "support/catch.hpp"

namespace {

/// Copies one constant to two places, as std::vector does when it is built from a list twice.
[[gnu::noinline]] void copy_constant(double* a, double* b) {
  const double constant[4] = {90, 90, 0, 0};
  std::memcpy(a, constant, sizeof constant);
  std::memcpy(b, constant, sizeof constant);
}

}  // namespace

// g++ 12.2, -O2 and a -march that moves 32 bytes at once: without -mmove-max=128 -mstore-max=128 it is 90, 90, 90, 90.
TEST_CASE("the compiler copies a constant as it is", "[compiler]") {
  double a[4], b[4];
  copy_constant(a, b);
  for (const double* copy : {a, b}) {
    CHECK(copy[0] == 90);
    CHECK(copy[1] == 90);
    CHECK(copy[2] == 0);
    CHECK(copy[3] == 0);
  }
}
